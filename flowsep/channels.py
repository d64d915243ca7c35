"""What was taken out of a down-mix, taken out of every channel of the recording."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from flowsep.blocks import Sliding
from flowsep.overlap import first_sample, overlap_add, overlapped_blocks

WINDOW = 0.064  # seconds
POWER_FLOOR = 1e-10  # of the down-mix in a bin, so that silence has no gain
BLOCK = 400  # frames transformed at once: 6.4 s, so that memory does not grow with the file


def shared_blocks(
    audio: Sliding, targets: Sliding, length: int, sample_rate: int, channel: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Stretches (C, n) of audio and, in each of their channels, Q targets (Q, T) of its down-mix: (Q, C, n), in order.

    The down-mix is one channel, or the mean of all for None. Every STFT bin of every channel is multiplied by the
    complex gain of the down-mix,

        G = Y conj(M) / (|M|^2 + 1e-10),  |G| <= 1,

    Y the target's spectrum, M the down-mix's (64 ms Hann, hop a quarter). Level and phase differences between the
    channels stay, and where the down-mix is the channels' mean, the mean of the result is the target again, as far as
    the limit leaves G alone. It is right for a target that is in phase with the recording, and for no other. Blocks are
    overlapped and added: the result does not depend on them.
    """
    n_fft = 4 * round(WINDOW * sample_rate / 4)
    hop = n_fft // 4
    window = torch.hann_window(n_fft)

    def shared(segment: Tensor, first: int, count: int) -> Tensor:
        begin = first_sample(first, n_fft, hop)
        wanted = targets.span(begin, begin + segment.shape[-1])
        return shared_frames(segment, wanted, window, hop, channel)

    return overlapped_blocks(audio, length, window, hop, BLOCK, shared)


def shared_frames(segment: Tensor, targets: Tensor, window: Tensor, hop: int, channel: int | None) -> Tensor:
    """Frames of channels (C, n) with the gains of targets (Q, n), windowed twice and added up, (Q, C, n)."""
    n_fft = len(window)
    mono = segment.mean(0) if channel is None else segment[channel]
    mixed = torch.fft.rfft(mono.unfold(-1, n_fft, hop) * window)  # (K, bins)
    spectra = torch.fft.rfft(segment.unfold(-1, n_fft, hop) * window)  # (C, K, bins)
    shared = []
    for target in targets:
        gain = torch.fft.rfft(target.unfold(-1, n_fft, hop) * window) * mixed.conj()
        gain = gain / (mixed.abs().square() + POWER_FLOOR)
        gain = gain / gain.abs().clamp(min=1.0)
        shared.append(overlap_add(torch.fft.irfft(spectra * gain, n=n_fft) * window, hop))
    return torch.stack(shared)
