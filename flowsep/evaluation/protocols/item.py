"""What every protocol comes down to: items, each with a mixture, its target and the words for it.

An item names its files and how they are mixed; the waveforms are made when it is scored. Whatever is made from the same
files by the same rule is the same, so several models, and runs on different days, share the mixtures.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from flowsep.audio import downmix, read_audio, resample
from flowsep.data.mixing import Audio, mix_at_snr, place
from flowsep.errors import InputError
from flowsep.evaluation.loudness import at_loudness
from flowsep.evaluation.recipe import SAMPLE_RATE as RECIPE_RATE
from flowsep.evaluation.recipe import MixtureRow, render_row

FULL_SCALE, CALMED = 1.0, 0.9  # DCASE: mixtures that peak above the first are scaled to the second


@dataclass(frozen=True)
class Waves:
    """One item's sound, float32 (T,) each."""

    mixture: Audio
    target: Audio


class Source(Protocol):
    """Where an item's sound comes from; a frozen dataclass, whose fields and files are the item's identity."""

    def paths(self) -> tuple[Path, ...]:
        """The files that are needed."""
        ...

    def render(self, sample_rate: int) -> Waves:
        """The waveforms at `sample_rate` Hz; InputError for files that cannot be used."""
        ...


@dataclass(frozen=True)
class Item:
    """One mixture with one target. `snr_db` is None where the protocol does not say; it is measured then."""

    id: str  # unique; also the name of its files in `flowsep mix` and `--estimates`
    text: str
    source: Source
    target_class: str = ""
    other_class: str = ""
    snr_db: float | None = None


@dataclass(frozen=True)
class ReadyMade:
    """Mixture and target as files."""

    mixture: Path
    target: Path

    def paths(self) -> tuple[Path, ...]:
        """Both."""
        return self.mixture, self.target

    def render(self, sample_rate: int) -> Waves:
        """As they are, at `sample_rate`."""
        mixture, target = (read_mono(path, sample_rate) for path in self.paths())
        refuse_lengths({self.mixture: mixture, self.target: target})
        return Waves(mixture, target)


@dataclass(frozen=True)
class Mixed:
    """Two clips added up: at an SNR over the whole length, or each at a loudness of its own.

    With `length_s` both are cut, or continued by silence, to that; without it they have to be of one length. A mixture
    that peaks above 1 is brought to 0.9 together with its target, as DCASE 2024 Task 9 does.
    """

    target: Path
    other: Path
    snr_db: float | None = None
    lufs: tuple[float, float] | None = None  # of target and other
    length_s: float | None = None

    def paths(self) -> tuple[Path, ...]:
        """Both."""
        return self.target, self.other

    def render(self, sample_rate: int) -> Waves:
        """Read, fit, scale and add."""
        target, other = (read_mono(path, sample_rate) for path in self.paths())
        if self.length_s is None:
            refuse_lengths({self.target: target, self.other: other})
        else:
            length = round(self.length_s * sample_rate)
            target, other = place(target, 0, length), place(other, 0, length)
        if self.lufs is not None:
            target, other = (
                at_loudness(audio, sample_rate, level) for audio, level in zip((target, other), self.lufs, strict=True)
            )
            mixture = target + other
        else:
            mixture, _ = mix_at_snr(target, other, self.snr_db or 0.0)
        peak = float(np.abs(mixture).max(initial=0.0))
        if peak > FULL_SCALE:
            mixture, target = (audio * np.float32(CALMED / peak) for audio in (mixture, target))
        return Waves(mixture, target)


@dataclass(frozen=True)
class RecipeMixed:
    """A row of a recipe (`flowsep.evaluation.recipe`), mixed by its rule, which is one of 16 kHz."""

    row: MixtureRow
    root: Path

    def paths(self) -> tuple[Path, ...]:
        """Target and interferer."""
        return self.root / self.row.target_path, self.root / self.row.interferer_path

    def render(self, sample_rate: int) -> Waves:
        """At 16 kHz whatever `sample_rate` says; recipes know no other rate."""
        if sample_rate != RECIPE_RATE:
            raise InputError(f"recipes are mixed at {RECIPE_RATE} Hz, not at {sample_rate}")
        mixture, target, _ = render_row(self.row, self.root)
        return Waves(mixture, target)


def read_mono(path: Path, sample_rate: int) -> Audio:
    """One file as mono float32 (T,) at `sample_rate`; InputError where it is missing, unreadable or holds NaN."""
    audio = read_audio(path)
    mono = downmix(audio.samples)[None]
    if audio.sample_rate != sample_rate:
        mono = resample(mono, audio.sample_rate, sample_rate)
    return mono[0].numpy()


def refuse_lengths(parts: dict[Path, Audio]) -> None:
    """InputError unless all are of one length."""
    if len({len(audio) for audio in parts.values()}) > 1:
        listed = ", ".join(f"{path.name} has {len(audio)} samples" for path, audio in parts.items())
        raise InputError(f"{listed}: they have to be of one length; fetch the files again or leave the row out")


def unusable(waves: Waves) -> str | None:
    """Why no figure can be had of an item, None where it can: no ratio has a meaning if one side of it is silence."""
    if not waves.target.any():
        return "the target is silent"
    if not np.abs(waves.mixture - waves.target).max(initial=0.0) > 1e-6 * np.abs(waves.target).max():
        return "the mixture is the target alone"
    return None


def check_items(items: Sequence[Item], where: str) -> None:
    """InputError for ids that occur twice or are no file names, empty queries, and files that are missing.

    `where` says where the files come from.
    """
    twice = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise InputError(f"the id {twice[0]!r} is there twice; give every mixture a name of its own")
    for item in items:
        if not item.id or item.id.startswith(".") or set(item.id) & set('/\\:*?"<>|\0\n\r\t'):
            raise InputError(f"the id {item.id!r} cannot be a file's name; use letters, digits, - and _")
        if not item.text.strip():
            raise InputError(f"the mixture {item.id} has no query; fill in its text")
    needed = dict.fromkeys(path for item in items for path in item.source.paths())
    missing = [path for path in needed if not path.is_file()]
    if missing:
        raise InputError(f"{len(missing)} of {len(needed)} files are missing, the first {missing[0]}; get {where}")


def fingerprint(items: Sequence[Item], root: Path) -> str:
    """SHA-256 of what the items are: names, queries, rules, and the names and sizes of their files below `root`."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return value.relative_to(root).as_posix() if value.is_relative_to(root) else value.name
        raise TypeError(type(value))

    digest = hashlib.sha256()
    for item in items:
        sizes = [path.stat().st_size for path in item.source.paths()]
        digest.update(json.dumps([asdict(item), sizes], default=plain, sort_keys=True).encode())
    return digest.hexdigest()


def to_tensor(audio: Audio) -> torch.Tensor:
    """(T,) as the metrics take it."""
    return torch.from_numpy(np.ascontiguousarray(audio))
