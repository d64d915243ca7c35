"""Separator x recipe -> one row per mixture, then the summary."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from flowsep.data.manifest import Clip, read_manifest
from flowsep.errors import InputError
from flowsep.evaluation.recipe import SAMPLE_RATE, MixtureRow, interferer_query, render_row
from flowsep.evaluation.signal import level_db, si_sdr
from flowsep.evaluation.statistics import bootstrap_mean
from flowsep.protocol import SampleOptions, TextSeparator
from vocoder.mel import MelConfig, log_mel


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

    if separator.sample_rate != SAMPLE_RATE:
        raise InputError(f"recipes are mixed at {SAMPLE_RATE} Hz, the model works at {separator.sample_rate} Hz")
    if not rows:
        raise InputError("the recipe has no rows to evaluate")
    clips = captions_of(data)
    items = [evaluate_row(separator, row, data, clips, options) for row in tqdm(rows, disable=quiet, unit="mixture")]
    report: dict[str, Any] = {"schema_version": 1, "flowsep": __version__, "model": model, "recipe": recipe}
    report["settings"] = items[0]["settings"]
    report["nfe"] = items[0]["nfe"]
    report["mixtures"] = len(items)
    for name in ("si_sdr_mixture", "si_sdri", "si_sdri_wrong_query", "query_gap", "log_mel_l1_ratio", "seconds"):
        report[name] = bootstrap_mean([item[name] for item in items])
    report["median_si_sdri"] = statistics.median(item["si_sdri"] for item in items)
    report["improved_by_1_db"] = sum(item["si_sdri"] > 1 for item in items) / len(items)
    report["items"] = [{k: v for k, v in item.items() if k != "settings"} for item in items]
    return report


def captions_of(data: Path) -> dict[str, Clip]:
    """Clips by their path in the recipe, if the folder has a manifest; without one, class names serve as queries."""
    if not (data / "manifest.csv").is_file():
        return {}
    return {clip.path.relative_to(data).as_posix(): clip for clip in read_manifest(data / "manifest.csv")}


def evaluate_row(
    separator: TextSeparator, row: MixtureRow, data: Path, clips: dict[str, Clip], options: SampleOptions
) -> dict[str, Any]:
    """Figures of one mixture: both queries, against the target."""
    mixture, target, _ = (torch.from_numpy(audio) for audio in render_row(row, data))
    before = si_sdr(mixture, target).item()
    wrong_query = interferer_query(row, clips)
    right = separator.separate(mixture[None], [row.query], options)
    wrong = separator.separate(mixture[None], [wrong_query], options)
    gain = si_sdr(right.target[0].cpu(), target).item() - before
    wrong_gain = si_sdr(wrong.target[0].cpu(), target).item() - before
    mel = MelConfig()
    reference = log_mel(target, mel)
    distance = (log_mel(right.target[0].cpu(), mel) - reference).abs().mean()
    mixture_distance = (log_mel(mixture, mel) - reference).abs().mean()
    return {
        "id": row.id,
        "target_class": row.target_class,
        "interferer_class": row.interferer_class,
        "query": row.query,
        "wrong_query": wrong_query,
        "snr_db": row.snr_db,
        "si_sdr_mixture": before,
        "si_sdri": gain,
        "si_sdri_wrong_query": wrong_gain,
        "query_gap": gain - wrong_gain,
        "log_mel_l1_ratio": (distance / mixture_distance.clamp(min=1e-9)).item(),
        "output_level_db": (level_db(right.target[0].cpu()) - level_db(mixture)).item(),
        "seconds": sum(right.seconds.values()),
        "nfe": right.nfe,
        "settings": right.settings,
    }


def summary_lines(report: dict[str, Any]) -> list[str]:
    """The report for a person."""
    settings = report["settings"]
    lines = [
        f"{report['model']} on {report['recipe']}: {report['mixtures']} mixtures, {settings['render']} rendering, "
        f"{settings['steps']} steps ({settings['solver']}), {report['nfe']} NFE, seed {settings['seed']}",
        "mean with 95 % bootstrap interval",
    ]
    names = {
        "si_sdr_mixture": ("SI-SDR of the mixture", "dB"),
        "si_sdri": ("SI-SDR improvement", "dB"),
        "si_sdri_wrong_query": ("  queried for the interferer", "dB"),
        "query_gap": ("  right minus wrong query", "dB"),
        "log_mel_l1_ratio": ("log-mel L1 relative to the mixture's", "x"),
        "seconds": ("seconds per mixture", "s"),
    }
    for name, (title, unit) in names.items():
        value = report[name]
        lines.append(f"{title:<38} {value['mean']:8.2f} {unit:<2} [{value['low']:.2f}, {value['high']:.2f}]")
    lines.append(f"{'median SI-SDR improvement':<38} {report['median_si_sdri']:8.2f} dB")
    lines.append(f"{'improved by more than 1 dB':<38} {100 * report['improved_by_1_db']:8.0f} %")
    return lines
