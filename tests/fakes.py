"""Separators of a few lines, so that everything around a model is tested without weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowsep.protocol import SampleOptions, Separation
from vocoder.mel import MelConfig


@dataclass
class FakeSeparator:
    """A mask (B, N, M) or, with `mask=None`, a waveform from plain functions; records the windows it was given."""

    gain: Callable[[str], float] = lambda text: 1.0  # of the whole mask, by query
    masking: bool = True  # False: the target is gain * mixture as a waveform, and there is no mask
    sample_rate: int = 16000
    window: int = 16000  # 1 s
    delay: float = 0.0  # seconds per window
    defaults: SampleOptions = field(default_factory=lambda: SampleOptions(steps=2, solver="euler", render="mixture"))
    mel: MelConfig = field(default_factory=MelConfig)
    seen: list[tuple[int, list[str]]] = field(default_factory=list)  # (samples, texts) of each call

    def separate(self, mixture: Tensor, texts: Sequence[str], options: SampleOptions | None = None) -> Separation:
        """Scale the mixture by each text's gain, two network calls a window."""
        self.seen.append((mixture.shape[-1], list(texts)))
        time.sleep(self.delay)
        gains = torch.tensor([self.gain(text) for text in texts])
        target = gains[:, None] * mixture
        frames = mixture.shape[-1] // self.mel.hop_length + 1
        mask = gains[:, None, None].expand(-1, frames, self.mel.n_mels) if self.masking else None
        settings = {"steps": 2, "solver": "euler", "render": "mixture" if self.masking else "vocoder"}
        return Separation(target, mixture - target, 2, {"sample": 0.0}, settings, mask)


def tone(seconds: float, sample_rate: int, channels: int = 1, hertz: float = 440.0) -> Tensor:
    """(C, T) float32: a sine with noise, each channel another phase, peak about 0.6."""
    times = torch.arange(round(seconds * sample_rate)) / sample_rate
    phases = torch.arange(channels)[:, None]
    noise = torch.randn(channels, len(times), generator=torch.Generator().manual_seed(0))
    return 0.5 * torch.sin(2 * torch.pi * hertz * times + phases) + 0.02 * noise


@dataclass
class PatternSeparator(FakeSeparator):
    """Masks that change over time and frequency: pattern(text, N, M) -> (N, M), for recordings of one window."""

    pattern: Callable[[str, int, int], Tensor] = lambda text, frames, bands: torch.ones(frames, bands)

    def separate(self, mixture: Tensor, texts: Sequence[str], options: SampleOptions | None = None) -> Separation:
        """The patterns as masks; the target waveform is that of `FakeSeparator` and not to be used."""
        found = super().separate(mixture, texts, options)
        _, frames, bands = found.mask.shape
        found.mask = torch.stack([self.pattern(text, frames, bands) for text in texts])
        return found


def random_pattern(text: str, frames: int, bands: int) -> Tensor:
    """A mask (N, M) of uniform numbers, another for every text."""
    return torch.rand(frames, bands, generator=torch.Generator().manual_seed(sum(text.encode())))
