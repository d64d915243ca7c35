"""Queries by example (USS): a sound is described by the mean embedding of clips of it.

The embedder is any function of waveforms (B, T) at a stated rate that gives (B, D). USS's own is the PANNs network
Cnn14; AudioSep's conditions are CLAP's, whose audio branch shares their space. `flowsep.masks.listening` takes either
from the model's folder.
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
AT_ONCE = 8  # segments through the embedder: bounds the memory


def without_silence(clip: Tensor, sample_rate: int) -> Tensor:
    """clip (T,) without its frames of 100 ms whose peak is at most 0.02 (USS); the whole clip where that is all."""
    length = round(FRAME * sample_rate)
    frames = torch.nn.functional.pad(clip, (0, -len(clip) % length)).unflatten(0, (-1, length))
    loud = frames[frames.abs().amax(1) > QUIET].flatten()
    return loud if len(loud) else clip


def segments(clip: Tensor, length: int) -> Tensor:
    """clip (T,) -> (K, length): pieces side by side; a last one of at most half is dropped unless it is the only.

    What is short is repeated until it fills its piece, as USS and CLAP do.
    """
    pieces = list(clip.split(length))
    if len(pieces) > 1 and len(pieces[-1]) <= length / 2:
        pieces.pop()
    return torch.stack([piece.repeat(-(-length // len(piece)))[:length] for piece in pieces])


def mean_embedding(
    clips: Sequence[tuple[Tensor, int]],
    embedder: Embedder,
    sample_rate: int,
    seconds: float = 2.0,
    unit: bool = False,
) -> Tensor:
    """Condition (D,) of the sound in clips [(samples (C, T), rate in Hz)]: the mean over clips of means over segments.

    Each clip is down-mixed, brought to `sample_rate` (the embedder's), freed of silence and cut into segments of
    `seconds`, two as in USS's training. As in USS every clip counts the same, however long. `unit` scales the mean to
    length one, which is what models conditioned on CLAP know. InputError where there is no sound at all.
    """
    means = []
    for samples, rate in clips:
        clip = resample(downmix(samples)[None], rate, sample_rate)[0]
        if clip.any():
            pieces = segments(without_silence(clip, sample_rate), round(seconds * sample_rate))
            means.append(torch.cat([embedder(some) for some in pieces.split(AT_ONCE)]).mean(0))
    if not means:
        raise InputError("the example clips hold no sound; give at least one of what to look for")
    mean = torch.stack(means).mean(0)
    return torch.nn.functional.normalize(mean, dim=0) if unit else mean
