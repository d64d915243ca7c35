"""The samplers: plain functions of a velocity and a time grid.

A solver knows no model, text or device. `velocity(t, x)` takes t () and x (B, ...), the argument order of torchdiffeq.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]


def euler(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Follow dx/dt = velocity(t, x) from times[0] to times[-1].

    x (B, ...) is the state at times[0]; times (K + 1,) makes K steps, one network call each. FlowSep's sampler.
    """
    for t, t_next in pairwise(times):
        x = x + (t_next - t) * velocity(t, x)
    return x


def midpoint(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Explicit midpoint rule, second order, two network calls a step."""
    for t, t_next in pairwise(times):
        h = t_next - t
        x = x + h * velocity(t + h / 2, x + h / 2 * velocity(t, x))
    return x


def heun(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Heun's trapezoidal rule, second order, two network calls a step."""
    for t, t_next in pairwise(times):
        h = t_next - t
        here = velocity(t, x)
        x = x + h / 2 * (here + velocity(t_next, x + h * here))
    return x


def rk4(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """The classical fourth-order Runge-Kutta method, four network calls a step."""
    for t, t_next in pairwise(times):
        h = t_next - t
        k1 = velocity(t, x)
        k2 = velocity(t + h / 2, x + h / 2 * k1)
        k3 = velocity(t + h / 2, x + h / 2 * k2)
        k4 = velocity(t_next, x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def dopri5(velocity: Velocity, x: Tensor, times: Tensor, rtol: float = 1e-3, atol: float = 1e-3) -> Tensor:
    """Dormand-Prince 5(4) with adaptive steps (torchdiffeq); only the ends of `times` matter.

    The error is controlled over the whole of x: give one item at a time where an item must not depend on its batch.
    """
    from torchdiffeq import odeint

    return odeint(velocity, x, torch.stack([times[0], times[-1]]), rtol=rtol, atol=atol, method="dopri5")[-1]


SOLVERS = {"euler": euler, "midpoint": midpoint, "heun": heun, "rk4": rk4, "dopri5": dopri5}
ADAPTIVE = ("dopri5",)
