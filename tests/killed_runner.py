"""The `flowsep` command in a process that is killed from outside, or ends itself in the middle of renaming its outputs.

Imported once by a fork server, so that each such process starts at once.
"""

from __future__ import annotations

import os
from pathlib import Path

import flowsep.files
import flowsep.media
import flowsep.remix_files  # noqa: F401
from flowsep import checkpoint
from flowsep.cli import main
from tests.fakes import FakeSeparator


def run(arguments: list[str], delay: float, renames: int | None = None) -> None:
    """Run a command with a separator that takes `delay` seconds a window; the process ends before rename `renames`."""
    checkpoint.find_model = lambda name: Path("no-weights")
    checkpoint.load_separator = lambda folder, device="auto", dtype=None: FakeSeparator(
        gain=lambda text: 0.5 if "dog" in text else 0.25, delay=delay
    )
    rename, left = os.replace, [renames]

    def counted(*paths: object) -> None:
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
        rename(*paths)

    os.replace = counted
    os._exit(main(arguments))
