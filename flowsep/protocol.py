"""What evaluation, benchmarks, the command line and later separators know of one another: nothing but this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from vocoder.mel import MelConfig

RENDERINGS = ("mixture", "vocoder")
CANDIDATE_SCORES = ("consistency", "presence", "proxy")  # see flowsep.candidates
ENCODER_SCORES = ("proxy:", "clap:")  # before a folder: the score of the encoder in it


@dataclass(frozen=True)
class SampleOptions:
    """How a separator is used; chosen at each call, never stored in the weights.

    `None` means the model's own default (`TextSeparator.defaults`). `steps` are solver steps; a step costs one, two or
    four network calls (NFE) depending on the solver (the last step of a model that predicts the target always one), and
    guidance other than 1 doubles them. `flowsep.options` checks what goes together.
    """

    steps: int | None = None
    solver: str | None = None
    guidance: float = 1.0
    seed: int = 0
    render: str | None = None
    rtol: float = 1e-3  # relative and absolute tolerance of the adaptive solvers
    atol: float = 1e-3
    grid: str | None = None  # of the times: "uniform", "shift:S", "sway:S" or "0,0.1,0.5,1" (flowsep.flow.grids)
    guidance_interval: tuple[float, float] | None = None  # times between which guidance acts; None: always
    negative: str | None = None  # query of what to stay away from; None: the empty caption
    candidates: int = 1  # seeds from `seed` on, of which the best is kept
    candidate_score: str = "consistency"


@dataclass(frozen=True)
class Choice:
    """Which candidate was kept for one item: the one of the highest score. Alone, its seed gives the same result."""

    seed: int
    seeds: tuple[int, ...]  # of all candidates
    scores: tuple[float, ...]  # of all candidates, higher is better
    score: str  # which of CANDIDATE_SCORES, or the name of an encoder's score
    encoder: str | None = None  # that gave the score


@dataclass
class Separation:
    """One separated batch. Waveforms are float32 at the separator's sample rate, at the level of the mixture.

    target + residual = mixture exactly. `mask` (B, N, M) holds the gain 0..1 of each mel band on 10 ms frames where the
    separator renders by masking the mixture, and is None otherwise: with it the caller can treat the original
    full-rate channels (`flowsep.render.apply_mask`). A target without one whose `settings` say the rendering "mixture"
    is in phase with the mixture, and its complex gain is what channels get (`flowsep.channels.shared_blocks`).
    """

    target: Tensor  # (B, T)
    residual: Tensor  # (B, T)
    nfe: int  # network calls per item, those for its other candidates included
    seconds: dict[str, float] = field(default_factory=dict)  # wall clock per stage
    settings: dict[str, Any] = field(default_factory=dict)  # every option as resolved
    mask: Tensor | None = None
    choices: list[Choice] = field(default_factory=list)  # one per item where there were candidates, otherwise none
    presence: Tensor | None = None  # (B,) probability that the sound is there, of a model that was calibrated


@runtime_checkable
class TextSeparator(Protocol):
    """A model that takes a described sound out of a mixture."""

    sample_rate: int  # Hz
    window: int  # samples that the network sees at once; longer input is cut into such windows by `flowsep.longform`
    defaults: SampleOptions
    mel: MelConfig  # whose bands and frames its masks have
    # A separator that starts from noise also has `noise_stride: int`, samples per frame of it, and `separate` takes
    # `at=positions`: what windows of one recording share, they then start from in the same way.

    def separate(self, mixture: Tensor, texts: Sequence[str], options: SampleOptions | None = None) -> Separation:
        """mixture (B, T) float32 at `sample_rate`, T up to `window`, one text each -> the described sounds."""
        ...
