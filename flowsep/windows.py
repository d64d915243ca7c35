"""The windows of a long recording: where they lie, what a separator makes of them, and how that is joined, in order.

Neighbouring windows overlap and are joined with fades that sum to one. The noise that a separator starts from is drawn
once along the recording (`flowsep.flow.path.noise_along`), so that they agree about it where they overlap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from flowsep.blocks import Sliding
from flowsep.errors import DeviceError, is_out_of_memory
from flowsep.protocol import Choice, SampleOptions, Separation, TextSeparator

OVERLAP = 0.1  # of a window, between neighbours

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True)
class Plan:
    """Where the windows of a recording lie, in samples at the model's rate."""

    length: int
    window: int
    overlap: int
    starts: tuple[int, ...]

    @classmethod
    def of(cls, separator: TextSeparator, length: int) -> Plan:
        """The windows of `separator` over `length` samples.

        They start on 10 ms frames, where masks live, and on the frames of the noise of a separator that has one.
        """
        window, overlap = separator.window, max(1, round(OVERLAP * separator.window))
        step = math.lcm(separator.sample_rate // 100, noise_stride(separator) or 1)
        return cls(length, window, overlap, tuple(window_starts(length, window, overlap, step)))

    def end(self, index: int) -> int:
        """One past the last sample of window `index`."""
        return min(self.starts[index] + self.window, self.length)

    def weights(self, index: int, positions: Tensor) -> Tensor:
        """Weight of window `index` at `positions`; all windows sum to 1.

        Neighbours change over in the middle of what they share, linearly over `overlap` samples: away from the edges,
        where a window knows one side only.
        """
        weights = torch.ones_like(positions)
        for earlier, sign in ((index - 1, 1.0), (index, -1.0)):  # fade in after the one before, out before the next
            if 0 <= earlier < len(self.starts) - 1:
                middle = (self.starts[earlier + 1] + self.starts[earlier] + self.window) / 2
                weights = weights * (0.5 + sign * (positions - middle) / self.overlap).clamp(0, 1)
        return weights


def window_starts(length: int, window: int, overlap: int, step: int) -> list[int]:
    """First samples of the windows that cover `length` samples: multiples of `step`, evenly spread, as few as possible.

    Neighbours share at least `overlap` samples. The last window ends at `length`, up to `step` - 1 samples short of
    `window`; a recording no longer than `window` is one window.
    """
    if length <= window:
        return [0]
    last = -(-(length - window) // step)  # in steps, as below; rounded up
    stride = max(1, (window - overlap) // step)
    count = -(-last // stride)
    return [index * last // count * step for index in range(count + 1)]


def noise_stride(separator: TextSeparator) -> int | None:
    """Samples between neighbouring frames of the noise that the separator starts from; None without noise."""
    return getattr(separator, "noise_stride", None)


@dataclass
class Account:
    """What a recording cost, for Q queries; complete once the stream has ended."""

    nfe: list[int]  # network calls, summed over the windows
    settings: list[dict[str, Any]]  # every option as resolved
    choices: list[list[Choice]]  # by query and window; empty where there were no candidates
    rows: int  # through the network at once; halved where the memory did not do
    windows: int = 0
    presence: list[float | None] = field(default_factory=list)  # per query: the highest of all windows
    skipped: int = 0  # of the windows: those without any span
    masked: bool = True  # False: waveforms
    own_masks: bool = True  # False: the masks, if any, were made from the rendered levels
    seconds: dict[str, float] = field(default_factory=dict)  # wall clock per stage

    @classmethod
    def of(cls, queries: int, rows: int) -> Account:
        """Nothing yet."""
        account = cls([0] * queries, [{} for _ in range(queries)], [[] for _ in range(queries)], rows)
        account.presence = [None] * queries
        return account


@dataclass
class Windows:
    """The windows of one recording through a separator, for Q queries."""

    separator: TextSeparator
    mono: Sliding  # (1, T) at the separator's rate: what the model hears
    plan: Plan
    texts: Sequence[str]
    options: SampleOptions | None
    account: Account
    report: Progress
    as_masks: bool = False  # ask for masks of every separator
    wanted: Callable[[int, int], bool] = lambda first, last: True  # whether anything is asked of samples [first, last)

    def blocks(self) -> Iterator[Tensor]:
        """Masks (Q, n, M) on 10 ms frames or, where `account.masked` is False then, waveforms (Q, n), in order.

        `report` is called with stage "separate" and the number of (window, query) pairs after each call. What it
        raises stops the work. DeviceError where not even half of the rows fit into the memory.
        """
        self.account.windows = len(self.plan.starts)
        joiner: Joiner | None = None
        for group, asked in self.groups():
            found = self.ask(group) if asked else [None] * len(group)
            joiner = joiner or Joiner(self.plan, self.separator.sample_rate // 100 if self.account.masked else 1)
            for index, values in zip(group, found, strict=True):
                yield joiner.add(index, values)

    def groups(self) -> Iterator[tuple[list[int], bool]]:
        """Neighbouring windows that go through together, and whether they go at all. The first one always does."""
        group: list[int] = []
        for index, start in enumerate(self.plan.starts):
            wanted = index == 0 or self.wanted(start, self.plan.end(index))
            whole = self.plan.end(index) - start == self.plan.window
            if group and (not wanted or not whole or len(group) == self.windows_at_once()):
                yield group, True
                group = []
            if wanted:
                group.append(index)
            else:
                self.account.skipped += 1
                yield [index], False
        if group:
            yield group, True

    def windows_at_once(self) -> int:
        """Windows of one call: several where all queries of all of them fit."""
        return max(1, self.rows_at_once() // len(self.texts))

    def rows_at_once(self) -> int:
        """(window, query) pairs of one call; candidates of one share it."""
        return max(1, self.account.rows // max(1, self.options.candidates if self.options else 1))

    def ask(self, group: list[int]) -> list[Tensor]:
        """What the separator makes of neighbouring windows: for each, masks (Q, N, M) or waveforms (Q, T)."""
        first = self.plan.starts[group[0]]
        heard = self.mono.span(first, self.plan.end(group[-1]))[0]
        calls, choices = list(self.account.nfe), [list(one) for one in self.account.choices]
        try:
            return self.call(group, heard, first)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if self.account.rows == 1:
                raise DeviceError(out_of_memory(self.account.rows)) from error
            failure = error
        self.account.rows //= 2
        self.account.nfe, self.account.choices = calls, choices  # what was done of the group is done again
        try:
            return self.call(group, heard, first)
        except Exception as error:
            if is_out_of_memory(error):
                raise DeviceError(out_of_memory(self.account.rows)) from failure
            raise

    def call(self, group: list[int], heard: Tensor, first: int) -> list[Tensor]:
        """As many calls as the rows ask for; heard (T,) holds the group's windows and begins at sample `first`."""
        pieces = [heard[self.plan.starts[index] - first : self.plan.end(index) - first] for index in group]
        together, found = self.windows_at_once(), []
        for begin in range(0, len(group), together):
            some, indices = pieces[begin : begin + together], group[begin : begin + together]
            if len(some) > 1:
                stack = torch.stack(some).repeat_interleave(len(self.texts), 0)
                values = self.one_call(stack, list(self.texts) * len(some), indices, range(len(self.texts)))
                found += list(values.unflatten(0, (len(some), -1)))
                continue
            rows, parts = self.rows_at_once(), []
            for query in range(0, len(self.texts), rows):
                batch = range(query, min(query + rows, len(self.texts)))
                mixture = some[0].expand(len(batch), -1)  # rows of one memory: analysed and encoded once
                parts.append(self.one_call(mixture, [self.texts[number] for number in batch], indices, batch))
            found.append(torch.cat(parts))
        return found

    def one_call(self, mixture: Tensor, texts: list[str], indices: list[int], batch: range) -> Tensor:
        """mixture (B, T), a batch of queries for each of the windows `indices` -> masks (B, N, M) or waves (B, T)."""
        placed = {}
        if len(self.plan.starts) > 1 and noise_stride(self.separator):  # one window alone draws its own noise
            placed["at"] = [self.plan.starts[index] for index in indices for _ in batch]
        result = self.separator.separate(mixture, texts, self.options, **placed)
        self.account.own_masks = result.mask is not None
        if self.as_masks and result.mask is None:
            result = replace(result, mask=level_mask(self.separator, mixture, result.target))
        self.account.masked = result.mask is not None
        self.book(result, list(batch) * len(indices))
        total = len(self.plan.starts) * len(self.texts)
        self.report("separate", min(total, indices[-1] * len(self.texts) + batch.stop), total)
        return (result.mask if self.account.masked else result.target).detach().to("cpu", torch.float32)

    def book(self, result: Separation, queries: list[int]) -> None:
        """Add one call's network calls and seconds to the account; `queries` (B,) are those of its rows."""
        account = self.account
        for query in queries:
            account.nfe[query] += result.nfe
            account.settings[query] = dict(result.settings)
        for query, choice in zip(queries, result.choices, strict=False):  # no choices where there were no candidates
            account.choices[query].append(choice)
        if result.presence is not None:
            for query, there in zip(queries, result.presence.tolist(), strict=True):
                account.presence[query] = max(there, account.presence[query] or 0.0)
        for stage, seconds in result.seconds.items():
            account.seconds[stage] = account.seconds.get(stage, 0.0) + seconds


class Joiner:
    """Adds the windows up, one after another, and gives what no later one changes."""

    def __init__(self, plan: Plan, unit: int) -> None:
        self.plan, self.unit = plan, unit  # samples per value: 1 for waveforms
        self.pending: Tensor | None = None  # (Q, n, ...)
        self.done = 0  # values that have been given

    def add(self, index: int, values: Tensor | None) -> Tensor:
        """Values (Q, N, ...) of window `index`, None for zeros -> the next (Q, n, ...) of the recording."""
        start, end = self.plan.starts[index], self.plan.end(index)
        begin = start // self.unit - self.done
        count = (end - start) // self.unit + (self.unit > 1)  # masks have a frame on both edges
        pending = values[:, :0] if self.pending is None else self.pending
        missing = begin + count - pending.shape[1]
        pending = torch.cat([pending, pending.new_zeros(pending.shape[0], missing, *pending.shape[2:])], dim=1)
        if values is not None:
            positions = start + self.unit * torch.arange(count, dtype=torch.float64)
            weights = self.plan.weights(index, positions).float()
            pending[:, begin : begin + count] += weights.reshape(-1, *[1] * (values.dim() - 2)) * values
        last = index == len(self.plan.starts) - 1
        final = begin + count if last else self.plan.starts[index + 1] // self.unit - self.done
        self.pending = pending[:, final:]
        self.done += final
        return pending[:, :final]


def level_mask(separator: TextSeparator, mixture: Tensor, target: Tensor) -> Tensor:
    """Mask (B, N, M) of rendered targets (B, T) in their mixtures (B, T), both at the separator's rate.

    The gain of each mel band and 10 ms frame is min(1, |target| / |mixture|), magnitudes; what was rendered is measured
    and not used itself, so that its phase does not matter.
    """
    from flowsep.audio import resample
    from flowsep.render import band_mask
    from vocoder.mel import log_mel

    mel = separator.mel
    distinct = mixture[:1] if mixture.stride(0) == 0 else mixture  # stride 0: all rows are the first
    waves = resample(torch.cat([distinct.to(target), target]), separator.sample_rate, mel.sample_rate)
    frames = mixture.shape[-1] // (separator.sample_rate // 100) + 1  # as the caller counts, however resampling rounds
    short = max(0, mel.n_fft - waves.shape[-1], (frames - 1) * mel.hop_length - waves.shape[-1])
    levels = log_mel(torch.nn.functional.pad(waves, (0, short)), mel)[:, :frames]
    return band_mask(levels[len(distinct) :], None, levels[: len(distinct)])


def out_of_memory(rows: int) -> str:
    """What to do where `rows` rows do not fit."""
    advice = "give --max-memory 2GB for example, --dtype bfloat16, fewer --candidates, or another --device"
    return f"out of memory with {rows} window{'s' * (rows > 1)} at once; {advice}"
