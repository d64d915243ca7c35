"""`flowsep models [FOLDER...]`: every separator and what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def models(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER", help="Model folders, or folders of them, to list too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every separator: parameters without its query encoder, sample rate, licence, and what it needs to run."""
    import dataclasses
    import json

    from flowsep.models import known_models

    entries = known_models(folders or ())
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2))
        return
    rows = [("name", "system", "parameters", "rate", "licence", "needs")]
    for one in entries:
        count = "?" if one.parameters is None else f"{one.parameters / 1e6:.1f} M"
        rows.append((one.name, one.system, count, f"{one.sample_rate / 1000:g} kHz", one.licence, one.needs))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
