"""One audio file through a separator onto the disk: targets, residuals, figures and the JSON that says how."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsep import __version__, checkpoint
from flowsep.atomic import atomic_outputs
from flowsep.audio import AudioFile
from flowsep.blocks import Facts, scan
from flowsep.budget import Cost
from flowsep.encodings import Encoding, encoding_of
from flowsep.longform import separate_stream
from flowsep.naming import FileJob, QueryFiles
from flowsep.outputs import OutputFile, finish_together
from flowsep.protocol import SampleOptions, TextSeparator
from flowsep.references import described, of_texts
from flowsep.remixing import ratio_db
from flowsep.requests import separate_request
from flowsep.settings import FileSettings
from flowsep.windows import Account, Progress

SCHEMA_VERSION = 1
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
    costs: dict[SampleOptions, Cost] = field(default_factory=dict, compare=False)  # see flowsep.budget


def load_model(name: str, device: str = "auto", dtype: str | None = None) -> LoadedModel:
    """Load a separator by name, folder or hub id, and find out what the sidecar says of it.

    dtype "float32", "bfloat16" or "float16"; None is float32, whatever the weights are in. Errors as `load_separator`.
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
    recording: AudioFile,
    settings: FileSettings,
    overwrite: bool = False,
    progress: Progress | None = None,
    facts: Facts | None = None,
) -> list[dict[str, Any]]:
    """Separate a file by every query of `job` and write its files; returns the sidecar documents, one per query.

    `facts` are those of the recording, where they are known. The memory does not grow with the length. The files
    appear together once all are complete: an error or Ctrl-C before that leaves nothing. InputError where a file exists
    (without `overwrite`) or cannot be written; others as `separate_stream`.
    """
    clock = time.perf_counter()
    facts = facts or scan(recording)
    spans, rows = settings.spans_inside, settings.rows
    stream = separate_stream(model.separator, recording, job.texts, settings.options, progress, spans, rows)
    stream.facts = facts
    with atomic_outputs(job.folder, job.paths(), overwrite) as staging, ExitStack() as open_files:
        queries = [
            QueryOutputs(staging, job, query, recording, settings, facts, model, open_files) for query in job.queries
        ]
        for block in stream:
            for outputs in queries:
                outputs.add(block.mixture, block.targets[outputs.number])
        for outputs in queries:
            outputs.finish()
        seconds = time.perf_counter() - clock
        shared = {
            "input": describe_input(recording, facts),
            "timing": describe_timing(model, stream.account, seconds, recording, facts),  # of all queries of the file
            "model": {"id": model.id, "hash": model.hash},
            "versions": versions(),
        }
        return [outputs.describe(model, job, settings, stream.account, shared) for outputs in queries]


