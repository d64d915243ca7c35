"""Signal metrics: pure, batched functions of waveforms (..., T), one value (...) per waveform, in dB.

All take (estimate, reference) and compute in float64, which differs by less than 1e-3 dB from the float32 of the public
scripts unless the reference is nearly silent.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SILENT = 1e-10  # mean square below which `sdr` goes no further

Metric = Callable[[Tensor, Tensor], Tensor]  # (estimate, reference) -> dB


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
    signal = reference.square().mean(-1).clamp(min=SILENT)
    return 10 * torch.log10(signal / (estimate - reference).square().mean(-1).clamp(min=SILENT))


def snr(estimate: Tensor, reference: Tensor) -> Tensor:
    """10 log10(|r|^2 / |r - e|^2) with the mean taken off both first: the SNR of Listen, Chat, and Remix.

    NaN where reference and estimate are both constant: there is nothing to compare.
    """
    estimate, reference = (x.double() - x.double().mean(-1, keepdim=True) for x in (estimate, reference))
    return 10 * torch.log10(reference.square().sum(-1) / (reference - estimate).square().sum(-1))


def improvement(metric: Metric, estimate: Tensor, mixture: Tensor, reference: Tensor) -> Tensor:
    """metric(e, r) - metric(x, r): SDRi, SI-SDRi and SNRi are those of `sdr`, `si_sdr` and `snr`."""
    return metric(estimate, reference) - metric(mixture, reference)


def segment_sdr(estimate: Tensor, reference: Tensor, segment: int) -> Tensor:
    """Median of `sdr` over segments of `segment` samples side by side (USS: one second).

    As upstream, only segments that end before the last sample count; one alone is taken whatever its end. The median of
    an even number is the mean of the middle two.
    """
    length = reference.shape[-1]
    count = max(1, (length - 1) // segment)
    pieces = [x[..., : count * segment].unflatten(-1, (count, -1)) for x in (estimate, reference)]
    return torch.nanquantile(sdr(*pieces), 0.5, dim=-1)


def level_db(audio: Tensor) -> Tensor:
    """RMS level in dB relative to full scale; digital silence is -200."""
    return 10 * torch.log10(audio.double().square().mean(-1).clamp(min=1e-20))
