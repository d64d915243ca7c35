"""Several files with the same settings and one model: what is done is skipped, what fails does not stop the rest."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsep.absence import need_score, refuse_absent
from flowsep.atomic import recover
from flowsep.cli.options import Files, Running
from flowsep.errors import PartialFailure
from flowsep.naming import Job, refuse_outputs
from flowsep.references import References
from flowsep.requests import done_before
from flowsep.settings import FileSettings

if TYPE_CHECKING:
    from flowsep.audio import AudioFile
    from flowsep.blocks import Facts
    from flowsep.files import LoadedModel
    from flowsep.windows import Progress

Document = dict[str, Any]
Work = Callable[["LoadedModel", Any, "AudioFile", FileSettings, bool, "Progress", "Facts"], list[Document]]


@dataclass
class Outcome:
    """What became of one file."""

    source: Path
    status: str  # done, skipped (it was done before) or failed
    documents: list[Document]
    seconds: float = 0.0


@dataclass
class Batch:
    """The files of one command. `work` does one of them; `requests` are what its sidecars will hold."""

    work: Work
    requests: Callable[[Any], list[Document]]
    settings: FileSettings
    files: Files
    running: Running
    verbose: bool = False
    references: References = field(default_factory=dict)
    loaded: LoadedModel | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self, jobs: Sequence[Job]) -> None:
        """Process every file and print what was written; a failed file does not stop the others.

        What killed runs left behind is cleared away first, and outputs that were made before with the same settings
        are kept. One file's error is raised as it is; of several, a PartialFailure at the end. A model that cannot be
        loaded raises at once.
        """
        for folder in {job.folder for job in jobs}:
            recover(folder)
        before = {} if self.files.overwrite else self.done(jobs)
        refuse_outputs(jobs, self.files.overwrite, [job for job in jobs if id(job) in before])
        if self.files.dry_run:
            from flowsep.cli.preview import preview

            preview(self, [job for job in jobs if id(job) not in before])
            return
        outcomes = []
        for outcome in self.outcomes(jobs, before):
            outcomes.append(outcome)
            self.tell(outcome)
        documents = [document for outcome in outcomes for document in outcome.documents]
        if self.files.as_json:
            print(json.dumps(documents[0] if len(documents) == 1 else documents, indent=2, ensure_ascii=False))
        if len(jobs) > 1 and not self.running.quiet:
            print_table(outcomes)
        failed = sum(outcome.status == "failed" for outcome in outcomes)
        if failed:
            raise PartialFailure(f"{failed} of {len(jobs)} files failed; the others are done")
        if self.running.fail_if_absent is not None:
            refuse_absent(documents, self.running.fail_if_absent)

    def done(self, jobs: Sequence[Job]) -> dict[int, list[Document]]:
        """The documents of the jobs that were done before, by the identity of the job."""
        hashes: list[str | None] = []

        def model_hash() -> str | None:
            if not hashes:
                from flowsep.checkpoint import find_model
                from flowsep.files import weights_hash

                hashes.append(weights_hash(find_model(self.running.model)))
            return hashes[0]

        found = {id(job): done_before(job, self.requests(job), model_hash) for job in jobs}
        return {key: documents for key, documents in found.items() if documents is not None}

    def outcomes(self, jobs: Sequence[Job], before: dict[int, list[Document]]) -> Iterator[Outcome]:
        """What becomes of every file, in their order; several at a time where asked for."""
        alone = len(jobs) == 1
        if self.files.jobs == 1 or alone:
            for job in jobs:
                yield self.outcome(job, before, alone)
            return
        with ThreadPoolExecutor(self.files.jobs) as pool:
            waiting = [pool.submit(self.outcome, job, before, False) for job in jobs]
            try:
                for one in waiting:
                    yield one.result()
            except BaseException:  # Ctrl-C and a model that cannot be loaded end the work of all
                self.stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    def outcome(self, job: Job, before: dict[int, list[Document]], alone: bool) -> Outcome:
        """Process one file unless it is done; its error is raised only where it is alone or the model's."""
        if id(job) in before:
            return Outcome(job.source, "skipped", before[id(job)])
        clock = time.perf_counter()
        try:
            documents = self.one(job)
        except ModelNotLoaded as error:
            raise error.reason from error.reason.__cause__
        except Exception as error:
            if alone or self.stopped.is_set():
                raise
            return Outcome(job.source, "failed", [report_failure(job.source, error, self.verbose)])
        return Outcome(job.source, "done", documents, time.perf_counter() - clock)

    def one(self, job: Job) -> list[Document]:
        """Process one file; returns its documents. What is wrong with the file shows before the model is loaded."""
        recording, facts = self.opened(job)
        loaded = self.model(job)
        with self.lock:
            settings = rows_for(loaded, self.running, self.settings, recording, job.texts, self.files.jobs)
        with bar(job.source.name, self.running.quiet or self.files.jobs > 1) as progress:

            def stoppable(stage: str, done: int, total: int) -> None:
                if self.stopped.is_set():
                    raise KeyboardInterrupt
                progress(stage, done, total)

            return self.work(loaded, job, recording, settings, self.files.overwrite, stoppable, facts)

    def opened(self, job: Job) -> tuple[AudioFile, Facts]:
        """The stretch of the input that is wanted, and what one pass over it tells."""
        from flowsep.media import open_media

        return open_stretch(open_media(job.source), self.settings)

    def model(self, job: Job) -> LoadedModel:
        """The model, loaded once, with the references heard; says on stderr what runs where."""
        with self.lock:
            if self.loaded is None:
                try:
                    loaded = load_with(self.references, self.running, self.files.jobs)
                except Exception as error:
                    raise ModelNotLoaded(error) from error
                self.loaded = loaded
                negative = self.settings.options.negative
                words = [text for text in job.texts if text not in self.references]
                warn_truncated(loaded.separator, [*words, *([] if negative is None else [negative])])
            return self.loaded

    def tell(self, outcome: Outcome) -> None:
        """Say on stdout what was written for one file, unless all is printed as one document at the end."""
        if outcome.status == "skipped" and not self.running.quiet:
            print(f"flowsep: {outcome.source} was done before with the same settings", file=sys.stderr)
        if self.files.json_lines:
            for document in outcome.documents:
                print(json.dumps({"status": outcome.status, **document}, ensure_ascii=False), flush=True)
        elif not self.files.as_json and outcome.status != "failed":
            print_paths(outcome.documents)


