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
    from dataclasses import asdict

    from flowsep.atomic import refuse_unwritable
    from flowsep.checkpoint import load_separator, read_json, write_json
    from flowsep.errors import UsageError
    from flowsep.evaluation.calibrate import calibrate as fit
    from flowsep.evaluation.recipe import read_recipe
    from flowsep.protocol import SampleOptions
    from flowsep.separator import LatentSeparator

    if not (model / "model_index.json").is_file():
        raise UsageError(f"{model} is no model folder; a name or hub id cannot be written to, copy or export it first")
    rows = read_recipe(recipe)
    separator = load_separator(model, device)
    if not isinstance(separator, LatentSeparator):
        raise UsageError("only FlowSep and DiffusionSep models have a presence score")
    path = model / "scheduler" / "scheduler_config.json"
    refuse_unwritable(path.parent)
    config, report = fit(separator, rows, data, SampleOptions(render="mixture"), quiet)
    partial = path.with_suffix(".partial")
    write_json(partial, {**read_json(path), "presence": asdict(config)})
    partial.replace(path)
    typer.echo(f"presence score from {report['mixtures']} mixtures, stored in {path}; five-fold:")
    typer.echo(f"  area under the curve     {report['auc']:.3f}")
    typer.echo(f"  Brier score              {report['brier']:.3f}")
    typer.echo(f"  above 0.5 when present   {100 * report['found_when_present']:.0f} %")
    typer.echo(f"  above 0.5 when absent    {100 * report['found_when_absent']:.0f} %")
