"""ResUNet30: a complex mask on the mixture's STFT, steered by a condition vector.

The separator of AudioSep (Liu et al., 2023), of the DCASE 2024 Task 9 baseline and of Universal Source Separation
(Kong et al., 2023). They differ in the STFT, in what the condition is, and in its size. Features are (B, C, N, F), time
before frequency. The condition acts by shifts alone: a linear map of it is added to each channel after the batch norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from flowsep.masks.spectrum import MaskNetConfig, audio_of, pad_frames, spectrum_of

POWER_FLOOR = 1e-10  # of |X|^2: digital silence has magnitude 1e-5
ROTATION_FLOOR = 1e-10  # of the length of the vector that says the phase rotation
SLOPE = 0.01  # of the leaky ReLUs below zero


@dataclass(frozen=True)
class ResUNetConfig(MaskNetConfig):
    """What a ResUNet30 is. The defaults are AudioSep's: 26.4 M parameters."""


# The published variants by name. USS has AudioSep's STFT; its condition is 527 class probabilities or an embedding.
AUDIOSEP = ResUNetConfig()
DCASE = ResUNetConfig(sample_rate=16000, n_fft=1024, hop_length=160)
USS = ResUNetConfig(condition_size=527)


class ShiftedBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm, shift and leaky ReLU, around a skip connection."""

    def __init__(self, inputs: int, outputs: int, condition_size: int) -> None:
        super().__init__()
        self.norm1, self.shift1 = nn.BatchNorm2d(inputs), nn.Linear(condition_size, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm2, self.shift2 = nn.BatchNorm2d(outputs), nn.Linear(condition_size, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, inputs, N, F), condition (B, D) -> (B, outputs, N, F)."""
        y = self.conv1(activated(self.norm1(x), self.shift1(condition)))
        return self.shortcut(x) + self.conv2(activated(self.norm2(y), self.shift2(condition)))


class Upward(nn.Module):
    """Transposed convolution with kernel = stride, the skip beside it, and a block that halves the channels."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int], condition_size: int) -> None:
        super().__init__()
        self.norm, self.shift = nn.BatchNorm2d(inputs), nn.Linear(condition_size, inputs)
        self.up = nn.ConvTranspose2d(inputs, outputs, stride, stride, bias=False)
        self.block = ShiftedBlock(2 * outputs, outputs, condition_size)

    def forward(self, x: Tensor, skip: Tensor, condition: Tensor) -> Tensor:
        """x (B, inputs, N, F) at the lower resolution, skip (B, outputs, ...) at the higher one."""
        up = self.up(activated(self.norm(x), self.shift(condition)))
        return self.block(torch.cat([up, skip], dim=1), condition)


def activated(x: Tensor, shift: Tensor) -> Tensor:
    """Leaky ReLU of x (B, C, N, F) shifted by (B, C)."""
    return nn.functional.leaky_relu(x + shift[:, :, None, None], SLOPE)


class ResUNet30(nn.Module):
    """Mixture and condition -> the target's waveform, through a complex mask."""

    def __init__(self, config: ResUNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AUDIOSEP
        widths, size = config.widths, config.condition_size
        self.normalise = nn.BatchNorm1d(config.n_fft // 2 + 1)  # one mean and variance per frequency
        self.enter = nn.Conv2d(1, widths[0], 1)
        self.encoder = nn.ModuleList(ShiftedBlock(*pair, size) for pair in pairwise((widths[0], *widths)))
        self.middle = ShiftedBlock(widths[-1], widths[-1], size)
        rising = pairwise((widths[-1], *reversed(widths)))
        strides = reversed(self.strides)
        self.decoder = nn.ModuleList(Upward(*pair, stride, size) for pair, stride in zip(rising, strides, strict=True))
        self.leave = nn.Conv2d(widths[0], 3, 1)

    @property
    def strides(self) -> list[tuple[int, int]]:
        """(time, frequency) by which each encoder block's output is pooled: the last one keeps its frames."""
        return [(2, 2)] * (len(self.config.widths) - 1) + [(1, 2)]

    def forward(self, mixture: Tensor, condition: Tensor) -> Tensor:
        """mixture (B, T) float32 at config.sample_rate, condition (B, condition_size) -> target (B, T).

        Y = X m (r + ij) / |r + ij| with m = sigmoid(a), r = tanh(b), i = tanh(c) from the network's three maps. The
        Nyquist bin is silenced, as it is upstream.
        """
        n_fft, hop = self.config.n_fft, self.config.hop_length
        spectrum = spectrum_of(mixture, n_fft, hop)
        power = spectrum.real.square() + spectrum.imag.square()
        logits = self.logits(power.clamp(min=POWER_FLOOR).sqrt(), condition)  # (B, 3, N, bins - 1)
        gain = complex_gain(*logits.float().transpose(-1, -2).unbind(1))
        return audio_of(spectrum * nn.functional.pad(gain, (0, 0, 0, 1)), n_fft, hop, mixture.shape[-1])

    def logits(self, magnitude: Tensor, condition: Tensor) -> Tensor:
        """magnitude (B, bins, N) -> (B, 3, N, bins - 1): magnitude, real and imaginary part of the mask."""
        magnitude, condition = magnitude.to(self.enter.weight), condition.to(self.enter.weight)
        frames = magnitude.shape[-1]
        x = self.normalise(magnitude).transpose(1, 2)[:, None, :, :-1]  # (B, 1, N, bins - 1)
        # The frames added are zeros after the norm, not normalised zeros.
        x = self.enter(pad_frames(x, 2 ** (len(self.encoder) - 1)))
        skips = []
        for block, stride in zip(self.encoder, self.strides, strict=True):
            skips.append(block(x, condition))
            x = nn.functional.avg_pool2d(skips[-1], stride)
        x = self.middle(x, condition)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = block(x, skip, condition)
        return self.leave(x)[:, :, :frames]


def complex_gain(magnitude: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
    """Complex mask of absolute value 0..1 from three maps of logits, all of one shape."""
    real, imaginary = torch.tanh(real), torch.tanh(imaginary)
    length = torch.hypot(real, imaginary).clamp(min=ROTATION_FLOOR)
    return torch.complex(real, imaginary) * (torch.sigmoid(magnitude) / length)
