"""Loudness after ITU-R BS.1770-4, and copies of recordings for players that are all equally loud."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from scipy.signal import sosfilt
from torch import Tensor

from flowsep.audio import AudioFile
from flowsep.blocks import resampled
from flowsep.encodings import encoding_of
from flowsep.outputs import OutputFile

HOP = 0.1  # seconds; a block of the measurement is four of them
SILENT = -70.0  # LUFS: the absolute gate
WANTED = -20.0  # LUFS of the players, where no peak is in the way
LEAST_WANTED = -32.0  # LUFS: one click does not make all others quiet
CEILING = -1.0  # dBFS of their peaks
MOST_GAIN = 40.0  # dB: next to nothing stays quiet
RATES = (8000, 48000)  # Hz that every browser plays


def k_weighting(sample_rate: int) -> np.ndarray:
    """The filters of BS.1770 as pyloudnorm makes them, a shelf above 1.5 kHz and a high-pass at 38 Hz, as sections."""
    from pyloudnorm import IIRfilter

    shelf = IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, sample_rate, "high_shelf")
    high_pass = IIRfilter(0.0, 0.5, 38.0, sample_rate, "high_pass")
    return np.array([[*one.b, *one.a] for one in (shelf, high_pass)])


def loudness(blocks: Iterable[Tensor], sample_rate: int) -> tuple[float, float]:
    """Blocks (C, n) -> integrated loudness in LUFS (-inf for silence) and the highest sample, 1 being full scale.

    All channels have weight 1. What is shorter than 400 ms is one block of the measurement. Rates from 8 kHz on. The
    number is that of `flowsep.evaluation.loudness`, which wants the whole sound at once and at least 400 ms of it:
    pyloudnorm keeps no state, and the recordings of the page may be longer than the memory.
    """
    sections, state, peak = k_weighting(sample_rate), None, 0.0
    hop, powers, held = round(HOP * sample_rate), [], np.zeros(0)
    for block in blocks:
        peak = max(peak, float(block.abs().max()))
        if state is None:
            state = np.zeros((len(sections), block.shape[0], 2))
        filtered, state = sosfilt(sections, block.double().numpy(), zi=state)
        held = np.concatenate([held, np.square(filtered).sum(0)])
        whole = len(held) // hop * hop
        powers += list(held[:whole].reshape(-1, hop).mean(1))
        held = held[whole:]
    if not powers:
        powers = [float(held.mean())] if len(held) else [0.0]
    steps = np.array(powers)
    size = min(4, len(steps))
    power = np.convolve(steps, np.ones(size) / size, "valid")
    gate = 10 ** ((SILENT + 0.691) / 10)
    kept = power[power > gate]
    kept = kept[kept > 0.1 * kept.mean()] if len(kept) else kept  # the relative gate, 10 LU below
    return (-0.691 + 10 * math.log10(kept.mean()) if len(kept) else -math.inf), peak


@dataclass(frozen=True)
class Player:
    """A copy to listen to, and by how many dB it was turned up or down."""

    path: Path
    gain_db: float


def write_players(recordings: Sequence[AudioFile], frames: int, paths: Sequence[Path]) -> list[Player]:
    """FLAC copies (16 bit, at most two channels, 8 to 48 kHz) of `frames` samples each, all equally loud.

    They have -20 LUFS, or as much less, down to -32, as leaves all peaks below -1 dBFS; one whose peaks allow not even
    that is less loud. Silence stays silent, and nothing is turned up by more than 40 dB. The recordings themselves are
    not touched.
    """
    measured = [loudness(playable(one, frames), playable_rate(one)) for one in recordings]
    allowed = [level - decibels(peak) + CEILING for level, peak in measured if level > -math.inf]
    wanted = max(LEAST_WANTED, min([WANTED, *allowed]))
    players = []
    for recording, (level, peak), path in zip(recordings, measured, paths, strict=True):
        gain = min(MOST_GAIN, wanted - level, CEILING - decibels(peak)) if level > -math.inf else 0.0
        write_player(recording, frames, path, gain)
        players.append(Player(path, gain))
    return players


def write_player(recording: AudioFile, frames: int, path: Path, gain_db: float) -> None:
    """One copy, by `gain_db` louder."""
    blocks = playable(recording, frames)
    first = next(blocks)
    rate = playable_rate(recording)
    file = OutputFile(path, path, "player", rate, first.shape[0], encoding_of("flac", "PCM_16"))
    for block in chain([first], blocks):
        file.add(10 ** (gain_db / 20) * block)
    file.finish()


def playable(recording: AudioFile, frames: int) -> Iterator[Tensor]:
    """Blocks (C, n), C at most 2, at a rate that browsers play; more channels than two are mixed down."""
    rate = playable_rate(recording)
    blocks = (block if block.shape[0] <= 2 else block.mean(0, keepdim=True) for block in recording.blocks())
    return resampled(blocks, recording.sample_rate, rate, max(1, round(frames * rate / recording.sample_rate)))


def playable_rate(recording: AudioFile) -> int:
    """Hz of the copy."""
    return min(max(recording.sample_rate, RATES[0]), RATES[1])


def decibels(amplitude: float) -> float:
    """20 log10(amplitude), -inf for 0."""
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf
