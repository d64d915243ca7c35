"""Metrics on spectrograms: pure, batched functions of waveforms (B, T), one value (B,) per waveform."""

from __future__ import annotations

import torch
from torch import Tensor

from vocoder.mel import MelConfig, log_mel

LSD_EPS = 1e-12


def log_spectral_distance(estimate: Tensor, reference: Tensor, sample_rate: int, skip_silence: bool = False) -> Tensor:
    """LSD of ssr_eval, (B,): without a factor of 10 or 20, so not in dB.

    mean over frames of sqrt( mean over bins of ( log10( R^2 / (E + 1e-12)^2 + 1e-12 ) )^2 ), R and E the magnitudes,
    window int(2048 rate / 44100) samples (743 at 16 kHz), hop rate / 100, zeros beyond the ends (librosa >= 0.10).
    Digital silence in the reference decides the value where there is any, whatever the estimate: log10(1e-12) = -12.
    `skip_silence` leaves such frames out (NaN where there are no others); published figures have them in.
    """
    n_fft, hop = int(2048 * sample_rate / 44100), sample_rate // 100
    found, wanted = (stft_magnitude(x, n_fft, hop, "constant") for x in (estimate, reference))
    ratio = torch.log10(wanted.square() / (found + LSD_EPS).square() + LSD_EPS)
    distance = ratio.square().mean(1).sqrt()  # (B, frames)
    if not skip_silence:
        return distance.mean(-1)
    sounding = wanted.amax(1) > 0
    return (distance * sounding).sum(-1) / sounding.sum(-1)


def stft_magnitude(audio: Tensor, n_fft: int, hop: int, pad_mode: str) -> Tensor:
    """Magnitudes (B, bins, N) in float64, periodic Hann window."""
    window = torch.hann_window(n_fft, dtype=torch.float64, device=audio.device)
    spectrum = torch.stft(audio.double(), n_fft, hop, window=window, pad_mode=pad_mode, return_complex=True)
    return spectrum.abs()


def log_mel_l1(estimate: Tensor, reference: Tensor, config: MelConfig | None = None) -> Tensor:
    """Mean absolute difference of the project's log-mels, (B,): mean |ln mel(e) - ln mel(r)|, 0.115 is one dB."""
    mel = config or MelConfig()
    return (log_mel(estimate, mel) - log_mel(reference, mel)).abs().mean((-2, -1))
