"""What a table of the small model needs beside `evaluate_recipe`: step counts, vocoder, words, seconds, megabytes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsep.benchmark.timing import measure
from flowsep.checkpoint import SHIPPED, find_model
from flowsep.data.manifest import PHRASINGS, read_phrasings
from flowsep.errors import UsageError
from flowsep.evaluation.recipe import MixtureRow, render_row
from flowsep.evaluation.run import ask, figure_line, mel_figures
from flowsep.evaluation.signal import level_db, si_sdr
from flowsep.evaluation.statistics import bootstrap_mean, paired_difference
from flowsep.files import weights_bytes
from flowsep.longform import separate_audio
from flowsep.protocol import SampleOptions, TextSeparator
from flowsep.separator import LatentSeparator
from flowsep.training.wordings import UNHEARD

FEW, MANY = (1, 2, 4), 10  # steps
SECONDS = 10  # of sound, timed
REPEATS = 5
WORDS = {  # beside the queries of `evaluate_recipe`
    "unseen_wordings_loss": ("lost with an unseen wording, mean of all", "dB"),
    "unknown_level_db": ("level for a word never trained on", "dB"),
    "unknown_presence": ("presence score of such a word", ""),
}


def complete_report(
    separator: TextSeparator,
    rows: Sequence[MixtureRow],
    data: Path,
    options: SampleOptions,
    model: str,
    quiet: bool = True,
) -> dict[str, Any]:
    """Means with 95 % bootstrap intervals by `steps`, of the `vocoder` rendering, and of queries in other `words`.

    Also `seconds_per_10_s` and `weights_mb`. What a model does not have is left out: steps of one that makes none, the
    rendering of one without a vocoder.
    UsageError where the options name what is varied here.
    """
    if any(value is not None for value in (options.steps, options.solver, options.grid, options.render)):
        raise UsageError("--complete varies steps and rendering itself; leave --steps, --solver, --grid, --render out")
    from tqdm import tqdm

    variants: dict[str, SampleOptions] = {}
    if isinstance(separator, LatentSeparator):
        variants = {str(steps): replace(options, steps=steps) for steps in (*FEW, MANY)}
        if separator.vocoder is not None:
            variants["vocoder"] = replace(options, render="vocoder")
    held_out = read_phrasings(PHRASINGS, "held_out")
    items = []
    for row in tqdm(rows, disable=quiet, unit="mixture"):
        mixture, target, _ = (torch.from_numpy(audio) for audio in render_row(row, data))
        figures = row_figures(separator, row.query, mixture, target, variants)
        wordings = held_out.get(row.target_class, ())
        items.append(figures | word_figures(separator, row, mixture, target, options, wordings))
    report: dict[str, Any] = {}
    gains = {steps: [item[str(steps)] for item in items] for steps in (*FEW, MANY) if str(steps) in variants}
    if gains:
        report["steps"] = {str(steps): bootstrap_mean(values) for steps, values in gains.items()}
        best = max(FEW, key=lambda steps: report["steps"][str(steps)]["mean"])
        report["best_of_few"] = {"steps": best, **paired_difference(gains[best], gains[MANY])}
    if "vocoder" in variants:
        mels = {name: [item[name] for item in items] for name in items[0] if name.startswith("log_mel")}
        report["vocoder"] = {name: bootstrap_mean(values) for name, values in mels.items()}
    report["words"] = {
        name: bootstrap_mean(values) for name in WORDS if (values := [item[name] for item in items if name in item])
    }
    report["seconds_per_10_s"] = seconds_for_ten(separator, [row.query for row in rows], options)
    report["threads"] = torch.get_num_threads()
    report["weights_mb"] = weights_bytes(find_model(model)) / 1e6
    report["shipped_mb"] = weights_bytes(SHIPPED) / 1e6
    return report


def row_figures(
    separator: TextSeparator, query: str, mixture: Tensor, target: Tensor, variants: dict[str, SampleOptions]
) -> dict[str, float]:
    """SI-SDR improvement of one mixture (T,) in dB by number of steps, and how far the vocoder's mel is off."""
    before, found = si_sdr(mixture, target).item(), {}
    for name, options in variants.items():
        estimate = ask(separator, mixture, [query], options)[0][0]
        if name == "vocoder":
            found |= mel_figures(estimate, mixture, target)
        else:
            found[name] = si_sdr(estimate, target).item() - before
    return found


def word_figures(
    separator: TextSeparator,
    row: MixtureRow,
    mixture: Tensor,
    target: Tensor,
    options: SampleOptions,
    held_out: Sequence[str],
) -> dict[str, float]:
    """What all held-out wordings of the target lose on average (dB), and what a word gets that training never held.

    `mixture` and `target` (T,) are the row's. The word is drawn from `UNHEARD` by the row's id; a few of them happen
    to fit a sound of the mixture.
    """
    texts = [row.query, *held_out, random.Random(row.id).choice(UNHEARD)]
    estimates, said = ask(separator, mixture, texts, options)
    known, *others = (si_sdr(estimate, target).item() for estimate in estimates[:-1])
    found = {"unknown_level_db": (level_db(estimates[-1]) - level_db(mixture)).item()}
    if said.presence is not None:
        found["unknown_presence"] = said.presence[-1].item()
    if others:
        found["unseen_wordings_loss"] = known - sum(others) / len(others)
    return found


def seconds_for_ten(separator: TextSeparator, queries: Sequence[str], options: SampleOptions) -> float:
    """Median time of 10 s of noise, after runs to warm up; every run has another query where there are enough."""
    noise = 0.1 * torch.randn(1, SECONDS * separator.sample_rate, generator=torch.Generator().manual_seed(0))
    asked = cycle(queries)
    timing = measure(
        lambda: separate_audio(separator, noise, separator.sample_rate, [next(asked)], options),
        separator.device,
        REPEATS,
    )
    return timing.median


def complete_lines(report: dict[str, Any]) -> list[str]:
    """`complete_report` for a person."""
    lines = []
    for steps, value in report.get("steps", {}).items():
        lines.append(figure_line(f"SI-SDR improvement at {steps} steps", value, "dB"))
    if "best_of_few" in report:
        value = report["best_of_few"]
        lines.append(figure_line(f"  best of 1, 2, 4 ({value['steps']}) minus {MANY}", value, "dB"))
    if "vocoder" in report:
        mel, mixture = report["vocoder"]["log_mel_l1_db"], report["vocoder"]["log_mel_l1_mixture_db"]
        lines.append(figure_line("vocoder rendering, log-mel L1", mel, "dB"))
        lines.append(f"{'  over the mixture, of the means':<38} {mel['mean'] / max(mixture['mean'], 1e-9):8.2f} x")
        lines.append(figure_line("  over the mixture, mean of all", report["vocoder"]["log_mel_l1_ratio"], "x"))
    lines += [
        figure_line(title, report["words"][name], unit)
        for name, (title, unit) in WORDS.items()
        if name in report["words"]
    ]
    title = f"seconds for {SECONDS} s, {report['threads']} threads"
    lines.append(f"{title:<38} {report['seconds_per_10_s']:8.3f} s")
    lines.append(f"{'weights':<38} {report['weights_mb']:8.1f} MB")
    lines.append(f"{'all weights that ship':<38} {report['shipped_mb']:8.1f} MB")
    return lines
