"""DiffusionSep: FlowSep's chain with denoising diffusion in the place of the flow, the baseline of its paper."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from flowsep.diffusion import SOLVER_NAMES
from flowsep.diffusion.process import DiffusionConfig, as_target, noise_levels, timestep_of
from flowsep.diffusion.samplers import sample
from flowsep.errors import UsageError
from flowsep.flow.solvers import Velocity
from flowsep.protocol import SampleOptions
from flowsep.separator import LatentSeparator
from flowsep.text import TextState

LATER_NOISE = 2**32  # added to an item's seed for the noise of a stochastic solver's steps: the seed itself gave x_N


class DiffusionSep(LatentSeparator):
    """A denoising diffusion from noise to the described sound, in a mel latent. A `TextSeparator`."""

    solvers = SOLVER_NAMES
    process: DiffusionConfig

    def resolve(self, options: SampleOptions | None) -> SampleOptions:
        """Options with the model's defaults filled in; UsageError for what does not exist or fit together.

        The steps are evenly spaced in time and at most as many as the model has timesteps.
        """
        options = super().resolve(options)
        steps = options.steps or self.sampling.steps
        if steps > self.process.timesteps:
            raise UsageError(f"steps must be at most {self.process.timesteps} for the model {self.name!r}, not {steps}")
        if options.grid not in (None, "uniform"):
            raise UsageError(f"the steps of a diffusion model are evenly spaced; leave --grid {options.grid} out")
        return replace(options, steps=steps, grid="uniform")

    def velocity(self, source: Tensor, text: TextState) -> Velocity:
        """The straight line from (t, x) to the network's estimate of the target.

        Guidance on it is guidance on the noise: at one (t, x) the one is an affine function of the other.
        """
        network, levels = self.network(source, text), noise_levels(self.process)

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            n = timestep_of(t.cpu(), self.process)
            a, s = (level[n] for level in levels)
            return (as_target(network(n.to(x.device), x), x, a, s, self.process.prediction) - x) / (1 - t)

        return velocity

    def start(self, source: Tensor, noise: Tensor) -> Tensor:
        """State at t = 0: noise."""
        return noise

    def solve(self, velocity: Velocity, start: Tensor, options: SampleOptions) -> Tensor:
        """Latent at t = 1. The candidates of an item lie in a row, each with its own seed."""
        seeds = [options.seed + row % options.candidates for row in range(len(start))]
        generators = [torch.Generator().manual_seed(LATER_NOISE + seed) for seed in seeds]
        return sample(velocity, start, options.steps, options.solver, self.process, generators)
