"""Metrics on spectrograms: pure, batched functions of waveforms (B, T), one value (B,) per waveform."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocoder.mel import NEPER, MelConfig, log_mel

LSD_EPS = 1e-12
HIFIGAN_OFFSET = 1120  # samples that audioldm_eval cuts from the beginning of the estimate, and of nothing else
IMAGE = MelConfig(n_fft=512, win_length=512, fmin=50.0)  # the mel of audioldm_eval's pictures: 64 bands, 50 to 8000 Hz
SSIM_WINDOW = 7  # cells on each axis


def log_spectral_distance(estimate: Tensor, reference: Tensor, sample_rate: int, skip_silence: bool = False) -> Tensor:
    """LSD of ssr_eval, (B,): without a factor of 10 or 20, so not in dB.

    mean over frames of sqrt( mean over bins of ( log10( R^2 / (E + 1e-12)^2 + 1e-12 ) )^2 ), R and E the magnitudes,
    window int(2048 rate / 44100) samples (743 at 16 kHz), hop rate / 100, zeros beyond the ends (librosa >= 0.10).
    Digital silence in the reference decides the value where there is any, whatever the estimate: log10(1e-12) = -12.
    `skip_silence` leaves such frames out (NaN where there are no others); published figures have them in.
    """
    n_fft, hop = int(2048 * sample_rate / 44100), sample_rate // 100
    found, wanted = (stft_magnitude(x, n_fft, hop) for x in (estimate, reference))
    ratio = torch.log10(wanted.square() / (found + LSD_EPS).square() + LSD_EPS)
    distance = ratio.square().mean(1).sqrt()  # (B, frames)
    if not skip_silence:
        return distance.mean(-1)
    sounding = wanted.amax(1) > 0
    return (distance * sounding).sum(-1) / sounding.sum(-1)


def log_spectral_distance_audioldm(
    estimate: Tensor, reference: Tensor, sample_rate: int, offset: int = HIFIGAN_OFFSET
) -> Tensor:
    """LSD as audioldm_eval prepares it, (B,): the first `offset` samples of the estimate alone are dropped.

    Then the means are taken off, both are scaled to a peak of 1, and the longer one is cut. For estimates that are
    aligned with their reference the offset is an error, and a large one; 0 leaves it out. Digital silence becomes a
    constant, whose spectrum is rounding noise of the size of the epsilon: figures with it are good to 3e-4.
    """
    found, wanted = (at_full_scale(x) for x in (estimate[..., offset:], reference))
    length = min(found.shape[-1], wanted.shape[-1])
    return log_spectral_distance(found[..., :length], wanted[..., :length], sample_rate)


def at_full_scale(audio: Tensor) -> Tensor:
    """audio (B, T) without its mean, at a peak of 1, in float64."""
    audio = audio.double()
    centred = audio - audio.mean(-1, keepdim=True)
    return centred / (centred.abs().amax(-1, keepdim=True) + 1e-8)


def stft_magnitude(audio: Tensor, n_fft: int, hop: int) -> Tensor:
    """Magnitudes (B, bins, N) in float64, periodic Hann window, zeros beyond the ends."""
    window = torch.hann_window(n_fft, dtype=torch.float64, device=audio.device)
    spectrum = torch.stft(audio.double(), n_fft, hop, window=window, pad_mode="constant", return_complex=True)
    return spectrum.abs()


def log_mel_l1(estimate: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute difference of the project's log-mels, (B,): mean |ln mel(e) - ln mel(r)|, 0.115 is one dB."""
    mel = MelConfig()
    return (log_mel(estimate, mel) - log_mel(reference, mel)).abs().mean((-2, -1))


def mel_image(audio: Tensor) -> Tensor:
    """audioldm_eval's picture of audio (B, T) at 16 kHz: values 0..1, (B, N, 64).

    (20 log10(max(mel, 1e-5)) - 20 + 100) / 100, cut to 0..1; magnitude mel, window 512, hop 160.
    """
    decibels = NEPER * log_mel(audio.double(), IMAGE)
    return ((decibels + 80) / 100).clamp(0, 1)


def mel_psnr(estimate: Tensor, reference: Tensor) -> Tensor:
    """10 log10(1 / mean (a - b)^2) of the pictures a, b of two waveforms (B, T) at 16 kHz, (B,); inf for equal ones."""
    error = (mel_image(estimate) - mel_image(reference)).square().mean((1, 2))
    return 10 * torch.log10(1 / error)


def mel_ssim(estimate: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity (Wang et al., 2004) of the pictures of two waveforms (B, T) at 16 kHz, (B,).

    mean of (2 m_a m_b + C1)(2 c_ab + C2) / ((m_a^2 + m_b^2 + C1)(v_a + v_b + C2)) over all 7x7 windows, unbiased
    (co)variances, C1 = (0.01 R)^2, C2 = (0.03 R)^2 with R the range of the reference's picture.
    """
    pictures = [mel_image(x)[:, None] for x in (estimate, reference)]
    size = SSIM_WINDOW**2

    def mean(x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, SSIM_WINDOW, stride=1)

    (a, b), unbiased = pictures, size / (size - 1)
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = (unbiased * (mean(x * x) - m * m) for x, m in ((a, mean_a), (b, mean_b)))
    covariance = unbiased * (mean(a * b) - mean_a * mean_b)
    span = b.amax((1, 2, 3), keepdim=True) - b.amin((1, 2, 3), keepdim=True)
    c1, c2 = (0.01 * span).square(), (0.03 * span).square()
    similar = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (similar / ((mean_a.square() + mean_b.square() + c1) * (var_a + var_b + c2))).mean((1, 2, 3))
