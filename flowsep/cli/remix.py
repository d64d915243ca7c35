"""`flowsep remix`: described sounds turned up, down or away."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from operator import attrgetter
from types import MappingProxyType
from typing import Annotated, Any

import typer

from flowsep.cli import options as flags
from flowsep.cli.batch import Batch
from flowsep.collect import check_video, collect, need_queries
from flowsep.gains import MUTE, check_gains, gains_in_words, parse_decibels, parse_gains
from flowsep.naming import MixJob, plan_mixes
from flowsep.references import References, of_texts, parse_references, refuse_unused
from flowsep.requests import mix_request

Parts = Annotated[
    bool, typer.Option("--parts", help="Also write each sound as it was, and the rest; they add up to the input.")
]


@flags.spread
def remix(
    context: typer.Context,
    sampling: flags.Sampling,
    stretch: flags.Stretch,
    running: flags.Running,
    files: flags.Files,
    mix: flags.Mixes = None,
    gain: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT=DB", help='"dog barking=-12", "speech=+3" or "hum=mute". Repeat it.'),
    ] = None,
    rest: Annotated[str, typer.Option(metavar="DB", help="Gain of all else in dB, or mute.")] = "0",
    reference: flags.Likes = None,
    parts: Parts = False,
) -> None:
    """Turn described sounds up, down or away.

    For each MIX it writes {name}.remix-{gains}.wav and a JSON file with every setting. The described sounds and the
    rest add up to the input exactly, so gains of 0 dB change nothing. Outputs keep the rate, channels, length and bit
    depth of the input. Paths go to stdout, all else to stderr.
    """
    gains, others = parse_gains(gain or []), parse_decibels(rest, "--rest")
    groups = (sampling, stretch, running, files)
    references = parse_references(reference or [], list(gains))
    run_mixes("remix", groups, mix, gains, others, None, bool(context.obj), parts=parts, references=references)


def run_mixes(
    verb: str,
    groups: tuple[Any, ...],
    mix: Any,
    gains: dict[str, float],
    rest: float,
    name_of: Any,
    verbose: bool,
    instruction: dict[str, Any] | None = None,
    parts: bool = False,
    references: References = MappingProxyType({}),
) -> None:
    """Check the flags of the four groups, plan {stem}.{name} for every source, and remix them or remove sounds.

    `name_of` None names outputs after the verb and every gain. An `instruction` holds for all rows of a manifest.
    """
    sampling, stretch, running, files = groups
    running.check()
    settings = flags.file_settings(sampling, stretch, running, files)
    naming = files.naming()
    sources = collect(mix or [], files.recursive, files.manifest)
    if verb == "remove":
        sources = [replace(source, gains=dict.fromkeys(source.texts, MUTE)) for source in sources]
    if verb == "edit":
        sources = [replace(source, gains={}) for source in sources]
    need_queries(sources, gains, attrgetter("gains"), "--text or --reference" if verb == "remove" else "--gain")
    if files.video:
        check_video(sources, settings.start > 0 or settings.end is not None)
    name_of = name_of or partial(gains_in_words, verb, rest)
    jobs = plan_mixes(sources, gains, name_of, naming, files.video, parts)
    refuse_unused(references, (text for job in jobs for text in job.texts))
    jobs = [replace(job, instruction=instruction, references=of_texts(references, job.texts)) for job in jobs]
    for job in jobs:
        check_gains(job.gains, rest)

    def work(loaded: Any, job: MixJob, recording: Any, *about: Any) -> list[dict[str, Any]]:
        from flowsep.remix_files import remix_file

        return [remix_file(loaded, job, recording, verb, rest, *about)]

    def requests(job: MixJob) -> list[dict[str, Any]]:
        return [mix_request(job, verb, rest, settings)]

    Batch(work, requests, settings, files, running, verbose, references).run(jobs)
