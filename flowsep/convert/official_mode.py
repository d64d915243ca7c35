"""The official inference, number for number, over a converted model: same loading, sampled posterior, no trimming.

For comparing with the official code's output. `FlowSep.separate` is the better tool otherwise: it uses the posterior
mean, puts the level back and keeps the length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowsep.convert.loader import OfficialInput, official_load
from flowsep.errors import UsageError
from flowsep.protocol import SampleOptions
from vocoder.mel import log_mel

if TYPE_CHECKING:
    from flowsep.separator import FlowSep


@dataclass(frozen=True)
class OfficialOutput:
    """Every stage of one run, for comparison; the waveform is at 16 kHz, peak-normalised as the input was."""

    loaded: OfficialInput
    mixture_latent: Tensor  # (1, C, S, F), scaled
    latent: Tensor  # (1, C, S, F), scaled
    mel: Tensor  # (1, N, M)
    audio: Tensor  # (1, 163872)


@torch.inference_mode()
def separate_officially(
    separator: FlowSep, audio: Tensor, rate: int, text: str, steps: int, posterior_noise: Tensor, start_noise: Tensor
) -> OfficialOutput:
    """What FlowSep's own script computes from audio (C, T) at `rate` Hz, given the noises that it draws.

    posterior_noise and start_noise (1, C, S, F) are standard normal; `steps` Euler steps, no guidance. Raises
    UsageError where the model is not FlowSep's chain of VAE, noise start and vocoder.
    """
    if not hasattr(separator.codec, "posterior") or separator.vocoder is None or separator.flow.start != "noise":
        raise UsageError(
            f"the model {separator.name!r} has no official mode; it needs a VAE, a vocoder and a noise start"
        )
    loaded = official_load(audio, rate)
    frames = separator.sampling.window_frames
    mel = log_mel(loaded.audio[None].to(separator.device), separator.mel)[:, :frames].to(separator.dtype)
    mean, logvar = separator.codec.posterior(mel)
    source = separator.codec.scaling_factor * (mean + torch.exp(0.5 * logvar) * posterior_noise.to(mean))
    options = separator.resolve(SampleOptions(steps=steps, solver="euler", render="vocoder"))
    state = separator.text.encode([text])
    latent, _ = separator.generate(source, state, None, start_noise.to(source), options)
    generated = separator.codec.decode(latent)
    return OfficialOutput(loaded, source, latent, generated, separator.vocoder.audio(generated))
