"""`flowsep separate`: described sounds out of recordings, onto the disk."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import Annotated, Any

import typer

from flowsep.cli import options as flags
from flowsep.cli.batch import Batch
from flowsep.collect import check_video, collect, need_queries
from flowsep.gains import tidied
from flowsep.naming import FileJob, plan_outputs
from flowsep.references import all_texts, of_texts, parse_references, refuse_unused
from flowsep.requests import separate_request


@flags.spread
def separate(
    context: typer.Context,
    sampling: flags.Sampling,
    stretch: flags.Stretch,
    running: flags.Running,
    files: flags.Files,
    mix: flags.Mixes = None,
    text: flags.Texts = None,
    reference: flags.Likes = None,
    residual: Annotated[bool, typer.Option("--residual", help="Write what remains, too.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Write a PNG of mixture, target and residual.")] = False,
) -> None:
    """Take described sounds out of recordings.

    For each MIX and each text it writes {name}.{text}.wav, the residual and a picture where asked for, and a JSON file
    with every setting. Outputs keep the rate, channels, length and bit depth of the input. Paths go to stdout, all else
    to stderr.
    """
    texts = [tidied(one, "--text") for one in text or []]
    references = parse_references(reference or [], texts)
    texts = all_texts(texts, references)
    running.check()
    settings = flags.file_settings(sampling, stretch, running, files)
    naming = files.naming()
    sources = collect(mix or [], files.recursive, files.manifest)
    need_queries(sources, texts, attrgetter("texts"), "--text or --reference")
    if files.video:
        check_video(sources, settings.start > 0 or settings.end is not None)
    jobs = plan_outputs(sources, texts, naming, residual, plot, files.video)
    refuse_unused(references, (text for job in jobs for text in job.texts))
    jobs = [replace(job, references=of_texts(references, job.texts)) for job in jobs]

    def work(*about: Any) -> list[dict[str, Any]]:
        from flowsep.files import separate_file

        return separate_file(*about)

    def requests(job: FileJob) -> list[dict[str, Any]]:
        return [separate_request(job, query, settings) for query in job.queries]

    verbose = bool(context.obj)
    Batch(work, requests, settings, files, running, verbose, references).run(jobs)
