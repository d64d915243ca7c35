"""From generated mels to a waveform through the mixture: band masks, and their use on audio of any rate.

Masking restores the alignment that re-synthesis destroys: the generated mel says how much of
each band belongs to the target, the mixture gives the fine structure and the phase.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from flowsep.blocks import Sliding
from flowsep.overlap import overlap_add, overlapped_blocks
from vocoder.mel import NEPER, MelConfig, band_centres, istft, mel_of_magnitude, stft

MOST_ADDED = 20.0 / NEPER  # in the log-mel
BLOCK_FRAMES = 1200  # frames transformed at once: 12 s, so that memory does not grow with the file


def band_mask(target: Tensor, residual: Tensor | None, mixture: Tensor, exponent: float = 1.0) -> Tensor:
    """Gain 0..1 of each band and frame (B, N, M) from log-mels (B, N, M).

    With a residual: T^p / (T^p + R^p), a Wiener-like ratio. Without one: min(1, (T / X)^p) against the mixture X.
    """
    if residual is not None:
        return torch.sigmoid(exponent * (target - residual))
    return torch.exp(exponent * (target - mixture)).clamp(max=1.0)


def blended_mel(generated: Tensor, mask: Tensor, mixture: Tensor) -> Tensor:
    """Log-mel (B, N, M) of the target by what is generated and by the mixture under its mask, both log-mels alike.

    Where the mask lets all through, the mixture knows the target exactly; where it lets nothing through, the generated
    mel knows how quiet the target is; between them the mask says how much each counts. Never more than the mixture has.
    """
    masked = mixture + mask.clamp(min=1e-5).log()
    return torch.minimum(torch.lerp(generated, masked, mask), mixture)


def bin_weights(frequencies: Tensor, config: MelConfig) -> Tensor:
    """Matrix (len(frequencies), M) that interpolates band gains linearly in Hz between band centres.

    Below the first and above the last centre the edge band's gain is held: of the small model's 64 bands at
    16 kHz the last is centred at 7.6 kHz.
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


def bands_put_right(
    audio: Tensor, mel: Tensor, weights: Tensor, filterbank: Tensor, config: MelConfig, passes: int
) -> Tensor:
    """Audio (B, T) with its bands as loud as the log-mel (B, N, M) says, as near as `passes` filterings bring them.

    A vocoder's sound has nearly the mel that it was asked for. This takes off what is too loud, above all where there
    should be silence, and adds at most 20 dB at each pass where it is too soft. Frames beyond the mel's last one are
    held to that.
    """
    length, silence = audio.shape[-1], math.log(config.floor) + 0.01
    audio = torch.nn.functional.pad(audio, (0, max(0, config.n_fft - length)))
    frames = audio.shape[-1] // config.hop_length + 1
    wanted = torch.cat([mel, mel[:, -1:].expand(-1, max(0, frames - mel.shape[1]), -1)], dim=1)[:, :frames]
    most = torch.where(wanted > silence, MOST_ADDED, 0.0)
    for _ in range(passes):
        spectrum = stft(audio, config)
        change = wanted - mel_of_magnitude(spectrum.abs(), config, filterbank)
        audio = istft(spectrum * stft_mask(torch.minimum(change, most).exp(), weights), config, audio.shape[-1])
    return audio[:, :length]


def resample_frames(mask: Tensor, times: Tensor) -> Tensor:
    """Band gains (N, M) read at fractional frame positions `times` (K,), linearly, held at both ends -> (K, M)."""
    times = times.clamp(0, mask.shape[0] - 1)
    low = times.floor().long().clamp(max=max(0, mask.shape[0] - 2))
    share = (times - low).to(mask)[:, None]
    return torch.lerp(mask[low], mask[(low + 1).clamp(max=mask.shape[0] - 1)], share)


def apply_mask(audio: Tensor, mask: Tensor, sample_rate: int, config: MelConfig) -> Tensor:
    """Audio (C, T) at `sample_rate` with the band gains `mask` (N, M) applied; the same shape back, exactly.

    See `masked_blocks`.
    """
    masks = Sliding([mask[None]], dim=1)
    found = masked_blocks(Sliding([audio]), audio.shape[-1], masks, mask.shape[0], sample_rate, config)
    return torch.cat([targets[0] for _, targets in found], dim=-1)


def masked_blocks(
    audio: Sliding, length: int, masks: Sliding, mask_frames: int, sample_rate: int, config: MelConfig
) -> Iterator[tuple[Tensor, Tensor]]:
    """Audio (C, n) at `sample_rate`, and the same with Q streams of band gains applied, (Q, C, n), in order.

    `length` is that of the audio in samples, `mask_frames` that of the masks (Q, n, M), which live on frames of
    hop_length / config.sample_rate seconds (10 ms) and are read along dim 1. At other rates the STFT keeps its length
    in seconds and the masks are interpolated. Blocks of frames are overlapped and added, so that the result does not
    depend on the block.
    """
    n_fft = 2 * round(config.n_fft * sample_rate / config.sample_rate / 2)
    hop = max(1, round(config.hop_length * sample_rate / config.sample_rate))
    weights = bin_weights(torch.arange(n_fft // 2 + 1) * sample_rate / n_fft, config)
    window = torch.hann_window(n_fft)
    frame_step = hop / sample_rate * config.sample_rate / config.hop_length  # in mask frames

    def masked(segment: Tensor, first: int, count: int) -> Tensor:
        gains = frame_gains(masks, (first + torch.arange(count, dtype=torch.float64)) * frame_step, mask_frames)
        return torch.stack(
            [masked_frames(channel, gains, weights.to(gains), window, hop) for channel in segment], dim=1
        )  # (Q, C, n)

    return overlapped_blocks(audio, length, window, hop, BLOCK_FRAMES, masked)


def frame_gains(masks: Sliding, times: Tensor, mask_frames: int) -> Tensor:
    """Gains (Q, K, M) of a stream of masks (Q, n, M), `mask_frames` long, at rising frame positions `times` (K,)."""
    times = times.clamp(0, mask_frames - 1)
    base = int(times[0])
    local = masks.span(base, min(mask_frames, int(times[-1]) + 2))
    return torch.stack([resample_frames(mask, times - base) for mask in local])


def masked_frames(channel: Tensor, gains: Tensor, weights: Tensor, window: Tensor, hop: int) -> Tensor:
    """One channel (n,) with band gains (Q, K, M) on its K frames: windowed twice and added up, (Q, n)."""
    n_fft = len(window)
    spectrum = torch.fft.rfft(channel.unfold(-1, n_fft, hop) * window)  # (K, bins)
    parts = [torch.fft.irfft(spectrum * (gain @ weights.T), n=n_fft) * window for gain in gains]
    return torch.cat([overlap_add(part[None], hop) for part in parts])
