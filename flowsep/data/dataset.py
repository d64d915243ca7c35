"""Training items: clips, mixing, seed -> mixture, target, residual, caption. Item n depends on (seed, n) only."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from torch.utils.data import Dataset

from flowsep.data.manifest import Clip
from flowsep.data.mixing import (
    Audio,
    change_speed,
    coded,
    edge_hz,
    equalise,
    limit_together,
    low_passed,
    mix_at_snr,
    place,
    reverberate,
    room,
)
from flowsep.data.synth import KINDS, SYNTH_KINDS, synthesise
from flowsep.errors import InputError

SHARES = (
    "three_sources",
    "target_alone",
    "target_absent",
    "same_family",
    "augment",
    "codec",
    "band_limit",
    "synthetic",
    "stand_ins",
    "background",
    "own_share",
)


@dataclass(frozen=True)
class DataConfig:
    """How training mixtures are drawn. The defaults are FlowSep's: whole 10.24 s, two sources, -15..15 dB."""

    crop_seconds: float = 10.24
    snr_db: tuple[float, float] = (-15.0, 15.0)  # uniform
    gain_db: float = 6.0  # of the whole mixture after normalisation, uniform in +-gain_db
    class_power: float = 0.5  # classes are drawn with probability ~ clips ** power
    three_sources: float = 0.0  # share of items with a second interferer
    target_alone: float = 0.0
    target_absent: float = 0.0
    same_family: float = 0.0  # share of items whose interferer is of another class of the target's own family
    augment: float = 0.0  # probability of each of speed, equaliser and reverberation per source
    codec: float = 0.0  # probability that a source went through Ogg Vorbis at a low rate
    band_limit: float = 0.0  # probability that a whole item is low-passed, as telephones and old files are
    synthetic: float = 0.0  # share of the other sources taken from the project's own synthesised sounds
    stand_ins: float = 0.0  # share of sources that are synthesised sounds of kinds of which the clips hold none
    commercial_only: bool = True  # skip clips marked non-commercial
    pool: int | None = None  # only so many mixtures, again and again, their latents kept: flow and diffusion
    phrasings: bool = True  # add the wordings of flowsep/data/phrasings.csv to a clip's own captions
    background: float = 0.5  # share of the other sounds that are recordings of --background, where there are any
    own_share: float = 0.5  # share of the draws that are of the classes of --data, where --background has classes too
    exclude: tuple[str, ...] = ()  # classes that training never meets: clips, wordings, synthesised sounds
    exclude_clips: str | None = None  # a CSV of clips that it never meets, or `doubtful` for flowsep/data/doubtful.csv

    def __post_init__(self) -> None:
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.{name} is a share or a probability, from 0 to 1, not {getattr(self, name)}")
        special = self.target_alone + self.three_sources + self.target_absent
        if special > 1 + 1e-9:  # an item is of one of these kinds at most
            raise ValueError(f"data.target_alone, three_sources and target_absent are {special:g} together, above 1")
        if not self.crop_seconds > 0:
            raise ValueError(f"data.crop_seconds must be above 0, not {self.crop_seconds}")
        if not 0 <= self.class_power < math.inf:
            raise ValueError(f"data.class_power must be 0 or more, not {self.class_power}")
        if self.pool is not None and self.pool < 1:
            raise ValueError(f"data.pool must be at least 1, not {self.pool}; leave it out for no pool")


class DataNotice(UserWarning):
    """What the user should know of the clips."""


def load_clip(path: Any, sample_rate: int) -> Audio:
    """One file as mono float16 at `sample_rate`: half precision keeps hours of clips in memory at 11 bits."""
    try:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise InputError(f"cannot read the clip {path}: {error}; remove its row from the manifest") from error
    if not len(audio):
        raise InputError(f"the clip {path} is empty; remove it, and its row from the manifest")
    if not np.isfinite(audio).all():
        raise InputError(f"the clip {path} holds values that are no numbers; remove it, and its row from the manifest")
    mono = audio.mean(axis=1)
    return (mono if rate == sample_rate else soxr.resample(mono, rate, sample_rate)).astype(np.float16)


