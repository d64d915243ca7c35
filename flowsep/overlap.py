"""Windowed frames of a stream, changed and added up again, in blocks: memory does not grow with the length."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from flowsep.blocks import Sliding

SMALLEST = 1e-8  # of the summed squares of the windows that is divided by


def overlapped_blocks(
    audio: Sliding, length: int, window: Tensor, hop: int, at_once: int, change: Callable[[Tensor, int, int], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Audio (C, n) of `length` samples in stretches, and what `change` makes of each, (Q, C, n), in order.

    `change(segment, first, count)` is given the samples (C, m) of `count` frames from frame `first` on, centred on
    multiples of `hop` with zeros around the recording; it returns those frames windowed twice and added up, (Q, C, m).
    What frames of two blocks share is added, and the windows are divided out, so that nothing depends on `at_once`.
    """
    n_fft = len(window)
    frames = length // hop + 1
    tail: Tensor | None = None  # (Q, C, n_fft - hop): what the frames so far add to the next block
    envelope_tail = torch.zeros(n_fft - hop)
    for first in range(0, frames, at_once):
        count = min(at_once, frames - first)
        begin = first_sample(first, n_fft, hop)
        segment = audio.span(begin, begin + (count - 1) * hop + n_fft)
        added = change(segment, first, count)
        envelope = overlap_add(window.square().expand(1, count, n_fft), hop)[0]
        if tail is not None:
            added[..., : n_fft - hop] += tail
            envelope[: n_fft - hop] += envelope_tail
        done = count * hop if first + count < frames else added.shape[-1]
        tail, envelope_tail = added[..., done:].clone(), envelope[done:].clone()
        inside = slice(max(0, -begin), max(0, min(done, length - begin)))
        if inside.stop > inside.start:
            yield segment[:, inside], added[..., inside] / envelope[inside].clamp(min=SMALLEST)


def first_sample(frame: int, n_fft: int, hop: int) -> int:
    """Where a centred frame begins."""
    return frame * hop - n_fft // 2


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Sum of frames (C, K, n_fft) at distances of `hop` -> (C, (K - 1) * hop + n_fft)."""
    channels, count, n_fft = frames.shape
    length = (count - 1) * hop + n_fft
    # Every `hop` samples of all frames at once: a handful of additions, where `fold` takes several times as long.
    pieces = range(0, n_fft, hop)
    total = frames.new_zeros(channels, count + len(pieces) - 1, hop)
    for index, start in enumerate(pieces):
        piece = frames[:, :, start : start + hop]
        total[:, index : index + count, : piece.shape[-1]] += piece
    return total.flatten(1)[:, :length]
