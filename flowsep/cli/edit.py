"""`flowsep edit`: recordings changed as a sentence says."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flowsep.cli import options as flags
from flowsep.cli.remix import Parts, run_mixes
from flowsep.references import parse_references


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
    llm: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Have a chat model read it: a folder, or a hub id. [default: rules]"),
    ] = None,
    reference: flags.Likes = None,
    parts: Parts = False,
) -> None:
    """Change recordings as an English sentence says.

    The sentence may extract, remove, keep, and turn up or down by dB, a factor, or words such as slightly, half, a lot;
    sounds whose names hold such words stand in quotes. What was understood is printed before anything is done, and what
    was not is refused. With --llm a language model on this machine reads the sentence, and its answer is checked as
    strictly. For each MIX it writes {name}.edit-{gains}.wav and a JSON file, as remix does.
    """
    from flowsep.instructions import parse_instruction

    if llm is None:
        understood = parse_instruction(instruction)
    else:
        from flowsep.instruction_model import ask, load_chat_model

        running.check()
        understood = ask(load_chat_model(llm, running.device), instruction)
    if not running.quiet:
        print(f"flowsep: understood: {'; '.join(understood.lines())}", file=sys.stderr)
    groups = (sampling, stretch, running, files)
    gains, rest = understood.gains(), understood.rest
    document = understood.document() | ({} if llm is None else {"read_by": llm})
    references = parse_references(reference or [], list(gains))
    run_mixes("edit", groups, mix, gains, rest, None, bool(context.obj), document, parts, references)
