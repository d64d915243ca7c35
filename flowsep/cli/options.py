"""Options that several verbs share, and the check of those that typer cannot judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowsep.checkpoint import solver_names
from flowsep.cli.separate import DTYPES, FORMATS, check_device
from flowsep.options import SOLVER_HELP, check_choice, check_options
from flowsep.protocol import SampleOptions

Mixes = Annotated[list[Path], typer.Argument(metavar="MIX", readable=False, help="Audio files: wav, flac, mp3, ...")]
Steps = Annotated[int | None, typer.Option(min=1, help="Solver steps. [default: the model's]")]
Solver = Annotated[str | None, typer.Option(help=f"{SOLVER_HELP}. [default: the model's]")]
Guidance = Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none, others double the cost.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the start noise.")]
Rtol = Annotated[float, typer.Option(help="Relative tolerance of the adaptive solvers.")]
Atol = Annotated[float, typer.Option(help="Absolute tolerance of the adaptive solvers.")]
Model = Annotated[str, typer.Option(help="Name, folder or hub id of a model.")]
Render = Annotated[str | None, typer.Option(help="mixture or vocoder: where masks come from. [default: the model's]")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str | None, typer.Option(help=f"{', '.join(DTYPES)}. [default: the model's]")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", readable=False, help="Folder of the outputs.")]
Format = Annotated[str, typer.Option(help="wav (32-bit float) or flac (24 bit).")]
Clip = Annotated[str, typer.Option(help="Above full scale: warn (flac clips, wav keeps it) or scale it down.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of paths.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]

CLIP_POLICIES = ("warn", "scale")


def checked_options(
    model: str,
    steps: int | None,
    solver: str | None,
    guidance: float,
    seed: int,
    render: str | None,
    rtol: float,
    atol: float,
) -> SampleOptions:
    """SampleOptions of the flags of that name; UsageError for what does not exist or `model` cannot use."""
    options = SampleOptions(steps, solver, guidance, seed, render, rtol, atol)
    check_options(options, solver_names(model))
    return options


def check_run(device: str, dtype: str | None, format: str = "wav", clip: str = "warn") -> None:
    """UsageError for a device, precision, output format or clip policy that does not exist."""
    check_choice("format", format, FORMATS)
    check_choice("clip policy", clip, CLIP_POLICIES)
    check_choice("dtype", dtype, DTYPES)
    check_device(device)
