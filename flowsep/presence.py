"""How likely it is that a described sound is in a recording at all, judged by what the model takes out for it.

A model that separates by masking gives little of the mixture for a sound that is not there. How little, overall and in
the half second that it gives most of, is turned into a probability by a logistic function, fitted to mixtures whose
contents are known (`flowsep calibrate`) and stored with the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SEGMENT = 50  # frames of 10 ms
QUIET = 1e-3  # segments this far below the loudest one, in energy (30 dB), say nothing
FLOOR = 1e-6  # -60 dB: less is not told apart


@dataclass(frozen=True)
class PresenceConfig:
    """p = 1 / (1 + exp(-(bias + overall * a + peak * b))), a and b the features in dB (`presence_features`)."""

    overall: float
    peak: float
    bias: float


def presence_features(mask: Tensor, mixture_mel: Tensor) -> Tensor:
    """mask (B, N, M) in 0..1 and the mixture's log-mel (B, N, M) -> (B, 2), both in dB from -60 to 0.

    The share of the mixture's mel energy that the mask lets through: of everything, and of the half second where it is
    largest, among those within 30 dB of the loudest one.
    """
    energy = (2 * mixture_mel.double()).exp()
    let_through = (mask.double().square() * energy).sum(-1)  # (B, N)
    total = energy.sum(-1)
    overall = let_through.sum(-1) / total.sum(-1).clamp(min=1e-30)
    size = min(SEGMENT, mask.shape[1])
    parts, wholes = (x.unfold(-1, size, max(1, size // 2)).sum(-1) for x in (let_through, total))  # (B, segments)
    heard = wholes >= QUIET * wholes.amax(-1, keepdim=True)
    peak = torch.where(heard, parts / wholes.clamp(min=1e-30), 0.0).amax(-1)
    return 10 * torch.stack([overall, peak], dim=-1).clamp(min=FLOOR).log10().float()


def presence(mask: Tensor, mixture_mel: Tensor, config: PresenceConfig) -> Tensor:
    """Probability (B,) that each query's sound is there."""
    return probability(presence_features(mask, mixture_mel), config)


def probability(features: Tensor, config: PresenceConfig) -> Tensor:
    """Probability (B,) of features (B, 2)."""
    weights = torch.tensor([config.overall, config.peak]).to(features)
    return torch.sigmoid(features @ weights + config.bias)


def fit_presence(features: Tensor, there: Tensor, ridge: float = 1e-3) -> PresenceConfig:
    """The logistic function of features (N, 2) of least cross-entropy to `there` (N,) bool, by Newton's method."""
    inputs = torch.cat([features.double() / 10, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    wanted, weights = there.double(), torch.zeros(3, dtype=torch.float64)
    penalty = ridge * len(features) * torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    for _ in range(50):
        found = torch.sigmoid(inputs @ weights)
        slope = inputs.T @ (found - wanted) + penalty @ weights
        curvature = inputs.T @ (inputs * (found * (1 - found))[:, None]) + penalty
        weights = weights - torch.linalg.solve(curvature + 1e-9 * torch.eye(3, dtype=torch.float64), slope)
    overall, peak, bias = weights.tolist()
    return PresenceConfig(round(overall / 10, 5), round(peak / 10, 5), round(bias, 5))


def area_under_curve(scores: Sequence[float], there: Sequence[bool]) -> float:
    """Probability that a sound that is there scores above one that is not, ties counted half (Mann-Whitney)."""
    present = torch.tensor([score for score, here in zip(scores, there, strict=True) if here], dtype=torch.float64)
    absent = torch.tensor([score for score, here in zip(scores, there, strict=True) if not here], dtype=torch.float64)
    above = (present[:, None] > absent).double() + 0.5 * (present[:, None] == absent).double()
    return float(above.mean())
