"""Cnn14 of PANNs (Kong et al., 2020): what Universal Source Separation hears its example clips with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from vocoder.mel import MelConfig, mel_filterbank, stft

FLOOR = 1e-10  # of the power in a mel band; 10 log10 of it is silence
OUTPUTS = ("probabilities", "embedding")


@dataclass(frozen=True)
class Cnn14Config:
    """The defaults are the published network: 32 kHz, 64 bands from 50 to 14000 Hz, AudioSet's 527 classes."""

    output: str = "probabilities"  # of classes, or the embedding below them: what conditions the separator
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)  # channels of the blocks
    embedding: int = 2048
    classes: int = 527
    sample_rate: int = 32000  # Hz
    n_fft: int = 1024  # samples
    hop_length: int = 320  # samples
    n_mels: int = 64
    fmin: float = 50.0  # Hz
    fmax: float = 14000.0  # Hz

    @property
    def mel(self) -> MelConfig:
        """The bands; the logarithm is Cnn14's own."""
        return MelConfig(
            self.sample_rate, self.n_fft, self.n_fft, self.hop_length, self.n_mels, self.fmin, self.fmax, FLOOR
        )


class ConvBlock(nn.Module):
    """Two 3x3 convolutions without bias, each with batch norm and ReLU."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, N, M) -> (B, C', N, M)."""
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)))


class Cnn14(nn.Module):
    """Six blocks on the log-mel, means over 2x2 cells between them, then the mean and the maximum over time."""

    def __init__(self, config: Cnn14Config | None = None) -> None:
        super().__init__()
        self.config = config = config or Cnn14Config()
        self.bn0 = nn.BatchNorm2d(config.n_mels)
        self.blocks = nn.ModuleList(ConvBlock(*widths) for widths in pairwise((1, *config.widths)))
        self.fc1 = nn.Linear(config.widths[-1], config.embedding)
        self.fc_audioset = nn.Linear(config.embedding, config.classes)
        self.bank: Tensor | None = None  # made at the first use: a module on the meta device has no numbers

    def log_mel(self, audio: Tensor) -> Tensor:
        """audio (B, T) -> 10 log10 of the power in each band (B, N, M)."""
        if self.bank is None:
            self.bank = mel_filterbank(self.config.mel)
        power = stft(audio, self.config.mel).abs().square()
        return (10 / math.log(10)) * (self.bank.to(power) @ power).clamp(min=FLOOR).log().mT

    @torch.inference_mode()
    def forward(self, audio: Tensor) -> Tensor:
        """audio (B, T) at 32 kHz, at least half a second -> probabilities (B, classes) or embeddings (B, D)."""
        x = self.bn0(self.log_mel(audio).mT[..., None])  # (B, M, N, 1): bn0 is over the bands
        x = x.permute(0, 3, 2, 1)  # (B, 1, N, M)
        for block in self.blocks[:-1]:
            x = nn.functional.avg_pool2d(block(x), 2)
        x = self.blocks[-1](x).mean(3)  # (B, C, N / 32)
        embedding = torch.relu(self.fc1(x.amax(2) + x.mean(2)))
        return embedding if self.config.output == "embedding" else torch.sigmoid(self.fc_audioset(embedding))


def cnn14_config(shapes: dict[str, tuple[int, ...]], condition_size: int) -> Cnn14Config | None:
    """The sizes of a Cnn14 by the shapes of its tensors under the names of this module.

    None where neither its probabilities nor its embedding have the `condition_size` numbers of the separator.
    """
    sizes: dict[str, Any] = {"embedding": shapes["fc1.weight"][0], "classes": shapes["fc_audioset.weight"][0]}
    outputs = dict(zip(OUTPUTS, (sizes["classes"], sizes["embedding"]), strict=True))
    output = next((name for name, size in outputs.items() if size == condition_size), None)
    widths = []
    while (name := f"blocks.{len(widths)}.conv1.weight") in shapes:
        widths.append(shapes[name][0])
    bands = shapes["bn0.weight"][0]
    return None if output is None else Cnn14Config(output=output, widths=tuple(widths), n_mels=bands, **sizes)
