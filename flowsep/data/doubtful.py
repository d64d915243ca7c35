"""Clips that training leaves out one by one: a CSV with a row and a reason for each (`data.exclude_clips`).

Columns: `path` (relative to the manifest or folder) and `class` are needed; `split` and `reason` are for readers.
`flowsep audit` writes such a list, to be gone through by a person before it is used.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath, PurePosixPath

from flowsep.data.dataset import DataNotice
from flowsep.data.manifest import Clip
from flowsep.errors import InputError

SHIPPED_LIST = "doubtful"  # names flowsep/data/doubtful.csv: the project's own clips


def list_file(name: str) -> Path:
    """The file that `data.exclude_clips` names: the project's list, or a path; InputError where there is none."""
    path = Path(__file__).with_name("doubtful.csv") if name == SHIPPED_LIST else Path(name)
    if not path.is_file():
        raise InputError(f"no list of clips at {path} (data.exclude_clips); give a CSV with the columns path and class")
    return path


def read_list(path: Path) -> list[tuple[str, PurePosixPath]]:
    """(class, path) of every row; InputError for a missing column."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), reader.fieldnames or ()
    if not {"path", "class"} <= set(columns):
        raise InputError(f"{path} (data.exclude_clips) needs the columns path and class; it has {', '.join(columns)}")
    return [(row["class"], PurePosixPath(row["path"])) for row in rows]


def listing(name: str) -> Callable[[PurePath, str], bool]:
    """Whether the list `name` means a clip, by its path, which ends in a row's, and its class, which is the row's."""
    by_file: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for label, path in read_list(list_file(name)):
        by_file.setdefault(path.name, []).append((label, path.parts))

    def is_listed(path: PurePath, label: str) -> bool:
        rows = by_file.get(path.name, ())
        return any(label == listed and path.parts[-len(parts) :] == parts for listed, parts in rows)

    return is_listed


def without_listed(clips: Iterable[Clip], name: str | None) -> list[Clip]:
    """The clips less those of the train split that the list `name` holds; all of them where it is None.

    `listing` says what a row means. Rows of the other splits are for readers: no figure loses a clip. A DataNotice
    tells of a list that names none of the clips, unless it is the project's, which goes with every data set.
    """
    clips = list(clips)
    if name is None:
        return clips
    is_listed = listing(name)
    listed = [is_listed(clip.path, clip.label) for clip in clips]
    if not any(listed) and name != SHIPPED_LIST:
        warnings.warn(
            f"data.exclude_clips={name} names none of the clips: are its paths those of the manifest?",
            DataNotice,
            stacklevel=2,
        )
    return [clip for clip, one in zip(clips, listed, strict=True) if not (one and clip.split == "train")]
