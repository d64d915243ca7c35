"""The STFT that the mask networks share: periodic Hann, centred, reflected at the ends, and back to the sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowsep.errors import ModelError


@dataclass(frozen=True)
class MaskNetConfig:
    """Sizes of a mask network and of its STFT; each network has its own defaults."""

    sample_rate: int = 32000  # Hz
    n_fft: int = 2048  # samples; window of the same length
    hop_length: int = 320  # samples
    condition_size: int = 512
    widths: tuple[int, ...] = (32, 64, 128, 256, 384, 384)  # channels of the encoder blocks, from full resolution down

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        if self.n_fft // 2 % 2 ** len(self.widths):
            raise ModelError(f"n_fft // 2 = {self.n_fft // 2} cannot be halved {len(self.widths)} times")


def spectrum_of(audio: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Complex spectrum (B, bins, N), N = T // hop_length + 1, of audio (B, T) float32.

    Audio too short for the reflected border (T <= n_fft // 2) is continued with zeros; N is then that of n_fft samples.
    """
    padded = nn.functional.pad(audio, (0, n_fft - audio.shape[-1])) if audio.shape[-1] <= n_fft // 2 else audio
    window = torch.hann_window(n_fft, device=audio.device)
    return torch.stft(padded, n_fft, hop_length, window=window, pad_mode="reflect", return_complex=True)


def audio_of(spectrum: Tensor, n_fft: int, hop_length: int, length: int) -> Tensor:
    """Audio (B, length) of a complex spectrum (B, bins, N) from `spectrum_of`; no frame is needed beyond its N."""
    window = torch.hann_window(n_fft, device=spectrum.device)
    return torch.istft(spectrum, n_fft, hop_length, window=window, length=length)


def pad_frames(features: Tensor, multiple: int) -> Tensor:
    """features (B, C, N, F) with zero frames after them, up to a multiple of `multiple`."""
    return nn.functional.pad(features, (0, 0, 0, -features.shape[-2] % multiple))
