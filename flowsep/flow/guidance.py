"""Wrappers of a velocity: each takes one and gives one back, and the solver never learns of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowsep.flow.solvers import Velocity

Watch = Callable[[Tensor, Tensor, Tensor], "bool | None"]
"""watch(t, x, v): t () the time, x (B, ...) the state, v (B, ...) the velocity there. True ends the sampling."""

EDGE = 1e-6  # float32 grid points may miss an interval's end by their rounding


def guided(with_text: Velocity, without_text: Velocity, scale: float) -> Velocity:
    """Classifier-free guidance on the velocity: without + scale * (with - without).

    Scale 1 is the plain conditional model, at one call instead of two. `without_text` sees the empty caption, or a
    negative query: then the flow is driven away from what that describes (as in CLAPSep, Ma et al., 2024).
    """
    if scale == 1:
        return with_text
    return lambda t, x: torch.lerp(without_text(t, x), with_text(t, x), scale)


def paired(both: Velocity, scale: float) -> Velocity:
    """`guided` at one call instead of two: `both` takes each item with its text, then each without, (2 B, ...).

    The work is the same, but weights are read once for the two, and small products become larger ones.
    """

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        with_text, without_text = both(t, torch.cat([x, x])).chunk(2)
        return torch.lerp(without_text, with_text, scale)

    return velocity


def limited(inside: Velocity, outside: Velocity, interval: tuple[float, float] | None) -> Velocity:
    """`inside` where low <= t <= high, `outside` elsewhere; None is everywhere inside.

    With guidance inside and the plain model outside, guidance costs its second call only there (Kynkäänniemi et al.,
    "Applying Guidance in a Limited Interval", 2024). Reads t on the host, which waits for a GPU at each call.
    """
    if interval is None:
        return inside
    low, high = interval
    return lambda t, x: inside(t, x) if low - EDGE <= float(t) <= high + EDGE else outside(t, x)


class Counted:
    """A velocity that counts its calls: `each` for one that treats every item so many times."""

    def __init__(self, velocity: Velocity, each: int = 1) -> None:
        self.velocity, self.each = velocity, each
        self.calls = 0

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += self.each
        return self.velocity(t, x)


class Stopped(Exception):
    """Ends the sampling from inside a velocity. `estimate` (B, ...) is the state at t = 1 that was in sight."""

    def __init__(self, estimate: Tensor) -> None:
        super().__init__("the watch ended the sampling")
        self.estimate = estimate


def watched(velocity: Velocity, watch: Watch | None) -> Velocity:
    """Show each evaluation to `watch`; where that returns True, raise Stopped with x + (1 - t) v.

    That is one Euler step to the end from the present state, without a further call: what a target-predicting network
    gave as its target. `watch` must not change what it is shown; what it raises ends the sampling as an error.
    """
    if watch is None:
        return velocity

    def shown(t: Tensor, x: Tensor) -> Tensor:
        v = velocity(t, x)
        if watch(t, x, v):
            raise Stopped(x + (1 - t) * v)
        return v

    return shown


@dataclass
class Trajectory:
    """A watch that keeps every evaluation, in float32 on the CPU: where the solver asked, and what it was told.

    The states of one-call solvers (euler, ab2) are the trajectory itself, without its end; the others add the points
    inside their steps.
    """

    times: list[float] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)  # each (B, ...)
    velocities: list[Tensor] = field(default_factory=list)  # each (B, ...)

    def __call__(self, t: Tensor, x: Tensor, v: Tensor) -> None:
        self.times.append(float(t))
        self.states.append(x.detach().float().cpu().clone())
        self.velocities.append(v.detach().float().cpu().clone())

    def estimates(self) -> list[Tensor]:
        """The target in sight from each state, x + (1 - t) v, each (B, ...)."""
        return [x + (1 - t) * v for t, x, v in zip(self.times, self.states, self.velocities, strict=True)]
