"""Queries by example (USS): a sound is described by the mean embedding of clips of it.

The embedder is the caller's: any function of waveforms (B, T) at a stated rate that gives (B, D). USS's own is the
PANNs network Cnn14, whose weights cannot be bundled; AudioSep's conditions are CLAP's, whose audio branch shares their
space (`flowsep.evaluation.encoders.ClapEncoder.audio`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowsep.audio import downmix, resample
from flowsep.errors import InputError

Embedder = Callable[[Tensor], Tensor]  # (B, T) float32 at the embedder's rate -> (B, D)

FRAME = 0.1  # seconds
QUIET = 0.02  # peak, of full scale: a frame that does not pass it is dropped


def without_silence(clip: Tensor, sample_rate: int) -> Tensor:
    """clip (T,) without its frames of 100 ms whose peak is at most 0.02 (USS); the whole clip where that is all."""
    length = round(FRAME * sample_rate)
    frames = torch.nn.functional.pad(clip, (0, -len(clip) % length)).unflatten(0, (-1, length))
    loud = frames[frames.abs().amax(1) > QUIET].flatten()
    return loud if len(loud) else clip


def segments(clip: Tensor, length: int) -> Tensor:
    """clip (T,) -> (K, length): pieces side by side; a last one shorter than half is dropped unless it is the only."""
    count = max(1, round(len(clip) / length))
    return torch.nn.functional.pad(clip, (0, max(0, count * length - len(clip))))[: count * length].unflatten(
        0, (count, length)
    )


def mean_embedding(
    clips: Sequence[tuple[Tensor, int]],
    embedder: Embedder,
    sample_rate: int,
    seconds: float = 2.0,
    unit: bool = False,
) -> Tensor:
    """Condition (D,) of the sound in clips [(samples (C, T), rate in Hz)]: the mean over segments of all of them.

    Each clip is down-mixed, brought to `sample_rate` (the embedder's), freed of silence and cut into segments of
    `seconds`, two as in USS's training. Every segment counts the same. `unit` scales the mean to length one, which is
    what models conditioned on CLAP know. InputError where there is no sound at all.
    """
    pieces = []
    for samples, rate in clips:
        clip = resample(downmix(samples)[None], rate, sample_rate)[0]
        if clip.any():
            pieces.append(segments(without_silence(clip, sample_rate), round(seconds * sample_rate)))
    if not pieces:
        raise InputError("the example clips hold no sound; give at least one of what to look for")
    mean = embedder(torch.cat(pieces)).mean(0)
    return torch.nn.functional.normalize(mean, dim=0) if unit else mean
