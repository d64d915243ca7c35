"""The step-count study for people: a Markdown table and two plots, both made from its JSON report alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsep.atomic import atomic_output
from flowsep.benchmark.steps import PRESENCE, QUALITY
from flowsep.plot import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLE = "steps.md"
PLOTS = {"nfe": "quality_nfe.png", "seconds": "quality_seconds.png"}  # what is on the axis below -> file
TITLES = {
    "si_sdri": "SI-SDR improvement (dB)",
    "log_mel_distance": "log-mel distance",
    "log_spectral_distance": "log-spectral distance",
}
AXES = {
    "nfe": "network calls per mixture (NFE)",
    "seconds": "seconds per mixture, without the text encoder; steps beside the marks",
}
BETTER = {
    "si_sdri": "higher is better",
    "log_mel_distance": "lower is better",
    "log_spectral_distance": "lower is better",
}
DODGE = 1.05  # factor on the axis between neighbouring lines
# Told apart without colour: every line has its own marker, dashes and filling; the colours differ in brightness too.
STYLES = (
    {"color": "#000000", "marker": "o", "linestyle": "-", "markerfacecolor": "#000000"},
    {"color": "#c0392b", "marker": "s", "linestyle": "--", "markerfacecolor": "white"},
    {"color": "#2471a3", "marker": "^", "linestyle": "-.", "markerfacecolor": "#2471a3"},
    {"color": "#7f8c8d", "marker": "D", "linestyle": ":", "markerfacecolor": "white"},
    {"color": "#b9770e", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "markerfacecolor": "#b9770e"},
    {"color": "#1e8449", "marker": "P", "linestyle": (0, (8, 3)), "markerfacecolor": "white"},
)


def write_results(report: dict[str, Any], folder: Path) -> None:
    """Write table and plots of a report into `folder`, over those of an earlier run."""
    with atomic_output(folder / TABLE, overwrite=True) as temporary:
        temporary.write_text(table(report) + "\n", encoding="utf-8")
    for axis, name in PLOTS.items():
        plot(report, axis, folder / name)


def table(report: dict[str, Any]) -> str:
    """The report as Markdown: what was measured where, and a row for every model, solver and step count."""
    lines = [
        " ".join(conditions(report)),
        "",
        f"| model | solver | steps | NFE | {' | '.join(TITLES[name] for name in QUALITY)} | presence | seconds |",
        f"|{'---|' * 9}",
    ]
    if report["mixture"]:
        cells = [interval(report["mixture"][name]) for name in QUALITY]
        lines.append(f"| the mixture itself | | | 0 | {' | '.join(cells)} | | |")
    for cell in report["aggregates"]:
        cells = [*(interval(cell[name]) for name in QUALITY), presence(cell)]
        time = f"{cell['seconds']['mean']:.2f} ({cell['sampler_seconds']['mean']:.2f})"
        about = f"{cell['model']} | {cell['solver']} | {cell['steps']} | {cell['nfe']}"
        lines.append(f"| {about} | {' | '.join(cells)} | {time} |")
    return "\n".join(lines)


def conditions(report: dict[str, Any]) -> list[str]:
    """What the figures are of and where the times were taken, in sentences."""
    machine, settings, models = report["sessions"][-1], report["settings"], report["models"].values()
    count = max((cell["mixtures"] for cell in report["aggregates"]), default=0)
    on_gpu = any(model["device"] == "cuda" for model in models) and machine["gpus"]
    place = machine["gpus"][0]["name"] if on_gpu else f"{machine['cpu']}, {machine['threads']} threads"
    dtypes = ", ".join(sorted({model["dtype"] for model in models}))
    git = machine["git"] or {"revision": "unknown", "dirty": False}
    revision = git["revision"][:10] + (" with changes" if git["dirty"] else "")
    return [
        f"{count} mixtures of {report['recipe']['name']}, one at a time, {settings['render']} rendering, "
        f"guidance {settings['guidance']:g}, seed {settings['seed']}.",
        f"{place}, {dtypes}, torch {machine['versions']['torch']}, revision {revision}, {machine['date'][:10]}.",
        "Means with 95 % bootstrap intervals; seconds without the text encoder, the sampler's part in brackets.",
        "Presence: the model's own score, 0 to 1, where it was calibrated.",
    ]


def presence(cell: dict[str, Any]) -> str:
    """The mean presence score of a line of the table; a dash for a model without one."""
    found = cell.get(PRESENCE)
    return "-" if found is None else f"{found['mean']:.2f}"


def interval(value: dict[str, float]) -> str:
    """A mean and its interval."""
    return f"{value['mean']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def plot(report: dict[str, Any], axis: str, path: Path) -> None:
    """Write a PNG of each quality figure against `axis` ("nfe" or "seconds"), a line for every model and solver."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 9.5), dpi=120, layout="constrained")
    panels = figure.subplots(len(QUALITY), 1, sharex=True)
    for panel, name in zip(panels, QUALITY, strict=True):
        draw(panel, report, axis, name)
    panels[-1].set_xlabel(AXES[axis])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=9)
    write_figure(path, figure, overwrite=True)


def draw(panel: Axes, report: dict[str, Any], axis: str, name: str) -> None:
    """One quality figure: means with their intervals, and what the untouched mixture gets."""
    lines = lines_of(report["aggregates"])
    for number, ((title, cells), style) in enumerate(zip(lines.items(), cycle(STYLES), strict=False)):
        if axis == "nfe":  # side by side, so that intervals at the same call count do not hide one another
            across = [cell["nfe"] * DODGE ** (number - (len(lines) - 1) / 2) for cell in cells]
        else:
            across = [cell["seconds"]["mean"] for cell in cells]
        means = [cell[name]["mean"] for cell in cells]
        reach = [
            [cell[name]["mean"] - cell[name]["low"] for cell in cells],
            [cell[name]["high"] - cell[name]["mean"] for cell in cells],
        ]
        panel.errorbar(across, means, reach, label=title, capsize=3, elinewidth=0.8, markersize=6, **style)
        if axis == "seconds":
            for cell, x, y in zip(cells, across, means, strict=True):
                panel.annotate(str(cell["steps"]), (x, y), (4, 4), textcoords="offset points", fontsize=7)
    panel.axhline(report["mixture"][name]["mean"], color="#999999", linewidth=1, label="the mixture itself")
    panel.set_ylabel(f"{TITLES[name]}\n({BETTER[name]})")
    panel.grid(which="major", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    plain_logarithm(panel)


def plain_logarithm(panel: Axes) -> None:
    """A logarithmic axis below with plain numbers: 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_locator(NullLocator())


def lines_of(aggregates: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The cells of each line of the plots, by its name in the legend, in the order of their steps."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in aggregates:
        found.setdefault(f"{cell['model']}, {cell['solver']}", []).append(cell)
    return found
