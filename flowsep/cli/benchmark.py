"""`flowsep benchmark latency` and `flowsep benchmark seams`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Measure latency, stage by stage, and seams.", no_args_is_help=True)


@app.callback()
def benchmark() -> None:
    """Measure latency, stage by stage, and the seams of long recordings."""


@app.command()
def latency(
    config: Annotated[str, typer.Option("--config", help="flowsep, small or a YAML file; random weights.")] = "flowsep",
    model: Annotated[str | None, typer.Option("--model", help="A model to load instead of --config.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Length of the mixture.", min=0.1)] = 10.24,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Solver steps (Euler); the model's default.", min=1)
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1)] = 1,
    repeats: Annotated[int, typer.Option("--repeats", min=1)] = 5,
    device: Annotated[str, typer.Option("--device")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the report as JSON here.")] = None,
) -> None:
    """Seconds, GFLOP and GFLOP/s of each stage, beside the machine's own matrix-product rate in the same run."""
    from flowsep.errors import UsageError

    if dtype not in ("float32", "bfloat16", "float16"):
        raise UsageError(f"unknown dtype {dtype!r}; choose float32, bfloat16 or float16")
    import torch

    from flowsep.atomic import refuse_unwritable
    from flowsep.benchmark.latency import benchmark_latency, random_separator, table
    from flowsep.checkpoint import load_separator, pick_device, write_json
    from flowsep.config import load_config

    if output is not None:
        refuse_unwritable(output.parent)
    precision = getattr(torch, dtype)
    if model is not None:
        separator = load_separator(model, device, precision)
    else:
        separator = random_separator(load_config(config), pick_device(device), precision)
    report = benchmark_latency(separator, model or config, seconds, steps or separator.defaults.steps, batch, repeats)
    if output is not None:
        write_json(output, report)
    typer.echo(table(report))


@app.command()
def seams(
    mix: Annotated[Path, typer.Argument(metavar="MIX", readable=False, help="A recording of several windows.")],
    text: Annotated[str, typer.Option("--text", help="What to separate, in words.")],
    model: Annotated[str, typer.Option("--model", help="Name, folder or hub id of a model.")] = "small",
    device: Annotated[str, typer.Option("--device")] = "auto",
) -> None:
    """How far the gain jumps where windows were joined, against elsewhere, as JSON.

    Jumps are in dB over 50 ms and over 0.5 s; a rank is the share of other places that jump less: 0.5 is chance, and
    what cannot be heard as a seam.
    """
    import json

    from flowsep.checkpoint import load_separator
    from flowsep.evaluation.seams import seams_of_recording
    from flowsep.media import open_media

    recording = open_media(mix)
    report = seams_of_recording(load_separator(model, device), recording, text)
    typer.echo(json.dumps({"recording": str(mix), "model": model, **report}, indent=2))
