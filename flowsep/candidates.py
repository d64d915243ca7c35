"""Which of several candidates to keep: scores of what the network generated, against the mixture it was given.

A score takes linear mel magnitudes and gives one number per item; higher is better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowsep.protocol import Choice

Score = Callable[[Tensor, "Tensor | None", Tensor], Tensor]
WORST = -200.0  # dB; also stands for a candidate that is not finite


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


SCORES: dict[str, Score] = {"consistency": consistency}


def choose(score: str, mels: Sequence[Tensor], mixture: Tensor, seeds: Sequence[int]) -> tuple[Tensor, list[Choice]]:
    """The best of K = len(seeds) candidates for each of B items.

    mels are log-mels (B * K, N, M) of the target and, where the model has it, the residual, the candidates of an item
    in a row; mixture (B, N, M) the log-mel of the mixtures. Returns the rows that are kept, (B,), and what was seen.
    """
    count = len(seeds)
    target, residual = mels[0].exp(), mels[1].exp() if len(mels) > 1 else None
    scores = SCORES[score](target, residual, mixture.exp().repeat_interleave(count, 0))
    scores = scores.nan_to_num(WORST, -WORST, WORST).clamp(WORST, -WORST).reshape(-1, count)
    best = scores.argmax(1)
    choices = [
        Choice(seeds[kept], tuple(seeds), tuple(round(value, 4) for value in row), score)
        for kept, row in zip(best.tolist(), scores.tolist(), strict=True)
    ]
    return torch.arange(len(best), device=best.device) * count + best, choices
