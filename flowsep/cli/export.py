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
    import torch

    from flowsep.errors import InputError
    from flowsep.training.export import export_model

    if output.exists() and not overwrite:
        raise InputError(f"{output} exists; give another name or --overwrite")
    dtype = torch.float32 if float32 else torch.float16
    size = export_model(model, output, vocoder, steps, exponent, window, dtype)
    typer.echo(f"{output}\t{size / 1e6:.1f} MB of weights")
