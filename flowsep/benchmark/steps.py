"""Quality and time against the number of steps: models x solvers x step counts over the mixtures of one recipe.

The report is one JSON file in the output folder. It is written every few seconds while the study runs, and a run that
finds it there goes on: what has been measured is not measured again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from flowsep import checkpoint
from flowsep.atomic import atomic_output
from flowsep.benchmark.machine import describe_machine
from flowsep.benchmark.steps_options import Study
from flowsep.errors import InputError, UsageError
from flowsep.evaluation.recipe import SAMPLE_RATE, MixtureRow, render_row
from flowsep.evaluation.signal import si_sdr
from flowsep.evaluation.spectral import log_mel_l1, log_spectral_distance
from flowsep.evaluation.statistics import bootstrap_mean
from flowsep.files import LoadedModel, load_model, sha256
from flowsep.flow import ADAPTIVE
from flowsep.protocol import SampleOptions
from flowsep.separator import LatentSeparator

SCHEMA_VERSION = 1
REPORT = "steps.json"
SAVE_SECONDS = 10.0  # between two writings of the report
RENDER = "mixture"
QUALITY = ("si_sdri", "log_mel_distance", "log_spectral_distance")
PRESENCE = "presence"
FIGURES = (*QUALITY, PRESENCE, "seconds", "sampler_seconds")  # that are averaged over the mixtures


@dataclass(frozen=True)
class Entry:
    """One model of the study, looked at beforehand: what the report says of it, and what it will be asked."""

    label: str
    name: str
    about: dict[str, Any]
    options: tuple[SampleOptions, ...]


@dataclass(frozen=True)
class Prepared:
    """One mixture of the recipe as waveforms (T,), the same for every model."""

    row: MixtureRow
    mixture: Tensor
    target: Tensor


@dataclass
class Report:
    """The JSON document and the file that it is kept in."""

    path: Path
    document: dict[str, Any]
    saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.done = {row_key(row) for row in self.document["rows"]}

    def add(self, row: dict[str, Any]) -> None:
        """Keep one measured row; the file follows now and then."""
        self.document["rows"].append(row)
        self.done.add(row_key(row))
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the document, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_output(self.path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
        self.saved = time.monotonic()


def run_study(
    study: Study, rows: Sequence[MixtureRow], recipe: Path, data: Path, folder: Path, quiet: bool = True
) -> dict[str, Any]:
    """Measure what is not yet in the report in `folder`, and return the report with its aggregates.

    Options are checked against every model before the first is measured. Ctrl-C keeps what was measured. InputError for
    a recipe without rows, and for a folder whose report is of something else.
    """
    if not rows:
        raise InputError("the recipe has no rows to measure")
    entries = examine_models(study)
    machine = describe_machine()
    report = open_report(study, entries, machine, recipe, folder)
    prepared = [prepare(row, data) for row in tqdm(rows, disable=quiet, unit="mixture", desc="mixing")]
    todo = sum(
        (entry.label, options.solver, options.steps, item.row.id) not in report.done
        for entry in entries
        for options in entry.options
        for item in prepared
    )
    if todo:
        report.document["sessions"].append(machine)
    try:
        with tqdm(total=todo, disable=quiet, unit="mixture") as progress:
            for entry in entries:
                for row in measure_entry(entry, prepared, report, study.device):
                    report.add(row)
                    progress.update()
    finally:
        if report.document["rows"]:
            report.document["mixture"] = mixture_figures(prepared)
            report.document["aggregates"] = aggregate(report.document["rows"], [item.row.id for item in prepared])
            report.save()
    return report.document


def examine_models(study: Study) -> list[Entry]:
    """Load each model once and resolve what it will be asked. UsageError for what it cannot do and for equal labels."""
    entries: list[Entry] = []
    for name, label in study.models.items():
        loaded = load_model(name, study.device)
        separator = loaded.separator
        if not isinstance(separator, LatentSeparator):
            raise UsageError(f"the model {name} takes no steps; flowsep evaluate --model a,b compares it with others")
        if separator.sample_rate != SAMPLE_RATE:
            raise InputError(
                f"recipes are mixed at {SAMPLE_RATE} Hz, the model {name} works at {separator.sample_rate}"
            )
        label = label or (separator.name if Path(name).is_dir() else name)
        if label in {entry.label for entry in entries}:
            raise UsageError(f"two models are called {label!r}; name them, as --models a=FOLDER,b=FOLDER")
        known = checkpoint.solver_names(name)
        solvers = [solver for solver in study.solvers if solver in known] or [separator.defaults.solver]
        if adaptive := set(solvers) & set(ADAPTIVE):
            raise UsageError(
                f"the model {name} solves by {adaptive.pop()}, which chooses its own steps; give --solvers"
            )
        options = tuple(
            separator.resolve(SampleOptions(steps, solver, study.guidance, study.seed, RENDER, grid="uniform"))
            for solver in solvers
            for steps in study.steps
        )
        entries.append(Entry(label, name, describe_model(loaded), options))
    return entries


def describe_model(loaded: LoadedModel) -> dict[str, Any]:
    """What the report says of a model; no path."""
    separator = loaded.separator
    return {
        "class": type(separator).__name__,
        "name": separator.name,
        "hash": loaded.hash,
        "parameters": sum(parameter.numel() for parameter in separator.unet.parameters()),  # of the UNet
        "process": asdict(separator.process),
        "device": loaded.device.partition(":")[0],
        "dtype": loaded.dtype,
    }


def prepare(row: MixtureRow, data: Path) -> Prepared:
    """Render one row."""
    mixture, target, _ = (torch.from_numpy(audio) for audio in render_row(row, data))
    return Prepared(row, mixture, target)


def open_report(study: Study, entries: Sequence[Entry], machine: dict[str, Any], recipe: Path, folder: Path) -> Report:
    """The report in `folder`, begun where there is none; InputError where it does not belong to this study."""
    models = {entry.label: entry.about for entry in entries}
    identity = {
        "schema_version": SCHEMA_VERSION,
        "kind": "steps",
        "recipe": {"name": recipe.name, "sha256": sha256(recipe)},
        "settings": {"seed": study.seed, "guidance": study.guidance, "render": RENDER, "grid": "uniform"},
    }
    path = folder / REPORT
    if not path.exists():
        begun = {**identity, "sessions": [], "models": models, "mixture": {}, "aggregates": [], "rows": []}
        return Report(path, begun)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        differs = [name for name in identity if document[name] != identity[name]]
        differs += [
            f"model {label}" for label, about in models.items() if document["models"].get(label, about) != about
        ]
        before = document["sessions"][-1]
        differs += [name for name in ("cpu", "gpus", "threads") if before[name] != machine[name]]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a report of this command; choose another folder with -o") from error
    if differs:
        raise InputError(f"{path} is of another study ({', '.join(differs)}); choose another folder with -o")
    document["models"] |= models
    return Report(path, document)


def measure_entry(entry: Entry, prepared: Sequence[Prepared], report: Report, device: str) -> Iterator[dict[str, Any]]:
    """Rows of one model that the report lacks, in the order of its options."""
    missing = [
        (options, item)
        for options in entry.options
        for item in prepared
        if (entry.label, options.solver, options.steps, item.row.id) not in report.done
    ]
    if not missing:
        return
    separator = load_model(entry.name, device).separator
    options, item = missing[0]
    separator.separate(item.mixture[None], [item.row.query], SampleOptions(1, options.solver, render=RENDER))  # warm up
    for options, item in missing:
        found = separator.separate(item.mixture[None], [item.row.query], options)
        # Without the text encoder: its states are kept, so that only the first step count would pay for them.
        seconds = {stage: value for stage, value in found.seconds.items() if stage != "text"}
        yield {
            "model": entry.label,
            "solver": options.solver,
            "steps": options.steps,
            "id": item.row.id,
            "nfe": found.nfe,
            **qualities(found.target[0].cpu(), item),
            PRESENCE: None if found.presence is None else found.presence[0].item(),  # of a calibrated model
            "seconds": sum(seconds.values()),
            "sampler_seconds": seconds.get("sampler", 0.0),
        }


def qualities(estimate: Tensor, item: Prepared) -> dict[str, float]:
    """The figures of QUALITY for an estimate (T,) of one mixture's target."""
    estimate, target, mixture = (audio[None] for audio in (estimate, item.target, item.mixture))
    return {
        "si_sdri": (si_sdr(estimate, target) - si_sdr(mixture, target)).item(),
        "log_mel_distance": log_mel_l1(estimate, target).item(),
        "log_spectral_distance": log_spectral_distance(estimate, target, SAMPLE_RATE, skip_silence=True).item(),
    }


