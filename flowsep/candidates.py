"""Which of several candidates to keep: scores of what was generated, against the mixture and the query.

A score takes `Candidates` and gives one number per candidate; higher is better. `flowsep.protocol` lists their names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flowsep.errors import ModelError
from flowsep.presence import PresenceConfig
from flowsep.presence import presence as presence_of
from flowsep.protocol import Choice, SampleOptions

if TYPE_CHECKING:
    from flowsep.evaluation.encoders import TextAudioEncoder
    from flowsep.separator import LatentSeparator

WORST = -200.0  # dB; also stands for a candidate that is not finite


@dataclass(frozen=True)
class Candidates:
    """K candidates of each of B items, those of an item in a row. Frames are those of the recording, no padding."""

    mels: Sequence[Tensor]  # log-mels (B * K, N, M) of the target and, where the model has it, the residual
    mixture_mel: Tensor  # log-mel (B * K, N, M)
    texts: Sequence[str]  # B * K
    mask: Callable[[], Tensor]  # the band mask (B * K, N, M) that rendering uses
    audio: Callable[[], tuple[Tensor, int]]  # the rendered targets (B * K, T) and their sample rate in Hz


@dataclass(frozen=True)
class Scorer:
    """A score and what it is called."""

    name: str
    score: Callable[[Candidates], Tensor]  # (B * K,)
    encoder: str | None = None  # whose score it is, where it is one's


def consistency(target: Tensor, residual: Tensor | None, mixture: Tensor) -> Tensor:
    """How well the generated parts add up to the mixture, in dB (B,), from mel magnitudes (B, N, M).

    10 log10( sum X^2 / sum (X - sqrt(T^2 + R^2))^2 ), sums over frames and bands: unrelated sounds add in power.
    X is the mixture, T the target, R the residual stream. A model without one is given the residual that fits best,
    R^2 = max(0, X^2 - T^2), so that only what T has in excess of the mixture counts against it; that favours quiet
    candidates. The score finds invented and lost energy. It does not know which sound was asked for.
    """
    if residual is None:
        total = torch.maximum(target, mixture)
    else:
        total = torch.hypot(target, residual)
    error = (mixture - total).square().sum((-2, -1))
    power = mixture.square().sum((-2, -1))
    return 10 * torch.log10(power.clamp(min=1e-20) / error.clamp(min=1e-20))


def by_consistency(candidates: Candidates) -> Tensor:
    """`consistency` of candidates."""
    target, *residual = (mel.exp() for mel in candidates.mels)
    return consistency(target, residual[0] if residual else None, candidates.mixture_mel.exp())


def by_presence(candidates: Candidates, config: PresenceConfig) -> Tensor:
    """Probability that the sound is there, of each candidate's mask: which of them takes the most out for the query."""
    return presence_of(candidates.mask(), candidates.mixture_mel, config)


def by_similarity(candidates: Candidates, encoder: TextAudioEncoder) -> Tensor:
    """Cosine between the query and the sound of each candidate, as it would be written, in the encoder's space."""
    from flowsep.audio import resample

    audio, sample_rate = candidates.audio()
    heard = encoder.audio(resample(audio.cpu(), sample_rate, encoder.sample_rate))
    return nn.functional.cosine_similarity(encoder.text(candidates.texts), heard)


def scorer(options: SampleOptions, separator: LatentSeparator) -> Scorer | None:
    """What the best candidate is chosen by; None where there is only one.

    An encoder is loaded once and kept in `separator.encoders`. ModelError, with what to do, for a presence score that
    the separator has not and for an encoder that cannot be had.
    """
    name, encoders = options.candidate_score, separator.encoders
    if options.candidates == 1:
        return None
    if name == "consistency":
        return Scorer(name, by_consistency)
    if name == "presence":
        if separator.presence is None:
            raise ModelError(
                f"the model {separator.name!r} has no presence score to choose by; fit one (flowsep calibrate) or take "
                "--candidate-score consistency"
            )
        return Scorer(name, partial(by_presence, config=separator.presence))
    if name not in encoders:
        from flowsep.evaluation.encoders import load_encoder

        encoders[name] = load_encoder(name, str(separator.device))
    encoder = encoders[name]
    return Scorer(encoder.score_name, partial(by_similarity, encoder=encoder), encoder.name)


def choose(chosen_by: Scorer, candidates: Candidates, seeds: Sequence[int]) -> tuple[Tensor, list[Choice]]:
    """The best of K = len(seeds) candidates for each of B items: the rows that are kept, (B,), and what was seen."""
    count = len(seeds)
    scores = chosen_by.score(candidates).to(candidates.mixture_mel.device)
    scores = scores.nan_to_num(WORST, -WORST, WORST).clamp(WORST, -WORST).reshape(-1, count)
    best = scores.argmax(1)
    choices = [
        Choice(seeds[kept], tuple(seeds), tuple(round(value, 4) for value in row), chosen_by.name, chosen_by.encoder)
        for kept, row in zip(best.tolist(), scores.tolist(), strict=True)
    ]
    return torch.arange(len(best), device=best.device) * count + best, choices
