"""`flowsep tune-steps --recipe mixtures_valid.csv --data DIR --steps 2,4`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flowsep.tuning import Tuned


def tune_steps(
    recipe: Annotated[Path, typer.Option("--recipe", help="CSV of fixed mixtures: use a validation list.")],
    data: Annotated[Path, typer.Option("--data", help="Folder that the recipe's clip paths start from.")],
    model: Annotated[str, typer.Option("--model", help="Shipped name, folder or hub id.")] = "small",
    steps: Annotated[str, typer.Option("--steps", help="Numbers of steps to find grids for, such as 2,4,8.")] = "2,4,8",
    count: Annotated[int, typer.Option("--count", help="Mixtures, spread over the recipe.", min=1)] = 8,
    fine: Annotated[int, typer.Option("--fine", help="Steps of the fine solution.", min=2)] = 64,
    shortlist: Annotated[int, typer.Option(help="Candidates sampled anew per dropped step; 0: none.", min=0)] = 3,
    solver: Annotated[str | None, typer.Option("--solver")] = None,
    guidance: Annotated[float, typer.Option("--guidance")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    device: Annotated[str, typer.Option("--device")] = "auto",
    store: Annotated[
        bool, typer.Option("--store", help="Make the grid the default of the model folder; needs one --steps.")
    ] = False,
    json_out: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Search the times of few steps: drop those of a fine grid that are missed least, over a list of mixtures."""
    from flowsep.errors import UsageError
    from flowsep.options import check_options, parse_steps
    from flowsep.protocol import SampleOptions

    options = SampleOptions(solver=solver, guidance=guidance, seed=seed)
    check_options(options)
    targets = parse_steps(steps)
    if targets[-1] >= fine:
        raise UsageError(f"the steps to search must be below --fine {fine}, not {targets[-1]}")
    if store and len(targets) != 1:
        raise UsageError("--store keeps one grid; give one number of --steps")

    from flowsep.checkpoint import load_separator
    from flowsep.evaluation.recipe import read_recipe
    from flowsep.tuning import mixtures_of, own_folder, store_grid, tune_steps

    folder = own_folder(model) if store else None
    rows = read_recipe(recipe)
    rows = rows[:: max(1, len(rows) // count)][:count]
    separator = load_separator(model, device)
    mixture, texts = mixtures_of(rows, data)
    note = (lambda line: None) if quiet else (lambda line: typer.echo(line, err=True))
    found = tune_steps(separator, mixture, texts, targets, options, fine, shortlist, note)
    about = {"model": model, "recipe": recipe.name, "mixtures": len(rows)}
    typer.echo(as_json(found, about) if json_out else as_table(found, about, fine))
    if folder is not None:
        if found[0].error >= found[0].uniform:
            raise UsageError("the uniform grid is no worse; nothing was stored")
        store_grid(folder, found[0], separator.resolve(options).solver)


def as_json(found: Sequence[Tuned], about: dict[str, Any]) -> str:
    """The grids for scripts."""
    import json

    grids = [{"steps": one.steps, "grid": one.grid, "error": one.error, "uniform": one.uniform} for one in found]
    return json.dumps({**about, "grids": grids})


def as_table(found: Sequence[Tuned], about: dict[str, Any], fine: int) -> str:
    """The grids for people."""
    title = "{model}, {mixtures} mixtures of {recipe}; log-mel L1 to {fine} uniform Euler steps".format(
        **about, fine=fine
    )
    rows = (f"{one.steps} steps: {one.error:.4f}, uniform {one.uniform:.4f}  --grid {one.grid}" for one in found)
    return "\n".join([title, *rows])
