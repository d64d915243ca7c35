"""Recordings with described sounds turned up, down or away: recording in, parts that add up to it, remix out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flowsep.blocks import Recording
from flowsep.gains import MUTE, amplitude, check_gains
from flowsep.longform import SeparationStream, in_memory, separate_stream
from flowsep.protocol import SampleOptions, TextSeparator
from flowsep.settings import ROWS
from flowsep.spans import Spans
from flowsep.windows import Account, Progress


@dataclass
class Remix:
    """A remixed recording (C, T) at the recording's own rate, channels and length, and how it came about."""

    audio: Tensor  # (C, T)
    gains: dict[str, float]  # dB by text, -inf for mute
    rest: float  # dB of all else
    levels_db: list[float]  # RMS of each part as it was in the recording, dB below full scale; the rest comes last
    sum_error_db: float  # parts + rest - recording, below the recording, as computed in float32
    own_masks: bool  # False: made by `level_mask` of a rendering that gives none
    nfe: int  # network calls, summed over the windows and queries
    seconds: dict[str, float]  # wall clock per stage
    settings: dict[str, Any]  # every option as resolved
    windows: int


def remix(
    separator: TextSeparator,
    audio: Tensor,
    sample_rate: int,
    gains: Mapping[str, float],
    rest: float = 0.0,
    options: SampleOptions | None = None,
    progress: Progress | None = None,
    spans: Spans = (),
    rows: int = ROWS,
) -> Remix:
    """Change the level of described sounds in audio (C, T) float32 at `sample_rate` Hz.

    All blocks of `remix_stream` in a row; parameters and errors are its.
    """
    recording = in_memory(audio, sample_rate)
    stream = remix_stream(separator, recording, gains, rest, options, progress, spans, rows)
    result = torch.cat([remixed for _, remixed in stream], dim=-1)
    account = stream.account
    return Remix(
        audio=result,
        gains=dict(gains),
        rest=rest,
        levels_db=stream.levels_db(),
        sum_error_db=stream.sum_error_db(),
        own_masks=account.own_masks,
        nfe=sum(account.nfe),
        seconds=account.seconds,
        settings=account.settings[0],
        windows=account.windows,
    )


def remove(
    separator: TextSeparator,
    audio: Tensor,
    sample_rate: int,
    texts: Sequence[str],
    options: SampleOptions | None = None,
    progress: Progress | None = None,
    spans: Spans = (),
    rows: int = ROWS,
) -> Remix:
    """The recording (C, T) without the described sounds: `remix` with each of them muted.

    For one text and a separator with masks, audio is the residual of `separate_audio`, bit for bit.
    """
    return remix(separator, audio, sample_rate, dict.fromkeys(texts, MUTE), 0.0, options, progress, spans, rows)


def remix_stream(
    separator: TextSeparator,
    recording: Recording,
    gains: Mapping[str, float],
    rest: float = 0.0,
    options: SampleOptions | None = None,
    progress: Progress | None = None,
    spans: Spans = (),
    rows: int = ROWS,
) -> RemixStream:
    """A recording -> its blocks remixed, one after another, in memory that does not grow with its length.

    `gains` are dB by description, `rest` is that of everything they do not describe; -inf (`flowsep.gains.MUTE`)
    removes. The masks of all descriptions are made a partition (`partition_masks`), applied to the recording one by
    one, and

        remix = g_rest * recording + sum_k (g_k - g_rest) * part_k,   rest = recording - sum_k part_k,

    so that parts and rest add up to the recording, a sound claimed by two descriptions is not counted twice, and gains
    of 0 dB give back the recording bit for bit. A separator without masks (the vocoder rendering) gets those of
    `flowsep.windows.level_mask`, since a wave that is not in phase with the recording cannot be turned down in it.
    Other parameters and errors as `separate_stream`; UsageError for gains that `check_gains` refuses.
    """
    check_gains(gains, rest)
    stream = separate_stream(separator, recording, list(gains), options, progress, spans, rows)
    stream.as_masks = stream.partitioned = True
    return RemixStream(stream, list(gains.values()), rest)


@dataclass(frozen=True)
class RemixBlock:
    """The next stretch: parts[q] is the share of description q in it, and mixture - parts.sum(0) the rest."""

    mixture: Tensor  # (C, n)
    parts: Tensor  # (Q, C, n)
    remix: Tensor  # (C, n)


@dataclass
class RemixStream:
    """Iterate once for pairs of the recording (C, n) and its remix (C, n); the figures are complete after that.

    `blocks` gives the parts, too.
    """

    stream: SeparationStream
    gains: list[float]  # dB by query
    rest: float  # dB
    samples: int = 0  # of all channels
    energies: list[float] = field(default_factory=list)  # of the parts, the rest and the recording
    error: float = 0.0  # energy of parts + rest - recording

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((block.mixture, block.remix) for block in self.blocks())

    def blocks(self) -> Iterator[RemixBlock]:
        """The stretches of the recording with their parts and their remix, one after another; once."""
        others = amplitude(self.rest)
        self.energies = [0.0] * (len(self.gains) + 2)
        for block in self.stream:
            result, total = others * block.mixture, torch.zeros_like(block.mixture)
            for gain, part in zip(self.gains, block.targets, strict=True):
                total += part
                if amplitude(gain) != others:
                    result.add_(part, alpha=amplitude(gain) - others)
            self.measure(block.mixture, block.targets, total)
            yield RemixBlock(block.mixture, block.targets, result)

    def measure(self, mixture: Tensor, parts: Tensor, total: Tensor) -> None:
        """Add up the energies of one block: mixture and total (C, n), parts (Q, C, n)."""
        remaining = mixture - total
        for index, one in enumerate((*parts, remaining, mixture)):
            self.energies[index] += float(one.double().square().sum())
        self.error += float((total.double() + remaining.double() - mixture.double()).square().sum())
        self.samples += mixture.numel()

    @property
    def account(self) -> Account:
        """Network calls, settings and seconds."""
        return self.stream.account

    def levels_db(self) -> list[float]:
        """RMS of each part as it was in the recording, dB below full scale, at least -200; the rest comes last."""
        return [ratio_db(energy, self.samples) for energy in self.energies[:-1]]

    def sum_error_db(self) -> float:
        """Level of parts + rest - recording below the recording, in dB; -200 stands for none."""
        return ratio_db(self.error, self.energies[-1])


def ratio_db(energy: float, reference: float) -> float:
    """10 log10(energy / reference), at least -200."""
    return round(max(-200.0, 10 * math.log10(energy / reference)), 2) if energy > 0 and reference > 0 else -200.0
