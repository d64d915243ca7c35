"""Signal metrics: pure, batched functions of waveforms (..., T), one value (...) per waveform, in dB."""

from __future__ import annotations

import torch
from torch import Tensor


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al., 2019) without mean removal, as AudioSep prints it.

    a = <r, e> / <r, r>; 10 log10(|a r|^2 / |e - a r|^2), with the machine epsilon of float64 against division by zero.
    """
    estimate, reference = estimate.double(), reference.double()
    eps = torch.finfo(torch.float64).eps
    scale = ((reference * estimate).sum(-1) + eps) / (reference.square().sum(-1) + eps)
    projected = scale[..., None] * reference
    return 10 * torch.log10((projected.square().sum(-1) + eps) / ((estimate - projected).square().sum(-1) + eps))


def sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """10 log10(mean r^2 / mean (e - r)^2), both floored at 1e-10: AudioSep's SDR, no filter and no scaling."""
    estimate, reference = estimate.double(), reference.double()
    signal = reference.square().mean(-1).clamp(min=1e-10)
    return 10 * torch.log10(signal / (estimate - reference).square().mean(-1).clamp(min=1e-10))


def level_db(audio: Tensor) -> Tensor:
    """RMS level in dB relative to full scale; digital silence is -200."""
    return 10 * torch.log10(audio.double().square().mean(-1).clamp(min=1e-20))
