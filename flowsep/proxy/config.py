"""The text-audio encoder of `flowsep train clap`, and its training items: plain settings, for `flowsep.config`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProxyConfig:
    """Sizes of the encoder: pooled log-mel frames in, vectors of `size` numbers out."""

    channels: tuple[int, ...] = (16, 32, 64, 128)  # of the residual stages, each at half the resolution of the last
    blocks: tuple[int, ...] = (1, 2, 2, 2)  # of each stage
    hidden: int = 192  # numbers per instant before they are pooled over time
    heads: int = 4  # ways of weighting the instants
    text_hidden: int = 256
    size: int = 128  # D
    pool: int = 2  # mel frames that are joined into one: 20 ms at the usual hop
    seconds: float = 3.2  # of a training item; embeddings for Frechet distances are of pieces as long

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.blocks) or not self.channels:
            raise ValueError(f"channels and blocks are per stage; got {len(self.channels)} and {len(self.blocks)}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")


@dataclass(frozen=True)
class ProxyDataConfig:
    """What an item of training is: a sound alone or in a mixture, and two wordings."""

    class_power: float = 0.3  # classes are drawn with probability ~ clips ** power
    mixtures: float = 0.5  # share of items in which another sound is mixed in
    snr_db: tuple[float, float] = (-10.0, 20.0)  # uniform, of the described sound over the other
    noise: float = 0.3  # share of items with steady noise
    noise_snr_db: tuple[float, float] = (0.0, 40.0)  # uniform
    augment: float = 0.5  # probability of each of speed, equaliser, and a hidden stretch of time and band
    shortest: float = 1.6  # seconds of the clip that an item holds at least, where the clip has them
    frames: float = 0.3  # share of wordings that become "the sound of ..."