def open_stretch(recording: AudioFile, settings: FileSettings) -> tuple[AudioFile, Facts]:
    """The stretch of a file that the settings ask for, and its facts; InputError where it holds nothing."""
    from flowsep.blocks import scan
    from flowsep.errors import InputError

    if settings.start or settings.end is not None:
        recording = recording.excerpt(settings.start, settings.end)
        if next(iter(recording.blocks()), None) is None:
            raise InputError(f"{recording.path} has nothing after --start {settings.start:g}; it is shorter than that")
    return recording, scan(recording)


def rows_for(
    loaded: LoadedModel,
    running: Running,
    settings: FileSettings,
    recording: AudioFile,
    texts: Sequence[str],
    jobs: int = 1,
) -> FileSettings:
    """The settings with as many (window, query) pairs at once as --max-memory allows; DeviceError where none fits."""
    if running.max_memory is None:
        return settings
    from flowsep.budget import beside_model, parse_size, try_one_window

    window = loaded.separator.window / loaded.separator.sample_rate
    beside = beside_model(recording.sample_rate, recording.channels, len(texts) * jobs, 1, window)
    cost = try_one_window(loaded, settings.options, texts[0])
    return replace(settings, rows=cost.rows_within(parse_size(running.max_memory), beside))


def share_threads(jobs: int) -> None:
    """Divide the processor between files that are processed at a time."""
    if jobs > 1:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // jobs))


