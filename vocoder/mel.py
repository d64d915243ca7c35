"""The one log-mel definition of the project: audio (..., T) -> log-mel (..., N, M)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NEPER = 20 / math.log(10)  # dB per unit of the log-mel, a natural log of magnitudes


@dataclass(frozen=True)
class MelConfig:
    """FlowSep's front end: 16 kHz, 1024/160 Hann, 64 Slaney bands from 0 to 8000 Hz, natural log of max(., floor)."""

    sample_rate: int = 16000  # Hz
    n_fft: int = 1024  # samples
    win_length: int = 1024  # samples
    hop_length: int = 160  # samples
    n_mels: int = 64
    fmin: float = 0.0  # Hz
    fmax: float = 8000.0  # Hz
    floor: float = 1e-5  # magnitude; ln(1e-5) = -11.51 is silence

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length


def hz_to_mel(hz: Tensor) -> Tensor:
    """Slaney's scale (Auditory Toolbox, 1998): linear below 1000 Hz, 27 logarithmic steps per factor of 6.4 above."""
    linear = hz * 3.0 / 200.0
    logarithmic = 15.0 + torch.log(hz.clamp(min=1e-9) / 1000.0) * 27.0 / torch.log(torch.tensor(6.4, dtype=hz.dtype))
    return torch.where(hz < 1000.0, linear, logarithmic)


def mel_to_hz(mel: Tensor) -> Tensor:
    """Inverse of `hz_to_mel`."""
    linear = mel * 200.0 / 3.0
    logarithmic = 1000.0 * torch.exp((mel - 15.0) * torch.log(torch.tensor(6.4, dtype=mel.dtype)) / 27.0)
    return torch.where(mel < 15.0, linear, logarithmic)


def band_edges(config: MelConfig) -> Tensor:
    """Corner frequencies (M + 2,) in Hz, float64: band m rises from edge m, peaks at m + 1 and ends at m + 2."""
    low, high = hz_to_mel(torch.tensor([config.fmin, config.fmax], dtype=torch.float64))
    return mel_to_hz(torch.linspace(low.item(), high.item(), config.n_mels + 2, dtype=torch.float64))


def band_centres(config: MelConfig) -> Tensor:
    """Peak frequency of each band in Hz (M,), float64."""
    return band_edges(config)[1:-1]


def mel_filterbank(config: MelConfig) -> Tensor:
    """Triangles of equal area (M, n_fft // 2 + 1), float32; equal to librosa.filters.mel with its defaults."""
    bins = torch.arange(config.n_fft // 2 + 1, dtype=torch.float64) * config.sample_rate / config.n_fft
    edges = band_edges(config)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = torch.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)).clamp(min=0)
    return (triangles * 2.0 / (upper - lower)).float()  # Slaney's area normalisation


def stft(audio: Tensor, config: MelConfig) -> Tensor:
    """Complex spectrogram (..., n_fft // 2 + 1, T // hop + 1) of audio (..., T), T > n_fft // 2; reflect-padded."""
    window = torch.hann_window(config.win_length, device=audio.device, dtype=audio.dtype)
    flat = audio.reshape(-1, audio.shape[-1])
    spectrum = torch.stft(
        flat, config.n_fft, config.hop_length, config.win_length, window, pad_mode="reflect", return_complex=True
    )
    return spectrum.reshape(*audio.shape[:-1], *spectrum.shape[-2:])


def istft(spectrum: Tensor, config: MelConfig, length: int) -> Tensor:
    """Audio (B, length) of a spectrogram (B, n_fft // 2 + 1, N) that `stft` made, or that was changed since."""
    window = torch.hann_window(config.win_length, device=spectrum.device)
    return torch.istft(spectrum, config.n_fft, config.hop_length, config.win_length, window, length=length)


def mel_of_magnitude(magnitude: Tensor, config: MelConfig, filterbank: Tensor | None = None) -> Tensor:
    """Log-mel (..., N, M) of STFT magnitudes (..., n_fft // 2 + 1, N)."""
    bank = mel_filterbank(config) if filterbank is None else filterbank
    return torch.log((bank.to(magnitude) @ magnitude).clamp(min=config.floor)).transpose(-1, -2)


def log_mel(audio: Tensor, config: MelConfig, filterbank: Tensor | None = None) -> Tensor:
    """Natural-log mel magnitudes (..., T // hop + 1, M) of audio (..., T) at config.sample_rate.

    Differentiable, batched, on the device of `audio`. `audio` must be longer than n_fft // 2 samples (the reflected
    border); callers pad shorter clips with zeros. Pass `filterbank` (from `mel_filterbank`) to save recomputing it.
    """
    return mel_of_magnitude(stft(audio, config).abs(), config, filterbank)
