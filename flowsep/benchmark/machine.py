"""What a measurement was taken on: hardware, versions, revision and date, for every report that holds times."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

GIB = 2**30
REVISION = "FLOWSEP_REVISION"  # environment variable that names the revision where the source has no git with it


def describe_machine() -> dict[str, Any]:
    """Processor, memory (GiB), GPUs, system, thread count, versions, git revision and the date (UTC).

    Holds no host name, user or path, so that a report can be shown to anybody. `git` is None where the package does not
    run from a checkout, unless the variable FLOWSEP_REVISION names one (a copy of the tree on a rented machine).
    """
    from flowsep.files import versions

    return {
        "cpu": cpu_name(),
        "logical_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": memory_gib(),
        "gpus": gpus(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {**versions(), "cuda": torch.version.cuda},
        "git": git_revision(Path(__file__).parents[2]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cpu_name() -> str:
    """The processor's name as the system gives it; its architecture where it gives none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor()])[0] or platform.machine()


def memory_gib() -> float | None:
    """The machine's memory in GiB, None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)
    except (AttributeError, OSError, ValueError):
        return None


def gpus() -> list[dict[str, Any]]:
    """Name, memory (GiB), multiprocessors and compute capability of each CUDA device."""
    found = (torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count()))
    return [
        {
            "name": gpu.name,
            "memory_gib": round(gpu.total_memory / GIB, 1),
            "multiprocessors": gpu.multi_processor_count,
            "capability": f"{gpu.major}.{gpu.minor}",
        }
        for gpu in found
    ]


def git_revision(root: Path) -> dict[str, Any] | None:
    """Commit of the checkout at `root`, and whether tracked files differ from it; else what REVISION says, or None."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():  # an installed package may lie inside a foreign checkout
        named = os.environ.get(REVISION)
        return {"revision": named, "dirty": None} if named else None
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"revision": _git(root, "rev-parse", "HEAD"), "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def device_name(device: torch.device) -> str:
    """The device for a reader: the GPU's or the processor's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
