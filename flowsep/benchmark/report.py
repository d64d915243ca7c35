"""Reports of the latency benchmark for people: tables rendered from the JSON, and two reports side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowsep.atomic import atomic_output
from flowsep.errors import InputError

SCHEMA_VERSION = 2
LATENCY = ("latency", "latency-matrix")
DRAWS = 2000  # of the bootstrap
FEWEST = 5  # repeats that an interval can be had from
ABOUT = ("model", "audio_seconds", "batch", "steps", "render", "device_name", "dtype", "threads", "compile")


def write_report(path: Path, report: dict[str, Any], overwrite: bool = False) -> None:
    """Write a report as JSON, whole or not at all. InputError where it exists or cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(path, overwrite) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def read_report(path: Path, kinds: Sequence[str] = LATENCY) -> dict[str, Any]:
    """A report of one of these kinds, by default of `flowsep benchmark latency`; InputError for anything else."""
    if not path.is_file():
        raise InputError(f"no report at {path}; flowsep benchmark latency -o {path.name} writes one")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        kind, version = report["kind"], report["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a report of flowsep benchmark latency") from error
    if kind not in kinds or version != SCHEMA_VERSION:
        wanted = f"{' or '.join(kinds)}, schema {SCHEMA_VERSION}"
        raise InputError(f"{path} holds {kind!r}, schema {version}; this command reads {wanted}")
    return report


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, columns padded so that it reads as plain text too."""
    widths = [max(len(line[column]) for line in (headings, *rows)) for column in range(len(headings))]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (headings, *rows)
    ]
    return [
        f"| {lines[0]} |",
        "|" + "|".join("-" * (width + 2) for width in widths) + "|",
        *(f"| {x} |" for x in lines[1:]),
    ]


def seconds(value: float) -> str:
    """A time with three digits and its unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if value * factor >= 1 or unit == "µs":
            return f"{value * factor:.3g} {unit}"
    return ""


def latency_lines(report: dict[str, Any]) -> list[str]:
    """The report as Markdown: what was run, the latency table and the roofline table."""
    return [*about_lines(report), "", *latency_table(report), "", *roofline_table(report)]


def about_lines(report: dict[str, Any]) -> list[str]:
    """What was measured and on what, in a few lines."""
    chosen, ceilings = report["settings"], report["ceilings"]
    peaks = ", ".join(
        f"{name.removesuffix('_mib').replace('_', ' ')} {mib:.0f} MiB"
        for name, mib in report["peak_memory"].items()
        if mib
    )
    load = "" if report["load_s"] is None else f"load {seconds(report['load_s'])}, "
    return [
        f"{chosen['model']} ({chosen['class']}, {report['parameters'] / 1e6:.1f} M parameters): "
        f"{chosen['audio_seconds']:.2f} s of audio, batch {chosen['batch']}, {chosen['steps']} steps "
        f"({chosen['solver']}, {chosen['nfe']} NFE), {chosen['render']} rendering",
        about_machine(report),
        f"real-time factor {report['real_time_factor']:.4g}, {report['clips_per_second']:.4g} clips/s; {load}"
        f"first run {seconds(report['first_run_s'])}; peak memory: {peaks}",
        f"ceilings before and after: matrix product {_pair(ceilings, 'gflops')} GFLOP/s ({chosen['dtype']}), "
        f"copy {_pair(ceilings, 'gbytes')} GB/s",
    ]


def about_machine(report: dict[str, Any]) -> str:
    """Device, precision, versions, revision and date in one line."""
    chosen, machine = report["settings"], report["machine"]
    threads = "" if chosen["device"].startswith("cuda") else f", {chosen['threads']} threads"
    compiled = f", compiled ({chosen['compile']})" if chosen["compile"] else ""
    plain = ", plain" if chosen.get("plain") else ""
    git = machine["git"] or {}
    revision = f"{(git.get('revision') or 'unknown')[:10]}{' with changes' if git.get('dirty') else ''}"
    return (
        f"{chosen['device_name']}, {chosen['dtype']}{plain}{threads}{compiled}; torch {machine['versions']['torch']}, "
        f"flowsep {machine['versions']['flowsep']} at {revision}, {machine['date']}"
    )


