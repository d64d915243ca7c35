"""Several separators on the same mixtures: one table, with intervals and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from flowsep.checkpoint import load_separator
from flowsep.errors import UsageError
from flowsep.evaluation.encoded import titles_of
from flowsep.evaluation.leaderboard import cell, difference_cell
from flowsep.evaluation.oracle import TITLES, oracle_recipe
from flowsep.evaluation.recipe import SAMPLE_RATE, MixtureRow
from flowsep.evaluation.run import evaluate_recipe
from flowsep.evaluation.statistics import paired_difference
from flowsep.evaluation.systems import MIXTURE, ORACLE, options_for, refuse_unread
from flowsep.protocol import SampleOptions, Separation, TextSeparator
from vocoder.mel import MelConfig

CEILING = "mel_mask_two_streams"  # the ceiling of what FlowSep's mixture rendering can do
FIGURE = "si_sdri"  # what systems are ranked and compared by
COLUMNS = {
    "si_sdri": "SI-SDRi dB",
    "query_gap": "right - wrong query dB",
    "absent_level_db": "level when absent dB",
    "log_mel_l1_ratio": "log-mel L1, ratio",
    "seconds": "s per mixture",
}


class Untouched:
    """The mixture as the answer to every query: what doing nothing scores, as a separator that a recipe can ask."""

    sample_rate, window = SAMPLE_RATE, 2**31
    defaults, mel = SampleOptions(steps=1, render="mixture"), MelConfig()

    def separate(self, mixture: Tensor, texts: Sequence[str], options: SampleOptions | None = None) -> Separation:
        """The mixture, no residual, no network call."""
        settings = {"steps": 0, "solver": "none", "render": "mixture", "seed": 0}
        return Separation(mixture, mixture - mixture, nfe=0, seconds={"none": 0.0}, settings=settings)


def evaluate_systems(
    names: Sequence[str],
    rows: Sequence[MixtureRow],
    data: Path,
    options: SampleOptions,
    recipe: str,
    device: str = "auto",
    quiet: bool = True,
) -> dict[str, Any]:
    """Reports of several systems on the same mixtures, and the paired difference of each from the first.

    A name is a model (as for `load_separator`), "mixture" (`Untouched`) or "oracle" (the 64-band mask made with the
    true target and interferer). Options of a sampler go to those that sample, mask separators get the seed alone.
    UsageError for a system that is named twice, and for one that does not know the queries (USS).
    """
    if len(set(names)) < len(names):
        raise UsageError(f"a model is named twice in {','.join(names)}; name each once")
    for name in names:  # before minutes are spent on the others
        if name not in (ORACLE, MIXTURE):
            refuse_unread(name, [row.query for row in rows])
    reports = {}
    for name in names:
        if name == ORACLE:
            reports[name] = oracle_report(rows, data, recipe)
            continue
        separator: TextSeparator = Untouched() if name == MIXTURE else load_separator(name, device)
        reports[name] = evaluate_recipe(separator, rows, data, options_for(separator, options), name, recipe, quiet)
    first = [item[FIGURE] for item in reports[names[0]]["items"]]
    differences = {
        name: paired_difference([item[FIGURE] for item in report["items"]], first)
        for name, report in reports.items()
        if name != names[0]
    }
    return {
        "schema_version": 1,
        "recipe": recipe,
        "mixtures": len(rows),
        "systems": reports,
        "differences": differences,
    }


def oracle_report(rows: Sequence[MixtureRow], data: Path, recipe: str) -> dict[str, Any]:
    """The oracle's figures under the names that a separator's have."""
    found = oracle_recipe(rows, data, recipe)
    items = [{"id": item["id"], "target_class": item["target_class"], FIGURE: item[CEILING]} for item in found["items"]]
    return {"model": ORACLE, "about": TITLES[CEILING], FIGURE: found[CEILING], "items": items}


def leaderboard_lines(report: dict[str, Any]) -> list[str]:
    """A Markdown table, the best system first."""
    systems, differences = report["systems"], report["differences"]
    base = next(name for name in systems if name not in differences)
    encoder = next((one["encoder"] for one in systems.values() if "encoder" in one), None)
    columns = COLUMNS | titles_of(encoder)
    lines = [
        f"{report['recipe']}: {report['mixtures']} mixtures; 95 % bootstrap intervals; p by permutation of signs",
        "",
        f"| model | {' | '.join(columns.values())} | SI-SDRi - {base}'s |",
        f"|{'---|' * (len(columns) + 2)}",
    ]
    for name in sorted(systems, key=lambda one: -systems[one][FIGURE]["mean"]):
        cells = [cell(systems[name].get(column), column == FIGURE) for column in columns]
        against = differences.get(name)
        shown = "" if against is None else difference_cell(against)
        lines.append(f"| {name} | {' | '.join(cells)} | {shown} |")
    return lines
