"""`flowsep mix RECIPE OUT`: mixtures as files, for any other tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowsep.cli.evaluate import Count, Seed, Split


def mix(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="CSV of mixtures, or a protocol's name.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    data: Annotated[Path, typer.Option("--data", help="Folder of the clips or of the benchmark.")],
    targets: Annotated[bool, typer.Option("--targets", help="Also what is asked for, to score against.")] = False,
    residuals: Annotated[bool, typer.Option("--residuals", help="Also all else: mixture less target.")] = False,
    count: Count = None,
    mix_seed: Seed = None,
    split: Split = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many mixtures.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Write mixtures as wav files, and index.csv with the query, class and SNR of each."""
    from flowsep.atomic import refuse_unwritable
    from flowsep.cli.evaluate import Mixtures, read_protocol
    from flowsep.evaluation.protocols import PROTOCOLS
    from flowsep.evaluation.written import Wanted, write_mixtures

    listed = None if recipe in PROTOCOLS else Path(recipe)
    refuse_unwritable(output)
    words = Mixtures(data, listed, count, mix_seed, split)
    items = read_protocol("own" if listed is not None else recipe, words)
    typer.echo(write_mixtures(items, output, Wanted(targets, residuals), limit, overwrite, quiet))
