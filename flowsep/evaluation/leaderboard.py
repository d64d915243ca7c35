"""Rows of scored items -> a summary with intervals and paired differences -> tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from flowsep.errors import InputError, UsageError
from flowsep.evaluation.results import SCHEMA_VERSION, Results, read_results
from flowsep.evaluation.score import AUDIO_SCORE, FIGURES, TEXT_SCORE
from flowsep.evaluation.semantic import frechet_distance
from flowsep.evaluation.statistics import average, by_class, by_snr, paired_difference

GROUPINGS = {"class": "by_class", "snr": "by_snr"}  # words of --by, and where the summary has the table
FRECHET = "frechet"  # of all estimates and all targets; less is better, and it has no interval
AVERAGES = {
    "mean": "means of mixtures",
    "class_mean": "means of classes' means",
    "class_median": "means of classes' medians",
}


def summarise(
    results: Results, ids: Sequence[str] | None = None, failed: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Figures of every system over the items `ids`, all that it has if not given, and differences from the first."""
    run = results.run
    rank = run["figures"][0]
    rows = {
        name: results.of(name, ids) if ids is not None else [row for key, row in results.rows.items() if key[0] == name]
        for name in run["systems"]
    }
    rows = {name: found for name, found in rows.items() if found}
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "protocol": run["protocol"],
        "title": run["title"],
        "mixtures": run["mixtures"],
        "average": run["average"],
        "ranked_by": rank,
        "encoder": run["encoder"],
        "failed": dict(failed or {}),
        "systems": {name: summarise_system(found, run) for name, found in rows.items()},
    }
    for name, found in rows.items():
        frames = [results.frames[name, row["id"]] for row in found if (name, row["id"]) in results.frames]
        if sum(len(target) for _, target in frames) > 1:
            both = (torch.cat(part) for part in zip(*frames, strict=True))
            summary["systems"][name]["figures"][FRECHET] = {"mean": frechet_distance(*both), "count": len(frames)}
    summary["differences"] = differences(rows, rank)
    return summary


def summarise_system(rows: Sequence[dict[str, Any]], run: dict[str, Any]) -> dict[str, Any]:
    """Means with intervals, and the tables of the figure that systems are ranked by."""
    left_out: dict[str, int] = {}
    for row in rows:
        if "left_out" in row:
            left_out[row["left_out"]] = left_out.get(row["left_out"], 0) + 1
    scored = [row for row in rows if "left_out" not in row]
    names = [*run["figures"], *([TEXT_SCORE, AUDIO_SCORE] if run["encoder"] else []), "seconds"]
    figures = {name: average(scored, name, "mean" if name == "seconds" else run["average"]) for name in names}
    found: dict[str, Any] = {"items": len(scored), "left_out": left_out}
    found["figures"] = {name: value for name, value in figures.items() if value is not None}
    if any(row["target_class"] for row in scored):
        found["by_class"] = by_class(scored, run["figures"][0])
    if scored:
        found["by_snr"] = {f"{edge:g}": value for edge, value in by_snr(scored, run["figures"][0]).items()}
    return found


def differences(rows: Mapping[str, Sequence[dict[str, Any]]], figure: str) -> dict[str, dict[str, float] | None]:
    """Paired difference of each system from the first, over items; None where they do not have the same items."""
    figures = {
        name: {row["id"]: row[figure] for row in found if row.get(figure) is not None} for name, found in rows.items()
    }
    if not figures:
        return {}
    first, *others = figures
    base = figures[first]
    return {
        name: paired_difference([figures[name][one] for one in base], list(base.values()))
        if base and figures[name].keys() == base.keys()
        else None
        for name in others
    }


def table_lines(summary: dict[str, Any]) -> list[str]:
    """The summary as Markdown, the best system first."""
    systems, against = summary["systems"], summary["differences"]
    if not systems:
        return [f"{summary['title']}: no mixture scored"]
    rank = summary["ranked_by"]
    columns = [name for name in titles(summary) if any(name in one["figures"] for one in systems.values())]
    first = next(iter(systems))
    head = [titles(summary)[name] for name in columns]
    head += [f"{titles(summary)[rank]}, less {first}'s"] if len(systems) > 1 else []
    lines = [
        f"{summary['title']} ({summary['protocol']}; {summary['mixtures']}): {AVERAGES[summary['average']]}, with 95 % "
        "bootstrap intervals" + ("; differences over the same mixtures, p by permutation of signs" if against else ""),
        "",
        f"| system | mixtures | {' | '.join(head)} |",
        f"|{'---|' * (len(head) + 2)}",
    ]
    worst = {"mean": float("-inf")}
    for name in sorted(systems, key=lambda one: -systems[one]["figures"].get(rank, worst)["mean"]):
        cells = [cell(systems[name]["figures"].get(column), column != "seconds") for column in columns]
        if len(systems) > 1:
            cells.append("" if name == first else difference_cell(against[name]))
        lines.append(f"| {name.replace('|', '/')} | {systems[name]['items']} | {' | '.join(cells)} |")
    return lines + notes(summary)


