"""`flowsep remove`: recordings without the described sounds."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from flowsep.cli import options as flags
from flowsep.cli.remix import run_mixes
from flowsep.gains import MUTE, refuse_twice, tidied
from flowsep.references import all_texts, parse_references


@flags.spread
def remove(
    context: typer.Context,
    sampling: flags.Sampling,
    stretch: flags.Stretch,
    running: flags.Running,
    files: flags.Files,
    mix: flags.Mixes = None,
    text: flags.Texts = None,
    reference: flags.Likes = None,
) -> None:
    """Write recordings without the described sounds.

    For each MIX it writes {name}.without-{texts}.wav and a JSON file with every setting. For one text that is the
    residual of separate. Outputs keep the rate, channels, length and bit depth of the input. Paths go to stdout, all
    else to stderr.
    """
    texts = [tidied(one, "--text") for one in text or []]
    references = parse_references(reference or [], texts)
    texts = all_texts(texts, references)
    refuse_twice(texts, "--text")

    def name_of(wanted: Mapping[str, float]) -> str:
        first, *others = wanted
        return " and ".join([f"without {first}", *others])

    groups = (sampling, stretch, running, files)
    run_mixes("remove", groups, mix, dict.fromkeys(texts, MUTE), 0.0, name_of, bool(context.obj), references=references)
