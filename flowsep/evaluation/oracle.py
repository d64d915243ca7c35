"""What a rendering could reach at best on a recipe, and what needs no learning: the frame for every other figure.

Ceilings know target and interferer; the floor knows the two classes and the average spectra of their training clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowsep.data.manifest import Clip
from flowsep.errors import InputError
from flowsep.evaluation.recipe import SAMPLE_RATE, MixtureRow, read_clip, render_row
from flowsep.evaluation.run import captions_of
from flowsep.evaluation.signal import si_sdr
from flowsep.evaluation.statistics import bootstrap_mean, by_class
from flowsep.render import apply_mask, band_mask
from vocoder.mel import MelConfig, istft, log_mel, stft

if TYPE_CHECKING:
    from flowsep.separator import LatentSeparator

HARD_DB = 3.0  # a mixture, or a class, that even the two-stream band mask improves by less is listed
CLIPS_PER_CLASS = 20  # of the average spectra
TITLES = {
    "stft_mask": "ratio mask on STFT bins",
    "mel_mask_two_streams": "64-band mask, target and residual",
    "mel_mask_one_stream": "64-band mask, target against mixture",
    "class_spectra": "floor: average spectra of both classes",
    "si_sdr_mixture": "floor: the mixture itself (its SI-SDR)",
}
MODEL_TITLES = {  # of `flowsep.evaluation.ceilings`
    "codec_mask": "64-band mask, both mels through the codec",
    "codec_error_db": "codec: mean error of the target's mel",
    "vocoder_mel_l1_ratio": "true mel vocoded: log-mel L1 to mixture's",
}


def oracle_recipe(
    rows: Sequence[MixtureRow], data: Path, recipe: str, separator: LatentSeparator | None = None
) -> dict[str, Any]:
    """Report: SI-SDR improvement in dB of each oracle over the rows; rows and classes where the band mask fails too.

    With a separator also what its codec and its vocoder do to the true mels (`flowsep.evaluation.ceilings`).
    """
    if not rows:
        raise InputError("the recipe has no rows to evaluate")
    spectra = ClassSpectra(list(captions_of(data).values()))
    items = [
        {"id": row.id, "target_class": row.target_class, **oracle_row(row, data, spectra, separator)} for row in rows
    ]
    report: dict[str, Any] = {"schema_version": 1, "recipe": recipe, "mixtures": len(items)}
    for name in (*TITLES, *MODEL_TITLES):
        values = [item[name] for item in items if name in item]
        if values:
            report[name] = bootstrap_mean(values)
    report["hard"] = [item["id"] for item in items if item["mel_mask_two_streams"] < HARD_DB]
    classes = by_class(items, "mel_mask_two_streams")
    report["hard_classes"] = [label for label, gain in classes.items() if gain["mean"] < HARD_DB]
    report["items"] = items
    return report


def oracle_row(
    row: MixtureRow, data: Path, spectra: ClassSpectra, separator: LatentSeparator | None = None
) -> dict[str, float]:
    """SI-SDR improvement in dB of each oracle on one mixture, and the figures of the separator's parts."""
    config = MelConfig()
    mixture, target, other = (torch.from_numpy(audio) for audio in render_row(row, data))
    mels = {name: log_mel(x, config)[None] for name, x in (("t", target), ("r", other), ("x", mixture))}
    masks = {
        "mel_mask_two_streams": band_mask(mels["t"], mels["r"], mels["x"]),
        "mel_mask_one_stream": band_mask(mels["t"], None, mels["x"]),
    }
    pair = [spectra.of(label) for label in (row.target_class, row.interferer_class)]
    if pair[0] is not None and pair[1] is not None:
        constant = band_mask(pair[0][None], pair[1][None], mels["x"])
        masks["class_spectra"] = constant.expand(1, mels["x"].shape[1], -1)
    before = si_sdr(mixture, target)
    estimates = {n: apply_mask(mixture[None], mask[0], SAMPLE_RATE, config)[0] for n, mask in masks.items()}
    estimates["stft_mask"] = ratio_masked(mixture, target, other, config)
    found = {name: (si_sdr(estimate, target) - before).item() for name, estimate in estimates.items()}
    found["si_sdr_mixture"] = before.item()
    if separator is None:
        return found
    from flowsep.evaluation.ceilings import model_ceilings

    return found | model_ceilings(separator, mixture, target, other)


def ratio_masked(mixture: Tensor, target: Tensor, other: Tensor, config: MelConfig) -> Tensor:
    """The mixture (T,) under |target| / (|target| + |other|) on every STFT bin."""
    length = mixture.shape[-1]
    padded = -length % config.hop_length + config.hop_length  # so that the last samples are covered by whole frames
    spectra = [stft(torch.nn.functional.pad(x, (0, padded))[None], config) for x in (mixture, target, other)]
    magnitudes = [spectrum.abs() for spectrum in spectra[1:]]
    mask = magnitudes[0] / (magnitudes[0] + magnitudes[1]).clamp(min=1e-9)
    return istft(spectra[0] * mask, config, length)[0]


class ClassSpectra:
    """Average log-mel spectrum (1, M) of the training clips of a class, each at the same energy; kept once computed."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.clips: dict[str, list[Clip]] = {}
        for clip in clips:
            if clip.split == "train":
                self.clips.setdefault(clip.label, []).append(clip)
        self.kept: dict[str, Tensor] = {}

    def of(self, label: str) -> Tensor | None:
        """(1, M), or None for a class without training clips."""
        if label not in self.clips:
            return None
        if label not in self.kept:
            spectra = []
            for clip in self.clips[label][:CLIPS_PER_CLASS]:
                audio = torch.from_numpy(read_clip(clip.path))
                audio = audio / audio.square().mean().sqrt().clamp(min=1e-6)
                spectra.append(log_mel(audio, MelConfig()).exp().square().mean(0))
            self.kept[label] = 0.5 * torch.stack(spectra).mean(0).log()[None]
        return self.kept[label]


def oracle_lines(report: dict[str, Any]) -> list[str]:
    """The report for a person."""
    lines = [f"SI-SDR improvement in dB on {report['recipe']}: {report['mixtures']} mixtures, 95 % bootstrap interval"]
    for name, title in (TITLES | MODEL_TITLES).items():
        if name in report:
            value = report[name]
            lines.append(f"{title:<42} {value['mean']:7.2f} [{value['low']:.2f}, {value['high']:.2f}]")
    labels = {item["id"]: item["target_class"] for item in report["items"]}
    hard = [f"{name} ({labels[name]})" for name in report["hard"]]
    lines.append(
        f"mixtures that the band mask of both streams improves by less than {HARD_DB:g} dB: {', '.join(hard) or 'none'}"
    )
    lines.append(f"classes, likewise: {', '.join(report['hard_classes']) or 'none'}")
    return lines
