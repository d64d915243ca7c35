"""Time grids: where the solver's steps begin and end. t = 0 is the start (noise), t = 1 the target.

Reading a grid's name needs no torch, so that the command line refuses a bad one at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from flowsep.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

GRID_HELP = "uniform, shift:S, sway:S, or times from 0 to 1 such as 0,0.1,0.5,1"
STEEPEST_SWAY = 2 / (math.pi - 2)  # 1.75; beyond it, and below -1, the times would turn back
SMALLEST_STEP = 1e-6  # of an explicit list; ten times the distance of float32 numbers below 1


@dataclass(frozen=True)
class Grid:
    """A time grid as `parse_grid` read it: a family with its strength, or the times themselves."""

    family: str  # uniform | shift | sway | list
    strength: float = 0.0  # S of shift and sway
    points: tuple[float, ...] = ()  # of a list

    @property
    def steps(self) -> int | None:
        """The number of steps that a list fixes; None for a family, which has any number."""
        return len(self.points) - 1 if self.points else None

    def times(self, steps: int) -> Tensor:
        """(steps + 1,) times from 0 to 1, rising, float32. UsageError where float32 cannot tell two of them apart."""
        import torch

        if self.points:
            return torch.tensor(self.points, dtype=torch.float32)
        if self.family == "uniform":
            return uniform(steps)
        times = {"shift": shifted, "sway": swayed}[self.family](steps, self.strength)
        if not (times.diff() > 0).all():
            raise UsageError(
                f"{steps} steps on the grid {self.family}:{self.strength:g} fall together; "
                f"choose fewer steps or a weaker {self.family}"
            )
        return times


def uniform(steps: int) -> Tensor:
    """(steps + 1,) times from 0 to 1 at equal distances, float32; steps >= 1."""
    import torch

    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    return torch.linspace(0.0, 1.0, steps + 1)


def shifted(steps: int, strength: float) -> Tensor:
    """Times whose noise level n = 1 - t is moved to n' = s n / (1 + (s - 1) n), s = strength > 0; (steps + 1,) float32.

    The resolution-dependent shift of Stable Diffusion 3 (Esser et al., 2024; there s = 3), which writes it for the
    noise level. s > 1 makes the steps near t = 0, the noise, finer; s < 1 those near the target. In t itself it is
    t' = t / (s - (s - 1) t), the same family with 1 / s for s.
    """
    noise = 1 - uniform(steps).double()
    return (1 - strength * noise / (1 + (strength - 1) * noise)).clamp(0, 1).float()  # rounding leaves -2e-16 at 0


def swayed(steps: int, strength: float) -> Tensor:
    """Times t' = t + s (cos(pi t / 2) - 1 + t), s = strength in -1 .. 2 / (pi - 2); (steps + 1,) float32.

    Sway sampling of F5-TTS (Chen et al., 2024; there s = -1), whose time runs as ours. s < 0 makes the steps near
    t = 0, the noise, finer; s > 0 those near the target.
    """
    import torch

    t = uniform(steps).double()
    return (t + strength * (torch.cos(math.pi / 2 * t) - 1 + t)).clamp(0, 1).float()


def parse_grid(text: str) -> Grid:
    """The grid that `text` names (see GRID_HELP). UsageError that says what is wrong with it and what is possible."""
    family, colon, value = text.strip().partition(":")
    if family == "uniform" and not colon:
        return Grid("uniform")
    if family in ("shift", "sway"):
        return _family(family, value, text)
    points = [_number(part) for part in text.split(",")]
    if any(point is None for point in points):
        raise UsageError(f"cannot read the grid {text!r}; write {GRID_HELP}")
    if len(points) < 2 or points[0] != 0 or points[-1] != 1:
        raise UsageError(f"the grid {text!r} must start at 0 and end at 1, as 0,0.1,0.5,1 does")
    for earlier, later in pairwise(points):
        if later - earlier < SMALLEST_STEP:
            raise UsageError(f"the grid {text!r} must rise, by 1e-6 at least, but {later:g} follows {earlier:g}")
    return Grid("list", points=tuple(points))


def _family(family: str, value: str, text: str) -> Grid:
    """shift or sway of the strength written in `value`."""
    low, high, example = (0.0, math.inf, 3) if family == "shift" else (-1.0, STEEPEST_SWAY, -1)
    strength = _number(value)
    if strength is None:
        raise UsageError(f"the grid {text!r} needs a number; write {family}:{example} for example")
    if family == "shift" and strength <= 0:
        raise UsageError(f"the strength of {text!r} must be above 0; shift:1 is uniform, shift:3 finer near the noise")
    if not low <= strength <= high:
        raise UsageError(f"the strength of {text!r} must be from {low:g} to {high:.2f}, where the times rise")
    return Grid(family, strength)


def _number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
