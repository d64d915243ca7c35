"""`flowsep evaluate --recipe mixtures_test.csv --data DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flowsep.flow.grids import GRID_HELP


def evaluate(
    recipe: Annotated[Path, typer.Option("--recipe", help="CSV of fixed mixtures (see flowsep/evaluation/recipe.py).")],
    data: Annotated[Path, typer.Option("--data", help="Folder that the recipe's clip paths start from.")],
    model: Annotated[
        str, typer.Option("--model", help="Shipped name, folder or hub id; several, mixture, oracle: a table of them.")
    ] = "small",
    steps: Annotated[
        int | None, typer.Option("--steps", help="Solver steps; the model's default if not given.")
    ] = None,
    solver: Annotated[str | None, typer.Option("--solver")] = None,
    grid: Annotated[str | None, typer.Option("--grid", help=f"Times of the steps: {GRID_HELP}.")] = None,
    guidance: Annotated[float, typer.Option("--guidance")] = 1.0,
    guidance_interval: Annotated[str | None, typer.Option(metavar="LOW,HIGH", help="Guide only there.")] = None,
    negative: Annotated[str | None, typer.Option(help="What to stay away from; needs --guidance.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Seeds to try, of which the best is kept.")] = 1,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    rtol: Annotated[float, typer.Option(help="Relative tolerance of the adaptive solvers.")] = 1e-3,
    atol: Annotated[float, typer.Option(help="Absolute tolerance of the adaptive solvers.")] = 1e-3,
    render: Annotated[str | None, typer.Option("--render", help="mixture or vocoder.")] = None,
    device: Annotated[str, typer.Option("--device")] = "auto",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write every figure as JSON here.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first so many mixtures.")] = None,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="No model: what each rendering could reach, and what needs no learning.")
    ] = False,
    json_out: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """SI-SDR improvement over a fixed list of mixtures, for the right query, the interferer's and an absent sound's."""
    import json

    from flowsep.atomic import refuse_unwritable
    from flowsep.checkpoint import load_separator, solver_names, write_json
    from flowsep.evaluation.oracle import oracle_lines, oracle_recipe
    from flowsep.evaluation.recipe import read_recipe
    from flowsep.evaluation.run import evaluate_recipe, summary_lines
    from flowsep.options import check_options, parse_interval
    from flowsep.protocol import SampleOptions

    interval = None if guidance_interval is None else parse_interval(guidance_interval)
    options = SampleOptions(steps, solver, guidance, seed, render, rtol, atol, grid, interval, negative, candidates)
    check_options(options, solver_names(model))
    if output is not None:
        refuse_unwritable(output.parent)
    rows = read_recipe(recipe)[:limit]
    if "," in model or model in ("mixture", "oracle"):
        from flowsep.evaluation.compare import evaluate_systems, leaderboard_lines

        report = evaluate_systems(model.split(","), rows, data, options, recipe.name, device, quiet)
        lines = leaderboard_lines(report)
    elif oracle:
        report = oracle_recipe(rows, data, recipe.name)
        lines = oracle_lines(report)
    else:
        separator = load_separator(model, device)
        report = evaluate_recipe(separator, rows, data, options, model=model, recipe=recipe.name, quiet=quiet)
        lines = summary_lines(report)
    if output is not None:
        write_json(output, report)
    if json_out:
        typer.echo(json.dumps(without_items(report)))
    else:
        typer.echo("\n".join(lines))


def without_items(report: dict[str, Any]) -> dict[str, Any]:
    """A report, or one of several systems, without its figures of single mixtures."""
    if "systems" in report:
        report = {**report, "systems": {name: without_items(one) for name, one in report["systems"].items()}}
    return {key: value for key, value in report.items() if key != "items"}
