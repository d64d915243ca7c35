"""Files that appear whole or not at all: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from flowsep.errors import InputError


@contextmanager
def atomic_output(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends without an exception it becomes `path`.

    On any exception, Ctrl-C among them, the temporary file is removed and `path` is as it was.
    An existing `path` without `overwrite`, and a folder that cannot be written, raise InputError.
    """
    path = Path(path)
    temporary = path.parent / f".flowsep-{uuid4().hex}.part"  # short: the real name may be as long as names may be
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

    An exception before that, Ctrl-C among them, leaves nothing. InputError where a path exists (without `overwrite`)
    or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".flowsep-", dir=folder) as name:
            staging = Path(name)
            yield staging
            for path in paths:
                refuse_existing(path, overwrite)
            for path in paths:
                os.replace(staging / path.name, path)
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror or error}; choose another folder with -o"
        ) from error


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
