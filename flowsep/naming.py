"""Names of the files that a separation writes: told from input and query, never two the same."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from flowsep.atomic import refuse_existing, refuse_unwritable
from flowsep.encodings import output_format
from flowsep.errors import InputError, UsageError
from flowsep.references import References

NAME_BYTES = 255  # of UTF-8 in a file name: what common file systems allow
SLUG_BYTES = 80  # of them for the query
TEMPLATE = "{folder}/{stem}.{text}"
FIELDS = ("folder", "stem", "text", "suffix", "number")


@dataclass(frozen=True)
class Source:
    """One input file and where it stands."""

    path: Path
    folder: Path = Path()  # below the folder that was given to be searched
    texts: tuple[str, ...] = ()  # of its row in a manifest; empty: those of the command
    gains: Mapping[str, float] = field(default_factory=dict)  # likewise


@dataclass(frozen=True)
class QueryFiles:
    """What one query of one input is written to; residual, plot and video are None where not asked for."""

    text: str
    target: Path
    residual: Path | None
    plot: Path | None
    sidecar: Path
    video: Path | None = None

    def paths(self) -> list[Path]:
        """All files, in the order in which they are named to the user."""
        every = (self.target, self.residual, self.video, self.plot, self.sidecar)
        return [path for path in every if path is not None]


@dataclass(frozen=True)
class FileJob:
    """One input file and the outputs of each of its queries, all in one folder."""

    source: Path
    folder: Path
    queries: tuple[QueryFiles, ...]
    format: str = "wav"
    company: tuple[str, ...] = ()  # all texts of the call where only some are written; empty: those of the queries
    references: References = field(default_factory=dict)  # clips that texts of the call stand for

    @property
    def texts(self) -> list[str]:
        """The queries as the model gets them."""
        return list(self.company) or [query.text for query in self.queries]

    @property
    def sidecars(self) -> list[Path]:
        """One per query."""
        return [query.sidecar for query in self.queries]

    def paths(self) -> list[Path]:
        """All files of all queries."""
        return [path for query in self.queries for path in query.paths()]


@dataclass(frozen=True)
class MixJob:
    """One input file and the one file that a remix, a removal or an edit of the described sounds is written to."""

    source: Path
    folder: Path
    gains: dict[str, float]  # dB by text
    output: Path
    sidecar: Path
    format: str = "wav"
    video: Path | None = None
    instruction: dict[str, Any] | None = None  # of edit, as JSON has it: the sentence and what was understood
    parts: tuple[Path, ...] = ()  # one per gain, as it was in the recording, and the rest last; or none at all
    references: References = field(default_factory=dict)  # clips that texts among the gains stand for

    @property
    def texts(self) -> list[str]:
        """The described sounds as the model gets them."""
        return list(self.gains)

    @property
    def sidecars(self) -> list[Path]:
        """The one there is."""
        return [self.sidecar]

    def paths(self) -> list[Path]:
        """All files, in the order in which they are named to the user."""
        return [path for path in (self.output, *self.parts, self.video, self.sidecar) if path is not None]


class Job(Protocol):
    """What every command knows of the work on one input file."""

    @property
    def source(self) -> Path:
        """The input."""

    @property
    def folder(self) -> Path:
        """Where all outputs go."""

    @property
    def texts(self) -> list[str]:
        """The queries."""

    @property
    def references(self) -> References:
        """Clips that queries stand for."""

    @property
    def sidecars(self) -> list[Path]:
        """The JSON files that say how the outputs came about."""

    def paths(self) -> list[Path]:
        """All outputs."""


@dataclass(frozen=True)
class Naming:
    """Where outputs go and what they are called: a folder, and a template of their path below it without suffix.

    Fields of the template: {folder} of the input below the folder that was searched, its {stem} and {suffix} (without
    the dot), {text} (the query, or what is done) and {number} (of the input, from 1).
    """

    output: Path = Path(".")
    template: str = TEMPLATE
    format: str | None = None  # None: like the input
    clip: str = "warn"

    def __post_init__(self) -> None:
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None]
        except ValueError as error:
            raise UsageError(f"cannot read the name {self.template!r}: {error}; write it like {TEMPLATE}") from error
        unknown = [name for name in names if name not in FIELDS]
        if unknown:
            raise UsageError(f"--name has no field {{{unknown[0]}}}; choose from {', '.join(FIELDS)}")
        if "text" not in names:
            raise UsageError("--name lacks {text}, without which the queries of one file would share a name")
        if Path(self.template).is_absolute() or ".." in Path(self.template).parts:
            raise UsageError(f"--name {self.template!r} leads out of the output folder; -o chooses that")

    def base(self, source: Source, stem: str, text: str, number: int) -> Path:
        """Path of an output without its suffix."""
        fields = {"folder": source.folder.as_posix(), "stem": stem, "text": text, "number": f"{number:03d}"}
        return self.output / self.template.format(**fields, suffix=source.path.suffix.removeprefix("."))


def slug(text: str) -> str:
    """A query as part of a file name: lower-case words joined by hyphens, letters of any script, at most 80 bytes."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    cut = "-".join(words).replace("_", "-").encode()[:SLUG_BYTES].decode(errors="ignore").strip("-")
    return cut or "query"