def load_aloud(running: Running) -> LoadedModel:
    """The model with its description; says on stderr, unless quiet, what runs where.

    UsageError where --fail-if-absent needs a score that it does not have.
    """
    from flowsep.files import load_model

    silence_libraries(running.quiet)
    loaded = load_model(running.model, running.device, running.dtype)
    if running.fail_if_absent is not None:
        need_score(loaded.separator, loaded.id)
    if not running.quiet:
        where = f"{loaded.device}, {loaded.dtype}"
        print(f"flowsep: model {loaded.id} on {where}, loaded in {loaded.load_seconds:.1f} s", file=sys.stderr)
    return loaded


def load_with(references: References, running: Running, jobs: int = 1) -> LoadedModel:
    """The model with its threads divided between so many jobs, in which texts stand for their references.

    What is wrong with a clip shows before the model is loaded. Errors as `load_aloud` and `flowsep.masks.listening`.
    """
    if references:
        from flowsep.masks.listening import read_clips, remember_clips

        clips = read_clips(references)
    loaded = load_aloud(running)
    share_threads(jobs)  # before the clips are heard: `replay` has as many threads
    if references:
        remember_clips(loaded.separator, loaded.id, clips)
    return loaded


def silence_libraries(quiet: bool) -> None:
    """Downloads show their bars on a terminal, nowhere else."""
    import huggingface_hub.utils

    if not quiet and sys.stderr.isatty():
        huggingface_hub.utils.enable_progress_bars()


class ModelNotLoaded(Exception):
    """Carries the reason past the handling of errors that concern one file only."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def warn_truncated(separator: object, texts: Sequence[str]) -> None:
    """Say on stderr which queries are longer than the text encoder reads; separators without one read all."""
    encoder = getattr(separator, "text", None)
    if encoder is None or not hasattr(encoder, "token_count"):
        return
    limit = encoder.config.max_length
    for text in texts:
        count = encoder.token_count(text)
        if count > limit:
            begin = text if len(text) <= 40 else f"{text[:40]}..."
            print(f"flowsep: warning: {begin!r} has {count} tokens and is cut to the model's {limit}", file=sys.stderr)


@contextmanager
def bar(name: str, quiet: bool) -> Iterator[Progress]:
    """A progress bar on stderr, where that is a terminal; gives the callback that moves it."""
    from tqdm import tqdm

    shown = {"bar_format": "{desc} |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]", "leave": False, "total": 1}
    with tqdm(desc=name, file=sys.stderr, disable=quiet or not sys.stderr.isatty(), **shown) as line:

        def progress(stage: str, done: int, total: int) -> None:
            line.set_description_str(f"{name}: {stage}", refresh=False)
            line.total, line.n = total, done
            line.refresh()

        yield progress


def print_paths(documents: Sequence[Document]) -> None:
    """The written files on stdout, one per line."""
    for document in documents:
        more = [document.get("video"), document.get("plot"), document["sidecar"]]
        for path in [output["path"] for output in document["outputs"]] + more:
            if path is not None:
                print(path, flush=True)


def print_table(outcomes: Sequence[Outcome]) -> None:
    """One line per file on stderr: what became of it, in how many seconds, and the sum."""
    width = max(len(outcome.source.name) for outcome in outcomes)
    for outcome in outcomes:
        seconds = f"{outcome.seconds:8.1f} s" if outcome.status == "done" else " " * 10
        print(f"{outcome.source.name:{width}}  {outcome.status:7} {seconds}".rstrip(), file=sys.stderr)
    counts = [f"{sum(o.status == status for o in outcomes)} {status}" for status in ("done", "skipped", "failed")]
    print(f"flowsep: {', '.join(counts)}", file=sys.stderr)


def report_failure(source: Path, error: Exception, verbose: bool) -> Document:
    """Print one file's error on stderr, and return its entry in the JSON list."""
    from flowsep.cli import explain

    if verbose:
        traceback.print_exception(error)
    message, code = explain(error)
    print(f"flowsep: error: {message}", file=sys.stderr)
    return {"input": {"path": str(source)}, "error": {"message": message, "exit_code": code}}
