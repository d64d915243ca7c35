"""Training items of the proxy encoder: log-mels of clips, kept in memory, and what is done to them there.

All in the log-mel, in natural units of magnitude: a gain adds, sounds add in power. Item n depends on (seed, n) only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from flowsep.data.dataset import load_clip
from flowsep.data.manifest import Clip
from flowsep.errors import InputError
from flowsep.proxy.config import ProxyConfig, ProxyDataConfig
from flowsep.proxy.network import pool_frames
from vocoder.mel import MelConfig, band_centres, log_mel, mel_filterbank

Mel = NDArray[np.float32]  # (N, M)
NAT = np.log(10) / 20  # natural log-magnitude of one dB
NO_CLASS = -1
FRAMES = ("the sound of {}", "sound of {}", "{} sound", "{} in the background", "a recording of {}")


class MelItems(Dataset[dict[str, Any]]):
    """`dataset[n]` for any n >= 0: mel (N, M), and two wordings with what share of the energy each stands for.

    text, label, share: of the described sound. other_text, other_label, other_share: of what is mixed in, or, with
    share 0, of a sound that is not there. What the shares lack in 1 is noise. Labels are numbers of classes.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        config: ProxyDataConfig,
        sizes: ProxyConfig,
        mel: MelConfig,
        seed: int,
        phrasings: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        if len({clip.family for clip in clips}) < 2:
            raise InputError("training needs clips of at least two families (classes that are not confused)")
        self.config, self.seed, self.floor = config, seed, float(np.log(mel.floor))
        self.rate = mel.frame_rate / sizes.pool  # frames per second
        self.length = round(sizes.seconds * self.rate)
        self.labels = sorted({clip.label for clip in clips})
        self.family = {clip.label: clip.family for clip in clips}
        self.members: list[list[int]] = [[] for _ in self.labels]
        self.captions: list[tuple[str, ...]] = []
        for index, clip in enumerate(clips):
            self.members[self.labels.index(clip.label)].append(index)
            texts = clip.captions + (phrasings or {}).get(clip.label, ())
            self.captions.append(tuple(dict.fromkeys(texts)))
        weights = np.array([len(one) for one in self.members], float) ** config.class_power
        self.weights = weights / weights.sum()
        self.mels = [kept_mel(clip, mel, sizes.pool) for clip in clips]
        self.centres = band_centres(mel).numpy()

    def __len__(self) -> int:
        return 2**31 - 1  # items are drawn, not stored

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng, config = np.random.default_rng([self.seed, index]), self.config
        label = self.draw_label(rng)
        other = self.draw_label(rng, self.family[self.labels[label]])
        sound, text = self.sound(rng, label)
        mixed_in, other_text = self.sound(rng, other)
        parts = [sound]
        if rng.random() < config.mixtures:
            parts.append(at_snr(sound, mixed_in, rng.uniform(*config.snr_db)))
        else:
            parts.append(np.full_like(sound, -np.inf))
        if rng.random() < config.noise:
            parts.append(at_snr(sound, steady_noise(rng, sound.shape), rng.uniform(*config.noise_snr_db)))
        powers = [np.exp(2 * part) for part in parts]
        energies = [float(power.sum()) for power in powers]
        shares = [energy / max(sum(energies), 1e-30) for energy in energies]
        mel = np.maximum(0.5 * np.log(np.maximum(sum(powers), 1e-30)), self.floor)
        return {
            "mel": torch.from_numpy(mel.astype(np.float32)),
            "text": text,
            "label": torch.tensor(label),
            "share": torch.tensor(shares[0]),
            "other_text": other_text,
            "other_label": torch.tensor(other),
            "other_share": torch.tensor(shares[1]),
        }

    def draw_label(self, rng: np.random.Generator, excluded: str | None = None) -> int:
        """Number of a class that is not of the excluded family."""
        while True:
            label = int(rng.choice(len(self.labels), p=self.weights))
            if self.family[self.labels[label]] != excluded:
                return label

    def sound(self, rng: np.random.Generator, label: int) -> tuple[Mel, str]:
        """A sound of the class, (N, M), and a wording of it."""
        clip = self.members[label][rng.integers(len(self.members[label]))]
        text = self.captions[clip][rng.integers(len(self.captions[clip]))]
        if rng.random() < self.config.frames:
            text = FRAMES[rng.integers(len(FRAMES))].format(text)
        return self.augment(rng, self.mels[clip]), text

    def augment(self, rng: np.random.Generator, mel: Mel) -> Mel:
        """A random stretch of a log-mel (N, M) on a silent canvas (length, M), changed as the configuration says."""
        fast, coloured, hidden = rng.random(3) < self.config.augment
        factor = float(np.exp(rng.uniform(-0.16, 0.16))) if fast else 1.0
        shortest = min(self.length, round(self.config.shortest * self.rate))
        wanted = min(int(rng.integers(shortest, self.length + 1)), max(1, int(len(mel) / factor)))
        start = loud_start(rng, mel, min(len(mel), round(wanted * factor)))
        part = mel[start : start + max(1, round(wanted * factor))].astype(np.float32)
        if fast:
            part = change_speed(part, factor, wanted, self.centres)
        if coloured:
            places = np.linspace(0, part.shape[1] - 1, 5)
            part = part + np.interp(np.arange(part.shape[1]), places, rng.uniform(-8, 8, 5) * NAT).astype(np.float32)
        if hidden:
            first, width = rng.integers(part.shape[1]), rng.integers(1, 9)
            begin, count = rng.integers(len(part)), rng.integers(1, 1 + max(1, len(part) // 4))
            part = part.copy()
            part[:, first : first + width] = self.floor
            if count < len(part):
                part[begin : begin + count] = self.floor
        canvas = np.full((self.length, mel.shape[1]), self.floor, np.float32)
        place = int(rng.integers(self.length - len(part) + 1))
        canvas[place : place + len(part)] = part
        return canvas


def kept_mel(clip: Clip, config: MelConfig, pool: int) -> NDArray[np.float16]:
    """The pooled log-mel of a clip (N, M) in half precision: 11 bits of a natural log are 0.05 dB."""
    audio = torch.from_numpy(load_clip(clip.path, config.sample_rate).astype(np.float32))
    audio = torch.nn.functional.pad(audio, (0, max(0, 2 * config.n_fft - len(audio))))
    return pool_frames(log_mel(audio, config, mel_filterbank(config)), pool).numpy().astype(np.float16)


def loud_start(rng: np.random.Generator, mel: NDArray[Any], count: int) -> int:
    """Where `count` frames of a log-mel begin: at random, of four tries the first that holds enough energy."""
    power = np.exp(2 * mel.astype(np.float32)).sum(1)
    start = 0
    for _ in range(4):
        start = int(rng.integers(len(mel) - count + 1))
        if power[start : start + count].mean() >= 0.25 * power.mean():
            break
    return start


def change_speed(mel: Mel, factor: float, count: int, centres: NDArray[np.float64]) -> Mel:
    """A log-mel (N, M) played `factor` times as fast, `count` frames: pitch moves along. centres (M,) in Hz."""
    times = np.clip(np.arange(count) * factor, 0, len(mel) - 1)
    before = times.astype(int)
    after, weight = np.minimum(before + 1, len(mel) - 1), (times - before)[:, None].astype(np.float32)
    faster = (1 - weight) * mel[before] + weight * mel[after]
    place = np.interp(centres / factor, centres, np.arange(len(centres)))  # which band has moved to each
    low = place.astype(int)
    high, share = np.minimum(low + 1, len(centres) - 1), (place - low).astype(np.float32)
    return (1 - share) * faster[:, low] + share * faster[:, high]


def steady_noise(rng: np.random.Generator, shape: tuple[int, int]) -> Mel:
    """The log-mel (N, M) of noise that does not change but for chance: a smooth random colour within +-20 dB."""
    places = np.linspace(0, shape[1] - 1, 4)
    colour = np.interp(np.arange(shape[1]), places, rng.uniform(-20, 20, 4) * NAT)
    return (colour + 0.5 * np.log(rng.gamma(4.0, 0.25, shape))).astype(np.float32)


def at_snr(sound: Mel, other: Mel, snr_db: float) -> Mel:
    """`other` at the level where the energy of `sound`, summed over all cells, is snr_db above its own."""
    powers = [float(np.exp(2 * one).sum()) for one in (sound, other)]
    return other + np.float32(0.5 * np.log(powers[0] / powers[1]) - snr_db * NAT)
