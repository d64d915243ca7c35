"""Files that appear whole or not at all: written under a temporary name in the same folder, then renamed.

Temporary names are `.flowsep-{process id}-...`, so that what a killed process left can be told from work in progress
(`recover`).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from flowsep.errors import InputError

PREFIX = ".flowsep-"
COMMIT = "commit"  # in a staging folder: the names of all its files, written once they are complete


@contextmanager
def atomic_output(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends without an exception it becomes `path`.

    On any exception, Ctrl-C among them, the temporary file is removed and `path` is as it was.
    An existing `path` without `overwrite`, and a folder that cannot be written, raise InputError.
    """
    path = Path(path)
    # Short: the real name may be as long as names may be.
    temporary = path.parent / f"{PREFIX}{os.getpid()}-{uuid4().hex}.part"
    try:
        refuse_existing(path, overwrite)
        yield temporary
        refuse_existing(path, overwrite)  # somebody else may have been quicker
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another folder with -o") from error
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


@contextmanager
def atomic_outputs(folder: Path, paths: Sequence[Path], overwrite: bool = False) -> Iterator[Path]:
    """Give a staging folder inside `folder`; when the block ends, its files become `paths`, matched by name.

    An exception before that, Ctrl-C among them, leaves nothing. A process that is killed leaves either nothing but a
    staging folder, or files that `recover` completes: first all but the JSON files are renamed, then those, so that a
    sidecar stands for complete outputs. InputError where a path exists (without `overwrite`) or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=folder))
        try:
            yield staging
            for path in paths:
                refuse_existing(path, overwrite)
            with atomic_output(staging / COMMIT) as temporary:
                temporary.write_text(json.dumps([path.name for path in paths]))
            commit(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror or error}; choose another folder with -o"
        ) from error


def commit(staging: Path, folder: Path) -> None:
    """Rename the complete files of a staging folder; what has been renamed already is passed over."""
    names = sorted(json.loads((staging / COMMIT).read_text()), key=lambda name: name.endswith(".json"))
    waiting = [name for name in names if (staging / name).exists()]
    for name in waiting:  # an old sidecar must not vouch for new files
        if name.endswith(".json") and (folder / name).exists():
            (folder / name).unlink()
    for name in waiting:
        os.replace(staging / name, folder / name)


def recover(folder: Path) -> None:
    """Clear away what killed processes left in `folder`; outputs that were complete are put in their places."""
    for left in list(folder.glob(f"{PREFIX}*-*")):
        process = left.name.removeprefix(PREFIX).split("-")[0]
        if not process.isdigit() or is_running(int(process)):
            continue
        if left.is_dir():
            if (left / COMMIT).exists():
                commit(left, folder)
            shutil.rmtree(left, ignore_errors=True)
        elif left.suffix == ".part":
            left.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether a process of this id is there."""
    import psutil

    return psutil.pid_exists(process)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise InputError where writing `path` would replace a file without leave, or a folder at all."""
    if path.is_dir():
        raise InputError(f"cannot write {path}: a folder of that name is there; choose another folder with -o")
    if not overwrite and os.path.lexists(path):
        raise InputError(f"{path} exists; add --overwrite to replace it, or choose another folder with -o")


def refuse_unwritable(folder: Path) -> None:
    """Raise InputError unless `folder` is, or could be created as, a folder that files can be written to."""
    ancestor = Path(folder)
    while not os.path.lexists(ancestor) and ancestor != ancestor.parent:
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        raise InputError(f"cannot write to {folder}: {ancestor} is not a folder; choose another folder with -o")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {folder}: no permission to write in {ancestor}; choose another with -o")
