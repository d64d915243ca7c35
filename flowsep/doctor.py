"""What this installation is made of and what is wrong with it: a list of findings, printed by `flowsep doctor`.

Nothing here raises on a broken installation, since that is what it is for, and no host name or user path is reported:
the report is meant to be pasted into an issue.
"""

from __future__ import annotations

import importlib.util
import io
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "flowsep-toolkit"
# FlowSep needs none of these, but diffusers and transformers import them where they find them, and one that was built
# for another torch then breaks both.
TROUBLEMAKERS = ("torchaudio", "torchvision", "torchcodec")
CODECS = {  # name for people -> soundfile's container and subtype, rate in Hz
    "wav": ("WAV", "PCM_16", 44100),
    "flac": ("FLAC", "PCM_16", 44100),
    "ogg": ("OGG", "VORBIS", 44100),
    "opus": ("OGG", "OPUS", 48000),
    "mp3": ("MP3", "MPEG_LAYER_III", 44100),
    "aiff": ("AIFF", "PCM_16", 44100),
}
ESSENTIAL_CODECS = ("wav", "flac")  # what `flowsep separate` writes
HUB_TIMEOUT = 3.0  # seconds


@dataclass(frozen=True)
class Finding:
    """One line of the report. `problem`, if any, says what is wrong and what to do about it."""

    section: str
    name: str
    value: str
    problem: str | None = None


def examine() -> list[Finding]:
    """Look at everything, in the order in which it is printed; takes some seconds, mostly for importing torch."""
    return [
        *examine_versions(),
        *examine_troublemakers(TROUBLEMAKERS),
        *examine_machine(),
        *examine_codecs(),
        *examine_models(Path(__file__).with_name("pretrained")),
        examine_hub(ask_hub),
    ]


def problems(findings: Sequence[Finding]) -> list[str]:
    """What has to be mended before the toolkit can be used; empty if all is well."""
    return [finding.problem for finding in findings if finding.problem]