def _pair(ceilings: dict[str, Any], name: str) -> str:
    return f"{ceilings['before'][name]:.4g} and {ceilings['after'][name]:.4g}"


def latency_table(report: dict[str, Any]) -> list[str]:
    """Seconds per call of each stage, and its share of a whole run."""
    whole = next(row for row in report["rows"] if row["name"] == "end to end")
    rows = []
    for row in report["rows"]:
        spread = f"{seconds(row['p10'])} - {seconds(row['p90'])}"
        share = f"{100 * row['calls'] * row['median'] / whole['median']:.1f} %"
        rows.append([row["name"], str(row["calls"]), seconds(row["median"]), spread, str(row["repeats"]), share])
    return table(["stage", "calls", "median", "p10 - p90", "repeats", "of a run"], rows)


def roofline_table(report: dict[str, Any]) -> list[str]:
    """Operations and bytes of each stage against the ceilings, and how far its time is from its floor."""
    rows = []
    for row in report["rows"]:
        rates = [f"{row[amount] / row['median']:.4g}" for amount in ("gflop", "gbyte")]
        amounts = [f"{row['gflop']:.4g}", rates[0], _percent(row["matmul_share"])]
        amounts += [f"{row['gbyte']:.4g}", rates[1], _percent(row["copy_share"])]
        rows.append([row["name"], *amounts, seconds(row["floor_s"]), f"{row['median'] / row['floor_s']:.1f}"])
    headings = ["stage", "GFLOP", "GFLOP/s", "of the matrix product", "GB moved", "GB/s", "of the copy", "floor"]
    return table([*headings, "time / floor"], rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def compare_lines(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """How much faster the second report is than the first, row by row, with 95 % bootstrap intervals of the ratio."""
    rows = []
    others = {row["name"]: row for row in second["rows"]}
    for row in first["rows"]:
        if row["name"] in others:
            rows.append([row["name"], *ratio_cells(row, others[row["name"]])])
    if not rows:
        raise InputError("the two reports have no row in common; compare two of the same kind")
    lines = differences(first, second)
    return [*lines, "", *table(["row", "A", "B", "A / B", "95 % interval", "B is"], rows)]


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """What the two runs did not have in common, as far as their reports say it."""
    pairs = {name: (first["settings"].get(name), second["settings"].get(name)) for name in ABOUT}
    pairs["revision"] = tuple((report["machine"]["git"] or {}).get("revision") for report in (first, second))
    pairs["torch"] = tuple(report["machine"]["versions"]["torch"] for report in (first, second))
    changed = [f"{name} {a} -> {b}" for name, (a, b) in pairs.items() if a != b]
    return ["A -> B: " + (", ".join(changed) or "the same settings, machine, revision and versions")]


def ratio_cells(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Both medians, their ratio with its interval, and a verdict; no interval for rows that were not measured."""
    ratio = first["median"] / second["median"]
    cells = [seconds(first["median"]), seconds(second["median"]), f"{ratio:.3f}"]
    counts = [len(row.get("samples", ())) for row in (first, second)]
    if min(counts) < FEWEST:
        return [*cells, "-", "not measured" if min(counts) == 0 else "too few repeats"]
    low, high = ratio_interval(first["samples"], second["samples"])
    verdict = "the same within noise" if low <= 1 <= high else "faster" if low > 1 else "slower"
    return [*cells, f"{low:.3f} - {high:.3f}", verdict]


def ratio_interval(first: Sequence[float], second: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of median(first) / median(second), both resampled."""
    import numpy as np

    rng = np.random.default_rng(seed)
    medians = [np.median(rng.choice(np.asarray(x), (DRAWS, len(x))), axis=1) for x in (first, second)]
    low, high = np.percentile(medians[0] / medians[1], [2.5, 97.5])
    return float(low), float(high)
