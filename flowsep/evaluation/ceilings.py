"""What the parts of a model around its network could reach at best: its codec and its vocoder, given the true mels."""

from __future__ import annotations

import torch
from torch import Tensor

from flowsep.evaluation.signal import si_sdr
from flowsep.heard import normalise
from flowsep.render import apply_mask, band_mask
from flowsep.separator import LatentSeparator
from vocoder.mel import NEPER, log_mel, stft


@torch.inference_mode()
def model_ceilings(separator: LatentSeparator, mixture: Tensor, target: Tensor, other: Tensor) -> dict[str, float]:
    """Figures of `flowsep.evaluation.oracle.MODEL_TITLES` of one mixture and its parts, each (T,), at the model's rate.

    The parts take the mixture's level as the network's input does. What a model lacks is left out: a lossless codec has
    no ceiling of its own, and not every model has a vocoder.
    """
    _, mean, gain = normalise(mixture[None])
    parts = torch.stack([target, other]) * gain
    mels = separator.log_mel(stft(separator.pad(parts), separator.mel))
    found = {}
    decoded = separator.codec.decode(separator.codec.encode(mels.to(separator.dtype))).float()
    if not torch.allclose(decoded, mels, atol=1e-3):
        found["codec_error_db"] = NEPER * (decoded[0] - mels[0]).abs().mean().item()
        mask = band_mask(decoded[:1], decoded[1:], mels[:1])[0]
        estimate = apply_mask(mixture[None], mask, separator.sample_rate, separator.mel)[0]
        found["codec_mask"] = (si_sdr(estimate, target) - si_sdr(mixture, target)).item()
    if separator.vocoder is not None:
        made = separator.voice(mels[:1], len(mixture)) / gain + mean
        wanted, *heard = (log_mel(audio, separator.mel) for audio in (target, mixture, made[0]))
        before, after = ((mel - wanted).abs().mean() for mel in heard)
        found["vocoder_mel_l1_ratio"] = (after / before.clamp(min=1e-9)).item()
    return found
