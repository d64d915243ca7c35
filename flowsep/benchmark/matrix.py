"""Steps x models: the time column of the paper's Table III on this machine, resumable, with what was not run marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from flowsep.benchmark.latency import (
    NETWORK,
    Note,
    Row,
    Workload,
    benchmark_latency,
    prepare,
    run_whole,
    silent,
)
from flowsep.benchmark.machine import describe_machine, device_name
from flowsep.benchmark.models import compile_parts
from flowsep.benchmark.report import SCHEMA_VERSION, read_report, seconds, table, write_report
from flowsep.benchmark.timing import Timing
from flowsep.config import config_path, load_config
from flowsep.errors import UsageError
from flowsep.separator import LatentSeparator

STEPS = (1, 2, 4, 10, 25, 50, 100, 200)
TWINS = {
    "flowsep": "diffusionsep",
    "small": "small-diffusion",
}  # flow configuration -> the same network under diffusion
LEAST_REPEATS = 3  # of a row that counts as measured
# Yuan et al., ICASSP 2025, Table III, on the authors' GPU: seconds of the sampler, and of VAE decoder and vocoder.
PAPER = {("flow", 10): (0.58, 0.12), ("diffusion", 50): (4.9, 0.12), ("diffusion", 100): (9.4, 0.12)}
PAPER[("diffusion", 200)] = (18.1, 0.12)

Build = Callable[[str], tuple[LatentSeparator, float]]  # configuration -> separator, seconds that building it took


def families_of(config: str) -> dict[str, str]:
    """Which configurations the matrix runs, by method: this one, and its diffusion twin where there is a file of it."""
    families = {load_config(config).method: config}
    if config in TWINS:
        try:
            config_path(TWINS[config])
        except UsageError:
            return families
        families["diffusion"] = TWINS[config]
    return families


def run_matrix(
    families: dict[str, str],
    build: Build,
    device: torch.device,
    dtype: torch.dtype,
    steps: Sequence[int],
    work: Workload,
    budget: float,
    path: Path | None = None,
    note: Note = silent,
) -> dict[str, Any]:
    """A row for each family and number of steps, after the stages of each model; written to `path` after every row.

    A row is measured where LEAST_REPEATS runs and a warm-up fit into `budget` seconds, with as many repeats as fit
    (at most the workload's). Others are extrapolated, since every step costs the same: steps times the measured network
    call, plus the measured rest; they say so. Rows that `path` holds already are kept. UsageError where they were
    measured under other settings.
    """
    settings = matrix_settings(families, device, dtype, work, budget)
    report = resume(path, settings) or {
        "schema_version": SCHEMA_VERSION,
        "kind": "latency-matrix",
        "settings": settings,
        "models": {},
        "rows": [],
        "machine": describe_machine(),
    }

    def save() -> None:
        if path is not None:
            write_report(path, report, overwrite=True)

    for family, config in families.items():
        done = {(row["family"], row["steps"]) for row in report["rows"]}
        missing = [count for count in steps if (family, count) not in done]
        if not missing:
            continue
        note(f"{family}: {config}")
        separator, load_seconds = build(config)
        if family not in report["models"]:
            lone = replace(work, steps=min(steps))
            report["models"][family] = benchmark_latency(separator, config, lone, load_seconds, note)
            save()
        elif work.compile is not None:
            compile_parts(separator, work.compile)
        for count in missing:
            note(f"{family}, {count} steps")
            report["rows"].append(matrix_row(separator, family, count, work, budget, report["models"][family]))
            save()
    return report


def matrix_settings(
    families: dict[str, str], device: torch.device, dtype: torch.dtype, work: Workload, budget: float
) -> dict[str, Any]:
    """What all rows of a matrix must share."""
    return {
        "configurations": families,
        "device": str(device),
        "device_name": device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "compile": work.compile,
        "batch": work.batch,
        "audio_seconds": work.seconds,
        "render": work.render,
        "repeats": work.repeats,
        "budget_s": budget,
    }


def resume(path: Path | None, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The unfinished report at `path`, None where there is none; UsageError where it was begun otherwise."""
    if path is None or not path.exists():
        return None
    report = read_report(path)
    old = report["settings"] if report["kind"] == "latency-matrix" else {}
    changed = [name for name in settings if old.get(name) != settings[name]]
    if changed:
        raise UsageError(
            f"{path} was begun with another {changed[0]} ({old.get(changed[0])}, now {settings[changed[0]]}); "
            "give the same options to go on with it, or another -o"
        )
    return report


def matrix_row(
    separator: LatentSeparator, family: str, steps: int, work: Workload, budget: float, base: dict[str, Any]
) -> Row:
    """Measured if it fits into `budget` seconds, otherwise extrapolated from the stages in `base`."""
    rows = {row["name"]: row for row in base["rows"]}
    calls = steps * base["settings"]["nfe"] // base["settings"]["steps"]
    sampler = calls * rows[NETWORK]["median"]
    total = rows["end to end"]["median"] - rows["sampler"]["median"] + sampler
    repeats = min(work.repeats, int(budget / total) - 1)
    about = {"name": f"{family}, {steps} steps", "family": family, "steps": steps}
    if repeats < LEAST_REPEATS:
        rest = sum(row["calls"] * row["median"] for row in rows.values() if row["name"] in LAST_STAGES)
        about |= {"nfe": calls, "measured": False, "median": total, "repeats": 0}
        return {**about, "sampler_s": sampler, "decode_render_s": rest}
    mixture, options = prepare(separator, replace(work, steps=steps))
    whole = run_whole(separator, mixture, options, repeats, warmup=1)
    rests = [sum(pair) for pair in zip(whole.laps["decode"].samples, whole.laps["render"].samples, strict=True)]
    about |= {"nfe": whole.nfe, "measured": True, **whole.total.summary(), "peak_memory": whole.memory}
    return {**about, "sampler_s": whole.laps["sampler"].median, "decode_render_s": Timing(tuple(rests)).median}


LAST_STAGES = ("VAE decode", "vocoder", "mask rendering")  # by their calls, only the rendering that is used counts


def matrix_lines(report: dict[str, Any]) -> list[str]:
    """The matrix as Markdown, the published seconds beside it, and which rows were not run."""
    chosen, git = report["settings"], report["machine"]["git"] or {}
    rows = []
    for row in report["rows"]:
        paper = PAPER.get((row["family"], row["steps"]))
        how = f"measured, {row['repeats']} repeats" if row["measured"] else "EXTRAPOLATED"
        cells = [row["family"], str(row["steps"]), str(row["nfe"]), seconds(row["sampler_s"])]
        cells += [seconds(row["sampler_s"] / row["nfe"]), seconds(row["decode_render_s"]), seconds(row["median"])]
        cells += [f"{chosen['batch'] / row['median']:.4g}", how]
        rows.append([*cells, f"{paper[0]} + {paper[1]} s" if paper else ""])
    headings = ["model", "steps", "NFE", "sampler", "per call", "decode + render", "end to end", "clips/s", "how"]
    names = ", ".join(f"{family}: {config}" for family, config in chosen["configurations"].items())
    compiled = f", compiled ({chosen['compile']})" if chosen["compile"] else ""
    lines = [
        f"{names}; batch {chosen['batch']}, {chosen['device_name']}, {chosen['dtype']}{compiled}, flowsep at "
        f"{(git.get('revision') or 'unknown')[:10]}, {report['machine']['date']}",
        "",
        *table([*headings, "paper: sampler + decode"], rows),
    ]
    if not all(row["measured"] for row in report["rows"]):
        lines += ["", "EXTRAPOLATED: not run; steps times the measured network call, plus the measured other stages."]
    if len(chosen["configurations"]) == 1:
        lines += ["", "One model only: this configuration has no twin of the other method."]
    return lines