def examine_versions() -> list[Finding]:
    """Python, the toolkit and its dependencies, each held against the range that the toolkit asks for."""
    findings = [
        Finding("versions", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    ]
    try:
        version, requirements = metadata.version(DISTRIBUTION), metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return [*findings, Finding("versions", DISTRIBUTION, "not installed; running from a source tree")]
    findings.append(Finding("versions", DISTRIBUTION, version))
    return findings + [_examine_requirement(line) for line in requirements if "extra ==" not in line]


def _examine_requirement(line: str) -> Finding:
    from packaging.requirements import Requirement

    wanted = Requirement(line)
    remedy = f"run: pip install '{wanted.name}{wanted.specifier}'"
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return Finding("versions", wanted.name, "missing", f"{wanted.name} is missing; {remedy}")
    if not wanted.specifier.contains(version, prereleases=True):
        problem = f"{wanted.name} {version} is outside {wanted.specifier}; {remedy}"
        return Finding("versions", wanted.name, version, problem)
    return Finding("versions", wanted.name, version)


def examine_troublemakers(names: Sequence[str]) -> list[Finding]:
    """A finding for each of the packages that is present, with a problem where it cannot be imported."""
    return [finding for finding in map(_examine_import, names) if finding]


def _examine_import(name: str) -> Finding | None:
    try:
        if importlib.util.find_spec(name) is None:
            return None
    except (ImportError, ValueError):
        return None
    # In a process of its own: a binary built for another torch can take the whole interpreter down.
    program = f"import sys; sys.path[:] = sys.argv[1:]; import {name}"
    try:
        trial = subprocess.run(
            [sys.executable, "-c", program, *sys.path], capture_output=True, text=True, errors="replace", timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("versions", name, f"present, could not be tried ({type(error).__name__})")
    if trial.returncode == 0:
        return Finding("versions", name, "present and works; not needed")
    lines = trial.stderr.strip().splitlines()
    reason = lines[-1][:160] if lines else f"its import ended with status {trial.returncode}"
    problem = f"{name} is broken ({reason}) and breaks the libraries that import it; run: pip uninstall {name}"
    return Finding("versions", name, "present and broken", problem)


def examine_machine() -> list[Finding]:
    """Devices, threads and free memory."""
    findings = []
    try:
        import torch

        devices = [f"cuda:{n} {torch.cuda.get_device_name(n)}" for n in range(torch.cuda.device_count())]
        devices += ["mps"] if torch.backends.mps.is_available() else []
        findings.append(Finding("machine", "devices", ", ".join([*devices, "cpu"])))
        findings.append(Finding("machine", "threads", f"{torch.get_num_threads()} of {os.cpu_count()} logical cores"))
    except Exception as error:  # a broken torch raises whatever it likes: ImportError, OSError, RuntimeError
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        findings.append(Finding("machine", "devices", "none", f"torch does not work ({reason}); reinstall torch"))
    try:
        import psutil

        memory = psutil.virtual_memory()
        value = f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f} GiB"
    except ImportError:
        value = "unknown without psutil"
    return [*findings, Finding("machine", "memory", value)]


def examine_codecs() -> list[Finding]:
    """For each audio format, whether 0.1 s can be written to memory and read back."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is there and libsndfile is not
        problem = f"soundfile does not work ({type(error).__name__}); run: pip install --force-reinstall soundfile"
        return [Finding("codecs", "soundfile", "broken", problem)]
    findings = [Finding("codecs", "libsndfile", soundfile.__libsndfile_version__)]
    for name, (container, subtype, rate) in CODECS.items():
        value = _try_codec(container, subtype, rate)
        lacking = name in ESSENTIAL_CODECS and value != "reads and writes"
        remedy = f"{name} {value} with this libsndfile; run: pip install --upgrade soundfile"
        findings.append(Finding("codecs", name, value, remedy if lacking else None))
    return findings


def _try_codec(container: str, subtype: str, rate: int) -> str:
    import numpy
    import soundfile

    if not soundfile.check_format(container, subtype):
        return "not supported"
    file = io.BytesIO()
    try:
        soundfile.write(file, numpy.zeros(rate // 10, dtype="float32"), rate, subtype=subtype, format=container)
    except (soundfile.SoundFileError, ValueError, TypeError):
        return "cannot be written"
    file.seek(0)
    try:
        return "reads and writes" if len(soundfile.read(file)[0]) else "cannot be read"
    except (soundfile.SoundFileError, ValueError, TypeError):
        return "cannot be read"


def examine_models(shipped: Path) -> list[Finding]:
    """The models in the package's folder `shipped`, and by which setting hub models are cached."""
    names = sorted(index.parent.name for index in shipped.glob("*/model_index.json"))
    problem = None if names else f"no model is shipped with this installation; reinstall {DISTRIBUTION}"
    cache = "where HF_HOME says" if os.environ.get("HF_HOME") else "in the default place (HF_HOME not set)"
    return [
        Finding("models", "shipped", ", ".join(names) or "none", problem),
        Finding("models", "hub models are cached", cache),
    ]


def examine_hub(ask: Callable[[float], int]) -> Finding:
    """Whether the model hub answers. `ask(timeout in seconds)` gives its HTTP status or raises.

    Never a problem: the shipped model needs no network.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return Finding("hub", "hub", "not asked: HF_HUB_OFFLINE is set")
    answer: list[str] = []

    def attempt() -> None:
        try:
            status = ask(HUB_TIMEOUT)
            answer.append("reachable" if status < 400 else f"answers with HTTP status {status}")
        except Exception as error:  # whatever the network does; its text would hold the host's name
            answer.append(f"not reachable ({type(error).__name__})")

    # A thread, because looking up a name takes no time limit and may block for long.
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT)
    return Finding("hub", "hub", answer[0] if answer else f"not reachable (no answer in {HUB_TIMEOUT:g} s)")


def ask_hub(timeout: float) -> int:
    """HTTP status of the hub that huggingface_hub is set to use; raises OSError where there is no answer."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub.constants import ENDPOINT

    try:
        with urlopen(Request(ENDPOINT, method="HEAD"), timeout=timeout) as reply:
            return reply.status
    except HTTPError as error:
        return error.code
