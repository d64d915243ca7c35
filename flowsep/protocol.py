"""What evaluation, benchmarks, the command line and later separators know of one another: nothing but this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from vocoder.mel import MelConfig

RENDERINGS = ("mixture", "vocoder")


@dataclass(frozen=True)
class SampleOptions:
    """How a separator is used; chosen at each call, never stored in the weights.

    `None` means the model's own default (`TextSeparator.defaults`). `steps` are solver steps; a step costs one, two or
    four network calls (NFE) depending on the solver, and guidance other than 1 doubles them.
    """

    steps: int | None = None
    solver: str | None = None
    guidance: float = 1.0
    seed: int = 0
    render: str | None = None
    rtol: float = 1e-3  # relative and absolute tolerance of the adaptive solvers
    atol: float = 1e-3


@dataclass
class Separation:
    """One separated batch. Waveforms are float32 at the separator's sample rate, at the level of the mixture.

    target + residual = mixture exactly. `mask` (B, N, M) holds the gain 0..1 of each mel band on 10 ms frames where the
    separator renders by masking the mixture, and is None otherwise: with it the caller can treat the original
    full-rate channels (`flowsep.render.apply_mask`).
    """

    target: Tensor  # (B, T)
    residual: Tensor  # (B, T)
    nfe: int  # network calls per item
    seconds: dict[str, float] = field(default_factory=dict)  # wall clock per stage
    settings: dict[str, Any] = field(default_factory=dict)  # every option as resolved
    mask: Tensor | None = None


@runtime_checkable
class TextSeparator(Protocol):
    """A model that takes a described sound out of a mixture."""

    sample_rate: int  # Hz
    window: int  # samples that the network sees at once; longer input is cut into such windows by `flowsep.longform`
    defaults: SampleOptions
    mel: MelConfig  # whose bands and frames its masks have

    def separate(self, mixture: Tensor, texts: Sequence[str], options: SampleOptions | None = None) -> Separation:
        """mixture (B, T) float32 at `sample_rate`, T up to `window`, one text each -> the described sounds."""
        ...
