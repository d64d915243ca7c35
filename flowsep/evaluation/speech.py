"""Metrics for speech, by the packages that define them (extra `speech`): one value (B,) for waveforms (B, T)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flowsep.errors import ModelError, UsageError

PESQ_RATES = {"wb": 16000, "nb": 8000}  # Hz


def package(name: str) -> Any:
    """An optional package; ModelError that says how to install it."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(f"this metric needs the package {name}; pip install 'flowsep-toolkit[speech]'") from error


def stoi(estimate: Tensor, reference: Tensor, sample_rate: int, extended: bool = False) -> Tensor:
    """Short-time objective intelligibility (Taal et al., 2011), about 0..1, by pystoi, which resamples to 10 kHz.

    Mean correlation of 15 third-octave envelopes over 384 ms, where the reference is within 40 dB of its loudest.
    """
    measure = package("pystoi").stoi
    rows = zip(reference.double().cpu().numpy(), estimate.double().cpu().numpy(), strict=True)
    return torch.tensor([measure(r, e, sample_rate, extended=extended) for r, e in rows], dtype=torch.float64)


def pesq(estimate: Tensor, reference: Tensor, sample_rate: int, mode: str = "wb") -> Tensor:
    """Perceptual evaluation of speech quality (ITU-T P.862, P.862.2 for "wb"), mean opinion score, by pesq.

    UsageError for a rate that the mode is not defined at; NaN where the package finds no speech in the reference.
    """
    if PESQ_RATES.get(mode) != sample_rate and not (mode == "nb" and sample_rate == 16000):
        raise UsageError("PESQ is defined at 16000 Hz (wb, nb) and 8000 Hz (nb); resample first")
    module = package("pesq")
    values = []
    for r, e in zip(reference.float().cpu().numpy(), estimate.float().cpu().numpy(), strict=True):
        try:
            values.append(module.pesq(sample_rate, r, e, mode))
        except module.NoUtterancesError:
            values.append(float("nan"))
    return torch.tensor(values, dtype=torch.float64)
