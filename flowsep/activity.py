"""When a described sound is active: stretches of time from the level of what was separated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowsep.errors import UsageError
from flowsep.longform import SeparationStream, in_memory, separate_stream
from flowsep.protocol import SampleOptions, TextSeparator
from flowsep.remixing import ratio_db
from flowsep.windows import Progress

FRAME = 0.01  # seconds
SMOOTHED = 5  # frames over which energies are averaged before they are compared


@dataclass(frozen=True)
class SegmentRule:
    """When a sound counts as active.

    In frames of 10 ms, energies averaged over 50 ms, the target is active where it is at most `share_db` below the
    mixture and at most `range_db` below its own loudest moment. Gaps shorter than `merge_gap` seconds are closed; what
    is then shorter than `min_duration` seconds is dropped.
    """

    share_db: float = 10.0
    range_db: float = 30.0
    min_duration: float = 0.1
    merge_gap: float = 0.2

    def __post_init__(self) -> None:
        for name in ("share_db", "range_db", "min_duration", "merge_gap"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"{name.replace('_', ' ')} must be a number of at least 0, not {value}")


@dataclass(frozen=True)
class Segment:
    """One stretch of activity: start and end in seconds, the target's RMS below full scale, and below the mixture."""

    start: float
    end: float
    level_db: float
    share_db: float


def find_segments(
    separator: TextSeparator,
    audio: Tensor,
    sample_rate: int,
    texts: Sequence[str],
    rule: SegmentRule | None = None,
    options: SampleOptions | None = None,
    progress: Progress | None = None,
) -> list[list[Segment]]:
    """When each described sound is active in audio (C, T) at `sample_rate` Hz: one list per text, in order of time.

    Judged on the mono down-mix at the model's rate, so on what the model hears. `progress` and errors as
    `separate_audio`.
    """
    stream = separate_stream(separator, in_memory(audio, sample_rate), texts, options, progress)
    return segments_of(stream, rule or SegmentRule())


def segments_of(stream: SeparationStream, rule: SegmentRule) -> list[list[Segment]]:
    """The active stretches of each query of `stream`, which is used up; silence has none.

    What is kept of the recording is one energy per 10 ms and query.
    """
    stream.heard_only = True
    energies = Energies(stream.separator.sample_rate)
    for block in stream:
        energies.add(torch.cat([block.mixture[:1], block.targets[:, 0]]))
    if stream.facts.silent:
        return [[] for _ in stream.texts]
    mixture, *targets = energies.total()
    seconds = stream.facts.frames / stream.recording.sample_rate
    return [active_stretches(target, mixture, seconds, rule) for target in targets]


class Energies:
    """Mean squares (R, N) of a stream (R, T) in frames of 10 ms, taken block by block."""

    def __init__(self, sample_rate: int) -> None:
        self.hop = round(sample_rate * FRAME)
        self.whole: list[Tensor] = []  # (R, n) each
        self.left: Tensor | None = None  # (R, n), less than a frame

    def add(self, block: Tensor) -> None:
        """The next samples (R, n)."""
        waiting = block if self.left is None else torch.cat([self.left, block], dim=1)
        end = waiting.shape[1] // self.hop * self.hop
        self.whole.append(frame_energies(waiting[:, :end], self.hop))
        self.left = waiting[:, end:]

    def through(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The blocks as they are, added on their way."""
        for block in blocks:
            self.add(block)
            yield block

    def total(self) -> Tensor:
        """(R, N) of all that was added; the last frame is filled up with zeros."""
        left = [] if self.left is None else [frame_energies(self.left, self.hop)]
        return torch.cat([*self.whole, *left], dim=1)


def frame_energies(waves: Tensor, hop: int) -> Tensor:
    """Mean squares (..., N) of waveforms (..., T) in frames of `hop` samples; the last is filled up with zeros."""
    padded = torch.nn.functional.pad(waves, (0, -waves.shape[-1] % hop))
    return padded.unflatten(-1, (-1, hop)).square().mean(dim=-1) if padded.shape[-1] else padded


def active_stretches(target: Tensor, mixture: Tensor, seconds: float, rule: SegmentRule) -> list[Segment]:
    """Segments by `rule` from the energies (N,) of target and mixture in frames of 10 ms, cut at `seconds`."""
    smooth_target, smooth_mixture = smoothed(target), smoothed(mixture)
    active = (smooth_target > 0) & (smooth_target >= smooth_mixture * 10 ** (-rule.share_db / 10))
    active &= smooth_target >= smooth_target.max() * 10 ** (-rule.range_db / 10)
    segments = []
    for first, last in stretches(active.tolist(), rule.merge_gap / FRAME, rule.min_duration / FRAME):
        inside, whole = float(target[first:last].mean()), float(mixture[first:last].mean())
        start, end = round(first * FRAME, 2), round(min(last * FRAME, seconds), 6)
        if end > start:
            segments.append(Segment(start, end, ratio_db(inside, 1.0), ratio_db(inside, whole)))
    return segments


def smoothed(energies: Tensor) -> Tensor:
    """Energies (N,) averaged over 50 ms around each frame; at the ends over what is there."""
    return torch.nn.functional.avg_pool1d(
        energies[None, None], SMOOTHED, stride=1, padding=SMOOTHED // 2, count_include_pad=False
    )[0, 0]


def stretches(active: Sequence[bool], merge_gap: float, min_duration: float) -> list[tuple[int, int]]:
    """Runs [first, last) of true values; gaps shorter than `merge_gap` closed, then runs below `min_duration` dropped.

    All in frames. A gap or run of exactly the limit stays.
    """
    runs: list[tuple[int, int]] = []
    for index, is_active in enumerate(active):
        if not is_active:
            continue
        if runs and (index == runs[-1][1] or index - runs[-1][1] < merge_gap - 1e-6):
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return [(first, last) for first, last in runs if last - first >= min_duration - 1e-6]