def notes(summary: dict[str, Any]) -> list[str]:
    """What a reader of the table has to know: items that are not in it, and systems that had others."""
    lines = []
    for name, one in summary["systems"].items():
        lines += [f"{name}: {count} left out because {reason}" for reason, count in one["left_out"].items()]
    other = [name for name, found in summary["differences"].items() if found is None]
    if other:
        lines.append(f"no difference for {', '.join(other)}: not scored on the same mixtures as the first")
    if summary["failed"]:
        first, reason = next(iter(summary["failed"].items()))
        lines.append(f"{len(summary['failed'])} not scored, the first {first}: {reason}")
    return ["", *lines] if lines else []


def titles(summary: dict[str, Any]) -> dict[str, str]:
    """Column -> its heading, in order; scores of an encoder carry its name."""
    found = {name: title for name, (title, _) in FIGURES.items()}
    if summary["encoder"]:
        found[TEXT_SCORE] = f"{summary['encoder']['score']} [{summary['encoder']['name']}]"
        found[AUDIO_SCORE] = f"{summary['encoder']['score']}_A [{summary['encoder']['name']}]"
        found[FRECHET] = f"Frechet distance [{summary['encoder']['name']}]"
    return {**found, "seconds": "s per mixture"}


def cell(value: dict[str, float] | None, interval: bool = True) -> str:
    """A mean with its interval, if it has one; a dash where there is none."""
    if value is None:
        return "-"
    interval = interval and "low" in value
    return f"{value['mean']:.2f}" + (f" [{value['low']:.2f}, {value['high']:.2f}]" if interval else "")


def difference_cell(value: dict[str, float] | None) -> str:
    """A paired difference with its interval and p."""
    return "-" if value is None else f"{cell(value)}, p = {value['p']:.3g}"


def by_lines(summary: dict[str, Any], by: str) -> list[str]:
    """One row per class or SNR (bins of 2.5 dB, named by the lower edge), one column per system."""
    tables = {name: one.get(GROUPINGS[by], {}) for name, one in summary["systems"].items()}
    groups = dict.fromkeys(group for table in tables.values() for group in table)
    groups = sorted(groups, key=float) if by == "snr" else sorted(groups)
    if not groups:
        return [f"no table by {by}: the mixtures of {summary['protocol']} do not say it"]
    title = titles(summary)[summary["ranked_by"]]
    lines = [
        f"{title} by {by}" + (" of the mixture, dB, bins of 2.5 dB from" if by == "snr" else " of the target"),
        "",
        f"| {by} | mixtures | {' | '.join(tables)} |",
        f"|{'---|' * (len(tables) + 2)}",
    ]
    for group in groups:
        count = max(int(table[group]["count"]) for table in tables.values() if group in table)
        cells = " | ".join(cell(table.get(group), count > 1) for table in tables.values())
        lines.append(f"| {group} | {count} | {cells} |")
    return lines


def compare(folders: Sequence[Path]) -> dict[str, Any]:
    """One summary of the systems of several folders of results.

    Differences are of systems on the same mixtures; where a folder's are others, it has none. UsageError for less than
    one folder, InputError for folders of different protocols or encoders: their figures do not belong in one table.
    """
    if not folders:
        raise UsageError("nothing to compare; give folders that flowsep evaluate -o wrote")
    opened = {folder: read_results(folder) for folder in folders}
    first = next(iter(opened.values()))
    joined = Results({**first.run, "systems": {}})
    names = [name for results in opened.values() for name in results.run["systems"]]
    for folder, results in opened.items():
        for key in ("protocol", "sample_rate", "average", "figures", "encoder"):
            if results.run[key] != first.run[key]:
                raise InputError(
                    f"{folder} has another {key.replace('_', ' ')} than {folders[0]}; compare like with like"
                )
        same = results.run["data"] == first.run["data"]
        for name, about in results.run["systems"].items():
            label = name if names.count(name) == 1 else f"{folder.name}/{name}"
            if label in joined.run["systems"]:
                raise InputError(f"two systems are called {label}; give folders of different names")
            joined.run["systems"][label] = about
            for row in results.rows.values():
                if row["system"] == name:
                    key = row["id"] if same else f"{folder}:{row['id']}"  # an id of other data is another mixture
                    joined.rows[label, key] = {**row, "system": label, "id": key}
                    if (name, row["id"]) in results.frames:
                        joined.frames[label, key] = results.frames[name, row["id"]]
    return summarise(joined)
