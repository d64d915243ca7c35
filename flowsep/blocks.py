"""Recordings as blocks that are read once and in order, so that memory does not grow with the file.

A stream is an iterator of tensors that belong one after another along one axis. Generators are chained, each pulls from
the one before, and `Sliding` lets a stage look at any rising stretch of its input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import soxr
import torch
from torch import Tensor

from flowsep.errors import InputError

BLOCK = 2**16  # samples per channel read at once
CANCELLED = 0.1  # of the loudest channel's RMS (-20 dB): a down-mix weaker than this has cancelled


class Recording(Protocol):
    """Audio that can be read from its beginning as often as needed."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def blocks(self) -> Iterator[Tensor]:
        """Samples (C, n) float32 in order, none of them empty."""


@dataclass(frozen=True)
class Facts:
    """What one pass over a recording tells."""

    frames: int  # samples per channel
    silent: bool  # digitally
    channel: int | None  # which one the model hears; None: the mean of all


def scan(recording: Recording) -> Facts:
    """Length, silence, and what the model is to hear; InputError without samples or with NaN or infinity in them.

    The model hears the mean of the channels. Channels in opposite phase cancel in it: where its RMS over the whole
    recording is more than 20 dB below that of the loudest channel, it hears the loudest channel.
    """
    frames, bad, first_bad = 0, 0, None
    levels = torch.zeros(recording.channels, dtype=torch.float64)
    mean_level, silent = 0.0, True
    for block in recording.blocks():
        wide = block.double()
        levels += wide.square().sum(-1)
        mean_level += float(block.mean(dim=0).double().square().sum())
        silent = silent and not block.any()
        finite = torch.isfinite(block)
        if not finite.all():
            bad += int((~finite).sum())
            if first_bad is None:
                frame = int((~finite).any(dim=0).nonzero()[0])
                first_bad = frames + frame, int((~finite[:, frame]).nonzero()[0])
        frames += block.shape[-1]
    if frames == 0:
        raise InputError(f"{recording.name} holds no samples")
    if first_bad is not None:
        frame, channel = first_bad
        raise InputError(
            f"{recording.name} holds {bad} NaN or infinite sample{'s' * (bad > 1)}, the first at "
            f"{frame / recording.sample_rate:.3f} s (sample {frame}) of channel {channel + 1}; repair the file first"
        )
    return Facts(frames, silent, choose_channel(mean_level, levels))


def choose_channel(mean_energy: float, energies: Tensor) -> int | None:
    """The loudest channel where the mean has cancelled, from the energies of the mean and of the channels (C,)."""
    if mean_energy < CANCELLED**2 * float(energies.max()):
        return int(energies.argmax())
    return None


def mixed_down(blocks: Iterable[Tensor], channel: int | None) -> Iterator[Tensor]:
    """Blocks (C, n) -> (1, n): one channel, or the mean of all."""
    for block in blocks:
        yield block.mean(dim=0, keepdim=True) if channel is None else block[channel : channel + 1]


def resampled(blocks: Iterable[Tensor], from_rate: int, to_rate: int, length: int) -> Iterator[Tensor]:
    """Blocks (C, n) at another rate in Hz, soxr's very high quality filter; exactly `length` samples in sum."""
    left = length
    stream = blocks if from_rate == to_rate else _through_soxr(blocks, from_rate, to_rate)
    rows = 1
    for block in stream:
        rows = block.shape[0]
        block = block[:, :left]
        left -= block.shape[-1]
        if block.shape[-1]:
            yield block
    if left:  # soxr may end a sample early, and short audio is padded
        yield torch.zeros(rows, left)


def _through_soxr(blocks: Iterable[Tensor], from_rate: int, to_rate: int) -> Iterator[Tensor]:
    """Blocks (C, n) through one resampler, which is flushed at the end."""
    resampler = None
    for block in blocks:
        if resampler is None:
            resampler = soxr.ResampleStream(from_rate, to_rate, block.shape[0], dtype="float32", quality="VHQ")
        frames = np.ascontiguousarray(block.detach().to("cpu", torch.float32).T.numpy())
        yield torch.from_numpy(np.ascontiguousarray(resampler.resample_chunk(frames).T))
        channels = block.shape[0]
    if resampler is not None:
        rest = resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True)
        yield torch.from_numpy(np.ascontiguousarray(rest.T))


class Sliding:
    """A stream that is looked at in stretches whose beginnings never go back; holds no more than they need.

    Positions count along `dim` from the beginning of the stream. Before it and after its end there are zeros.
    """

    def __init__(self, blocks: Iterable[Tensor], dim: int = -1) -> None:
        self.blocks, self.dim = iter(blocks), dim
        self.held: Tensor | None = None
        self.start = 0  # position of the first sample held

    def span(self, first: int, last: int) -> Tensor:
        """Positions [first, last); `first` is at least that of the call before."""
        parts = [] if self.held is None else [self.held]
        end = self.start + sum(part.shape[self.dim] for part in parts)
        while (end < last or not parts) and (block := next(self.blocks, None)) is not None:
            end += block.shape[self.dim]
            parts.append(block)
            while len(parts) > 1 and self.start + parts[0].shape[self.dim] <= first:
                self.start += parts.pop(0).shape[self.dim]
        if not parts:
            raise InputError("a stream without samples was read")
        held = parts[0] if len(parts) == 1 else torch.cat(parts, dim=self.dim)
        drop = min(max(0, first - self.start), held.shape[self.dim])
        held = held.narrow(self.dim, drop, held.shape[self.dim] - drop)
        self.start += drop
        self.held = held
        inside = held.narrow(self.dim, 0, min(max(0, last - self.start), held.shape[self.dim]))
        before = min(max(0, self.start - first), last - first)
        after = last - first - before - inside.shape[self.dim]
        if before or after:
            shapes = [list(inside.shape), list(inside.shape)]
            shapes[0][self.dim], shapes[1][self.dim] = before, after
            inside = torch.cat([inside.new_zeros(shapes[0]), inside, inside.new_zeros(shapes[1])], dim=self.dim)
        return inside
