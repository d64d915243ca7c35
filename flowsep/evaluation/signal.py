"""Signal metrics: pure, batched functions of waveforms (..., T), one value (...) per waveform, in dB unless said."""

from __future__ import annotations

import torch
from torch import Tensor

from vocoder.mel import MelConfig, log_mel


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al., 2019) without mean removal, as AudioSep prints it.

    a = <r, e> / <r, r>; 10 log10(|a r|^2 / |e - a r|^2), with the machine epsilon of float64 against division by zero.
    """
    estimate, reference = estimate.double(), reference.double()
    eps = torch.finfo(torch.float64).eps
    scale = ((reference * estimate).sum(-1) + eps) / (reference.square().sum(-1) + eps)
    projected = scale[..., None] * reference
    return 10 * torch.log10((projected.square().sum(-1) + eps) / ((estimate - projected).square().sum(-1) + eps))


def sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """10 log10(mean r^2 / mean (e - r)^2), both floored at 1e-10: AudioSep's SDR, no filter and no scaling."""
    estimate, reference = estimate.double(), reference.double()
    signal = reference.square().mean(-1).clamp(min=1e-10)
    return 10 * torch.log10(signal / (estimate - reference).square().mean(-1).clamp(min=1e-10))


def level_db(audio: Tensor) -> Tensor:
    """RMS level in dB relative to full scale; digital silence is -200."""
    return 10 * torch.log10(audio.double().square().mean(-1).clamp(min=1e-20))


def log_mel_distance(estimate: Tensor, reference: Tensor, config: MelConfig) -> Tensor:
    """Mean absolute difference of the log-mels, in units of the natural log (1 is 8.7 dB). T > config.n_fft // 2."""
    return (log_mel(estimate, config) - log_mel(reference, config)).abs().mean((-2, -1))


def log_spectral_distance(estimate: Tensor, reference: Tensor, sample_rate: int) -> Tensor:
    """Log-spectral distance as ssr_eval computes it (other-systems 4.5), in units of log10 of power; not in dB.

    Per frame sqrt(mean_f log10(T^2 / (E + 1e-12)^2 + 1e-12)^2), T and E the reference's and the estimate's magnitudes
    at 2048 / 44100 s, every 10 ms; then the mean over frames. Frames in which the reference is digital silence are left
    out: the formula gives 12 there, whatever the estimate. nan where all are.
    """
    n_fft, hop = int(2048 * sample_rate / 44100), sample_rate // 100
    window = torch.hann_window(n_fft, dtype=torch.float64, device=reference.device)
    found, wanted = (
        torch.stft(x.double().reshape(-1, x.shape[-1]), n_fft, hop, window=window, pad_mode="constant",
                   return_complex=True).abs()
        for x in (estimate, reference)
    )  # fmt: skip
    ratio = wanted.square() / (found + 1e-12).square()
    distance = torch.log10(ratio + 1e-12).square().mean(1).sqrt()  # (..., frames)
    sounding = wanted.amax(1) > 0
    return ((distance * sounding).sum(-1) / sounding.sum(-1)).reshape(reference.shape[:-1])
