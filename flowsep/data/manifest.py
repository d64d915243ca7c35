"""Clip lists: a CSV (or JSON lines) file -> typed rows. The only reader of the file format.

Columns: `path` (relative to the file's folder) and `class` are needed; `split` (train, valid, test; default train),
`family` (classes that are easily confused; default the class itself), `caption_candidates` (separated by `;`; default
the class name in words), `nc` (1 = non-commercial), `duration_s` and `recording_id` are used when present. A folder of
sub-folders named by class works too, and one of files named by class and number (dog_bark_01.wav).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flowsep.errors import InputError

PHRASINGS = Path(__file__).with_name("phrasings.csv")  # wordings of 224 classes, for training and kept out of it
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}


@dataclass(frozen=True)
class Clip:
    """One recording of one kind of sound."""

    path: Path
    label: str  # the class
    family: str
    split: str
    captions: tuple[str, ...]
    non_commercial: bool = False


def words(label: str) -> str:
    """dog_bark -> dog bark."""
    return label.replace("_", " ").replace("-", " ").strip()


def read_manifest(path: Path | str) -> list[Clip]:
    """Clips of a manifest file, or of a folder with a manifest.csv, a sub-folder per class, or files named by class.

    Raises InputError for a missing file, missing columns or an empty list. Audio files are not opened.
    """
    path = Path(path)
    if path.is_dir():
        manifest = path / "manifest.csv"
        if not manifest.exists():
            return _folder_clips(path)
        path = manifest
    if not path.exists():
        raise InputError(f"no manifest at {path}; give a CSV with the columns path and class, or a folder of clips")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = (
            [json.loads(line) for line in file if line.strip()]
            if path.suffix == ".jsonl"
            else list(csv.DictReader(file))
        )
    if not rows:
        raise InputError(f"{path} lists no clips")
    missing = [name for name in ("path", "class") if name not in rows[0]]
    if missing:
        raise InputError(f"{path} lacks the column {' and '.join(missing)}; it has {', '.join(rows[0])}")
    return [_clip(row, path.parent) for row in rows]


def _clip(row: dict[str, str], root: Path) -> Clip:
    if not row.get("path") or not row.get("class"):
        raise InputError(f"{root} has a clip list with a row without path or class: {row}")
    label = row["class"].strip()
    candidates = row.get("caption_candidates") or ""
    listed = candidates.split(";") if isinstance(candidates, str) else candidates
    captions = tuple(text.strip() for text in listed if text.strip())
    return Clip(
        path=root / row["path"],
        label=label,
        family=(row.get("family") or label).strip(),
        split=(row.get("split") or "train").strip(),
        captions=captions or (words(label),),
        non_commercial=str(row.get("nc") or "0").strip().lower() in {"1", "true", "yes"},
    )


def _folder_clips(folder: Path) -> list[Clip]:
    labels = {file: file.parent.name for file in audio_files(folder, "*/*")}
    labels |= {file: class_of(file.stem) for file in audio_files(folder, "*")}
    if not labels:
        raise InputError(
            f"{folder} has neither a manifest.csv nor audio; put clips into sub-folders named by class, or name the "
            "files by class and number (dog_bark_01.wav)"
        )
    return [Clip(file, label, label, "train", (words(label),)) for file, label in labels.items()]


def listed_path(path: Path, root: Path) -> str:
    """A clip's path as lists hold it: from the folder `root` on, or as it is where it lies elsewhere."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def audio_files(folder: Path, pattern: str) -> list[Path]:
    """The sound files that match the pattern, in order."""
    return sorted(file for file in folder.glob(pattern) if file.suffix.lower() in AUDIO_SUFFIXES)


def class_of(stem: str) -> str:
    """The class in a file's name, less the number of the take: dog_bark_01 and dog_bark-take2 -> dog_bark."""
    return re.sub(r"[ _\-.]+[^ _\-.]*\d[^ _\-.]*$", "", stem) or stem


def read_background(path: Path | str) -> tuple[list[Clip], bool]:
    """Recordings to mix other clips with, and whether it is known what they hold: only a manifest says that.

    A folder without one is searched through all its sub-folders. InputError where nothing is found.
    """
    path = Path(path)
    if not path.is_dir() or (path / "manifest.csv").is_file():
        return read_manifest(path), True
    files = audio_files(path, "**/*")
    if not files:
        raise InputError(f"{path} holds no audio to use as background")
    return [Clip(file, "background", "background", "train", ()) for file in files], False


def templated(label: str) -> tuple[str, ...]:
    """Wordings of a class of which nothing but the name is known."""
    name = words(label).lower()
    one = f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"
    return (name, one, f"the sound of {name}", f"the sound of {one}", f"{name} sound", f"{name} in the background",
            f"a recording of {one}")  # fmt: skip


def select(clips: Iterable[Clip], split: str, commercial_only: bool) -> list[Clip]:
    """Clips of one split, without the non-commercial ones if asked."""
    return [clip for clip in clips if clip.split == split and not (commercial_only and clip.non_commercial)]


def read_phrasings(path: Path | str, split: str = "train") -> dict[str, tuple[str, ...]]:
    """Wordings of each class (columns class, split, text), of the split `train` or `held_out`."""
    phrasings: dict[str, list[str]] = {}
    with Path(path).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                phrasings.setdefault(row["class"], []).append(row["text"])
    return {label: tuple(texts) for label, texts in phrasings.items()}
