"""`flowsep export MODEL OUT`: a model folder to hand on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    model: Annotated[Path, typer.Argument(help="Model folder written by `flowsep train flow`, `diffusion` or `mask`.")],
    output: Annotated[Path, typer.Argument(help="Folder to write.")],
    vocoder: Annotated[
        Path | None, typer.Option("--vocoder", help="Folder written by `flowsep train vocoder`.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Default number of steps to store.", min=1)] = None,
    exponent: Annotated[float | None, typer.Option("--mask-exponent", help="Default mask exponent to store.")] = None,
    window: Annotated[
        int | None, typer.Option("--window-frames", help="Mel frames per window to store.", min=64)
    ] = None,
    float32: Annotated[bool, typer.Option("--float32", help="Keep float32; the default stores float16.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
) -> None:
    """Assemble trained parts into one folder, weights in float16, and print its size."""
    from dataclasses import replace

    import torch

    from flowsep.checkpoint import load_separator, read_json
    from flowsep.errors import InputError, UsageError
    from flowsep.masks.separator import MaskSeparator
    from vocoder.model import Vocoder

    if output.exists() and not overwrite:
        raise InputError(f"{output} exists; give another name or --overwrite")
    separator = load_separator(model, "cpu")
    if isinstance(separator, MaskSeparator):
        if any(value is not None for value in (vocoder, steps, exponent, window)):
            raise UsageError("a mask separator has no vocoder, steps, exponent or mel frames; leave them out")
    else:
        if vocoder is not None:
            separator.vocoder = Vocoder.from_pretrained(vocoder)
        separator.sampling = replace(
            separator.sampling,
            steps=steps or separator.sampling.steps,
            window_frames=window or separator.sampling.window_frames,
        )
        separator.process = replace(separator.process, mask_exponent=exponent or separator.process.mask_exponent)
    training = read_json(model / "training.json") if (model / "training.json").is_file() else None
    separator.to(torch.float32 if float32 else torch.float16).save_pretrained(output, training)
    size = sum(file.stat().st_size for file in output.rglob("*.safetensors"))
    typer.echo(f"{output}\t{size / 1e6:.1f} MB of weights")
