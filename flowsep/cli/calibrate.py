"""`flowsep calibrate MODEL --recipe R.csv --data DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def calibrate(
    model: Annotated[Path, typer.Argument(help="Model folder; its presence score is stored in it.")],
    recipe: Annotated[Path, typer.Option("--recipe", help="CSV of fixed mixtures (flowsep recipe draws one).")],
    data: Annotated[Path, typer.Option("--data", help="Folder that the recipe's clip paths start from.")],
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Fit and store the probability that a described sound is in a recording at all."""
    from flowsep.cli.options import check_device

    check_device(device)
    from flowsep.evaluation.calibrate import calibrate_folder

    path, report = calibrate_folder(model, recipe, data, device, quiet)
    typer.echo(f"presence score from {report['mixtures']} mixtures, stored in {path}; five-fold:")
    typer.echo(f"  area under the curve     {report['auc']:.3f}")
    typer.echo(f"  Brier score              {report['brier']:.3f}")
    typer.echo(f"  above 0.5 when present   {100 * report['found_when_present']:.0f} %")
    typer.echo(f"  above 0.5 when absent    {100 * report['found_when_absent']:.0f} %")
