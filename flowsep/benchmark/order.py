"""The solvers on an equation whose solution is known: error against calls, and the order that shows."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from flowsep.flow import ADAPTIVE
from flowsep.flow.grids import uniform
from flowsep.flow.guidance import Counted
from flowsep.flow.solvers import SOLVERS
from flowsep.plot import write_figure

STEPS = (4, 8, 16, 32, 64, 128)
TOLERANCES = {  # about the same errors and calls as the steps give
    "adaptive_heun": (1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
    "bosh3": (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7),
    "dopri5": (1e-3, 1e-5, 1e-7, 1e-9, 1e-11),
}
THEORY = {"euler": 1, "midpoint": 2, "heun": 2, "ab2": 2, "rk4": 4, "adaptive_heun": 2, "bosh3": 3, "dopri5": 5}
STYLES = ["o-", "s--", "^-.", "D:", "v-", "x--", "+-.", "*:"]  # told apart without colour
EXACT = 3 * math.e - 5


def growth(t: Tensor, x: Tensor) -> Tensor:
    """dx/dt = x + t^2, for which x(0) = 1 gives x(1) = 3 e - 5."""
    return x + t**2


def errors_of(name: str) -> list[tuple[int, float]]:
    """(calls, |error at t = 1|) of a solver in float64, for rising numbers of steps or falling tolerances."""
    settings = TOLERANCES.get(name, STEPS)
    found = []
    for setting in settings:
        counted = Counted(growth)
        solver = partial(SOLVERS[name], rtol=setting, atol=setting) if name in ADAPTIVE else SOLVERS[name]
        times = uniform(1 if name in ADAPTIVE else int(setting)).double()
        reached = solver(counted, torch.ones(1, dtype=torch.float64), times).item()
        found.append((counted.calls, abs(reached - EXACT)))
    return found


def slope(points: list[tuple[int, float]]) -> float:
    """The p of error ~ calls^-p, least squares on logarithms."""
    calls, errors = (torch.tensor(column, dtype=torch.float64).log() for column in zip(*points, strict=True))
    calls, errors = calls - calls.mean(), errors - errors.mean()
    return -(calls @ errors / (calls @ calls)).item()


def plot_orders(path: Path, overwrite: bool = False) -> dict[str, float]:
    """Write a PNG of error against network calls for every solver, and return the slopes of those with fixed steps.

    Their calls grow with the steps, so the slope is the order; that of an adaptive solver's tolerances says little.
    InputError where `path` exists without `overwrite` or cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), dpi=100, layout="constrained")
    axes = figure.subplots()
    slopes = {}
    for (name, order), style in zip(THEORY.items(), STYLES, strict=True):
        points = errors_of(name)
        label = f"{name} (order {order}, chooses its steps)"
        if name not in ADAPTIVE:
            slopes[name] = slope(points)
            label = f"{name} (order {order}, slope {slopes[name]:.2f})"
        axes.loglog(*zip(*points, strict=True), style, label=label, markersize=5, linewidth=1.2)
    axes.set(xlabel="network calls", ylabel="error at t = 1", title="dx/dt = x + t², x(0) = 1")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    write_figure(path, figure, overwrite)
    return slopes
