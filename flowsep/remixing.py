"""Recordings with described sounds turned up, down or away: recording in, parts that add up to it, remix out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowsep.gains import MUTE, amplitude, check_gains
from flowsep.longform import Heard, Progress, listen, pad_short, refuse_non_finite_output
from flowsep.partition import partition_masks
from flowsep.protocol import SampleOptions, TextSeparator
from flowsep.render import apply_mask

BLOCK_FRAMES = 3000  # mask frames projected at once: bounds the memory
BLOCK_SAMPLES = 2**20  # samples measured at once in float64


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
) -> Remix:
    """Change the level of described sounds in audio (C, T) float32 at `sample_rate` Hz.

    `gains` are dB by description, `rest` is that of everything they do not describe; -inf (`flowsep.gains.MUTE`)
    removes. The masks of all descriptions are made a partition (`partition_masks`), applied to the recording one by
    one, and

        remix = g_rest * recording + sum_k (g_k - g_rest) * part_k,   rest = recording - sum_k part_k,

    so that parts and rest add up to the recording, a sound claimed by two descriptions is not counted twice, and gains
    of 0 dB give back the recording bit for bit. A separator without masks (the vocoder rendering) gets those of
    `flowsep.longform.level_mask`, since a wave that is not in phase with the recording cannot be turned down in it.
    Besides the masks it holds one part at a time. `progress` and errors as `separate_audio`; UsageError for gains that
    `check_gains` refuses.
    """
    check_gains(gains, rest)
    report = progress or (lambda stage, done, total: None)
    heard = listen(separator, audio, sample_rate, list(gains), options, report, as_masks=True)
    refuse_non_finite_output(heard.values)
    partition(heard)
    others = amplitude(rest)
    padded, length = pad_short(audio, sample_rate), audio.shape[-1]
    result, total, levels = others * audio, torch.zeros_like(audio), []
    for number, gain in enumerate(gains.values()):
        part = apply_mask(padded, heard.values[number], sample_rate, separator.mel)[:, :length]
        refuse_non_finite_output(part)
        levels.append(rms_db(part))
        total += part
        if amplitude(gain) != others:
            result.add_(part, alpha=amplitude(gain) - others)
        report("join", number + 1, len(gains))
    remaining = audio - total
    return Remix(
        audio=result,
        gains=dict(gains),
        rest=rest,
        levels_db=[*levels, rms_db(remaining)],
        sum_error_db=sum_error_db(audio, total, remaining),
        own_masks=heard.own_masks,
        nfe=sum(heard.nfe),
        seconds=heard.seconds,
        settings=heard.settings[0],
        windows=heard.windows,
    )


def remove(
    separator: TextSeparator,
    audio: Tensor,
    sample_rate: int,
    texts: Sequence[str],
    options: SampleOptions | None = None,
    progress: Progress | None = None,
) -> Remix:
    """The recording (C, T) without the described sounds: `remix` with each of them muted.

    For one text and a separator with masks, audio is the residual of `separate_audio`, bit for bit.
    """
    return remix(separator, audio, sample_rate, dict.fromkeys(texts, MUTE), 0.0, options, progress)


def partition(heard: Heard) -> None:
    """Make the masks of `heard` a partition, in place and in blocks of frames: they may be gigabytes."""
    for block in heard.values.split(BLOCK_FRAMES, dim=1):
        block.copy_(partition_masks(block)[0])


def rms_db(samples: Tensor) -> float:
    """RMS of samples (C, T) in dB below full scale, at least -200."""
    energy = sum(float(block.double().square().sum()) for block in samples.split(BLOCK_SAMPLES, dim=-1))
    return round(max(-200.0, 10 * math.log10(energy / samples.numel())) if energy > 0 else -200.0, 2)


def sum_error_db(recording: Tensor, *parts: Tensor) -> float:
    """Level of the sum of parts (C, T) minus the recording, below the recording, in dB; -200 stands for none."""
    error, energy = 0.0, 0.0
    for blocks in zip(*(one.split(BLOCK_SAMPLES, dim=-1) for one in (recording, *parts)), strict=True):
        whole, *shares = (block.double() for block in blocks)
        error += float((sum(shares) - whole).square().sum())
        energy += float(whole.square().sum())
    return round(max(-200.0, 10 * math.log10(error / energy)) if error > 0 else -200.0, 2)
