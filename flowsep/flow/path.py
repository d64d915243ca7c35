"""The straight path from start to target, its velocity, and the training loss.

t = 0 is the start (noise, or the mixture plus noise), t = 1 is the target. One letter per axis: latents are
(B, K * C, S, F) with K streams of C channels, the target first and then, if the model has it, the residual.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STREAMS = {"target": 1, "target+residual": 2}
TILE = 256  # latent frames of noise that one generator draws
SPREAD = 0x9E3779B1  # odd, so that no two tiles of a recording share a generator; far from the next seeds


@dataclass(frozen=True)
class FlowConfig:
    """What the flow is. The defaults are FlowSep's: noise to target, velocity prediction, one stream."""

    start: str = "noise"  # noise | mixture: t = 0 is noise alone, or the mixture latent plus sigma * noise
    predict: str = "velocity"  # velocity | target: what the network's output means
    streams: str = "target"  # target | target+residual
    sigma: float = 1.0  # standard deviation of the noise in the start
    sigma_min: float = 1e-4  # noise left at t = 1
    mask_exponent: float = 1.0  # p of the rendering mask target^p / (target^p + residual^p)

    def __post_init__(self) -> None:
        for name, allowed in (
            ("start", ("noise", "mixture")),
            ("predict", ("velocity", "target")),
            ("streams", STREAMS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"unknown flow.{name} {getattr(self, name)!r}; choose from {', '.join(allowed)}")
        if not self.mask_exponent > 0:
            raise ValueError(f"flow.mask_exponent must be above 0, not {self.mask_exponent}")

    @property
    def stream_count(self) -> int:
        """Number of streams that flow together."""
        return STREAMS[self.streams]


def seeded_noise(shape: tuple[int, ...] | torch.Size, seeds: list[int]) -> Tensor:
    """Standard normal noise (len(seeds), *shape), on the CPU, one generator per item."""
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def noise_along(shape: tuple[int, ...] | torch.Size, seed: int, first: int) -> Tensor:
    """Noise (C, S, F) of the latent frames from `first` on, of a recording of any length: the same in every window.

    The recording is cut into tiles of 256 frames, each with a generator of its own, so that a value depends on the
    seed and on the place alone. Windows that overlap agree about it, however long they are and whatever else shares
    the batch. The first tile is `seeded_noise` of the seed, and so FlowSep's noise of 10.24 s.
    """
    channels, frames, bands = shape
    tiles = range(first // TILE, (first + frames - 1) // TILE + 1)
    seeds = [(seed + index * SPREAD) % 2**32 if index else seed for index in tiles]  # the generator reads 32 bits
    noise = torch.cat(list(seeded_noise((channels, TILE, bands), seeds)), dim=1)
    begin = first - tiles.start * TILE
    return noise[:, begin : begin + frames]


def start_of(mixture: Tensor, noise: Tensor, config: FlowConfig) -> Tensor:
    """State at t = 0, (B, K * C, S, F): mixture is the latent (B, C, S, F), noise (B, K * C, S, F) standard normal."""
    if config.start == "noise":
        return config.sigma * noise
    return mixture.repeat(1, config.stream_count, 1, 1) + config.sigma * noise


def expand_time(t: Tensor, x: Tensor) -> Tensor:
    """t () or (B,) shaped to multiply x (B, ...)."""
    return t.to(x).reshape(-1, *[1] * (x.ndim - 1))


def state_at(t: Tensor, start: Tensor, target: Tensor, sigma_min: float) -> Tensor:
    """x_t = (1 - (1 - sigma_min) t) start + t target, t (B,)."""
    t = expand_time(t, start)
    return (1 - (1 - sigma_min) * t) * start + t * target


def velocity_target(start: Tensor, target: Tensor, sigma_min: float) -> Tensor:
    """d x_t / dt = target - (1 - sigma_min) start."""
    return target - (1 - sigma_min) * start


def as_velocity(output: Tensor, t: Tensor, x: Tensor, config: FlowConfig) -> Tensor:
    """Velocity at (t, x) from the network's output.

    A predicted target y gives (y - x) / (1 - t), the straight line to it (sigma_min is neglected). It has no value at
    t = 1; the sampler takes its last step with Euler, which never asks for it.
    """
    if config.predict == "velocity":
        return output
    return (output - x) / (1 - expand_time(t, x))


def as_target(output: Tensor, t: Tensor, x: Tensor, config: FlowConfig) -> Tensor:
    """The network's present estimate of the state at t = 1."""
    if config.predict == "target":
        return output
    return x + (1 - expand_time(t, x)) * output


def flow_matching_loss(output: Tensor, start: Tensor, target: Tensor, config: FlowConfig) -> Tensor:
    """Mean squared error per item (B,) of the network's output: FlowSep's loss where it predicts the velocity."""
    goal = target if config.predict == "target" else velocity_target(start, target, config.sigma_min)
    return (output - goal).square().flatten(1).mean(1)
