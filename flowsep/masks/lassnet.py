"""LASS-Net's U-Net: a ratio mask on the mixture's magnitude, steered by a caption's state (Liu et al., 2022).

Features are (B, C, N, F), time before frequency. The condition acts by shifts alone, after each convolution; they come
out of a ReLU and are never negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from flowsep.masks.spectrum import MaskNetConfig, audio_of, pad_frames, spectrum_of

DROPPED_BINS = 2  # 513 - 2 = 511 = 8 * 64 - 1, which pooling by two takes down to 7 and the decoder back up
SLOPE = 0.01  # of the leaky ReLUs below zero


@dataclass(frozen=True)
class LassNetConfig(MaskNetConfig):
    """What a LASS-Net U-Net is. The defaults are the published ones: 52.2 M parameters."""

    n_fft: int = 1024
    hop_length: int = 512
    condition_size: int = 256


def shift_of(condition_size: int, channels: int) -> nn.Sequential:
    """A non-negative shift (B, channels) of the condition (B, condition_size)."""
    return nn.Sequential(
        nn.Linear(condition_size, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels), nn.ReLU()
    )


class ShiftedBlock(nn.Module):
    """Two 3x3 convolutions after batch norm and leaky ReLU, each shifted by the condition, around a skip connection."""

    def __init__(self, inputs: int, outputs: int, condition_size: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.shift1 = shift_of(condition_size, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shift2 = shift_of(condition_size, outputs)
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1)
            self.shift_shortcut = shift_of(condition_size, outputs)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, inputs, N, F), condition (B, D) -> (B, outputs, N, F)."""
        y = shifted(self.conv1(nn.functional.leaky_relu(self.norm1(x), SLOPE)), self.shift1(condition))
        y = shifted(self.conv2(nn.functional.leaky_relu(self.norm2(y), SLOPE)), self.shift2(condition))
        if hasattr(self, "shortcut"):
            x = shifted(self.shortcut(x), self.shift_shortcut(condition))
        return x + y


def shifted(x: Tensor, shift: Tensor) -> Tensor:
    """x (B, C, N, F) + shift (B, C)."""
    return x + shift[:, :, None, None]


class Downward(nn.Module):
    """Two blocks at one resolution."""

    def __init__(self, inputs: int, outputs: int, condition_size: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ShiftedBlock(n, outputs, condition_size) for n in (inputs, outputs))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, inputs, N, F) -> (B, outputs, N, F)."""
        for block in self.blocks:
            x = block(x, condition)
        return x


class Upward(nn.Module):
    """n -> 2n + 1 on both axes, the surplus frame cut, the skip beside it, and two blocks."""

    def __init__(self, inputs: int, outputs: int, condition_size: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.up = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, bias=False)
        self.blocks = nn.ModuleList(ShiftedBlock(n, outputs, condition_size) for n in (2 * outputs, outputs))

    def forward(self, x: Tensor, skip: Tensor, condition: Tensor) -> Tensor:
        """x (B, inputs, N, F) at the lower resolution, skip (B, outputs, ...) at the higher one."""
        up = self.up(torch.relu(self.norm(x)))[:, :, :-1]
        x = torch.cat([up, skip], dim=1)
        for block in self.blocks:
            x = block(x, condition)
        return x


class LassNet(nn.Module):
    """Mixture and condition -> the target's waveform: masked magnitude, the mixture's phase."""

    def __init__(self, config: LassNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LassNetConfig()
        widths, size = config.widths, config.condition_size
        self.encoder = nn.ModuleList(Downward(*pair, size) for pair in pairwise((1, *widths)))
        self.middle = ShiftedBlock(widths[-1], widths[-1], size)
        self.decoder = nn.ModuleList(Upward(*pair, size) for pair in pairwise((widths[-1], *reversed(widths))))
        self.last = ShiftedBlock(widths[0], widths[0], size)
        self.leave = nn.Conv2d(widths[0], 1, 1)

    def forward(self, mixture: Tensor, condition: Tensor) -> Tensor:
        """mixture (B, T) float32 at config.sample_rate, condition (B, condition_size) >= 0 -> target (B, T)."""
        n_fft, hop = self.config.n_fft, self.config.hop_length
        # Samples after the last frame's centre would be divided by the end of its window: up to 1e5 too loud.
        spectrum = spectrum_of(nn.functional.pad(mixture, (0, -mixture.shape[-1] % hop)), n_fft, hop)
        return audio_of(spectrum * self.mask(spectrum.abs(), condition), n_fft, hop, mixture.shape[-1])

    def mask(self, magnitude: Tensor, condition: Tensor) -> Tensor:
        """Gain 0..1 (B, bins, N) of magnitudes of that shape. The two highest bins always have 1/2, as upstream."""
        x, condition = magnitude.to(self.leave.weight), condition.to(self.leave.weight)
        frames = x.shape[-1]
        x = pad_frames(x.transpose(1, 2)[:, None], 2 ** len(self.encoder))[..., :-DROPPED_BINS]
        skips = []
        for block in self.encoder:
            skips.append(block(x, condition))
            x = nn.functional.avg_pool2d(skips[-1], 2)
        x = self.middle(x, condition)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = block(x, skip, condition)
        logits = self.leave(self.last(x, condition))[:, 0, :frames].float()  # (B, N, bins - 2)
        return torch.sigmoid(nn.functional.pad(logits, (0, DROPPED_BINS))).transpose(1, 2)
