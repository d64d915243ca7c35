"""A model folder to hand on: trained parts put together, with the defaults that were chosen, in float16."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import torch

from flowsep.checkpoint import load_separator, load_vocoder, read_json
from flowsep.errors import UsageError
from flowsep.files import weights_bytes
from flowsep.masks.separator import MaskSeparator
from flowsep.separator import LatentSeparator


class ExportNotice(UserWarning):
    """What is not handed on."""


def export_model(
    model: Path,
    output: Path,
    vocoder: Path | None = None,
    steps: int | None = None,
    exponent: float | None = None,
    window: int | None = None,
    dtype: torch.dtype = torch.float16,
) -> int:
    """Write the model to the folder `output`, with a vocoder and defaults to store where given; returns the bytes.

    A model folder at `output` is replaced. A presence score that was fitted to another mask is not handed on, which an
    ExportNotice says. UsageError for settings that a mask separator does not have, and for an exponent that is not
    above 0.
    """
    separator = load_separator(model, "cpu")
    if isinstance(separator, MaskSeparator):
        if any(value is not None for value in (vocoder, steps, exponent, window)):
            raise UsageError("a mask separator has no vocoder, steps, exponent or mel frames; leave them out")
    else:
        if vocoder is not None:
            separator.vocoder = load_vocoder(vocoder)
        separator.sampling = replace(
            separator.sampling,
            steps=steps or separator.sampling.steps,
            window_frames=window or separator.sampling.window_frames,
        )
        if exponent is not None:
            set_exponent(separator, exponent)
    training = read_json(model / "training.json") if (model / "training.json").is_file() else None
    separator.to(dtype).save_pretrained(output, training)
    return weights_bytes(output)


def set_exponent(separator: LatentSeparator, exponent: float) -> None:
    """Another mask exponent, without the presence score if that was fitted to the mask of another."""
    before = separator.process.mask_exponent
    try:
        separator.process = replace(separator.process, mask_exponent=exponent)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if separator.presence is not None and exponent != before:
        separator.presence = None
        warnings.warn(
            f"the presence score was fitted to the mask exponent {before:g} and is left out; "
            "`flowsep calibrate` fits one",
            ExportNotice,
            stacklevel=3,
        )
