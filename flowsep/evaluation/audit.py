"""Which clips of a data set should not be trusted: silent, clipped, listed twice, or of a doubtful class.

Levels and copies are measured. A class is judged by a text-audio encoder, which errs too: its word is evidence where it
learned the very clip under its class and still hears something else, and a hint everywhere else.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from flowsep.atomic import atomic_output
from flowsep.data.manifest import Clip
from flowsep.data.mixing import Audio
from flowsep.errors import InputError
from flowsep.evaluation.encoders import TextAudioEncoder
from flowsep.evaluation.recipe import SAMPLE_RATE, read_clip
from flowsep.evaluation.retrieval import heard

MUTE_DBFS = -60.0  # peak
FRAME_SECONDS, RANGE_DB, SOUNDING_SECONDS = 0.02, 40.0, 0.1  # too little sounds within so much of the loudest frame
NEAR_PEAK, CLIPPED_SHARE = 0.995, 0.01  # of the peak; share of the samples there
ALIKE = 0.98  # cosine of embeddings from which two clips are compared sample by sample
SAME = 0.9  # correlation of waveforms; two takes of one object reach 0.8
RANK = 20  # classes nearer to the clip than its own
FEW = 3  # clips of a class that an encoder has to have learned to be asked about others of it
NEAREST = 3  # classes that are named
KINDS = {  # of findings, the surest first
    "unreadable": "unreadable",
    "mute": f"mute: peak below {MUTE_DBFS:g} dBFS",
    "sparse": f"next to nothing: under {SOUNDING_SECONDS:g} s within {RANGE_DB:g} dB of the loudest 20 ms",
    "clipped": f"clipped: over {100 * CLIPPED_SHARE:g} % of the samples at the peak",
    "copy": "copy: the same recording under another class or in another split",
    "label": "doubtful label: the encoder learned the clip and hears something else",
    "hint": "hint at a doubtful label: the encoder never heard the clip",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a clip."""

    clip: Clip
    kind: str  # of KINDS
    reason: str  # in words; what `value` counts stands last
    value: float | None = None


@dataclass(frozen=True)
class Audit:
    """What was looked at and what was found, the surest and worst first."""

    clips: int
    classes: int
    encoder: str  # its score and name
    findings: tuple[Finding, ...]
    unjudged: int  # clips of classes that the encoder knows too little of


def audit(
    clips: Sequence[Clip],
    encoder: TextAudioEncoder,
    wordings: Mapping[str, Sequence[str]],
    learned: bool = False,
    rank: int = RANK,
    quiet: bool = True,
) -> Audit:
    """Look at every clip, and at every pair that sounds alike.

    `wordings` are the texts of each class, those of the clips and others that they could be mistaken for. `learned`
    says that the encoder was trained on the train split of these clips, less the non-commercial ones, as `flowsep train
    clap` does. `rank` is how many classes have to be nearer than a clip's own for its label to be doubted. InputError
    without clips.
    """
    from tqdm import tqdm

    if not clips:
        raise InputError("an audit needs clips; give another folder or split")
    findings: list[Finding] = []
    kept: list[Clip] = []
    rows: list[Tensor] = []
    for clip in tqdm(clips, disable=quiet, unit="clip"):
        audio, found = checked(clip)
        findings += found
        if audio is not None and not {one.kind for one in found} & {"mute", "sparse"}:
            kept.append(clip)
            rows.append(heard(encoder, audio))
    unjudged = 0
    if kept:
        sounds = nn.functional.normalize(torch.cat(rows).float(), dim=-1)  # (N, D)
        doubts, unjudged = doubtful(kept, sounds, encoder, wordings, learned, rank)
        findings += [*copies(kept, sounds), *doubts]
    order = list(KINDS)
    findings.sort(key=lambda one: (order.index(one.kind), -(one.value or 0.0)))
    name = f"{encoder.score_name} [{encoder.name}]"
    return Audit(len(clips), len({clip.label for clip in clips}), name, tuple(findings), unjudged)


def checked(clip: Clip) -> tuple[Audio | None, list[Finding]]:
    """The clip (T,) at 16 kHz, None where it cannot be read, and what is wrong with its levels."""
    try:
        audio = read_clip(clip.path)
    except InputError as error:
        return None, [Finding(clip, "unreadable", f"unreadable: {error}")]
    if not len(audio) or not np.isfinite(audio).all():
        return None, [Finding(clip, "unreadable", "unreadable: no samples, or some that are no numbers")]
    peak = float(20 * np.log10(max(float(np.abs(audio).max()), 1e-9)))
    if peak < MUTE_DBFS:
        return audio, [Finding(clip, "mute", "mute: peak, dBFS", peak)]
    found, seconds, share = [], sounding_seconds(audio), share_at_peak(audio)
    if seconds < SOUNDING_SECONDS:
        found.append(Finding(clip, "sparse", "next to nothing sounds: seconds", seconds))
    if share > CLIPPED_SHARE:
        found.append(Finding(clip, "clipped", "clipped: share of the samples at the peak", share))
    return audio, found


