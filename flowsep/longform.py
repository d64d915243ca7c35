"""Recordings of any length, rate and channel count through a separator that sees one mono window at its own rate.

A recording is read once for what is to be known before (`flowsep.blocks.scan`) and once more for the work, in blocks:
what the model hears is mixed down and resampled, its windows are joined (`flowsep.windows`), and what they add up to is
applied to the recording. A separator that renders by masking the mixture has its masks joined, and the joined mask is
applied to the original channels at their own rate: what is joined never beats, and everything above the model's band
stays in phase with the input. Nothing that is held grows with the length.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, tee
from typing import Any

import torch
from torch import Tensor

from flowsep.audio import AudioWarning, Samples
from flowsep.blocks import BLOCK, Facts, Recording, Sliding, mixed_down, resampled, scan
from flowsep.errors import InputError, ModelError, UsageError
from flowsep.protocol import Choice, SampleOptions, TextSeparator
from flowsep.settings import ROWS
from flowsep.spans import Spans, span_gain, touch
from flowsep.windows import Account, Plan, Progress, Windows

SHORTEST = 0.1  # seconds; anything shorter is padded with zeros for the model and cut again


@dataclass
class LongSeparation:
    """One query's share of a recording, at the recording's own rate, channels and length.

    residual = recording - target, as computed in float32.
    """

    target: Tensor  # (C, T)
    residual: Tensor  # (C, T)
    nfe: int  # network calls, summed over the windows
    seconds: dict[str, float] = field(default_factory=dict)  # wall clock per stage, shared by the queries of one call
    settings: dict[str, Any] = field(default_factory=dict)  # every option as resolved
    windows: int = 1
    choices: list[Choice] = field(default_factory=list)  # one per window where there were candidates, otherwise none
    presence: float | None = None  # probability that the sound is there: the highest of all windows


def separate_audio(
    separator: TextSeparator,
    audio: Tensor,
    sample_rate: int,
    texts: Sequence[str],
    options: SampleOptions | None = None,
    progress: Progress | None = None,
    spans: Spans = (),
    rows: int = ROWS,
) -> list[LongSeparation]:
    """audio (C, T) float32 at `sample_rate` Hz -> one LongSeparation per text, sample-exact in length.

    All blocks of `separate_stream` in a row; parameters and errors are its.
    """
    stream = separate_stream(separator, in_memory(audio, sample_rate), texts, options, progress, spans, rows)
    targets = torch.cat([block.targets for block in stream], dim=-1)  # (Q, C, T)
    account = stream.account
    return [
        LongSeparation(
            target=target,
            residual=audio - target,
            nfe=account.nfe[query],
            seconds=account.seconds,
            settings=account.settings[query],
            windows=account.windows,
            choices=account.choices[query],
            presence=account.presence[query],
        )
        for query, target in enumerate(targets)
    ]


def in_memory(audio: Tensor, sample_rate: int) -> Samples:
    """audio (C, T) as a recording; InputError for another shape or without samples."""
    if audio.dim() != 2 or audio.shape[-1] == 0:
        raise InputError(f"audio must be (channels, samples) with at least one sample, not {tuple(audio.shape)}")
    return Samples(audio, sample_rate)


def separate_stream(
    separator: TextSeparator,
    recording: Recording,
    texts: Sequence[str],
    options: SampleOptions | None = None,
    progress: Progress | None = None,
    spans: Spans = (),
    rows: int = ROWS,
) -> SeparationStream:
    """A recording -> its blocks with their targets, one after another, in memory that does not grow with its length.

    `recording` is what `flowsep.audio.open_audio` gives, or `flowsep.audio.Samples`. `spans` are the only times, in
    seconds, at which the targets may be active: their masks fall to zero over 50 ms outside, and windows without any
    span are not asked about. `rows` (window, query) pairs go through the network at once; where the memory does not
    do, half of them. `progress(stage, done, total)` is called with stage "separate" after each call of the network;
    what it raises stops the work. Digital silence comes back as silence with an AudioWarning, without asking the model.

    UsageError without a query, InputError without samples or with NaN in them, ModelError where the model gives NaN,
    DeviceError where memory is at an end.
    """
    if not texts:
        raise UsageError("no query; describe the sound to take out")
    return SeparationStream(separator, recording, texts, options, progress or _silent, spans, rows)


@dataclass(frozen=True)
class Block:
    """The next stretch of a recording: targets[q] is the share of query q in it."""

    start: int  # first sample
    mixture: Tensor  # (C, n)
    targets: Tensor  # (Q, C, n)


@dataclass
class SeparationStream:
    """Iterate once for the blocks; `account` is complete after that. Made by `separate_stream`."""

    separator: TextSeparator
    recording: Recording
    texts: Sequence[str]
    options: SampleOptions | None
    progress: Progress
    spans: Spans = ()
    rows: int = ROWS
    facts: Facts | None = None  # of the recording, where they are known already
    as_masks: bool = False  # masks of every separator: a rendering without is turned into one by `level_mask`
    partitioned: bool = False  # masks that share every cell out between the queries and the rest
    heard_only: bool = False  # the blocks are (1, n) of what the model hears, at its rate
    account: Account = field(init=False)

    def __post_init__(self) -> None:
        self.account = Account.of(len(self.texts), self.rows)

    def __iter__(self) -> Iterator[Block]:
        clock = time.perf_counter()
        facts = self.facts = self.facts or scan(self.recording)
        if facts.silent:
            warnings.warn("the input is digital silence; the outputs are silent too", AudioWarning, stacklevel=3)
            found = ((block, block.new_zeros(len(self.texts), *block.shape)) for block in self.recording.blocks())
        else:
            found = self.found(facts)
        start, spent, left = 0, 0.0, None if self.heard_only else facts.frames
        while True:
            mixture, targets = next(found, (None, None))
            spent += time.perf_counter() - clock  # without what is done with the block
            if mixture is None or left == 0:
                break
            mixture, targets = mixture[..., :left], targets[..., :left]
            if not torch.isfinite(targets).all():
                raise ModelError(
                    "the model gave NaN or infinity; try --dtype float32, more --steps or another --solver"
                )
            yield Block(start, mixture, targets)
            start += mixture.shape[-1]
            left = None if left is None else left - mixture.shape[-1]
            clock = time.perf_counter()
        self.account.seconds["join"] = spent - sum(self.account.seconds.values())

    def found(self, facts: Facts) -> Iterator[tuple[Tensor, Tensor]]:
        """Stretches (C, n) and their targets (Q, C, n); very short recordings have zeros after their end."""
        separator, rate = self.separator, self.recording.sample_rate
        length = max(facts.frames, round(SHORTEST * rate))
        heard_length = max(1, round(length * separator.sample_rate / rate))
        blocks = chain(self.recording.blocks(), zeros(self.recording.channels, length - facts.frames))
        for_model, for_output = tee(blocks)
        heard = resampled(mixed_down(for_model, facts.channel), rate, separator.sample_rate, heard_length)
        if self.heard_only:
            heard, for_output = tee(heard)
            rate, length = separator.sample_rate, heard_length
        values = self.joined(Plan.of(separator, heard_length), heard)
        if not self.account.masked:
            waves = resampled(values, separator.sample_rate, rate, length)
            in_phase = self.account.settings[0].get("render") == "mixture"
            if in_phase and self.recording.channels > 1 and not self.heard_only:
                from flowsep.channels import shared_blocks

                return shared_blocks(Sliding(for_output), Sliding(waves), length, rate, facts.channel)
            return rendered(Sliding(for_output), Sliding(waves), length)
        from flowsep.render import masked_blocks

        frames = heard_length // (separator.sample_rate // 100) + 1
        return masked_blocks(Sliding(for_output), length, Sliding(values, dim=1), frames, rate, separator.mel)

    def joined(self, plan: Plan, heard: Iterable[Tensor]) -> Iterator[Tensor]:
        """Masks (Q, n, M) or waveforms (Q, n) of all windows; `account.masked` says which once this has returned."""
        rate = self.separator.sample_rate

        def wanted(first: int, last: int) -> bool:
            return touch(self.spans, first / rate, last / rate)

        about = (self.texts, self.options, self.account, self.progress, self.as_masks, wanted)
        values = Windows(self.separator, Sliding(heard), plan, *about).blocks()
        values = chain([next(values)], values)
        if self.partitioned and self.account.masked:
            from flowsep.partition import partition_masks

            values = (partition_masks(block)[0] for block in values)
        unit = (rate // 100 if self.account.masked else 1) / rate  # seconds per value
        return gated(values, unit, self.spans)


def gated(values: Iterable[Tensor], unit: float, spans: Spans) -> Iterator[Tensor]:
    """Masks (Q, n, M) or waveforms (Q, n), one value every `unit` seconds, without what lies outside of the spans."""
    start = 0
    for block in values:
        if spans:
            times = unit * torch.arange(start, start + block.shape[1], dtype=torch.float64)
            block = block * span_gain(times, spans).to(block).reshape(-1, *[1] * (block.dim() - 2))
        start += block.shape[1]
        yield block


def rendered(audio: Sliding, waves: Sliding, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Stretches (C, n) of the recording, and waveforms (Q, n) at its rate given to all of its channels (Q, C, n)."""
    for start in range(0, length, BLOCK):
        stretch = audio.span(start, min(start + BLOCK, length))
        wave = waves.span(start, min(start + BLOCK, length))
        yield stretch, wave[:, None].expand(-1, stretch.shape[0], -1).clone()


def zeros(channels: int, count: int) -> list[Tensor]:
    """A block (C, count) of zeros, or none where count is 0."""
    return [torch.zeros(channels, count)] if count > 0 else []


def _silent(stage: str, done: int, total: int) -> None:
    """Report progress to nobody."""
