"""Mixtures from single sounds: pure functions of float32 arrays (T,) at one sample rate.

Whatever is scaled is scaled together: mixture = target + residual holds at every return.
"""

from __future__ import annotations

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

Audio = NDArray[np.float32]
PEAK_LIMIT = 0.95


def energy(audio: Audio) -> float:
    """Sum of squares."""
    return float(np.dot(audio, audio))


def mix_at_snr(target: Audio, other: Audio, snr_db: float) -> tuple[Audio, Audio]:
    """(mixture, scaled other) with 10 log10(sum target^2 / sum other^2) = snr_db; a silent part is left as it is."""
    if energy(target) > 0 and energy(other) > 0:
        other = (other * np.sqrt(energy(target) / energy(other) / 10 ** (snr_db / 10))).astype(np.float32)
    return target + other, other


def limit_together(*parts: Audio) -> tuple[Audio, ...]:
    """All parts by one factor, so that none passes 0.95; unchanged where none does."""
    peak = max(float(np.abs(part).max(initial=0.0)) for part in parts)
    return tuple((part * np.float32(PEAK_LIMIT / peak)) if peak > PEAK_LIMIT else part for part in parts)


def place(clip: Audio, offset: int, length: int) -> Audio:
    """`clip` on a silent canvas of `length` samples from sample `offset` on; what runs past the ends is cut."""
    canvas = np.zeros(length, np.float32)
    start, stop = max(0, offset), min(length, offset + len(clip))
    if stop > start:
        canvas[start:stop] = clip[start - offset : stop - offset]
    return canvas


def change_speed(clip: Audio, factor: float) -> Audio:
    """`clip` played `factor` times as fast (pitch moves along), by linear interpolation."""
    count = int(len(clip) / factor)
    return np.interp(np.arange(count) * factor, np.arange(len(clip)), clip).astype(np.float32)


def equalise(clip: Audio, gains_db: Audio) -> Audio:
    """`clip` under a smooth equaliser: gains in dB at equally spaced points of a square-root frequency axis."""
    size = 1 << (len(clip) - 1).bit_length()  # other lengths can take ten times as long
    spectrum = np.fft.rfft(clip, size)
    axis = np.sqrt(np.linspace(0, 1, len(spectrum), dtype=np.float32))
    gain = 10 ** (np.interp(axis, np.linspace(0, 1, len(gains_db)), gains_db) / 20)
    return np.fft.irfft(spectrum * gain.astype(np.float32), size)[: len(clip)].astype(np.float32)


def reverberate(clip: Audio, impulse: Audio) -> Audio:
    """`clip` convolved with an impulse response, cut to its length, at its own energy."""
    size = len(clip) + len(impulse) - 1
    size = 1 << (size - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(clip, size) * np.fft.rfft(impulse, size), size)[: len(clip)].astype(np.float32)
    wet_energy = energy(wet)
    return (wet * np.sqrt(energy(clip) / wet_energy)).astype(np.float32) if wet_energy > 0 else wet


def room(rng: np.random.Generator, sample_rate: int) -> Audio:
    """A synthetic room: a direct sound and an exponentially decaying noise tail, T60 0.1 to 0.6 s."""
    decay = rng.uniform(0.1, 0.6)
    count = int(decay * sample_rate)
    tail = rng.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
    tail *= rng.uniform(0.2, 1.0) / max(1e-9, np.sqrt((tail**2).sum()))
    tail[0] = 1.0
    return tail.astype(np.float32)


def edge_hz(rng: np.random.Generator, sample_rate: int) -> float:
    """Where a band-limited recording ends: 2 kHz to nine tenths of the Nyquist frequency, evenly in log frequency."""
    return float(np.exp(rng.uniform(np.log(2000), np.log(0.45 * sample_rate))))


def low_passed(parts: Audio, sample_rate: int, edge: float) -> Audio:
    """`parts` (..., T) without what lies above `edge` Hz: a straight line of 60 dB per third of an octave. Linear, so
    that parts which sum to a mixture still do."""
    size = 1 << (parts.shape[-1] - 1).bit_length()
    spectrum = np.fft.rfft(parts, size)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / sample_rate), 1.0) / edge)
    gain = 10 ** (-180 * np.maximum(octaves, 0) / 20)
    return np.fft.irfft(spectrum * gain.astype(np.float32), size)[..., : parts.shape[-1]].astype(np.float32)


def coded(clip: Audio, sample_rate: int, quality: float) -> Audio:
    """`clip` (T,) after Ogg Vorbis at `quality`, 0 (about 30 kbit/s at 16 kHz) to 1, at its own length and place."""
    peak = max(1.0, float(np.abs(clip).max(initial=0.0)))  # a file holds no more than full scale
    file = io.BytesIO()
    soundfile.write(file, clip / peak, sample_rate, format="OGG", compression_level=1 - quality)
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    return place(decoded * np.float32(peak), 0, len(clip))
