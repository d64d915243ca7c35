"""What a model hears, for its card: a table by class, and pictures of its best and worst separations."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from flowsep.data.doubtful import listing
from flowsep.data.manifest import Clip
from flowsep.errors import InputError
from flowsep.evaluation.recipe import MixtureRow, render_row
from flowsep.evaluation.run import ask
from flowsep.evaluation.statistics import bootstrap_mean, by_class
from flowsep.plot import mel_panel, write_figure
from flowsep.protocol import SampleOptions, TextSeparator
from vocoder.mel import NEPER, MelConfig, log_mel

HUB_FIGURES = {
    "si_sdri": "SI-SDR improvement (dB)",
    "improved_by_1_db": "share improved by more than 1 dB",
    "query_gap": "right minus wrong query (dB)",
    "unseen_wording_loss": "lost with a wording held out of training (dB)",
    "absent_level_db": "level when the sound is absent (dB)",
}
HEAD = "| sound | training clips | mixtures | SI-SDR improvement (dB) | wrong query (dB) |"


@dataclass(frozen=True)
class Example:
    """One separation to be drawn: a title, and log-mels (N, M) in dB of the mixture, the target and the output."""

    title: str
    levels: dict[str, Tensor]
    seconds: float


def class_table(items: Sequence[dict[str, Any]], training: Sequence[Clip]) -> list[str]:
    """Markdown lines: mean SI-SDR improvement by class, best first, with how much of it was heard in training.

    `items` are those of `evaluate_recipe`; `training` the clips that the model learnt from.
    """
    gains, wrong = by_class(items, "si_sdri"), by_class(items, "si_sdri_wrong_query")
    counts = Counter(clip.label for clip in training)
    lines = [HEAD, "|---|---|---|---|---|"]
    for label in sorted(gains, key=lambda label: -gains[label]["mean"]):
        lines.append(
            f"| {label.replace('_', ' ')} | {counts[label]} | {gains[label]['count']:.0f} "
            f"| {gains[label]['mean']:.1f} | {wrong[label]['mean']:.1f} |"
        )
    return lines


def heard_lines(items: Sequence[dict[str, Any]], training: Sequence[Clip]) -> list[str]:
    """A sentence on kinds of which training held recordings, and one on the others; only where there are any."""
    heard = {clip.label for clip in training}
    groups = {
        "of kinds of which training held recordings": [item for item in items if item["target_class"] in heard],
        "of kinds of which it held none": [item for item in items if item["target_class"] not in heard],
    }
    lines = []
    for name, group in groups.items():
        if group:
            gain = bootstrap_mean([item["si_sdri"] for item in group])
            share = sum(item["si_sdri"] > 1 for item in group) / len(group)
            lines.append(
                f"{len(group)} mixtures {name}: SI-SDR improvement {gain['mean']:.2f} dB "
                f"[{gain['low']:.2f}, {gain['high']:.2f}], {100 * share:.0f} % improved by more than 1 dB."
            )
    return lines


def hub_header(report: dict[str, Any], name: str) -> list[str]:
    """The YAML lines, with their fences, that a hub wants above the card of a model `name`: its kind and its figures.

    The licence is not known here; who hands the model on adds it.
    """
    from huggingface_hub import EvalResult, ModelCardData

    about = f"{report['mixtures']} mixtures of {report['recipe']}, {report['settings']['steps']} steps"
    results = [
        EvalResult(
            task_type="audio-to-audio",
            task_name="language-queried audio source separation",
            dataset_type=report["recipe"],
            dataset_name=about,
            metric_type=figure,
            metric_name=title,
            metric_value=round(report[figure]["mean"], 2),
        )
        for figure, title in HUB_FIGURES.items()
        if figure in report
    ]
    header = ModelCardData(
        language="en",
        library_name="diffusers",
        pipeline_tag="audio-to-audio",
        tags=["language-queried audio source separation"],
        model_name=name,
        eval_results=results,
    )
    return ["---", *header.to_yaml().splitlines(), "---"]


def doubted_lines(items: Sequence[dict[str, Any]], rows: Sequence[MixtureRow], name: str) -> list[str]:
    """A sentence on the targets whose label the list `name` (`flowsep.data.doubtful`) doubts; none without such.

    Such a clip counts as its class says, so that a class may look worse, or better, than it is.
    """
    is_listed = listing(name)
    listed = {row.id for row in rows if is_listed(PurePosixPath(row.target_path), row.target_class)}
    doubted = Counter(item["target_class"] for item in items if item["id"] in listed)
    counts = Counter(item["target_class"] for item in items)
    named = [f"{label.replace('_', ' ')} {count} of {counts[label]}" for label, count in doubted.most_common()]
    return [f"Mixtures whose target's label is doubted ({name}): {', '.join(named)}."] if named else []


def attribution_lines(training: Sequence[Clip], listed: Path) -> list[str]:
    """Markdown lines: authors and licences of the clips that a model learnt from, one per pair, counted, by collection.

    `listed` has the columns path, licence and attribution, paths relative to its folder; the collection is the folder
    above the class's. InputError where it lacks a column or a clip.
    """
    with listed.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if missing := {"path", "licence", "attribution"} - set(reader.fieldnames or ()):
            raise InputError(f"{listed} lacks the columns {', '.join(sorted(missing))}")
        rows = {listed.parent / row["path"]: row for row in reader}
    if unnamed := [clip.path for clip in training if clip.path not in rows]:
        raise InputError(f"{listed} does not name {unnamed[0]}, and {len(unnamed) - 1} more of the training clips")
    authors: dict[str, Counter[str]] = defaultdict(Counter)
    for clip in training:
        row = rows[clip.path]
        authors[clip.path.parent.parent.name or "recordings"][f"{row['attribution']}: {row['licence']}"] += 1
    lines = [
        "# Recordings that the model was trained on",
        "",
        f"Authors and licences of the {len(training)} training clips (no recording is shipped). One line per author",
        "and licence; the number of clips in brackets.",
    ]
    for collection in sorted(authors):
        lines += ["", f"## {collection}", ""]
        lines += [f"- {named} ({count})" for named, count in sorted(authors[collection].items())]
    return lines


def extremes(items: Sequence[dict[str, Any]], count: int, worst: bool) -> list[dict[str, Any]]:
    """The `count` items that gained least (or most), the most extreme first."""
    return sorted(items, key=lambda item: item["si_sdri"] if worst else -item["si_sdri"])[:count]


def separate_again(
    separator: TextSeparator,
    item: dict[str, Any],
    rows: Sequence[MixtureRow],
    data: Path,
    options: SampleOptions,
) -> Example:
    """The separation that an item of a report is about, made again; InputError if its mixture is not in `rows`."""
    row = next((row for row in rows if row.id == item["id"]), None)
    if row is None:
        raise InputError(f"the report names mixture {item['id']}, which the recipe lacks; give the report's recipe")
    mixture, target, _ = (torch.from_numpy(audio) for audio in render_row(row, data))
    (output,), _ = ask(separator, mixture, [row.query], options)
    other = row.interferer_class.replace("_", " ")
    title = f"“{row.query}”\nin {other}, {row.snr_db:+.0f} dB\nimproved by {item['si_sdri']:.1f} dB"
    sounds = {"mixture": mixture, "wanted": target, "got": output}
    levels = {name: NEPER * log_mel(sound, MelConfig()) for name, sound in sounds.items()}
    return Example(title, levels, row.length_s)


def draw_examples(path: Path, examples: Sequence[Example], overwrite: bool = False) -> None:
    """Write a PNG with a column for each example and rows mixture, wanted, got; one dB scale within a column.

    InputError where `path` exists (unless `overwrite`) or cannot be written.
    """
    from matplotlib.figure import Figure

    names = list(examples[0].levels)
    figure = Figure(figsize=(3.0 * len(examples) + 0.8, 6), dpi=80, layout="constrained")
    axes = figure.subplots(len(names), len(examples), sharex=True, sharey=True, squeeze=False)
    for column, example in enumerate(examples):
        top = float(example.levels["mixture"].max())
        for row, (name, level) in enumerate(example.levels.items()):
            image = mel_panel(axes[row, column], level - top, MelConfig(), 0.0, 0.0, example.seconds)
            if column == 0:
                axes[row, column].set_ylabel(f"{name}\nfrequency (Hz)")
        axes[0, column].set_title(example.title, fontsize=9, parse_math=False)
        axes[-1, column].set_xlabel("time (s)")
    figure.colorbar(image, ax=axes, label="level below the mixture's peak (dB)", fraction=0.02)
    write_figure(path, figure, overwrite, colours=64)
