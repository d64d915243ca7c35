"""`flowsep separate`: described sounds out of recordings, onto the disk."""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowsep.checkpoint import solver_names
from flowsep.errors import PartialFailure, UsageError
from flowsep.flow.grids import GRID_HELP
from flowsep.gains import tidied
from flowsep.naming import FileJob, Job, plan_outputs, refuse_outputs
from flowsep.options import SOLVER_HELP, check_choice, check_options, parse_interval
from flowsep.protocol import CANDIDATE_SCORES, SampleOptions

if TYPE_CHECKING:
    from flowsep.audio import Audio
    from flowsep.files import LoadedModel
    from flowsep.longform import Progress

FORMATS = ("wav", "flac")
DTYPES = ("float32", "bfloat16", "float16")


def separate(
    context: typer.Context,
    mix: Annotated[list[Path], typer.Argument(metavar="MIX", readable=False, help="Audio files: wav, flac, mp3, ...")],
    text: Annotated[list[str], typer.Option(help="What to take out, in words. Repeat it for several sounds.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Solver steps. [default: the model's]")] = None,
    solver: Annotated[str | None, typer.Option(help=f"{SOLVER_HELP}. [default: the model's]")] = None,
    grid: Annotated[str | None, typer.Option(help=f"Times of the steps: {GRID_HELP}. [default: the model's]")] = None,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none, others double the cost.")] = 1.0,
    guidance_interval: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Guide only between these times, e.g. 0.2,0.9.")
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What to stay away from, in words; needs --guidance.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Try so many seeds in one batch and keep the best.")] = 1,
    candidate_score: Annotated[
        str, typer.Option(help=f"What the best has most of: {', '.join(CANDIDATE_SCORES)}.")
    ] = "consistency",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the start noise.")] = 0,
    rtol: Annotated[float, typer.Option(help="Relative tolerance of the adaptive solvers.")] = 1e-3,
    atol: Annotated[float, typer.Option(help="Absolute tolerance of the adaptive solvers.")] = 1e-3,
    model: Annotated[str, typer.Option(help="Name, folder or hub id of a model.")] = "small",
    render: Annotated[str | None, typer.Option(help="mixture or vocoder. [default: the model's]")] = None,
    residual: Annotated[bool, typer.Option("--residual", help="Write what remains, too.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help=f"{', '.join(DTYPES)}. [default: the model's]")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", readable=False, help="Folder of the outputs.")
    ] = Path("."),
    format: Annotated[str, typer.Option(help="wav (32-bit float) or flac (24 bit).")] = "wav",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of paths.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Write a PNG of mixture, target and residual.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Take described sounds out of recordings.

    For each MIX and each text it writes {name}.{text}.wav, the residual and a picture where asked for, and a JSON file
    with every setting. Outputs keep the rate, channels and length of the input. Paths go to stdout, all else to
    stderr.
    """
    texts = [tidied(one, "--text") for one in text]
    check_choice("format", format, FORMATS)
    check_choice("dtype", dtype, DTYPES)
    check_device(device)
    options = SampleOptions(steps, solver, guidance, seed, render, rtol, atol, grid)
    interval = None if guidance_interval is None else parse_interval(guidance_interval)
    negative = None if negative is None else tidied(negative, "--negative")
    options = replace(options, guidance_interval=interval, negative=negative)
    options = replace(options, candidates=candidates, candidate_score=candidate_score)
    check_options(options, solver_names(model))
    jobs = plan_outputs(mix, texts, output, format, residual, plot)
    refuse_outputs(jobs, overwrite)
    batch = Batch(model, device, dtype, options, format, overwrite, as_json, quiet, verbose=bool(context.obj))
    batch.run(jobs)


@dataclass
class Batch:
    """Several files with the same settings and one model, loaded when the first file has been read."""

    model: str
    device: str
    dtype: str | None
    options: SampleOptions
    format: str
    overwrite: bool
    as_json: bool
    quiet: bool
    verbose: bool = False
    loaded: LoadedModel | None = None

    def run(self, jobs: Sequence[Job]) -> None:
        """Process every file and print what was written; a failed file does not stop the others.

        One file's error is raised as it is; of several, a PartialFailure at the end. A model that cannot be loaded
        raises at once.
        """
        documents: list[dict[str, Any]] = []
        failed = 0
        for job in jobs:
            try:
                found = self.one(job)
            except ModelNotLoaded as error:
                raise error.reason from error.reason.__cause__
            except Exception as error:
                if len(jobs) == 1:
                    raise
                failed += 1
                documents.append(report_failure(job.source, error, self.verbose))
                continue
            documents += found
            if not self.as_json:
                print_paths(found)
        if self.as_json:
            print(json.dumps(documents[0] if len(documents) == 1 else documents, indent=2, ensure_ascii=False))
        if failed:
            raise PartialFailure(f"{failed} of {len(jobs)} files failed; the others are done")

    def one(self, job: Job) -> list[dict[str, Any]]:
        """Process one file; returns its documents. What is wrong with the file shows before the model is loaded."""
        from flowsep.audio import read_audio

        audio = read_audio(job.source)
        if self.loaded is None:
            self.loaded = self.load()
            negative = [] if self.options.negative is None else [self.options.negative]
            warn_truncated(self.loaded.separator, [*job.texts, *negative])
        with bar(job.source.name, self.quiet) as progress:
            return self.work(job, audio, progress)

    def work(self, job: FileJob, audio: Audio, progress: Progress) -> list[dict[str, Any]]:
        """The command's own part of one file, with the model loaded: writes its files and returns its documents."""
        from flowsep.files import separate_file

        return separate_file(self.loaded, job, audio, self.options, self.format, self.overwrite, progress)

    def load(self) -> LoadedModel:
        """The model with its description; says on stderr what runs where."""
        try:
            return load_aloud(self.model, self.device, self.dtype, self.quiet)
        except Exception as error:
            raise ModelNotLoaded(error) from error


def load_aloud(model: str, device: str, dtype: str | None, quiet: bool) -> LoadedModel:
    """The model with its description; says on stderr, unless quiet, what runs where."""
    from flowsep.files import load_model

    silence_libraries(quiet)
    loaded = load_model(model, device, dtype)
    if not quiet:
        where = f"{loaded.device}, {loaded.dtype}"
        print(f"flowsep: model {loaded.id} on {where}, loaded in {loaded.load_seconds:.1f} s", file=sys.stderr)
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


def check_device(device: str) -> None:
    """UsageError for a device that no machine has."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UsageError(f"unknown device {device!r}; choose from auto, cpu, cuda, cuda:N, mps")


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


def print_paths(documents: Sequence[dict[str, Any]]) -> None:
    """The written files on stdout, one per line."""
    for document in documents:
        paths = [output["path"] for output in document["outputs"]] + [document.get("plot"), document["sidecar"]]
        for path in paths:
            if path is not None:
                print(path, flush=True)


def report_failure(source: Path, error: Exception, verbose: bool) -> dict[str, Any]:
    """Print one file's error on stderr, and return its entry in the JSON list."""
    from flowsep.cli import explain

    if verbose:
        traceback.print_exception(error)
    message, code = explain(error)
    print(f"flowsep: error: {message}", file=sys.stderr)
    return {"input": {"path": str(source)}, "error": {"message": message, "exit_code": code}}
