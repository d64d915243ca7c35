"""`flowsep edit`: recordings changed as a sentence says."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flowsep.cli import options as flags
from flowsep.cli.remix import Parts, run_mixes


@flags.spread
def edit(
    context: typer.Context,
    sampling: flags.Sampling,
    stretch: flags.Stretch,
    running: flags.Running,
    files: flags.Files,
    *,
    mix: flags.Mixes = None,
    instruction: Annotated[
        str, typer.Argument(metavar="INSTRUCTION", help='As "remove the dog and turn the rain down by 6 dB".')
    ],
    parts: Parts = False,
) -> None:
    """Change recordings as an English sentence says.

    The sentence may extract, remove, keep, and turn up or down by dB, a factor, or words such as slightly, half, a lot;
    sounds whose names hold such words stand in quotes. What was understood is printed before anything is done, and what
    was not is refused. For each MIX it writes {name}.edit-{gains}.wav and a JSON file, as remix does.
    """
    from flowsep.instructions import parse_instruction

    understood = parse_instruction(instruction)
    if not running.quiet:
        print(f"flowsep: understood: {'; '.join(understood.lines())}", file=sys.stderr)
    groups = (sampling, stretch, running, files)
    gains, rest = understood.gains(), understood.rest
    run_mixes("edit", groups, mix, gains, rest, None, bool(context.obj), understood.document(), parts)
