"""Searched time grids: from a fine one, drop the time that is missed least, again and again.

Knows no model: what a grid costs is a function that the caller gives.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence

from torch import Tensor

from flowsep.flow.solvers import Velocity

Cost = Callable[[tuple[float, ...]], float]  # of a grid (its times from 0 to 1); lower is better
TRIED_BELOW = 16  # steps; finer grids are not worth a second opinion


def recorded(times: Sequence[float], velocities: Sequence[Tensor]) -> Velocity:
    """A velocity that depends on time only: those seen at `times` (rising), on straight lines between them.

    Before the first and after the last time it holds the nearest one.
    """

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        after = bisect_right(times, float(t))
        if after == 0 or after == len(times):
            return velocities[min(after, len(times) - 1)]
        before = after - 1
        share = (float(t) - times[before]) / (times[after] - times[before])
        return velocities[before].lerp(velocities[after], share) if share > 0 else velocities[before]

    return velocity


def drop_steps(
    times: Sequence[float], targets: Collection[int], estimate: Cost, trial: Cost | None = None, shortlist: int = 3
) -> dict[int, tuple[float, ...]]:
    """The grid of each number of steps in `targets`, by greedy removal from `times` (0 .. 1, rising).

    Each round removes the inner time without which the `estimate` is lowest. With a `trial`, a dearer cost, it chooses
    among the `shortlist` best by estimate, once no more than TRIED_BELOW steps are left. Greedy: a time that has gone
    never comes back, so the result need not be the best of all grids. `targets` are from 1 to len(times) - 1.
    """
    grid = tuple(times)
    found = {}
    while True:
        steps = len(grid) - 1
        if steps in targets:
            found[steps] = grid
        if steps <= min(targets):
            return found
        shorter = sorted((grid[:place] + grid[place + 1 :] for place in range(1, steps)), key=estimate)
        if trial is not None and steps <= TRIED_BELOW:
            shorter = sorted(shorter[:shortlist], key=trial)
        grid = shorter[0]
