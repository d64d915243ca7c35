"""Who is using the page, and the temporary files of each: made here, and removed when they leave or the page ends."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flowsep.atomic import is_running

PREFIX = "flowsep-web-"
LONGEST_STEM = 80  # bytes of UTF-8 of an upload's name that are kept


@dataclass
class Session:
    """One open page: what it uploaded, and the folder of its last result."""

    uploads: set[Path] = field(default_factory=set)
    result: Path | None = None
    running: set[Path] = field(default_factory=set)  # folders of runs that have not ended
    stop: threading.Event = field(default_factory=threading.Event)  # of the last run
    closed: bool = False


class Sessions:
    """All open pages, below one temporary folder."""

    def __init__(self, jobs: int = 1) -> None:
        clear_leftovers()
        self.root = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self.uploads, self.results = self.root / "uploads", self.root / "results"
        self.uploads.mkdir()
        self.results.mkdir()
        self.jobs = jobs
        self.slots = threading.BoundedSemaphore(jobs)  # also bounds runs that were cancelled and have not noticed yet
        self.lock = threading.RLock()
        self.open: dict[str, Session] = {}

    def of(self, key: str) -> Session:
        """The session of an open page."""
        with self.lock:
            return self.open.setdefault(key, Session())

    @contextmanager
    def run(self, key: str) -> Iterator[tuple[Path, threading.Event]]:
        """A new folder for a result, and the event that stops its run.

        When the block ends without an exception the folder takes the place of the session's last result, which is
        removed; otherwise the new one is.
        """
        session, stop = self.of(key), threading.Event()
        folder = Path(tempfile.mkdtemp(dir=self.results))
        with self.lock:
            session.stop = stop
            session.running.add(folder)
        kept = False
        try:
            yield folder, stop
            with self.lock:
                kept = not session.closed
                if kept:
                    before, session.result = session.result, folder
                    remove(before)
        finally:
            with self.lock:
                session.running.discard(folder)
            if not kept:
                remove(folder)

    def take(self, key: str, path: Path, folder: Path) -> Path:
        """A second name in `folder` for an upload of this session, short enough for the names made from it."""
        session = self.of(key)
        with self.lock:
            session.uploads.add(path)
        stem = path.stem.encode()[:LONGEST_STEM].decode(errors="ignore") or "recording"
        name = folder / f"{stem}{path.suffix}"
        try:
            os.link(path, name)
        except OSError:  # a file system without links
            shutil.copyfile(path, name)
        return name

    def cancel(self, key: str) -> None:
        """Stop what the session is running."""
        self.of(key).stop.set()

    def close(self, key: str) -> None:
        """The page was closed: stop its run, and remove its files, uploads but for those that others use, too."""
        with self.lock:
            session = self.open.pop(key, None)
            if session is None:
                return
            session.closed = True
            session.stop.set()
            shared = {path for other in self.open.values() for path in other.uploads}
            for path in session.uploads - shared:
                if path.is_relative_to(self.uploads):
                    path.unlink(missing_ok=True)
            remove(session.result)

    def close_all(self) -> None:
        """Stop everything and remove the whole folder."""
        for key in list(self.open):
            self.close(key)
        remove(self.root)


def remove(folder: Path | None) -> None:
    """Remove a folder, whatever is in it."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def clear_leftovers() -> None:
    """Remove the folders of pages whose process was killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        process = left.name.removeprefix(PREFIX).split("-")[0]
        if process.isdigit() and not is_running(int(process)):
            remove(left)
