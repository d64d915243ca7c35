"""Wrappers of a velocity: each takes one and gives one back, and the solver never learns of them."""

from __future__ import annotations

import torch
from torch import Tensor

from flowsep.flow.solvers import Velocity


def guided(with_text: Velocity, without_text: Velocity, scale: float) -> Velocity:
    """Classifier-free guidance on the velocity: without + scale * (with - without) (flowsep-reference section 4).

    Scale 1 is the plain conditional model, at one call instead of two.
    """
    if scale == 1:
        return with_text
    return lambda t, x: torch.lerp(without_text(t, x), with_text(t, x), scale)


class Counted:
    """A velocity that counts its calls."""

    def __init__(self, velocity: Velocity) -> None:
        self.velocity = velocity
        self.calls = 0

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return self.velocity(t, x)