def mixture_figures(prepared: Sequence[Prepared]) -> dict[str, dict[str, float]]:
    """The figures of QUALITY for the mixtures themselves: what doing nothing gets."""
    found = [qualities(item.mixture, item) for item in prepared]
    return {name: bootstrap_mean([figures[name] for figures in found]) for name in QUALITY}


def aggregate(rows: Sequence[dict[str, Any]], ids: Sequence[str]) -> list[dict[str, Any]]:
    """Means with 95 % bootstrap intervals of each model, solver and step count that has all mixtures of `ids`."""
    cells: dict[tuple[str, str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["model"], row["solver"], row["steps"]), {})[row["id"]] = row
    found = []
    for (model, solver, steps), by_id in sorted(cells.items()):
        if not set(ids) <= by_id.keys():
            continue
        chosen = [by_id[one] for one in ids]
        about = {"model": model, "solver": solver, "steps": steps, "nfe": chosen[0]["nfe"], "mixtures": len(chosen)}
        found.append({**about, **{name: mean_of([row.get(name) for row in chosen]) for name in FIGURES}})
    return found


def mean_of(values: Sequence[float | None]) -> dict[str, float] | None:
    """`bootstrap_mean`, or None where the model does not give the figure."""
    return None if None in values else bootstrap_mean(values)


def row_key(row: dict[str, Any]) -> tuple[str, str, int, str]:
    """What a row is a measurement of."""
    return row["model"], row["solver"], row["steps"], row["id"]
