"""Which files a command is to process: paths, folders, patterns, and manifests. Needs no torch."""

from __future__ import annotations

import csv
import glob
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowsep.errors import InputError, UsageError
from flowsep.gains import parse_decibels, parse_gains, refuse_twice, tidied
from flowsep.naming import Source

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".caf", ".w64", ".rf64", ".au")
VIDEO_SUFFIXES = (".m4a", ".aac", ".mp4", ".m4v", ".mov", ".mkv", ".mka", ".webm")  # read with PyAV
PATTERN = "*?["


def collect(paths: Sequence[Path], recursive: bool = False, manifest: Path | None = None) -> list[Source]:
    """The files that paths, folders and patterns name, in order, each once; then those of the manifest.

    A folder stands for the audio and video files in it, with `recursive` also for those in its sub-folders; names that
    begin with a dot are passed over. A path that does not exist and holds *, ? or [ is a pattern. UsageError where
    nothing is named, InputError for a folder or a pattern without such files and for a manifest that cannot be used.
    """
    if not paths and manifest is None:
        raise UsageError("no input; give audio files, folders or patterns, or --manifest FILE")
    found: dict[Path, Source] = {}
    for path in paths:
        for source in sources_of(path, recursive):
            found.setdefault(source.path.resolve(), source)
    rows = [] if manifest is None else read_job_manifest(manifest)
    return [*found.values(), *rows]


def sources_of(path: Path, recursive: bool) -> list[Source]:
    """The files that one argument names. A file that is named itself may have any suffix, and need not exist yet."""
    if path.is_dir():
        files = sorted(audio_files(path, recursive))
        if not files:
            hint = "" if recursive else "; --recursive also looks into its sub-folders"
            raise InputError(f"{path} holds no audio files{hint}")
        return [Source(file, file.parent.relative_to(path)) for file in files]
    if not path.exists() and any(sign in str(path) for sign in PATTERN):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        files = [match for match in matches if match.is_file() and is_media(match)]
        if not files:
            raise InputError(f"no audio file matches {path}")
        return [Source(file) for file in files]
    return [Source(path)]


def audio_files(folder: Path, recursive: bool) -> list[Path]:
    """Audio and video files of a folder that are not hidden."""
    files = folder.rglob("*") if recursive else folder.glob("*")
    return [
        file
        for file in files
        if is_media(file)
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def is_media(path: Path) -> bool:
    """Whether the suffix is that of a file to separate."""
    return path.suffix.lower() in AUDIO_SUFFIXES + VIDEO_SUFFIXES


def read_job_manifest(path: Path) -> list[Source]:
    """Rows of a CSV or JSON-lines file (.jsonl): path (from the file's folder), and text or gains where they differ.

    In CSV several texts are separated by |, as in "a dog|rain"; gains are "a dog=-12|speech=+3". In JSON lines text is
    a string or a list, gains a mapping of text to dB or "mute". InputError for a file that is missing, empty or has no
    such rows.
    """
    if not path.is_file():
        raise InputError(f"no manifest at {path}; give a CSV or .jsonl file with a path in each row")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix.lower() in (".jsonl", ".ndjson"):
                rows = [json.loads(line) for line in file if line.strip()]
            else:
                rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise InputError(f"the manifest {path} cannot be read ({error}); give a CSV or .jsonl file") from error
    if not rows:
        raise InputError(f"the manifest {path} has no rows")
    return [source_of_row(row, path, number) for number, row in enumerate(rows, start=1)]


def source_of_row(row: Any, manifest: Path, number: int) -> Source:
    """One row; errors name it."""
    where = f"row {number} of {manifest}"
    if not isinstance(row, dict) or not isinstance(row.get("path"), str) or not row["path"].strip():
        raise InputError(f"{where} has no path")
    text, gains = row.get("text") or [], row.get("gains") or {}
    texts = [part for part in text.split("|") if part.strip()] if isinstance(text, str) else text
    try:
        texts = [tidied(str(one), "text") for one in texts]
        refuse_twice(texts, "text")
        if isinstance(gains, str):
            levels = parse_gains([part for part in gains.split("|") if part.strip()])
        else:
            levels = {tidied(str(name), "gains"): parse_decibels(str(gain), "gains") for name, gain in gains.items()}
    except (UsageError, AttributeError, TypeError) as error:
        raise InputError(f"{where}: {error}") from error
    return Source(manifest.parent / row["path"].strip(), Path(), tuple(texts), levels)


def need_queries(
    sources: Sequence[Source], given: Sequence[str] | Mapping[str, float], own: Callable[[Source], object], option: str
) -> None:
    """UsageError where the command names no query and a source has none of its `own`."""
    for source in sources:
        if not (own(source) or given):
            raise UsageError(
                f"nothing is asked of {source.path}; give {option}, or a manifest that says it in each row"
            )


def check_video(sources: Sequence[Source], stretch_only: bool) -> None:
    """UsageError where sound is to be put back into inputs that are no video, or only a stretch of them is read."""
    for source in sources:
        if source.path.suffix.lower() not in VIDEO_SUFFIXES:
            raise UsageError(f"--video puts sound back into a video, and {source.path} is none; leave it out")
    if stretch_only:
        raise UsageError("--video keeps the whole video; leave --start and --end out")
