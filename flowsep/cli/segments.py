"""`flowsep segments`: when described sounds are active."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flowsep.cli import options as flags
from flowsep.cli.separate import bar, load_aloud, warn_truncated
from flowsep.errors import UsageError
from flowsep.gains import refuse_twice, tidied

SUFFIXES = (".json", ".csv", ".txt")


def segments(
    mix: Annotated[Path, typer.Argument(metavar="MIX", readable=False, help="An audio file: wav, flac, mp3, ...")],
    text: Annotated[list[str], typer.Option(help="What to look for, in words. Repeat it for several sounds.")],
    share: Annotated[float, typer.Option(min=0, help="Active down to so many dB below the mixture.")] = 10.0,
    range: Annotated[float, typer.Option(min=0, help="And to so many dB below the sound's own loudest moment.")] = 30.0,
    min_duration: Annotated[float, typer.Option(min=0, help="Drop what is shorter, in seconds.")] = 0.1,
    merge_gap: Annotated[float, typer.Option(min=0, help="Close gaps that are shorter, in seconds.")] = 0.2,
    steps: flags.Steps = None,
    solver: flags.Solver = None,
    guidance: flags.Guidance = 1.0,
    seed: flags.Seed = 0,
    rtol: flags.Rtol = 1e-3,
    atol: flags.Atol = 1e-3,
    model: flags.Model = "small",
    render: flags.Render = None,
    device: flags.Device = "auto",
    dtype: flags.Dtype = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", readable=False, help=".json, .csv or .txt (Audacity labels)."),
    ] = None,
    overwrite: flags.Overwrite = False,
    quiet: flags.Quiet = False,
) -> None:
    """Say when described sounds are active in a recording.

    JSON goes to stdout; with -o a file is written instead and its path printed. Times are in seconds.
    """
    texts = [tidied(one, "--text") for one in text]
    refuse_twice(texts, "--text")
    flags.check_run(device, dtype)
    options = flags.checked_options(model, steps, solver, guidance, seed, render, rtol, atol)
    check_output(output, mix, overwrite)
    from flowsep.activity import SegmentRule
    from flowsep.audio import read_audio
    from flowsep.segment_files import describe_segments, formatted, write_segments

    rule = SegmentRule(share, range, min_duration, merge_gap)
    audio = read_audio(mix)
    loaded = load_aloud(model, device, dtype, quiet)
    warn_truncated(loaded.separator, texts)
    with bar(mix.name, quiet) as progress:
        document = describe_segments(loaded, audio, texts, rule, options, progress)
    if output is None:
        sys.stdout.write(formatted(document, ".json"))
        return
    write_segments(output, document, overwrite)
    print(output)


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
