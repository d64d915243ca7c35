"""From generated mels to a waveform through the mixture: band masks, and their use on audio of any rate.

Masking restores the alignment that re-synthesis destroys (beyond-flowsep section 3): the generated mel says how much of
each band belongs to the target, the mixture gives the fine structure and the phase.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocoder.mel import MelConfig, band_centres

BLOCK_FRAMES = 3000  # frames transformed at once: 30 s, so that memory does not grow with the file


def band_mask(target: Tensor, residual: Tensor | None, mixture: Tensor, exponent: float = 1.0) -> Tensor:
    """Gain 0..1 of each band and frame (B, N, M) from log-mels (B, N, M).

    With a residual: T^p / (T^p + R^p), a Wiener-like ratio. Without one: min(1, (T / X)^p) against the mixture X.
    """
    if residual is not None:
        return torch.sigmoid(exponent * (target - residual))
    return torch.exp(exponent * (target - mixture)).clamp(max=1.0)


def bin_weights(frequencies: Tensor, config: MelConfig) -> Tensor:
    """Matrix (len(frequencies), M) that interpolates band gains linearly in Hz between band centres.

    Below the first and above the last centre the edge band's gain is held: at 16 kHz that is the top 250 Hz, at higher
    rates everything above the model's band.
    """
    centres = band_centres(config)
    position = torch.searchsorted(centres, frequencies.double()).clamp(1, len(centres) - 1)
    low, high = centres[position - 1], centres[position]
    share = ((frequencies.double() - low) / (high - low)).clamp(0, 1)
    weights = torch.zeros(len(frequencies), len(centres), dtype=torch.float64)
    rows = torch.arange(len(frequencies))
    weights[rows, position - 1] = 1 - share
    weights[rows, position] = share
    return weights.float()


def stft_mask(mask: Tensor, weights: Tensor) -> Tensor:
    """Band gains (..., N, M) on STFT bins (..., bins, N), weights (bins, M) from `bin_weights`."""
    return weights.to(mask) @ mask.transpose(-1, -2)


def resample_frames(mask: Tensor, times: Tensor) -> Tensor:
    """Band gains (N, M) read at fractional frame positions `times` (K,), linearly, held at both ends -> (K, M)."""
    times = times.clamp(0, mask.shape[0] - 1)
    low = times.floor().long().clamp(max=max(0, mask.shape[0] - 2))
    share = (times - low).to(mask)[:, None]
    return torch.lerp(mask[low], mask[(low + 1).clamp(max=mask.shape[0] - 1)], share)


def apply_mask(audio: Tensor, mask: Tensor, sample_rate: int, config: MelConfig) -> Tensor:
    """Audio (C, T) at `sample_rate` with the band gains `mask` (N, M) applied; the same shape back, exactly.

    The mask lives on frames of hop_length / config.sample_rate seconds (10 ms). At other rates the STFT keeps its
    length in seconds and the mask is interpolated. Long audio is transformed in blocks of frames with overlap-add, so
    that the result does not depend on the block and memory stays flat.
    """
    n_fft = 2 * round(config.n_fft * sample_rate / config.sample_rate / 2)
    hop = max(1, round(config.hop_length * sample_rate / config.sample_rate))
    length = audio.shape[-1]
    frames = length // hop + 1
    weights = bin_weights(torch.arange(n_fft // 2 + 1) * sample_rate / n_fft, config)
    window = torch.hann_window(n_fft, dtype=audio.dtype)
    # Zeros around the signal: an edge sample is then weighted only by the frames that hold it.
    padded = nn.functional.pad(audio, (n_fft // 2, n_fft // 2 + hop))
    out, envelope = torch.zeros_like(padded), torch.zeros(padded.shape[-1], dtype=audio.dtype)
    frame_step = hop / sample_rate * config.sample_rate / config.hop_length  # in mask frames
    for first in range(0, frames, BLOCK_FRAMES):
        count = min(BLOCK_FRAMES, frames - first)
        span = slice(first * hop, first * hop + (count - 1) * hop + n_fft)
        spectrum = torch.fft.rfft(padded[:, span].unfold(-1, n_fft, hop) * window)  # (C, K, bins)
        gains = resample_frames(mask, (first + torch.arange(count, dtype=torch.float64)) * frame_step)
        masked = torch.fft.irfft(spectrum * (gains @ weights.T.to(gains)), n=n_fft) * window
        out[:, span] += overlap_add(masked, hop)
        envelope[span] += overlap_add(window.square().expand(1, count, n_fft), hop)[0]
    result = out / envelope.clamp(min=1e-8)
    return result[:, n_fft // 2 : n_fft // 2 + length]


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Sum of frames (C, K, n_fft) at distances of `hop` -> (C, (K - 1) * hop + n_fft)."""
    length = (frames.shape[1] - 1) * hop + frames.shape[2]
    folded = nn.functional.fold(frames.transpose(1, 2), (1, length), (1, frames.shape[2]), stride=(1, hop))
    return folded[:, 0, 0]
