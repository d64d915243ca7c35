"""`flowsep card REPORT.json --recipe R.csv --data DIR -o OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def card(
    report: Annotated[Path, typer.Argument(help="JSON that `flowsep evaluate -o` wrote for one model.")],
    recipe: Annotated[Path, typer.Option("--recipe", help="The list of mixtures that it is about.")],
    data: Annotated[Path, typer.Option("--data", help="Folder of the clips, with its manifest.csv.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")],
    failures: Annotated[int, typer.Option(min=0, help="How many of the worst separations to draw.")] = 5,
    successes: Annotated[int, typer.Option(min=0, help="How many of the best.")] = 3,
    exclude_clips: Annotated[
        str, typer.Option("--exclude-clips", help="CSV of clips that training left out (its data.exclude_clips).")
    ] = "doubtful",
    device: Annotated[str, typer.Option("--device")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
) -> None:
    """Table by class (classes.md), header for a hub (header.md), pictures of the worst and best separations.

    Where an attributions.csv lies beside the clips' manifest, also who recorded what training heard (attributions.md).
    """
    from flowsep.atomic import atomic_output, refuse_existing, refuse_unwritable
    from flowsep.checkpoint import load_separator, read_json
    from flowsep.data.doubtful import without_listed
    from flowsep.data.manifest import read_manifest, select
    from flowsep.errors import InputError
    from flowsep.evaluation.card import (
        attribution_lines,
        class_table,
        doubted_lines,
        draw_examples,
        extremes,
        heard_lines,
        hub_header,
        separate_again,
    )
    from flowsep.evaluation.recipe import read_recipe
    from flowsep.evaluation.run import SCHEMA_VERSION
    from flowsep.settings import sample_options

    if not report.is_file():
        raise InputError(f"no report at {report}; `flowsep evaluate ... -o {report}` writes one")
    figures = read_json(report)
    if "items" not in figures or "settings" not in figures:
        raise InputError(f"{report} is not the report of one model; write one with `flowsep evaluate --model M -o`")
    if figures.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{report} was written by another version of flowsep; write it again with `flowsep evaluate`")
    rows = read_recipe(recipe)
    wanted = {"failures.png": (failures, True), "successes.png": (successes, False)}
    drawn = {output / name: choice for name, choice in wanted.items() if choice[0]}
    training = without_listed(select(read_manifest(data), "train", commercial_only=True), exclude_clips)
    items = figures["items"]
    doubted = doubted_lines(items, rows, exclude_clips)
    texts = {output / "classes.md": [*heard_lines(items, training), *doubted, "", *class_table(items, training)]}
    texts[output / "header.md"] = hub_header(figures, Path(figures["model"]).name)
    if (data / "attributions.csv").is_file():
        texts[output / "attributions.md"] = attribution_lines(training, data / "attributions.csv")
    for path in [*texts, *drawn]:
        refuse_existing(path, overwrite)
    refuse_unwritable(output)
    output.mkdir(parents=True, exist_ok=True)
    for path, lines in texts.items():
        with atomic_output(path, overwrite=overwrite) as temporary:
            temporary.write_text("\n".join([*lines, ""]), encoding="utf-8")
        typer.echo(path)
    separator = load_separator(figures["model"], device) if drawn else None
    for path, (count, worst) in drawn.items():
        chosen = extremes(items, count, worst)
        options = sample_options(figures["settings"])
        draw_examples(path, [separate_again(separator, item, rows, data, options) for item in chosen], overwrite)
        typer.echo(path)
