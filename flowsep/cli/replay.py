"""`flowsep replay`: an output made again from its sidecar."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from flowsep.cli import options as flags


def replay(
    sidecar: Annotated[Path, typer.Argument(metavar="SIDECAR", readable=False, help="The JSON file beside an output.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", readable=False, help="Folder of the new outputs.")
    ] = Path("replayed"),
    model: Annotated[str | None, typer.Option(help="Where the model is now. [default: as it was]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps. [default: as it was]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of paths.")] = False,
    overwrite: flags.Overwrite = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Make an output again from the JSON file beside it, and say whether it is the same bit for bit.

    Input, model and settings are those of the file; an input or a model that has changed is refused. On the same
    machine the samples are identical; where they are not, the exit code is 1.
    """
    if device is not None:
        flags.check_device(device)
    from flowsep.atomic import refuse_existing, refuse_unwritable
    from flowsep.cli.batch import bar, load_aloud
    from flowsep.replay import check_model, read_replay, run_replay

    asked = read_replay(sidecar)
    refuse_unwritable(output)
    for one in asked.document["outputs"]:
        refuse_existing(output / Path(one["path"]).name, overwrite)
    params, id = asked.params, asked.document["model"]["id"]
    loaded = load_aloud(flags.Running(model or id, device or params["device"], params["dtype"], quiet=quiet))
    check_model(asked, loaded)
    with bar(asked.source.name, quiet) as progress:
        found = run_replay(asked, loaded, output, overwrite, progress)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for one in found:
            print(one["path"])
    same = all(one["identical"] for one in found)
    print(f"flowsep: {'identical, bit for bit' if same else 'the samples DIFFER'}", file=sys.stderr)
    if not same:
        raise typer.Exit(1)