class MixtureDataset(Dataset[dict[str, Any]]):
    """Mixtures on the fly; `dataset[n]` for any n >= 0 is a dict of mixture, target, residual (T,) and text.

    `background` holds recordings of anything, which are mixed with the clips and never asked for. Where `own` names
    some of the classes, these have config.own_share of the draws. Clips of one family alone are mixed with the
    background or, without one, with synthesised sounds, which a DataNotice says.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        config: DataConfig,
        sample_rate: int,
        seed: int,
        phrasings: dict[str, tuple[str, ...]] | None = None,
        background: Sequence[Clip] = (),
        own: Collection[str] = (),
    ) -> None:
        if len({clip.family for clip in clips}) < 2:
            notice_of_one(clips, len(background))
        self.config, self.sample_rate, self.seed = config, sample_rate, seed
        self.length = round(config.crop_seconds * sample_rate)
        with ThreadPoolExecutor() as pool:
            self.audio = list(pool.map(lambda clip: load_clip(clip.path, sample_rate), clips))
            self.background = list(pool.map(lambda clip: load_clip(clip.path, sample_rate), background))
        self.members: dict[str, list[int]] = {}
        self.label_of: list[str] = []
        self.captions: list[tuple[str, ...]] = []  # of each clip: its own, and the wordings of its class
        self.family: dict[str, str] = {}
        for index, clip in enumerate(clips):
            self.members.setdefault(clip.label, []).append(index)
            self.label_of.append(clip.label)
            texts = clip.captions + (phrasings or {}).get(clip.label, ())
            self.captions.append(tuple(dict.fromkeys(texts)))
            self.family[clip.label] = clip.family
        self.labels = sorted(self.members)
        weights = np.array([len(self.members[label]) for label in self.labels], float) ** config.class_power
        mine = np.array([label in own for label in self.labels])
        if mine.any() and not mine.all():
            for part, share in ((mine, config.own_share), (~mine, 1 - config.own_share)):
                weights[part] *= share / weights[part].sum()
        self.weights = weights / weights.sum()
        self.drawn = {self.family[label] for label, weight in zip(self.labels, weights, strict=True) if weight > 0}
        self.kinds = sorted(SYNTH_KINDS.keys() - set(config.exclude))
        self.synthetic = self.kinds if config.synthetic else []
        self.wordings = phrasings or {}
        missing = KINDS.keys() - self.members.keys() - set(config.exclude)
        self.missing = sorted(missing) if config.stand_ins else []

    def __len__(self) -> int:
        return 2**31 - 1  # items are drawn, not stored

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, index])
        kind = rng.random()
        share = self.config
        target, captions, family, label = self.source(rng, excluded=set())
        used = {family}
        if kind < share.target_alone:
            other = np.zeros_like(target)
        else:
            other, family = self.sibling(rng, label, family) or self.other(rng, used)
            used.add(family)
            if kind < share.target_alone + share.three_sources and self.families_left(used):
                third, _ = self.other(rng, used)
                other = mix_at_snr(other, third, rng.uniform(-6, 6))[0]
            if kind > 1 - share.target_absent and not self.families_left(used):
                target = np.zeros_like(target)  # nothing else can be asked for: what is heard is the other sound alone
            elif kind > 1 - share.target_absent:
                # What was the target joins the rest; the query names something else.
                other = mix_at_snr(target, other, rng.uniform(*share.snr_db))[0]
                target = np.zeros_like(target)
                captions = self.captions[self.draw_clip(rng, used)]
        _, other = mix_at_snr(target, other, rng.uniform(*share.snr_db))
        if share.band_limit and rng.random() < share.band_limit:
            target, other = low_passed(np.stack([target, other]), self.sample_rate, edge_hz(rng, self.sample_rate))
        target, other = normalise_together(target, other, 10 ** (rng.uniform(-share.gain_db, share.gain_db) / 20))
        text = captions[rng.integers(len(captions))]
        return {
            "mixture": torch.from_numpy(target + other),
            "target": torch.from_numpy(target),
            "residual": torch.from_numpy(other),
            "text": text,
        }

    def families_left(self, used: set[str]) -> bool:
        """Whether clips of a family that is not used yet are ever drawn."""
        return bool(self.drawn - used)

    def fingerprint(self) -> str:
        """SHA-256 of the clips' samples and of what they are called: what the items come from."""
        digest = hashlib.sha256(repr((self.label_of, self.captions, sorted(self.family.items()))).encode())
        for clip in (*self.audio, *self.background):
            digest.update(clip.tobytes())
        return digest.hexdigest()

    def draw_clip(self, rng: np.random.Generator, excluded: set[str]) -> int:
        """Number of a clip whose family is not excluded: the class first, then the clip."""
        while True:
            label = self.labels[rng.choice(len(self.labels), p=self.weights)]
            if self.family[label] not in excluded:
                return self.members[label][rng.integers(len(self.members[label]))]

    def sibling(self, rng: np.random.Generator, label: str, family: str) -> tuple[Audio, str] | None:
        """A sound (T,) of another class of this family, and the family, in config.same_family of the calls."""
        if not self.config.same_family or rng.random() >= self.config.same_family:
            return None
        siblings = [one for one in self.labels if self.family[one] == family and one != label]
        if not siblings:
            return None
        members = self.members[siblings[rng.integers(len(siblings))]]
        clip = self.audio[members[rng.integers(len(members))]].astype(np.float32)
        return self.crop(self.augment(clip, rng), rng), family

    def other(self, rng: np.random.Generator, used: set[str]) -> tuple[Audio, str]:
        """One sound (T,) beside those of the used families, and its family."""
        left = self.families_left(used)
        if self.background and (not left or rng.random() < self.config.background):
            clip = self.background[rng.integers(len(self.background))].astype(np.float32)
            return self.crop(self.augment(clip, rng), rng), "background"
        if left:
            sound, _, family, _ = self.source(rng, used)
            return sound, family
        kinds = [kind for kind in self.kinds if self.family_of(kind) not in used]
        kind = kinds[rng.integers(len(kinds))]
        return self.crop(self.augment(self.synthesised(kind, rng), rng), rng), self.family_of(kind)

    def synthesised(self, kind: str, rng: np.random.Generator) -> Audio:
        """A sound of the project's own, somewhat longer than a crop."""
        seconds = 1.25 * self.length / self.sample_rate
        return synthesise(kind, seconds, int(rng.integers(1_000_000)), self.sample_rate)

    def source(self, rng: np.random.Generator, excluded: set[str]) -> tuple[Audio, tuple[str, ...], str, str]:
        """One sound (T,) on its canvas, its captions, its family, which is not an excluded one, and its class."""
        kinds = [kind for kind in self.synthetic if self.family_of(kind) not in excluded]
        absent = [kind for kind in self.missing if self.family_of(kind) not in excluded]
        if absent and rng.random() < self.config.stand_ins:
            label = absent[rng.integers(len(absent))]
            clip = self.synthesised(label, rng)
            captions, family = self.captions_of(label), self.family_of(label)
        elif kinds and rng.random() < self.config.synthetic:
            label = kinds[rng.integers(len(kinds))]
            clip = self.synthesised(label, rng)
            captions, family = SYNTH_KINDS[label].captions, self.family_of(label)
        else:
            index = self.draw_clip(rng, excluded)
            clip, captions, label = self.audio[index].astype(np.float32), self.captions[index], self.label_of[index]
            family = self.family[label]
        return self.crop(self.augment(clip, rng), rng), captions, family, label

    def captions_of(self, kind: str) -> tuple[str, ...]:
        """How a stand-in is asked for: the wordings of its class, or the kind's own."""
        return self.wordings.get(kind, KINDS[kind].captions)

    def family_of(self, kind: str) -> str:
        """Family of a kind of synthesised sound: that of the clips' class of the same name, if there is one."""
        return self.family.get(kind, KINDS[kind].family)

    def augment(self, clip: Audio, rng: np.random.Generator) -> Audio:
        """Speed 0.87..1.15, equaliser +-8 dB, a synthetic room and a codec, each with the configured probability."""
        chosen = rng.random(3) < self.config.augment
        longest = int(1.2 * self.length)
        if len(clip) > longest:  # treat only what the crop can use
            start = rng.integers(len(clip) - longest + 1)
            clip = clip[start : start + longest]
        if chosen[0]:
            clip = change_speed(clip, float(np.exp(rng.uniform(-0.14, 0.14))))
        if chosen[1]:
            clip = equalise(clip, rng.uniform(-8, 8, size=5).astype(np.float32))
        if chosen[2] and rng.random() < 0.5:
            clip = reverberate(clip, room(rng, self.sample_rate))
        if self.config.codec and rng.random() < self.config.codec:
            clip = coded(clip, self.sample_rate, float(rng.uniform(0.0, 0.3)))
        return clip

    def crop(self, clip: Audio, rng: np.random.Generator) -> Audio:
        """A random part, or the whole clip at a random place; of four tries the first that holds enough energy."""
        mean_energy = float(np.dot(clip, clip)) / max(1, len(clip))
        placed = np.zeros(self.length, np.float32)
        for _ in range(4):
            slack = len(clip) - self.length
            offset = -int(rng.integers(slack + 1)) if slack > 0 else int(rng.integers(-slack + 1))
            placed = place(clip, offset, self.length)
            if float(np.dot(placed, placed)) >= 0.25 * mean_energy * min(self.length, len(clip)):
                break
        return placed


def notice_of_one(clips: Sequence[Clip], recordings: int) -> None:
    """Say what clips of one family are mixed with; InputError where there are none."""
    if not clips:
        raise InputError("training needs clips")
    labels = ", ".join(sorted({clip.label for clip in clips}))
    if recordings:
        others = f"the {recordings} recordings of --background"
    else:
        others = "the project's synthesised ones; give recordings of where you will use it with --background"
    warnings.warn(
        f"all clips are of one kind ({labels}): the other sounds in its mixtures are {others}", DataNotice, stacklevel=3
    )


def normalise_together(target: Audio, other: Audio, gain: float) -> tuple[Audio, Audio]:
    """Target and other by one factor that brings the mixture's peak to 0.5 * gain (FlowSep's loader, then the gain)."""
    peak = float(np.abs(target + other).max(initial=0.0))
    factor = np.float32(0.5 * gain / peak) if peak > 0 else np.float32(1.0)
    target, other = limit_together(target * factor, other * factor)
    return target.astype(np.float32), other.astype(np.float32)


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items as a batch: tensors stacked, texts in a list."""
    columns = {key: [item[key] for item in items] for key in items[0]}
    return {key: torch.stack(v) if isinstance(v[0], torch.Tensor) else v for key, v in columns.items()}