def plan_outputs(
    sources: Sequence[Source],
    texts: Sequence[str],
    naming: Naming,
    residual: bool = False,
    plot: bool = False,
    video: bool = False,
) -> list[FileJob]:
    """One job per source: {stem}.{slug}.{format}, {stem}.{slug}.residual.{format}, .png and .json below the folder.

    The stem is the name without its last suffix. Sources of one folder and stem, and queries of one slug, are numbered
    from the second on: rain.wav and rain.flac give rain.dog.wav and rain-2.dog.wav. Case does not tell names apart.
    """
    jobs = []
    for number, (source, stem) in enumerate(zip(sources, stems(sources), strict=True), start=1):
        format = output_format(source.path, naming.format, naming.clip)
        wanted = list(source.texts or texts)
        queries = []
        for text, name in zip(wanted, numbered([slug(text) for text in wanted]), strict=True):
            base = naming.base(source, stem, name, number)
            queries.append(
                QueryFiles(
                    text=text,
                    target=with_ending(base, format),
                    residual=with_ending(base, f"residual.{format}") if residual else None,
                    plot=with_ending(base, "png") if plot else None,
                    sidecar=with_ending(base, "json"),
                    video=with_ending(base, video_suffix(source.path)) if video else None,
                )
            )
        jobs.append(FileJob(source.path, queries[0].target.parent, tuple(queries), format))
    return jobs


def plan_mixes(
    sources: Sequence[Source],
    gains: Mapping[str, float],
    name_of: Callable[[Mapping[str, float]], str],
    naming: Naming,
    video: bool = False,
    parts: bool = False,
) -> list[MixJob]:
    """One job per source: {stem}.{slug of what is done}.{format} and .json; stems as `plan_outputs` has them.

    `name_of` gives that name from the gains of a source. With `parts`, the described sounds and the rest as they were
    are written, too: {slug of what is done}.{slug of the sound}.{format}.
    """
    jobs = []
    for number, (source, stem) in enumerate(zip(sources, stems(sources), strict=True), start=1):
        wanted = dict(source.gains or gains)
        base = naming.base(source, stem, slug(name_of(wanted)), number)
        format = output_format(source.path, naming.format, naming.clip)
        shares = numbered([*map(slug, wanted), "rest"]) if parts else []
        jobs.append(
            MixJob(
                source=source.path,
                folder=base.parent,
                gains=wanted,
                output=with_ending(base, format),
                sidecar=with_ending(base, "json"),
                format=format,
                video=with_ending(base, video_suffix(source.path)) if video else None,
                parts=tuple(with_ending(base, f"{name}.{format}") for name in shares),
            )
        )
    return jobs


def with_ending(base: Path, ending: str) -> Path:
    """`base` with a dot and an ending after it; dots in its name stay."""
    return base.with_name(f"{base.name}.{ending}")


def video_suffix(source: Path) -> str:
    """The ending of a video that is written back: that of the input where it is known to hold what is put in."""
    suffix = source.suffix.lower().removeprefix(".")
    return suffix if suffix in ("mp4", "mkv", "mov", "m4v") else "mkv"


def stems(sources: Sequence[Source]) -> list[str]:
    """Names of the sources without suffix, those that come again in the same folder numbered."""
    names = numbered([(source.folder / source.path.stem).as_posix() for source in sources])
    return [Path(name).name for name in names]


def numbered(names: Sequence[str]) -> list[str]:
    """The names, each that came before (whatever its case) with -2, -3, ... appended until it is new."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 1
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{name}-{number}"
        taken.add(candidate.casefold())
        result.append(candidate)
    return result


def refuse_outputs(jobs: Sequence[Job], overwrite: bool, done: Sequence[Job] = ()) -> None:
    """Raise InputError before any work: outputs that exist, that are inputs, that coincide, or an unwritable folder.

    The outputs of the jobs in `done` may exist.
    """
    sources = {job.source.resolve() for job in jobs}
    finished = {id(job) for job in done}
    seen: set[str] = set()
    for job in jobs:
        refuse_unwritable(job.folder)
        for path in job.paths():
            if len(path.name.encode()) > NAME_BYTES:
                raise InputError(
                    f"the output name {path.name[:40]}... is too long for a file; shorten the input's name"
                )
            if path.resolve() in sources:
                raise InputError(f"{path} is an input and would be overwritten; choose another folder with -o")
            if str(path).casefold() in seen:
                raise InputError(f"two outputs would be named {path}; rename an input, or use {{number}} in --name")
            seen.add(str(path).casefold())
            if id(job) not in finished:
                refuse_existing(path, overwrite)
