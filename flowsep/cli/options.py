"""Options that several verbs share, in groups, and the check of those that typer cannot judge."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from flowsep.budget import parse_size
from flowsep.checkpoint import solver_names
from flowsep.encodings import CLIP_POLICIES, FORMATS, SUBTYPES
from flowsep.errors import UsageError
from flowsep.flow.grids import GRID_HELP
from flowsep.gains import tidied
from flowsep.naming import TEMPLATE, Naming
from flowsep.options import DTYPES, SCORE_HELP, SOLVER_HELP, check_choice, parse_interval
from flowsep.protocol import SampleOptions
from flowsep.settings import FileSettings
from flowsep.spans import parse_spans

Mixes = Annotated[
    list[Path] | None,
    typer.Argument(metavar="MIX", readable=False, help="Audio files, folders or patterns: wav, flac, mp3, ..."),
]
Texts = Annotated[list[str] | None, typer.Option("--text", help="The sound in words. Repeat it for several sounds.")]
Likes = Annotated[
    list[str] | None,
    typer.Option(
        "--reference", metavar="[TEXT=]CLIP", help="The sound by example (USS, AudioSep); several clips: their mean."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]


@dataclass(frozen=True)
class Sampling:
    """How the model is sampled: the words of `SampleOptions`."""

    steps: Annotated[int | None, typer.Option(min=1, help="Solver steps. [default: the model's]")] = None
    solver: Annotated[str | None, typer.Option(help=f"{SOLVER_HELP}. [default: the model's]")] = None
    grid: Annotated[str | None, typer.Option(help=f"Times of the steps: {GRID_HELP}. [default: the model's]")] = None
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none, others double the cost.")] = 1.0
    guidance_interval: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Guide only between these times, e.g. 0.2,0.9.")
    ] = None
    negative: Annotated[str | None, typer.Option(help="What to stay away from, in words; needs --guidance.")] = None
    candidates: Annotated[int, typer.Option(min=1, help="Try so many seeds in one batch and keep the best.")] = 1
    candidate_score: Annotated[str, typer.Option(metavar="SCORE", help=f"What the best has most of: {SCORE_HELP}.")] = (
        "consistency"
    )
    seed: Annotated[int, typer.Option(min=0, help="Seed of the start noise.")] = 0
    rtol: Annotated[float, typer.Option(help="Relative tolerance of the adaptive solvers.")] = 1e-3
    atol: Annotated[float, typer.Option(help="Absolute tolerance of the adaptive solvers.")] = 1e-3
    render: Annotated[
        str | None, typer.Option(help="mixture or vocoder; masks come from either. [default: the model's]")
    ] = None

    def options(self) -> SampleOptions:
        """As the library has them; UsageError for an interval or a negative query that cannot be read."""
        return SampleOptions(
            steps=self.steps,
            solver=self.solver,
            guidance=self.guidance,
            seed=self.seed,
            render=self.render,
            rtol=self.rtol,
            atol=self.atol,
            grid=self.grid,
            guidance_interval=None if self.guidance_interval is None else parse_interval(self.guidance_interval),
            negative=None if self.negative is None else tidied(self.negative, "--negative"),
            candidates=self.candidates,
            candidate_score=self.candidate_score,
        )


@dataclass(frozen=True)
class Stretch:
    """Which part of the recording is meant."""

    start: Annotated[float, typer.Option(metavar="SECONDS", help="Read and write from here on.")] = 0.0
    end: Annotated[float | None, typer.Option(metavar="SECONDS", help="And up to here.")] = None
    span: Annotated[
        list[str] | None,
        typer.Option(metavar="START-END", help="The sounds are active only then, e.g. 3.2-4.1. Repeat it."),
    ] = None


@dataclass(frozen=True)
class Running:
    """With which model, where, and within what memory."""

    model: Annotated[str, typer.Option(help="Name, folder or hub id of a model.")] = "small"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    dtype: Annotated[str | None, typer.Option(help=f"{', '.join(DTYPES)}. [default: float32]")] = None
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="As 4GB: as many windows at once as fit, found by trying one.")
    ] = None
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False
    fail_if_absent: Annotated[
        float | None,
        typer.Option(
            metavar="[THRESHOLD]", help="Exit with 7 where a sound's presence score is below it; 0.5 if left out."
        ),
    ] = None

    def check(self) -> None:
        """UsageError for a device, precision, size or probability that does not exist."""
        if self.fail_if_absent is not None and not 0 <= self.fail_if_absent <= 1:
            raise UsageError(f"--fail-if-absent {self.fail_if_absent:g} is no probability; give one from 0 to 1")
        check_choice("dtype", self.dtype, DTYPES)
        check_device(self.device)
        if self.max_memory is not None:
            parse_size(self.max_memory)


@dataclass(frozen=True)
class Files:
    """Which files are read, and how outputs are named and written."""

    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Folders: also what lies in sub-folders.")] = (
        False
    )
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", readable=False, help="CSV or .jsonl: path, text, gains in each row.")
    ] = None
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Files at a time.")] = 1
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", readable=False, help="Folder of the outputs.")
    ] = Path(".")
    name: Annotated[str, typer.Option(metavar="TEMPLATE", help="Of the outputs, without suffix.")] = TEMPLATE
    format: Annotated[str | None, typer.Option(help=f"{', '.join(FORMATS)}. [default: the input's, or wav]")] = None
    subtype: Annotated[str | None, typer.Option(help=f"{', '.join(SUBTYPES)}. [default: the input's]")] = None
    clip: Annotated[
        str, typer.Option(help=f"Above full scale: {', '.join(CLIP_POLICIES)} (32 bit, does not clip).")
    ] = "warn"
    video: Annotated[bool, typer.Option("--video", help="Also write the input's video with its audio replaced.")] = (
        False
    )
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of paths.")] = False
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="Print one line of JSON per output as it is done.")
    ] = False
    overwrite: Overwrite = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done: windows, NFE, seconds, memory.")
    ] = False

    def naming(self) -> Naming:
        """Where outputs go; UsageError for a template that cannot be read, and for two kinds of JSON at a time."""
        if self.as_json and self.json_lines:
            raise UsageError("--json and --json-lines exclude one another; give one of them")
        return Naming(self.output, self.name, self.format, self.clip)


def file_settings(sampling: Sampling, stretch: Stretch, running: Running, files: Files | None = None) -> FileSettings:
    """The settings that the flags ask for; UsageError for what does not exist or go together."""
    written = {} if files is None else {"subtype": files.subtype, "clip": files.clip}
    spans = parse_spans(stretch.span or [])
    settings = FileSettings(sampling.options(), stretch.start, stretch.end, spans, **written)
    settings.check(None if files is None else files.format, solver_names(running.model))
    return settings


def check_device(device: str) -> None:
    """UsageError for a device that no machine has."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UsageError(f"unknown device {device!r}; choose from auto, cpu, cuda, cuda:N, mps")


def needed(texts: list[str]) -> list[str]:
    """The queries; UsageError where there are none."""
    if not texts:
        raise UsageError("--text is missing; describe the sound in words, or give clips of it with --reference")
    return texts


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one option per field of the groups among its parameters, which typer cannot read itself."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]))
            continue
        types = get_type_hints(groups[name], include_extras=True)
        for one in fields(groups[name]):
            default = inspect.Parameter.empty if one.default is MISSING else one.default
            about = {"default": default, "annotation": types[one.name]}
            parameters.append(inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, **about))

    def spread_out(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{one.name: values.pop(one.name) for one in fields(group)})
        command(**values)

    spread_out.__name__, spread_out.__doc__ = command.__name__, command.__doc__
    spread_out.__signature__ = inspect.Signature(parameters)
    spread_out.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return spread_out
