"""From noise to the target along diffusers' schedulers. One network call a step, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flowsep.diffusion.process import DiffusionConfig, as_noise, beta_settings, noise_levels, time_of, timestep_of
from flowsep.flow.solvers import Velocity

# Solver name -> diffusers' class and what it is told beyond the schedule.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    # DDIM (Song et al., 2021) is the first order of DPM-Solver++. diffusers' own DDIMScheduler rounds the length of a
    # step down and ends beside the target where the steps do not divide the timesteps; where they do, both are equal.
    "ddim": ("DPMSolverMultistepScheduler", {"solver_order": 1}),
    "dpmpp2m": ("DPMSolverMultistepScheduler", {"solver_order": 2}),  # Lu et al., 2022
    "unipc": ("UniPCMultistepScheduler", {}),  # Zhao et al., 2023
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),  # new noise after each step but the last
}
STOCHASTIC = ("euler_ancestral",)


def make_scheduler(solver: str, config: DiffusionConfig) -> Any:
    """diffusers' scheduler of that name on this schedule, for a network that gives the noise."""
    import diffusers

    name, extra = SCHEDULERS[solver]
    settings = {**beta_settings(config), "prediction_type": "epsilon", "timestep_spacing": "trailing", **extra}
    return getattr(diffusers, name)(**settings)


def set_steps(scheduler: Any, steps: int) -> None:
    """Make `scheduler` ready for `steps` steps, evenly spaced in t from the noise on."""
    scheduler.set_timesteps(steps)
    if len(scheduler.timesteps) > steps:  # for 61, 103 and 60 other counts diffusers rounds to one more, timestep -1
        scheduler.timesteps, scheduler.num_inference_steps = scheduler.timesteps[:steps], steps
        scheduler.sigmas = torch.cat([scheduler.sigmas[:steps], scheduler.sigmas[-1:]])


def sample(
    velocity: Velocity,
    noise: Tensor,
    steps: int,
    solver: str,
    config: DiffusionConfig,
    generators: Sequence[torch.Generator] = (),
) -> Tensor:
    """The target (B, ...) that `steps` steps reach from standard normal noise (B, ...).

    `velocity(t, x)` is the straight line to the present estimate, (x0 - x) / (1 - t), at t () on the CPU: the
    wrappers of `flowsep.flow.guidance` then mean here what they mean for a flow. A stochastic solver draws from
    `generators`, one per item, on the CPU.
    """
    scheduler = make_scheduler(solver, config)
    set_steps(scheduler, steps)
    a, s = noise_levels(config)
    drawn = {"generator": list(generators)} if solver in STOCHASTIC else {}
    x = noise * scheduler.init_noise_sigma
    for number in scheduler.timesteps:
        state = scheduler.scale_model_input(x, number)  # x of the process; some schedulers keep x / a
        t = time_of(number, config)
        n = timestep_of(t, config)
        target = state + (1 - t) * velocity(t, state)
        x = scheduler.step(as_noise(target, state, a[n], s[n]), number, x, return_dict=False, **drawn)[0]
    return x