def sounding_seconds(audio: Audio) -> float:
    """Seconds of audio (T,) at 16 kHz whose frames of 20 ms lie within 40 dB of the loudest one."""
    size = round(FRAME_SECONDS * SAMPLE_RATE)
    frames = np.pad(audio, (0, -len(audio) % size)).reshape(-1, size)
    energy = np.square(frames, dtype=np.float64).mean(axis=1)
    return float((energy > energy.max() * 10 ** (-RANGE_DB / 10)).sum() * FRAME_SECONDS)


def share_at_peak(audio: Audio) -> float:
    """Share of the samples of audio (T,) at its peak, 0..1. Clipping that was filtered afterwards does not show."""
    level = np.abs(audio)
    return float((level >= NEAR_PEAK * level.max()).mean())


def copies(clips: Sequence[Clip], sounds: Tensor) -> list[Finding]:
    """Both of each two clips that are one recording and differ in class or split; sounds (N, D) have length one.

    The embedding proposes, the waveform decides: any gain, polarity and shift; not another speed.
    """
    found = []
    for first in range(len(clips)):
        near = (sounds[first + 1 :] @ sounds[first] > ALIKE).nonzero()[:, 0] + first + 1
        for second in near.tolist():
            pair = clips[first], clips[second]
            if pair[0].label == pair[1].label and pair[0].split == pair[1].split:
                continue
            alike = correlation(read_clip(pair[0].path), read_clip(pair[1].path))
            if alike > SAME:
                for one, other in (pair, pair[::-1]):
                    about = f"{other.path.name} ({other.label}, {other.split})"
                    found.append(Finding(one, "copy", f"same recording as {about}: correlation", alike))
    return found


def correlation(a: Audio, b: Audio) -> float:
    """Largest normalised cross-correlation, 0..1, of two sounds (T,), (T',) over all shifts, whatever the sign."""
    size = 1 << (len(a) + len(b) - 2).bit_length()  # at least T + T' - 1, and fast
    product = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    return float(np.abs(product).max() / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def doubtful(
    clips: Sequence[Clip],
    sounds: Tensor,
    encoder: TextAudioEncoder,
    wordings: Mapping[str, Sequence[str]],
    learned: bool,
    rank: int,
) -> tuple[list[Finding], int]:
    """Clips with at least `rank` classes nearer than their own, and how many were not asked about.

    sounds (N, D) have length one. Of an encoder that `learned` some of the clips it is known which classes it met too
    rarely to know: their other clips are not asked about.
    """
    labels = sorted(wordings)
    similarity = sounds @ class_means(encoder, [wordings[label] for label in labels]).T  # (N, classes)
    known = [learned and clip.split == "train" and not clip.non_commercial for clip in clips]
    counts = Counter(clip.label for clip, one in zip(clips, known, strict=True) if one)
    found, unjudged = [], 0
    for clip, row, heard_before in zip(clips, similarity, known, strict=True):
        if learned and not heard_before and counts[clip.label] < FEW:
            unjudged += 1
            continue
        nearer = int((row > row[labels.index(clip.label)]).sum())
        if nearer >= rank:
            likely = ", ".join(labels[number] for number in row.topk(min(NEAREST, nearer)).indices.tolist())
            kind, start = ("label", "doubtful label") if heard_before else ("hint", "hint at a doubtful label")
            reason = f"{start}: sounds like {likely}; classes nearer than its own"
            found.append(Finding(clip, kind, reason, float(nearer)))
    return found, unjudged


def class_means(encoder: TextAudioEncoder, texts: Sequence[Sequence[str]]) -> Tensor:
    """The mean direction of the texts of each class, (classes, D), rows of length one."""
    means = [nn.functional.normalize(encoder.text(list(some)).float(), dim=-1).mean(0) for some in texts]
    return nn.functional.normalize(torch.stack(means), dim=-1)


def audit_lines(report: Audit, root: Path, worst: int) -> list[str]:
    """Counts of every kind and the first `worst` findings of each, paths relative to `root`."""
    counts = Counter(one.kind for one in report.findings)
    lines = [f"{report.clips} clips of {report.classes} classes; labels by {report.encoder}"]
    lines += [f"{counts[kind]:6d}  {title}" for kind, title in KINDS.items()]
    if report.unjudged:
        lines.append(f"{report.unjudged:6d}  not judged: the encoder learned fewer than {FEW} clips of their class")
    for kind in KINDS:
        shown = [one for one in report.findings if one.kind == kind][:worst]
        for number, one in enumerate(shown):
            lines += ["", f"{kind}, {len(shown)} of {counts[kind]}:"] if not number else []
            value = "" if one.value is None else f" {one.value:.3g}"
            lines.append(f"  {name_of(one.clip, root)} [{one.clip.label}, {one.clip.split}] {one.reason}{value}")
    return lines


def name_of(clip: Clip, root: Path) -> str:
    """The path of a clip as lists have it."""
    return (clip.path.relative_to(root) if clip.path.is_relative_to(root) else clip.path).as_posix()


def write_findings(path: Path, report: Audit, root: Path, overwrite: bool = False) -> None:
    """Write every finding as CSV: path (relative to `root`), class, split, reason, value."""
    with atomic_output(path, overwrite) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "class", "split", "reason", "value"))
        for one in report.findings:
            value = "" if one.value is None else f"{one.value:.4g}"
            writer.writerow((name_of(one.clip, root), one.clip.label, one.clip.split, one.reason, value))
