"""`flowsep segments`: when described sounds are active."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flowsep.cli import options as flags
from flowsep.errors import UsageError
from flowsep.gains import refuse_twice, tidied
from flowsep.references import all_texts, described, parse_references

SUFFIXES = (".json", ".csv", ".txt")


@flags.spread
def segments(
    mix: Annotated[Path, typer.Argument(metavar="MIX", readable=False, help="An audio file: wav, flac, mp3, ...")],
    sampling: flags.Sampling,
    stretch: flags.Stretch,
    running: flags.Running,
    text: flags.Texts = None,
    reference: flags.Likes = None,
    share: Annotated[float, typer.Option(min=0, help="Active down to so many dB below the mixture.")] = 10.0,
    range: Annotated[float, typer.Option(min=0, help="And to so many dB below the sound's own loudest moment.")] = 30.0,
    min_duration: Annotated[float, typer.Option(min=0, help="Drop what is shorter, in seconds.")] = 0.1,
    merge_gap: Annotated[float, typer.Option(min=0, help="Close gaps that are shorter, in seconds.")] = 0.2,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", readable=False, help=".json, .csv or .txt (Audacity labels)."),
    ] = None,
    overwrite: flags.Overwrite = False,
) -> None:
    """Say when described sounds are active in a recording.

    JSON goes to stdout; with -o a file is written instead and its path printed. Times are in seconds.
    """
    texts = [tidied(one, "--text") for one in text or []]
    references = parse_references(reference or [], texts)
    texts = flags.needed(all_texts(texts, references))
    refuse_twice(texts, "--text")
    running.check()
    settings = flags.file_settings(sampling, stretch, running)
    check_output(output, mix, overwrite)
    from flowsep.absence import refuse_absent
    from flowsep.activity import SegmentRule
    from flowsep.cli.batch import bar, load_with, open_stretch, rows_for, warn_truncated
    from flowsep.media import open_media
    from flowsep.segment_files import describe_segments, formatted, write_segments

    rule = SegmentRule(share, range, min_duration, merge_gap)
    recording, facts = open_stretch(open_media(mix), settings)
    loaded = load_with(references, running)
    warn_truncated(loaded.separator, [text for text in texts if text not in references])
    settings = rows_for(loaded, running, settings, recording, texts)
    with bar(mix.name, running.quiet) as progress:
        document = describe_segments(loaded, recording, texts, rule, settings, progress, facts)
    document |= described(references)
    if output is None:
        sys.stdout.write(formatted(document, ".json"))
    else:
        write_segments(output, document, overwrite)
        print(output)
    if running.fail_if_absent is not None:
        refuse_absent([document], running.fail_if_absent)


def check_output(output: Path | None, mix: Path, overwrite: bool) -> None:
    """Raise before any work: UsageError for another suffix, InputError for what cannot be written or is the input."""
    if output is None:
        return
    from flowsep.atomic import refuse_existing, refuse_unwritable
    from flowsep.errors import InputError

    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{output} has none of the suffixes {', '.join(SUFFIXES)}; the suffix chooses the format")
    if output.resolve() == mix.resolve():
        raise InputError(f"{output} is the input and would be overwritten; choose another name with -o")
    refuse_unwritable(output.parent)
    refuse_existing(output, overwrite)
