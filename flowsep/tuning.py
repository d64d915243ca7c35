"""Which times a model's few steps should stand at: measured on mixtures, against the model's own fine solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from flowsep.checkpoint import SHIPPED, find_model, read_json, write_json
from flowsep.errors import UsageError
from flowsep.evaluation.recipe import MixtureRow, render_row
from flowsep.flow import ADAPTIVE
from flowsep.flow.guidance import Trajectory
from flowsep.flow.path import seeded_noise
from flowsep.flow.search import drop_steps, recorded
from flowsep.heard import normalise
from flowsep.protocol import SampleOptions
from flowsep.separator import FlowSep
from vocoder.mel import stft

DIGITS = 6  # of the times in a stored grid


@dataclass(frozen=True)
class Tuned:
    """A searched grid, and what it and the uniform one of as many steps miss the fine solution by."""

    steps: int
    times: tuple[float, ...]
    error: float  # mean absolute difference of the generated log-mels, natural log
    uniform: float  # the same for equal steps

    @property
    def grid(self) -> str:
        """As `--grid` takes it."""
        return ",".join(f"{time:.{DIGITS}g}" for time in self.times)


class Problem:
    """A batch of mixtures and queries, ready to be sampled on any grid."""

    def __init__(self, separator: FlowSep, mixture: Tensor, texts: Sequence[str], options: SampleOptions) -> None:
        if not isinstance(separator, FlowSep):
            raise UsageError(f"a {type(separator).__name__} has steps of its own; grids are searched for flows")
        self.separator = separator
        self.options = separator.resolve(replace(options, steps=None, grid="uniform"))
        if mixture.shape[-1] > separator.window:
            raise UsageError(f"the model sees {separator.window} samples at once; choose shorter mixtures")
        mixture = normalise(mixture.to(separator.device, torch.float32))[0]
        mel = separator.log_mel(stft(separator.pad(mixture), separator.mel))
        self.source = separator.codec.encode(mel.to(separator.dtype)).float()
        self.text, self.without = separator.conditions(texts, self.options)
        shape = (self.source.shape[1] * separator.flow.stream_count, *self.source.shape[2:])
        self.noise = seeded_noise(shape, [options.seed] * len(texts)).to(self.source)

    def on(self, times: Sequence[float]) -> SampleOptions:
        """The options with these times as their grid."""
        return replace(self.options, grid=",".join(map(repr, times)), steps=len(times) - 1)

    def sample(self, options: SampleOptions, watch: Trajectory | None = None) -> Tensor:
        """Latent (B, K * C, S, F) at t = 1, by the network."""
        return self.separator.generate(self.source, self.text, self.without, self.noise, options, watch)[0]

    def mels(self, latent: Tensor) -> Tensor:
        """The generated log-mels (K * B, N, M) of a latent."""
        streams = latent.to(self.separator.dtype).chunk(self.separator.flow.stream_count, dim=1)
        return torch.cat([self.separator.codec.decode(stream).float() for stream in streams])


@torch.inference_mode()
def tune_steps(
    separator: FlowSep,
    mixture: Tensor,
    texts: Sequence[str],
    targets: Sequence[int],
    options: SampleOptions | None = None,
    fine: int = 64,
    shortlist: int = 3,
    note: Callable[[str], None] = lambda line: None,
) -> list[Tuned]:
    """A grid for each number of steps in `targets`, searched on mixture (B, T) with one text each.

    The fine solution is Euler's with `fine` equal steps; its times are the candidates. Dropping one is first judged
    without the network: the solver runs on the velocities that the fine solution met, and the root mean square error
    of its latent at t = 1 counts. That leaves out that the network would see other states; so, at 16 steps and fewer,
    the `shortlist` best are sampled anew (0: never), and the mean absolute log-mel difference to the fine solution
    decides. The errors reported are always of real samples. Raises UsageError for an adaptive solver, and for targets
    that are not from 1 to fine - 1.
    """
    options = options or SampleOptions()
    if not targets or min(targets) < 1 or max(targets) >= fine:
        raise UsageError(f"the steps to search must be from 1 to {fine - 1}, below --fine; not {sorted(targets)}")
    problem = Problem(separator, mixture, texts, options)
    if problem.options.solver in ADAPTIVE:
        raise UsageError(f"{problem.options.solver} chooses its own steps; search a grid for another solver")
    note(f"fine solution, {fine} steps")
    trajectory = Trajectory()
    goal = problem.sample(replace(problem.options, solver="euler", steps=fine), trajectory)
    goal_mels = problem.mels(goal)
    times = [index / fine for index in range(fine + 1)]
    velocity = recorded(times[:-1], [v.to(goal) for v in trajectory.velocities])
    start = trajectory.states[0].to(goal)

    def estimate(grid: tuple[float, ...]) -> float:
        return (separator.solve(velocity, start, problem.on(grid)) - goal).square().mean().sqrt().item()

    @cache
    def trial(grid: tuple[float, ...]) -> float:
        return (problem.mels(problem.sample(problem.on(grid))) - goal_mels).abs().mean().item()

    note("search")
    grids = drop_steps(times, targets, estimate, trial if shortlist else None, shortlist)
    note("comparison with uniform grids")
    equal = {steps: tuple(index / steps for index in range(steps + 1)) for steps in grids}
    return [Tuned(steps, grids[steps], trial(grids[steps]), trial(equal[steps])) for steps in sorted(grids)]


def mixtures_of(rows: Sequence[MixtureRow], data: Path) -> tuple[Tensor, list[str]]:
    """The mixtures of a recipe's rows (B, T), shorter ones followed by silence, and their queries."""
    waves = [torch.from_numpy(render_row(row, data)[0]) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), [row.query for row in rows]


def own_folder(model: str) -> Path:
    """The folder of a model that may be changed: one of the user's. UsageError for a shipped or a hub model."""
    folder = find_model(model)
    if not Path(model).is_dir() or SHIPPED.resolve() in folder.resolve().parents:
        raise UsageError(f"{model} is not a folder of yours, and is left as it is; copy the model and give the copy")
    return folder


def store_grid(folder: Path, tuned: Tuned, solver: str) -> None:
    """Make the grid, its number of steps and the solver the defaults of the model in `folder`."""
    path = folder / "scheduler" / "scheduler_config.json"
    settings = read_json(path)
    settings["sampling"] |= {"steps": tuned.steps, "solver": solver, "grid": tuned.grid}
    write_json(path, settings)
