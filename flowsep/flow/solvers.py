"""The samplers: plain functions of a velocity and a time grid.

A solver knows no model, text or device. `velocity(t, x)` takes t () and x (B, ...), the argument order of torchdiffeq.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from flowsep.errors import UsageError

Velocity = Callable[[Tensor, Tensor], Tensor]
MOST_STEPS = 1000  # of an adaptive solver: beyond it the tolerance is out of reach


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


def ab2(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Two-step Adams-Bashforth, second order on any grid, one network call a step.

    The velocity is continued on the line through its last two values, whatever the lengths of their steps (Hairer,
    Norsett, Wanner, "Solving Ordinary Differential Equations I", III.5). The first step is Euler's: its error is made
    once and is of second order too, and a better start would cost a further call.
    """
    before, h_before = None, None
    for t, t_next in pairwise(times):
        h, here = t_next - t, velocity(t, x)
        slope = here if before is None else here + h / (2 * h_before) * (here - before)
        x = x + h * slope
        before, h_before = here, h
    return x


def adaptive(
    method: str, velocity: Velocity, x: Tensor, times: Tensor, rtol: float = 1e-3, atol: float = 1e-3
) -> Tensor:
    """torchdiffeq's `method` with steps of its own choice; only the ends of `times` matter.

    Each step's estimated error stays below atol + rtol |x| (root mean square over the whole of x: give one item at a
    time where an item must not depend on its batch). UsageError where no step is short enough for that.
    """
    from torchdiffeq import odeint

    ends = torch.stack([times[0], times[-1]])
    # step_t: the last step ends at the end. Left alone it goes past and interpolates, and no network knows t > 1.
    options = {"step_t": ends[1:], "max_num_steps": MOST_STEPS}
    try:
        return odeint(velocity, x, ends, rtol=rtol, atol=atol, method=method, options=options)[-1]
    except AssertionError as error:  # torchdiffeq's way to say that steps got too short, too many, or not finite
        raise UsageError(
            f"{method} found no steps that meet rtol {rtol:g} and atol {atol:g}; raise them, or choose another solver"
        ) from error


dopri5 = partial(adaptive, "dopri5")  # Dormand-Prince 5(4): 2 calls to begin, then 6 for each step that was tried
bosh3 = partial(adaptive, "bosh3")  # Bogacki-Shampine 3(2): 2 calls to begin, then 3
adaptive_heun = partial(adaptive, "adaptive_heun")  # Heun-Euler 2(1): 2 calls to begin, then 1

SOLVERS = {
    "euler": euler,
    "midpoint": midpoint,
    "heun": heun,
    "rk4": rk4,
    "ab2": ab2,
    "dopri5": dopri5,
    "bosh3": bosh3,
    "adaptive_heun": adaptive_heun,
}
