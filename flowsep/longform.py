"""Recordings of any length, rate and channel count through a separator that sees one mono window at its own rate.

The windows overlap and are joined with fades that sum to one. A separator that renders by masking the mixture has its
masks joined, and the joined mask is applied once to the original channels at their own rate: what is joined never
beats, and everything above the model's band stays in phase with the input.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from flowsep.audio import AudioWarning, downmix, resample
from flowsep.errors import InputError, ModelError, UsageError
from flowsep.protocol import Choice, SampleOptions, Separation, TextSeparator

OVERLAP = 0.1  # of a window, between neighbours
QUERIES_AT_ONCE = 4  # batch of one window: bounds the memory, not the number of queries; candidates count, too
SHORTEST = 0.1  # seconds; anything shorter is padded with zeros for the model and cut again

Progress = Callable[[str, int, int], None]  # stage, done, total


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


def separate_audio(
    separator: TextSeparator,
    audio: Tensor,
    sample_rate: int,
    texts: Sequence[str],
    options: SampleOptions | None = None,
    progress: Progress | None = None,
) -> list[LongSeparation]:
    """audio (C, T) float32 at `sample_rate` Hz -> one LongSeparation per text, sample-exact in length.

    `progress(stage, done, total)` is called with stage "separate" after each batch of a window and "join" after each
    query; what it raises stops the work. Digital silence comes back as silence with an AudioWarning. Non-finite
    output of the model raises ModelError.
    """
    report = progress or _silent
    heard = listen(separator, audio, sample_rate, texts, options, report)
    padded = pad_short(audio, sample_rate)
    return [
        _finish(separator, heard, query, padded, sample_rate, audio.shape[-1], report) for query in range(len(texts))
    ]


@dataclass
class Heard:
    """What the windows of one recording add up to, for Q queries.

    `values` are masks (Q, N, M) on the frames and bands of `separator.mel`, or waveforms (Q, T) where the separator
    gave no masks and none were asked for. They belong to the recording as `pad_short` leaves it.
    """

    values: Tensor
    masked: bool
    own_masks: bool  # False: the masks, if any, were made from the rendered levels
    nfe: list[int]
    settings: list[dict[str, Any]]
    seconds: dict[str, float]
    windows: int
    choices: list[list[Choice]]  # by query and window
    mono: Tensor | None = None  # (T,) what the model heard, at its own rate


def listen(
    separator: TextSeparator,
    audio: Tensor,
    sample_rate: int,
    texts: Sequence[str],
    options: SampleOptions | None = None,
    progress: Progress | None = None,
    as_masks: bool = False,
) -> Heard:
    """All windows of audio (C, T) at `sample_rate` Hz through the separator, joined, before anything is rendered.

    `as_masks` asks for masks of every separator: a rendering without any is turned into one by `level_mask`.
    `progress` is called with stage "separate" after each batch of a window. Digital silence gives masks of zero, with
    an AudioWarning and without asking the model. UsageError without a query, InputError without samples.
    """
    if not texts:
        raise UsageError("no query; describe the sound to take out")
    if audio.dim() != 2 or audio.shape[-1] == 0:
        raise InputError(f"audio must be (channels, samples) with at least one sample, not {tuple(audio.shape)}")
    if not audio.any():
        warnings.warn("the input is digital silence; the outputs are silent too", AudioWarning, stacklevel=3)
        values, queries = torch.zeros(len(texts), 1, separator.mel.n_mels), range(len(texts))
        return Heard(values, True, True, [0] * len(texts), [{} for _ in queries], {}, 0, [[] for _ in queries])
    clock = time.perf_counter()
    mono = resample(downmix(pad_short(audio, sample_rate))[None], sample_rate, separator.sample_rate)[0]
    resampling = time.perf_counter() - clock
    heard = _separate_windows(separator, mono, texts, options, progress or _silent, as_masks)
    heard.seconds = {"resample": resampling, **heard.seconds}
    heard.mono = mono
    return heard


def pad_short(audio: Tensor, sample_rate: int) -> Tensor:
    """audio (C, T), with zeros after it where it is shorter than any model takes (0.1 s)."""
    return torch.nn.functional.pad(audio, (0, max(0, round(SHORTEST * sample_rate) - audio.shape[-1])))


def _silent(stage: str, done: int, total: int) -> None:
    """Report progress to nobody."""


def window_starts(length: int, window: int, overlap: int, hop: int) -> list[int]:
    """First samples of the windows that cover `length` samples: multiples of `hop`, evenly spread, as few as possible.

    Neighbours share at least `overlap` samples. The last window ends at `length`, up to `hop` - 1 samples short of
    `window`; a recording no longer than `window` is one window.
    """
    if length <= window:
        return [0]
    last = -(-(length - window) // hop)  # in hops, as below; rounded up
    stride = max(1, (window - overlap) // hop)
    count = -(-last // stride)
    return [index * last // count * hop for index in range(count + 1)]


def window_weights(index: int, starts: Sequence[int], window: int, overlap: int, positions: Tensor) -> Tensor:
    """Weight of window `index` at `positions`, in samples from the start of the recording; all windows sum to 1.

    Neighbours change over in the middle of what they share, linearly over `overlap` samples: away from the edges,
    where a window knows one side only.
    """
    weights = torch.ones_like(positions)
    for earlier, sign in ((index - 1, 1.0), (index, -1.0)):  # fade in after the window before, out before the one after
        if 0 <= earlier < len(starts) - 1:
            middle = (starts[earlier + 1] + starts[earlier] + window) / 2
            weights = weights * (0.5 + sign * (positions - middle) / overlap).clamp(0, 1)
    return weights


def _separate_windows(
    separator: TextSeparator,
    mono: Tensor,
    texts: Sequence[str],
    options: SampleOptions | None,
    report: Progress,
    as_masks: bool,
) -> Heard:
    """mono (T,) at the separator's rate -> the joined masks or waveforms of all queries."""
    hop = separator.sample_rate // 100  # masks live on 10 ms frames
    window, overlap = separator.window, max(1, round(OVERLAP * separator.window))
    starts = window_starts(len(mono), window, overlap, hop)
    queries = range(len(texts))
    at_once = max(1, QUERIES_AT_ONCE // max(1, options.candidates if options else 1))
    batches = [queries[first : first + at_once] for first in queries[::at_once]]
    joined: Heard | None = None
    for index, start in enumerate(starts):
        piece = mono[start : start + window]
        for number, batch in enumerate(batches):
            found = separator.separate(piece.expand(len(batch), -1), [texts[query] for query in batch], options)
            own_masks = found.mask is not None
            if as_masks and not own_masks:
                found = replace(found, mask=level_mask(separator, piece, found.target))
            joined = joined or _empty(found, own_masks, len(texts), len(mono), hop, len(starts))
            step, offset = (hop, start // hop) if joined.masked else (1, start)
            values = (found.mask if joined.masked else found.target).detach().to("cpu", torch.float32)
            count = values.shape[1]
            positions = start + step * torch.arange(count, dtype=torch.float64)
            weights = window_weights(index, starts, window, overlap, positions).float()  # (N,) or (T,)
            weights = weights[:, None] if joined.masked else weights
            joined.values[batch.start : batch.stop, offset : offset + count] += weights * values
            _account(joined, batch, found)
            report("separate", index * len(batches) + number + 1, len(starts) * len(batches))
    assert joined is not None
    return joined


def level_mask(separator: TextSeparator, mixture: Tensor, target: Tensor) -> Tensor:
    """Mask (B, N, M) of a rendered target (B, T) in the mixture (T,), both at the separator's rate.

    The gain of each mel band and 10 ms frame is min(1, |target| / |mixture|), magnitudes; what was rendered is measured
    and not used itself, so that its phase does not matter.
    """
    from flowsep.render import band_mask
    from vocoder.mel import log_mel

    mel = separator.mel
    waves = resample(torch.cat([mixture[None].to(target), target]), separator.sample_rate, mel.sample_rate)
    frames = len(mixture) // (separator.sample_rate // 100) + 1  # as the caller counts, whatever resampling rounds to
    short = max(0, mel.n_fft - waves.shape[-1], (frames - 1) * mel.hop_length - waves.shape[-1])
    levels = log_mel(torch.nn.functional.pad(waves, (0, short)), mel)[:, :frames]
    return band_mask(levels[1:], None, levels[:1])


def _empty(found: Separation, own_masks: bool, queries: int, length: int, hop: int, windows: int) -> Heard:
    """Zeros to add the windows to, of the kind that the first window's result has."""
    masked = found.mask is not None
    shape = (queries, length // hop + 1, found.mask.shape[-1]) if masked else (queries, length)
    settings: list[dict[str, Any]] = [{} for _ in range(queries)]
    choices: list[list[Choice]] = [[] for _ in range(queries)]
    return Heard(torch.zeros(shape), masked, own_masks, [0] * queries, settings, {}, windows, choices)


def _account(joined: Heard, batch: range, found: Separation) -> None:
    """Add one call's network calls and seconds to the sums."""
    for query in batch:
        joined.nfe[query] += found.nfe
        joined.settings[query] = dict(found.settings)
    for query, choice in zip(batch, found.choices, strict=False):  # no choices where there were no candidates
        joined.choices[query].append(choice)
    for stage, seconds in found.seconds.items():
        joined.seconds[stage] = joined.seconds.get(stage, 0.0) + seconds


def refuse_non_finite_output(values: Tensor) -> None:
    """Raise ModelError where what the model gave holds NaN or infinity."""
    if not torch.isfinite(values).all():
        raise ModelError("the model gave NaN or infinity; try --dtype float32, more --steps or another --solver")


def _finish(
    separator: TextSeparator,
    joined: Heard,
    query: int,
    audio: Tensor,
    sample_rate: int,
    length: int,
    report: Progress,
) -> LongSeparation:
    """The joined mask or waveform of one query -> target and residual like audio (C, T), cut to `length` samples."""
    clock = time.perf_counter()
    values = joined.values[query]
    if joined.masked:
        from flowsep.render import apply_mask

        target = apply_mask(audio, values, sample_rate, separator.mel)
    else:
        wave = resample(values[None], separator.sample_rate, sample_rate, audio.shape[-1])
        if len(audio) > 1 and joined.settings[query].get("render") == "mixture":  # in phase with the recording
            from flowsep.channels import share_channels

            target = share_channels(audio, downmix(audio), wave[0], sample_rate)
        else:
            target = wave.expand_as(audio).clone()
    refuse_non_finite_output(target)
    target = target[:, :length]
    report("join", query + 1, len(joined.values))
    seconds = {**joined.seconds, "join": time.perf_counter() - clock}
    residual = audio[:, :length] - target
    nfe, settings, choices = joined.nfe[query], joined.settings[query], joined.choices[query]
    return LongSeparation(target, residual, nfe, seconds, settings, joined.windows, choices)
