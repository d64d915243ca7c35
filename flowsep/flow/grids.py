"""Time grids: where the solver's steps begin and end."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(steps: int) -> Tensor:
    """(steps + 1,) times from 0 to 1 at equal distances, float32; steps >= 1."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    return torch.linspace(0.0, 1.0, steps + 1)
