"""Separator x recipe -> one row per mixture, then the summary."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from flowsep.audio import resample
from flowsep.data.manifest import PHRASINGS, Clip, listed_path, read_manifest, read_phrasings
from flowsep.errors import InputError
from flowsep.evaluation.encoded import TITLES, EncoderFigures, titles_of
from flowsep.evaluation.recipe import SAMPLE_RATE, MixtureRow, interferer_query, render_row
from flowsep.evaluation.signal import level_db, si_sdr
from flowsep.evaluation.statistics import bootstrap_mean
from flowsep.presence import area_under_curve
from flowsep.protocol import SampleOptions, Separation, TextSeparator
from vocoder.mel import NEPER, MelConfig, log_mel

SCHEMA_VERSION = 2  # of the report
FIGURES = {
    "si_sdr_mixture": ("SI-SDR of the mixture", "dB"),
    "si_sdri": ("SI-SDR improvement", "dB"),
    "si_sdri_wrong_query": ("  queried for the interferer", "dB"),
    "query_gap": ("  right minus wrong query", "dB"),
    "unseen_wording_loss": ("  lost with an unseen wording", "dB"),
    "absent_level_db": ("level when the sound is absent", "dB"),
    "log_mel_l1_db": ("log-mel L1 to the target", "dB"),
    "log_mel_l1_mixture_db": ("  of the mixture", "dB"),
    "log_mel_l1_ratio": ("  one over the other, mean of all", "x"),
    "presence": ("presence score when present", ""),
    "presence_absent": ("presence score when absent", ""),
    "seconds": ("seconds per mixture", "s"),
}


def evaluate_recipe(
    separator: TextSeparator,
    rows: Sequence[MixtureRow],
    data: Path,
    options: SampleOptions,
    model: str,
    recipe: str,
    quiet: bool = True,
) -> dict[str, Any]:
    """Report of all mixtures: items, and means with 95 % bootstrap intervals. Levels and ratios in dB."""
    from tqdm import tqdm

    from flowsep import __version__

    if not rows:
        raise InputError("the recipe has no rows to evaluate")
    clips = captions_of(data)
    unseen = read_phrasings(PHRASINGS, "held_out")
    judge = EncoderFigures()
    items = [
        evaluate_row(separator, row, data, clips, options, unseen, judge)
        for row in tqdm(rows, disable=quiet, unit="mixture")
    ]
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "flowsep": __version__,
        "model": model,
        "recipe": recipe,
    }
    report["settings"] = items[0]["settings"]
    report["nfe"] = items[0]["nfe"]
    report["mixtures"] = len(items)
    for name in (*FIGURES, *TITLES):
        values = [item[name] for item in items if name in item]
        if values:
            report[name] = bootstrap_mean(values)
    report |= judge.whole()
    # Beside the mean of the ratios, in which a few mixtures with next to nothing to remove outweigh all others.
    report["log_mel_l1_ratio_of_means"] = report["log_mel_l1_db"]["mean"] / max(
        report["log_mel_l1_mixture_db"]["mean"], 1e-9
    )
    report["median_si_sdri"] = statistics.median(item["si_sdri"] for item in items)
    judged = [(item["presence"], item["presence_absent"]) for item in items if "presence_absent" in item]
    if judged:
        scores = [score for pair in judged for score in pair]
        report["presence_auc"] = area_under_curve(scores, [True, False] * len(judged))
        names = ("presence", "presence_absent")
        report["called_present"] = {n: bootstrap_mean([item[n] > 0.5 for item in items if n in item]) for n in names}
    report["improved_by_1_db"] = bootstrap_mean([item["si_sdri"] > 1 for item in items])
    report["items"] = [{k: v for k, v in item.items() if k != "settings"} for item in items]
    return report


def captions_of(data: Path) -> dict[str, Clip]:
    """Clips by their path in the recipe, if the folder has a manifest; without one, class names serve as queries."""
    if not (data / "manifest.csv").is_file():
        return {}
    return {listed_path(clip.path, data): clip for clip in read_manifest(data / "manifest.csv")}


def other_queries(row: MixtureRow, clips: dict[str, Clip], unseen: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """What else the mixture is asked for: the interferer, the target in a wording kept out of training, a third sound.

    The choice depends on the row's id only. Without a manifest, or for a class without such wordings, queries are left
    out that cannot be had.
    """
    queries = {"wrong_query": interferer_query(row, clips)}
    chance = random.Random(row.id)
    if row.target_class in unseen:
        queries["unseen_query"] = chance.choice(unseen[row.target_class])
    if not {row.target_path, row.interferer_path} <= clips.keys():
        return queries  # what is not known to be absent is not asked for as such
    present = {clips[path].family for path in (row.target_path, row.interferer_path)}
    absent = {clip.label: clip for clip in clips.values() if clip.family not in present}
    if absent:
        queries["absent_query"] = absent[chance.choice(sorted(absent))].captions[0]
    return queries


def ask(
    separator: TextSeparator, mixture: torch.Tensor, texts: list[str], options: SampleOptions
) -> tuple[torch.Tensor, Separation]:
    """Targets (B, T) of one mixture (T,) at the recipe's rate, whatever the separator's is, and what else it said."""
    heard = resample(mixture[None], SAMPLE_RATE, separator.sample_rate)
    found = separator.separate(heard.expand(len(texts), -1), texts, options)
    return resample(found.target.cpu(), separator.sample_rate, SAMPLE_RATE, len(mixture)), found


def evaluate_row(
    separator: TextSeparator,
    row: MixtureRow,
    data: Path,
    clips: dict[str, Clip],
    options: SampleOptions,
    unseen: dict[str, tuple[str, ...]],
    judge: EncoderFigures | None = None,
) -> dict[str, Any]:
    """Figures of one mixture against the target, for the right query and for the others."""
    mixture, target, _ = (torch.from_numpy(audio) for audio in render_row(row, data))
    before = si_sdr(mixture, target).item()
    queries = other_queries(row, clips, unseen)
    (estimate,), right = ask(separator, mixture, [row.query], options)
    others, rest = ask(separator, mixture, list(queries.values()), options)
    estimates = dict(zip(queries, others, strict=True))
    gains = {name: si_sdr(audio, target).item() - before for name, audio in estimates.items()}
    gain = si_sdr(estimate, target).item() - before
    figures = {
        "si_sdr_mixture": before,
        "si_sdri": gain,
        "si_sdri_wrong_query": gains["wrong_query"],
        "query_gap": gain - gains["wrong_query"],
        **mel_figures(estimate, mixture, target),
        "output_level_db": (level_db(estimate) - level_db(mixture)).item(),
        "seconds": sum(right.seconds.values()),
    }
    if "unseen_query" in gains:
        figures["unseen_wording_loss"] = gain - gains["unseen_query"]
    if right.presence is not None:
        figures["presence"] = right.presence[0].item()
        if "absent_query" in queries:
            figures["presence_absent"] = rest.presence[list(queries).index("absent_query")].item()
    if "absent_query" in gains:
        figures["absent_level_db"] = (level_db(estimates["absent_query"]) - level_db(mixture)).item()
    if judge is not None:
        figures |= judge.item(row.query, estimate, target)
    names = ("id", "target_class", "interferer_class", "query", "snr_db")
    about = {name: getattr(row, name) for name in names}
    return {**about, **queries, **figures, "nfe": right.nfe, "settings": right.settings}


def mel_figures(estimate: torch.Tensor, mixture: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """Mean distance of the log-mels of estimate and mixture, (T,) like the target, to its own; one over the other."""
    mel = MelConfig()
    reference = log_mel(target, mel)
    distance = (log_mel(estimate, mel) - reference).abs().mean()
    mixture_distance = (log_mel(mixture, mel) - reference).abs().mean()
    return {
        "log_mel_l1_db": NEPER * distance.item(),
        "log_mel_l1_mixture_db": NEPER * mixture_distance.item(),
        "log_mel_l1_ratio": (distance / mixture_distance.clamp(min=1e-9)).item(),
    }


def figure_line(title: str, value: dict[str, float], unit: str) -> str:
    """A mean and its interval for a person."""
    return f"{title:<38} {value['mean']:8.2f} {unit:<2} [{value['low']:.2f}, {value['high']:.2f}]"


def share_line(title: str, value: dict[str, float]) -> str:
    """A share of the mixtures and its interval for a person."""
    return f"{title:<38} {100 * value['mean']:8.1f} %  [{100 * value['low']:.0f}, {100 * value['high']:.0f}]"


def summary_lines(report: dict[str, Any]) -> list[str]:
    """The report for a person."""
    settings = report["settings"]
    lines = [
        f"{report['model']} on {report['recipe']}: {report['mixtures']} mixtures, {settings['render']} rendering, "
        f"{settings['steps']} steps ({settings['solver']}), {report['nfe']} NFE, seed {settings['seed']}",
        "mean with 95 % bootstrap interval",
    ]
    for name, (title, unit) in FIGURES.items():
        if name in report:
            lines.append(figure_line(title, report[name], unit))
    lines.append(f"{'log-mel L1, one mean over the other':<38} {report['log_mel_l1_ratio_of_means']:8.2f} x")
    lines.append(f"{'median SI-SDR improvement':<38} {report['median_si_sdri']:8.2f} dB")
    lines.append(share_line("improved by more than 1 dB", report["improved_by_1_db"]))
    for name, title in titles_of(report.get("encoder")).items():
        if name in report:
            value = report[name]
            interval = f"    [{value['low']:.2f}, {value['high']:.2f}]" if "low" in value else ""
            lines.append(f"{title:<38} {value['mean']:8.2f}{interval}")
    if "presence_auc" in report:
        lines.append(f"{'presence: area under the curve':<38} {report['presence_auc']:8.3f}")
        lines.append(share_line("  above 0.5 when present", report["called_present"]["presence"]))
        lines.append(share_line("  above 0.5 when absent", report["called_present"]["presence_absent"]))
    return lines
