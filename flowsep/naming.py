"""Names of the files that a separation writes: told from input and query, never two the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flowsep.atomic import refuse_existing, refuse_unwritable
from flowsep.errors import InputError

NAME_BYTES = 255  # of UTF-8 in a file name: what common file systems allow
SLUG_BYTES = 80  # of them for the query


@dataclass(frozen=True)
class QueryFiles:
    """What one query of one input is written to; residual and plot are None where not asked for."""

    text: str
    target: Path
    residual: Path | None
    plot: Path | None
    sidecar: Path

    def paths(self) -> list[Path]:
        """All files, in the order in which they are named to the user."""
        return [path for path in (self.target, self.residual, self.plot, self.sidecar) if path is not None]


@dataclass(frozen=True)
class FileJob:
    """One input file and the outputs of each of its queries, all in one folder."""

    source: Path
    folder: Path
    queries: tuple[QueryFiles, ...]

    @property
    def texts(self) -> list[str]:
        """The queries as the model gets them."""
        return [query.text for query in self.queries]

    def paths(self) -> list[Path]:
        """All files of all queries."""
        return [path for query in self.queries for path in query.paths()]


def slug(text: str) -> str:
    """A query as part of a file name: lower-case words joined by hyphens, letters of any script, at most 80 bytes."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    cut = "-".join(words).replace("_", "-").encode()[:SLUG_BYTES].decode(errors="ignore").strip("-")
    return cut or "query"


def plan_outputs(
    sources: Sequence[Path],
    texts: Sequence[str],
    folder: Path,
    format: str = "wav",
    residual: bool = False,
    plot: bool = False,
) -> list[FileJob]:
    """One job per source: {stem}.{slug}.{format}, {stem}.{slug}.residual.{format}, .png and .json in `folder`.

    The stem is the name without its last suffix. Sources of one stem, and queries of one slug, are numbered from the
    second on: rain.wav and rain.flac give rain.dog.wav and rain-2.dog.wav. Case does not tell names apart.
    """
    stems, slugs = numbered([source.stem for source in sources]), numbered([slug(text) for text in texts])
    jobs = []
    for source, stem in zip(sources, stems, strict=True):
        queries = []
        for text, name in zip(texts, slugs, strict=True):
            base = f"{stem}.{name}"
            queries.append(
                QueryFiles(
                    text=text,
                    target=folder / f"{base}.{format}",
                    residual=folder / f"{base}.residual.{format}" if residual else None,
                    plot=folder / f"{base}.png" if plot else None,
                    sidecar=folder / f"{base}.json",
                )
            )
        jobs.append(FileJob(source, folder, tuple(queries)))
    return jobs


@dataclass(frozen=True)
class MixJob:
    """One input file and the one file that a remix, or a removal, of the described sounds is written to."""

    source: Path
    folder: Path
    texts: list[str]  # as the model gets them
    output: Path
    sidecar: Path

    def paths(self) -> list[Path]:
        """All files, in the order in which they are named to the user."""
        return [self.output, self.sidecar]


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

    def paths(self) -> list[Path]:
        """All outputs."""


def plan_mixes(
    sources: Sequence[Path], texts: Sequence[str], name: str, folder: Path, format: str = "wav"
) -> list[MixJob]:
    """One job per source: {stem}.{slug of name}.{format} and .json in `folder`; stems as `plan_outputs` has them."""
    stems = numbered([source.stem for source in sources])
    bases = [f"{stem}.{slug(name)}" for stem in stems]
    return [
        MixJob(source, folder, list(texts), folder / f"{base}.{format}", folder / f"{base}.json")
        for source, base in zip(sources, bases, strict=True)
    ]


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


def refuse_outputs(jobs: Sequence[Job], overwrite: bool) -> None:
    """Raise InputError before any work: outputs that exist, that are inputs, that coincide, or an unwritable folder."""
    sources = {job.source.resolve() for job in jobs}
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
                raise InputError(f"two outputs would be named {path}; rename an input or separate them one by one")
            seen.add(str(path).casefold())
            refuse_existing(path, overwrite)
