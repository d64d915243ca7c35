"""`flowsep recipe DATA OUT`: draw a fixed list of mixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def recipe(
    data: Annotated[Path, typer.Argument(help="Folder with a manifest.csv, or of clips named by class.")],
    output: Annotated[Path, typer.Argument(help="CSV to write.")],
    split: Annotated[str, typer.Option("--split", help="Which split of the manifest.")] = "valid",
    count: Annotated[int, typer.Option("--count", min=1)] = 200,
    target: Annotated[list[str] | None, typer.Option(help="Only this class as target (repeatable).")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 20261121,
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
) -> None:
    """Draw two-source mixtures for `flowsep evaluate`: the same seed gives the same list."""
    from flowsep.atomic import refuse_existing, refuse_unwritable
    from flowsep.data.manifest import read_manifest, select
    from flowsep.errors import InputError
    from flowsep.evaluation.recipe import draw_recipe, write_recipe

    if not data.is_dir():
        raise InputError(f"{data} is not a folder; give the one that holds manifest.csv and the clips")
    refuse_existing(output, overwrite)
    refuse_unwritable(output.parent)
    clips = select(read_manifest(data), split, commercial_only=False)
    if not clips:
        raise InputError(f"{data} has no clips in its {split} split")
    write_recipe(output, draw_recipe(clips, data, count, seed, targets=target or ()))
    typer.echo(output)
