"""MaskSeparator: a mask network and what it is asked with, as a `TextSeparator`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowsep.errors import ModelError, UsageError
from flowsep.masks.lassnet import LassNet
from flowsep.masks.query import Query
from flowsep.masks.resunet import ResUNet30
from flowsep.options import check_options
from flowsep.protocol import SampleOptions, Separation
from flowsep.stopwatch import Stopwatch
from vocoder.mel import MelConfig

# Options of a sampler, which a mask network has not, and the values that ask for nothing.
SAMPLING = {
    "steps": (None, 1),
    "solver": (None,),
    "grid": (None,),
    "guidance": (1.0,),
    "guidance_interval": (None,),
    "negative": (None,),
    "candidates": (1,),
}


@dataclass(frozen=True)
class Origin:
    """Where a separator comes from, for `flowsep models`."""

    system: str = ""  # "AudioSep"
    source: str = ""  # paper, repository
    licence: str = ""  # of the weights, as far as it is known


class MaskSeparator(nn.Module):
    """One network call: the mixture's STFT under a mask that the description decides.

    The masks are the networks' own (ResUNet30's are complex, on up to 1025 bins), so a `Separation` carries the
    waveform and no mel mask. What callers make of that:

    * `separate_audio` joins the windows' waveforms. Every channel of a stereo file gets the down-mix's complex gain
      target / mixture (`flowsep.channels.shared_blocks`), so the image stays; a mono file gets the waveform itself.
      What the recording has above half the separator's rate stays in the residual.
    * `remix` and `remove` need masks that share the recording out; they measure 64 bands of the waveform instead
      (`flowsep.windows.level_mask`). `find_segments` takes the waveform.

    The input is not normalised and there is no seed: the same input gives the same output.
    """

    def __init__(
        self,
        network: ResUNet30 | LassNet,
        text: Query,
        window_seconds: float = 10.0,
        name: str = "mask",
        origin: Origin | None = None,
    ) -> None:
        super().__init__()
        if text.size != network.config.condition_size:
            raise ModelError(f"queries have {text.size} numbers, the network takes {network.config.condition_size}")
        self.network, self.text = network, text
        self.window_seconds, self.name, self.origin = window_seconds, name, origin or Origin()
        self.mel = MelConfig()
        self.defaults = SampleOptions(steps=1, render="mixture")
        self.folder: Path | None = None  # that it was read from
        self._remembered: dict[str, Tensor] = {}

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: str = "auto", dtype: torch.dtype | None = None) -> Any:
        """The model saved in `folder` (see `flowsep.checkpoint`)."""
        from flowsep.checkpoint import load_separator

        return load_separator(folder, device, dtype)

    def save_pretrained(self, folder: Path | str, training: dict[str, Any] | None = None) -> None:
        """Write a model folder (see `flowsep.masks.folder`)."""
        from flowsep.masks.folder import save_masker

        save_masker(self, Path(folder), training)

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.network.config.sample_rate

    @property
    def window(self) -> int:
        """Samples that the network sees at once."""
        return round(self.window_seconds * self.sample_rate)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.leave.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network; spectra and waveforms stay float32."""
        return self.network.leave.weight.dtype

    def resolve(self, options: SampleOptions | None) -> SampleOptions:
        """Options with the defaults filled in; UsageError for those of a sampler, which would have no effect."""
        options = options or SampleOptions()
        check_options(options)
        if options.render not in (None, "mixture"):
            raise UsageError(f"the model {self.name!r} has no vocoder; use the mixture rendering")
        unused = [name for name, plain in SAMPLING.items() if getattr(options, name) not in plain]
        if unused:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
            raise UsageError(f"the model {self.name!r} is a mask separator, which samples nothing; leave {flags} out")
        return replace(options, steps=1, render="mixture")

    def remember(self, text: str, condition: Tensor) -> None:
        """Let `text` stand for a condition vector (D,), for instance the mean embedding of example clips.

        From then on every function that takes a description takes this one. UsageError for a vector of another size.
        """
        if condition.shape != (self.text.size,):
            raise UsageError(f"a condition of {self.name!r} has {self.text.size} numbers, not {tuple(condition.shape)}")
        self._remembered[text] = condition.detach().to(torch.float32)

    def conditions(self, texts: Sequence[str]) -> Tensor:
        """Condition vectors (B, D): of remembered sounds by their name, of all else by the query encoder."""
        rows = [self._remembered[one] if one in self._remembered else self.text.encode([one])[0] for one in texts]
        return torch.stack([row.to(self.device, self.dtype) for row in rows])

    @torch.inference_mode()
    def separate(self, mixture: Tensor, texts: Sequence[str], options: SampleOptions | None = None) -> Separation:
        """mixture (B, T) float32 at `sample_rate`, T up to `window`, one text each -> target and residual (B, T).

        Raises UsageError for shapes or options that do not fit, and for a text that the query encoder cannot read.
        """
        options = self.resolve(options)
        if mixture.ndim != 2 or len(texts) != len(mixture) or not 0 < mixture.shape[1] <= self.window:
            raise UsageError(
                f"separate takes (B, T) with T from 1 to {self.window} samples and B texts, not {tuple(mixture.shape)} "
                f"and {len(texts)}; use flowsep.longform for longer audio"
            )
        clock = Stopwatch(self.device)
        conditions = self.conditions(texts)
        clock.lap("text")
        mixture = mixture.to(self.device, torch.float32)
        target = self.network(mixture, conditions)
        clock.lap("network")
        settings = {
            "steps": 1,
            "solver": "none",
            "render": "mixture",
            "seed": options.seed,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
        }
        return Separation(target, mixture - target, nfe=1, seconds=clock.seconds, settings=settings)
