"""One audio file through a separator onto the disk: targets, residuals, figures and the JSON that says how."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from flowsep import __version__, checkpoint
from flowsep.atomic import atomic_outputs
from flowsep.audio import SUBTYPES, Audio, downmix, write_audio
from flowsep.longform import LongSeparation, Progress, separate_audio
from flowsep.naming import FileJob, QueryFiles
from flowsep.protocol import SampleOptions, TextSeparator

SCHEMA_VERSION = 1
SILENCE_DB = -200.0  # stands for zero: JSON has no infinity
PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "numpy", "soundfile", "soxr")


@dataclass(frozen=True)
class LoadedModel:
    """A separator and what the sidecar says of it."""

    separator: TextSeparator
    id: str  # name, folder or hub id as the user gave it
    hash: str | None = None  # sha256 over the weight files, None where they are not known
    device: str = "cpu"
    dtype: str = "float32"
    load_seconds: float = 0.0


def load_model(name: str, device: str = "auto", dtype: str | None = None) -> LoadedModel:
    """Load a separator by name, folder or hub id, and find out what the sidecar says of it.

    dtype "float32", "bfloat16" or "float16"; None is the model's own. Errors as `load_separator`.
    """
    clock = time.perf_counter()
    folder = checkpoint.find_model(name)
    separator = checkpoint.load_separator(folder, device=device, dtype=getattr(torch, dtype) if dtype else None)
    seconds = time.perf_counter() - clock
    return LoadedModel(
        separator=separator,
        id=name,
        hash=weights_hash(folder),
        device=str(getattr(separator, "device", "cpu")),
        dtype=str(getattr(separator, "dtype", "float32")).removeprefix("torch."),
        load_seconds=seconds,
    )


def separate_file(
    model: LoadedModel,
    job: FileJob,
    audio: Audio,
    options: SampleOptions,
    format: str = "wav",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Separate `audio` by every query of `job` and write its files; returns the sidecar documents, one per query.

    The files appear together once all are complete: an error or Ctrl-C before that leaves nothing. InputError where
    a file exists (without `overwrite`) or cannot be written.
    """
    clock = time.perf_counter()
    found = separate_audio(model.separator, audio.samples, audio.sample_rate, job.texts, options, progress)
    seconds = time.perf_counter() - clock
    documents = []
    with atomic_outputs(job.folder, job.paths(), overwrite) as staging:
        for query, separation in zip(job.queries, found, strict=True):
            _write_query(staging, query, audio, separation, format)
            document = describe(model, query, audio, separation, options, format, seconds)
            write_sidecar(staging / query.sidecar.name, document)
            documents.append(document)
    return documents


def _write_query(staging: Path, query: QueryFiles, audio: Audio, separation: LongSeparation, format: str) -> None:
    """Write target, residual and figure of one query into the staging folder."""
    write_audio(staging / query.target.name, separation.target, audio.sample_rate, format)
    if query.residual is not None:
        write_audio(staging / query.residual.name, separation.residual, audio.sample_rate, format)
    if query.plot is not None:
        from flowsep.plot import plot_separation

        parts = [downmix(part) for part in (audio.samples, separation.target, separation.residual)]
        plot_separation(staging / query.plot.name, *parts, audio.sample_rate, f"{audio.path.name}: “{query.text}”")


def describe(
    model: LoadedModel,
    query: QueryFiles,
    audio: Audio,
    separation: LongSeparation,
    options: SampleOptions,
    format: str,
    seconds: float,
) -> dict[str, Any]:
    """The sidecar of one query: input, outputs, every setting as resolved, scores, timings and versions."""
    outputs = [output("target", query.target, separation.target)]
    if query.residual is not None:
        outputs.append(output("residual", query.residual, separation.residual))
    return {
        "schema_version": SCHEMA_VERSION,
        "input": describe_input(audio),
        "query": query.text,
        "outputs": outputs,
        "plot": str(query.plot) if query.plot is not None else None,
        "sidecar": str(query.sidecar),
        "params": describe_params(model, options, separation, format),
        "scores": {"sum_error_db": sum_error_db(audio.samples, separation)},
        "candidates": [asdict(choice) for choice in separation.choices],  # one entry per window
        "timing": describe_timing(model, separation.seconds, seconds, audio),  # of all queries of the file
        "model": {"id": model.id, "hash": model.hash},
        "versions": versions(),
    }


class Run(Protocol):
    """What the sidecar says of any run of a separator over a recording."""

    nfe: int
    settings: dict[str, Any]
    windows: int


def describe_input(audio: Audio) -> dict[str, Any]:
    """The input file: path, content hash, and what it was."""
    return {
        "path": str(audio.path),
        "sha256": sha256(audio.path),
        "sample_rate": audio.sample_rate,
        "channels": audio.samples.shape[0],
        "frames": audio.samples.shape[1],
        "format": audio.format,
        "subtype": audio.subtype,
    }


def describe_params(model: LoadedModel, options: SampleOptions, run: Run, format: str | None = None) -> dict[str, Any]:
    """Every setting as resolved, network calls, windows, device and, where audio is written, its format."""
    resolved = {key: value for key, value in asdict(options).items() if value is not None}
    counts = {"nfe": run.nfe, "windows": run.windows, "window": model.separator.window}
    written = {"format": format, "subtype": SUBTYPES[format]} if format is not None else {}
    return {**resolved, **run.settings, **counts, "device": model.device, "dtype": model.dtype, **written}


def describe_timing(model: LoadedModel, stages: dict[str, float], seconds: float, audio: Audio) -> dict[str, Any]:
    """Seconds of loading, of each stage and of the whole run, and the run's as a share of the recording's."""
    return {
        "load_s": round(model.load_seconds, 4),
        "stages": {stage: round(value, 4) for stage, value in stages.items()},
        "run_s": round(seconds, 4),
        "rtf": round(seconds / audio.seconds, 4),
    }


def write_sidecar(path: Path, document: dict[str, Any]) -> None:
    """Write a document as JSON."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def output(role: str, path: Path, samples: Tensor) -> dict[str, Any]:
    """One written file of samples (C, T): its role, path, largest absolute sample and RMS in dB below full scale."""
    rms = float(samples.double().square().mean().sqrt())
    return {"role": role, "path": str(path), "peak": float(samples.abs().max()), "rms_db": round(decibels(rms), 2)}


def sum_error_db(recording: Tensor, separation: LongSeparation) -> float:
    """Level of target + residual - recording below the recording, in dB, before a file format rounds them."""
    error = separation.target.double() + separation.residual.double() - recording.double()
    level = recording.double().square().mean().sqrt()
    return round(decibels(float(error.square().mean().sqrt() / level)) if level > 0 else SILENCE_DB, 2)


def decibels(amplitude: float) -> float:
    """20 log10(amplitude), at least -200."""
    return max(SILENCE_DB, 20 * math.log10(amplitude)) if amplitude > 0 else SILENCE_DB


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the result."""
    found = {"flowsep": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def weights_hash(folder: Path) -> str | None:
    """SHA-256 over names and contents of the safetensors files under a model folder; None if there are none."""
    files = sorted(folder.rglob("*.safetensors"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest() if files else None