class QueryOutputs:
    """The files of one query while they are written."""

    def __init__(
        self,
        staging: Path,
        job: FileJob,
        query: QueryFiles,
        recording: AudioFile,
        settings: FileSettings,
        facts: Facts,
        model: LoadedModel,
        open_files: ExitStack,
    ) -> None:
        self.staging, self.query, self.recording, self.facts = staging, query, recording, facts
        self.number = job.texts.index(query.text)  # among the targets of the call
        about = written_as(job.format, settings, recording, facts, model.separator.mel.fmax)
        self.target = OutputFile(staging / query.target.name, query.target, "target", *about)
        self.files = [self.target]
        if query.residual is not None:
            self.files.append(OutputFile(staging / query.residual.name, query.residual, "residual", *about))
        for file in self.files:
            open_files.callback(file.close)
        self.error, self.energy = 0.0, 0.0  # of target + residual - mixture, and of the mixture

    def add(self, mixture: Tensor, target: Tensor) -> None:
        """Write the next stretch (C, n). The residual is what the written target leaves, so that the files add up."""
        written = self.target.add(target)
        residual = mixture - written
        if len(self.files) > 1:
            residual = self.files[1].add(residual)
        self.error += float((written.double() + residual.double() - mixture.double()).square().sum())
        self.energy += float(mixture.double().square().sum())

    def finish(self) -> None:
        """Complete audio, video and picture."""
        finish_together(self.files)
        if self.query.video is not None:
            from flowsep.media import replace_audio

            replace_audio(self.recording, self.target.temporary, self.staging / self.query.video.name)
        if self.query.plot is not None:
            from flowsep.plot import plot_files

            title = f"{self.recording.path.name}: “{self.query.text}”"
            target = (self.target.temporary, self.target.factor)
            plot_files(self.staging / self.query.plot.name, self.recording, self.facts, target, title)

    def describe(
        self,
        model: LoadedModel,
        job: FileJob,
        settings: FileSettings,
        account: Account,
        shared: dict[str, Any],
    ) -> dict[str, Any]:
        """Write and return the sidecar: `shared` by all queries, outputs, every setting as resolved, and scores."""
        query = self.query
        document = {
            "schema_version": SCHEMA_VERSION,
            "input": shared["input"],
            "query": query.text,
            **described(of_texts(job.references, [query.text])),
            "outputs": [file.describe() for file in self.files],
            "plot": str(query.plot) if query.plot is not None else None,
            "video": str(query.video) if query.video is not None else None,
            "sidecar": str(query.sidecar),
            "params": describe_params(model, settings, account, account.nfe[self.number], self.target),
            "scores": {
                "sum_error_db": ratio_db(self.error, self.energy),
                "presence": account.presence[self.number],
            },
            "candidates": [asdict(choice) for choice in account.choices[self.number]],  # one entry per window
            "timing": shared["timing"],
            "model": shared["model"],
            "request": separate_request(job, query, settings),
            "versions": shared["versions"],
        }
        write_sidecar(self.staging / query.sidecar.name, document)
        return document


def written_as(
    format: str, settings: FileSettings, recording: AudioFile, facts: Facts, band: float
) -> tuple[int, int, Encoding, str, float]:
    """Rate in Hz, channels, encoding, clip policy and the model's `band` in Hz, as an `OutputFile` takes them."""
    encoding = encoding_of(format, settings.subtype, recording.subtype, settings.clip)
    encoding = encoding.for_size(facts.frames * recording.channels)
    return recording.sample_rate, recording.channels, encoding, settings.clip, band


def describe_input(recording: AudioFile, facts: Facts) -> dict[str, Any]:
    """The input file: path, content hash, what it was, and the stretch of it that was read."""
    return {
        "path": str(recording.path),
        "sha256": sha256(recording.path),
        "sample_rate": recording.sample_rate,
        "channels": recording.channels,
        "frames": facts.frames,
        "first_frame": recording.first,
        "format": recording.format,
        "subtype": recording.subtype,
        "heard": "mean of the channels" if facts.channel is None else f"channel {facts.channel + 1}",
    }


def describe_params(
    model: LoadedModel, settings: FileSettings, account: Account, nfe: int, output: OutputFile | None = None
) -> dict[str, Any]:
    """Every setting as resolved, network calls, windows, device and, where audio is written, its format."""
    resolved = {key: value for key, value in asdict(settings.options).items() if value is not None}
    counts = {"nfe": nfe, "windows": account.windows, "window": model.separator.window}
    where = {"device": model.device, "dtype": model.dtype, "threads": torch.get_num_threads()}
    walk = {"start": settings.start, "end": settings.end, "spans": settings.spans, "rows": account.rows}
    written = {"format": output.encoding.format, "subtype": output.encoding.subtype} if output is not None else {}
    return {**resolved, **account.settings[0], **counts, "skipped_windows": account.skipped, **walk, **where, **written}


def describe_timing(
    model: LoadedModel, account: Account, seconds: float, recording: AudioFile, facts: Facts
) -> dict[str, Any]:
    """Seconds of loading, of each stage and of the whole run, and the run's as a share of the recording's."""
    return {
        "load_s": round(model.load_seconds, 4),
        "stages": {stage: round(value, 4) for stage, value in account.seconds.items()},
        "run_s": round(seconds, 4),
        "rtf": round(seconds * recording.sample_rate / facts.frames, 4),
    }


def write_sidecar(path: Path, document: dict[str, Any]) -> None:
    """Write a document as JSON."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


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


def weights_bytes(folder: Path) -> int:
    """Size of the safetensors files under a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
