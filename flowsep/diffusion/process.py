"""The noising process, and what the network's output means in it.

A timestep n, 0..N-1, counts the noise: x_n = a_n x0 + s_n e with e standard normal, a_n^2 + s_n^2 = 1 and
a_n^2 = (1 - beta_0) ... (1 - beta_n) (Ho et al., 2020). The UNet is given n itself, unscaled, as AudioLDM's is.

All else of the project runs in the time t = 1 - (n + 1) / N: t = 0 is the noise and t = 1 the target. N steps of equal
length in t are then every timestep once, and K steps the "trailing" timesteps of Lin et al. (2023, "Common Diffusion
Noise Schedules and Sample Steps are Flawed"), which begin at the noise however few they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from flowsep.diffusion import PREDICTIONS
from flowsep.flow.path import STREAMS, expand_time

SCHEDULES = ("scaled_linear", "linear")


@dataclass(frozen=True)
class DiffusionConfig:
    """What the diffusion is. The defaults are the schedule that FlowSep's public configuration still carries.

    It is also AudioLDM's; "linear" in that family means linear in the root of beta.
    """

    prediction: str = "eps"  # eps | v | x0: what the network's output means
    schedule: str = "scaled_linear"  # betas linear in their root, or themselves: scaled_linear | linear
    beta_start: float = 0.0015
    beta_end: float = 0.0195
    timesteps: int = 1000  # N
    streams: str = "target"  # target | target+residual
    mask_exponent: float = 1.0  # p of the rendering mask target^p / (target^p + residual^p)

    def __post_init__(self) -> None:
        for name, allowed in (("prediction", PREDICTIONS), ("schedule", SCHEDULES), ("streams", STREAMS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"unknown diffusion.{name} {getattr(self, name)!r}; choose from {', '.join(allowed)}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                f"diffusion.beta_start and beta_end must rise within 0 and 1, not {self.beta_start}, {self.beta_end}"
            )
        if self.timesteps < 1:
            raise ValueError(f"diffusion.timesteps must be at least 1, not {self.timesteps}")
        if not self.mask_exponent > 0:
            raise ValueError(f"diffusion.mask_exponent must be above 0, not {self.mask_exponent}")

    @property
    def stream_count(self) -> int:
        """Number of streams that are denoised together."""
        return STREAMS[self.streams]


def beta_settings(config: DiffusionConfig) -> dict[str, float | int | str]:
    """The schedule in the words of diffusers' schedulers, which compute it: one source for training and sampling."""
    return {
        "num_train_timesteps": config.timesteps,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "beta_schedule": config.schedule,
    }


def noise_levels(config: DiffusionConfig) -> tuple[Tensor, Tensor]:
    """a and s of every timestep, each (N,) float32 on the CPU."""
    from diffusers import DDPMScheduler

    kept = DDPMScheduler(**beta_settings(config)).alphas_cumprod
    return kept.sqrt(), (1 - kept).sqrt()


def time_of(n: Tensor, config: DiffusionConfig) -> Tensor:
    """t = 1 - (n + 1) / N of timesteps n, float32: from 0 (the noisiest) up to 1 - 1 / N."""
    return (1 - (n.double() + 1) / config.timesteps).float()


def timestep_of(t: Tensor, config: DiffusionConfig) -> Tensor:
    """The timestep nearest to time t, int64: the inverse of `time_of`."""
    return (config.timesteps * (1 - t.double())).round().long().clamp(1, config.timesteps) - 1


def noised(target: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """x_n of target and noise (B, ...) at levels a, s, () or (B,)."""
    return expand_time(a, target) * target + expand_time(s, target) * noise


def training_goal(target: Tensor, noise: Tensor, a: Tensor, s: Tensor, prediction: str) -> Tensor:
    """What the network should give for `noised(target, noise, a, s)`.

    v = a e - s x0 is the derivative of x_n by the angle whose cosine is a (Salimans and Ho, 2022).
    """
    if prediction == "eps":
        return noise
    if prediction == "x0":
        return target
    return expand_time(a, noise) * noise - expand_time(s, target) * target


def as_target(output: Tensor, x: Tensor, a: Tensor, s: Tensor, prediction: str) -> Tensor:
    """The network's estimate of x0 from its output at the state x (B, ...), levels () or (B,).

    With "eps" an error is multiplied by s / a: 83 at the noisiest timestep of the default schedule.
    """
    a, s = expand_time(a, x), expand_time(s, x)
    if prediction == "eps":
        return (x - s * output) / a
    if prediction == "x0":
        return output
    return a * x - s * output


def as_noise(target: Tensor, x: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """The noise e that, with an estimate of x0, makes up the state x."""
    return (x - expand_time(a, x) * target) / expand_time(s, x)
