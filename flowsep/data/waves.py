"""What synthesised sounds are made of: random curves, tones, voices, noises and times, all from a numpy generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

Event = Callable[[], np.ndarray]  # one occurrence (n,)
Formant = tuple[float | np.ndarray, float, float]  # centre in Hz, one or (n,); half width in octaves; weight
Render = Callable[[Generator, int, int], np.ndarray]  # (generator, samples T, sample rate in Hz) -> (T,), any level


@dataclass(frozen=True)
class Kind:
    """One kind of sound: its family (mixed with others of it only as hard negatives), descriptions and renderer."""

    family: str
    captions: tuple[str, ...]
    render: Render


def curve(generator: Generator, samples: int, sample_rate: int, rate: float, low: float, high: float) -> np.ndarray:
    """A random curve (T,) between low and high that changes direction about `rate` times a second."""
    knots = 2 + math.ceil(samples / sample_rate * rate)
    values = generator.uniform(low, high, knots)
    position = np.arange(samples) * (rate / sample_rate)
    index = position.astype(int)
    # Half a cosine between knots: no corner that would be heard as a click.
    weight = 0.5 - 0.5 * np.cos(np.pi * (position - index))
    return values[index] * (1 - weight) + values[index + 1] * weight


def harmonic_tone(cycles: np.ndarray, amplitudes: np.ndarray, generator: Generator) -> np.ndarray:
    """A periodic wave (T,) at phase `cycles` (T,), harmonic k + 1 having amplitudes[k], read from a one-cycle table."""
    size = 4096
    spectrum = np.zeros(size // 2 + 1, dtype=complex)
    spectrum[1 : len(amplitudes) + 1] = amplitudes * np.exp(2j * np.pi * generator.uniform(size=len(amplitudes)))
    table = np.fft.irfft(spectrum, size) * size
    position = (cycles % 1.0) * size
    index = position.astype(int)
    table = np.append(table, table[:2])  # the last point leads back to the first
    return table[index] + (position - index) * (table[index + 1] - table[index])


def harmonic_count(highest: float, sample_rate: int, wanted: int) -> int:
    """How many harmonics of a tone reaching `highest` Hz stay below the Nyquist frequency, at least one."""
    return max(1, min(wanted, int(0.48 * sample_rate / highest)))


def noise_spectrum(generator: Generator, samples: int, sample_rate: int) -> tuple[np.ndarray, np.ndarray, int]:
    """White noise as a spectrum, the frequency of its bins in Hz, and the number of samples it stands for."""
    size = samples + (-samples) % 4096  # a length with small factors: a prime T would take the FFT many times as long
    frequencies = np.fft.rfftfreq(size, 1 / sample_rate)
    spectrum = generator.standard_normal(2 * len(frequencies)).view(complex)
    return spectrum, frequencies, size


def filtered_noise(
    generator: Generator, samples: int, sample_rate: int, gain: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Noise (T,) with root mean square 1 whose spectrum follows gain(frequencies in Hz)."""
    spectrum, frequencies, size = noise_spectrum(generator, samples, sample_rate)
    noise = np.fft.irfft(spectrum * gain(frequencies), size)[:samples]
    return noise / np.sqrt(np.mean(noise**2) + 1e-12)


def bell_gain(frequencies: np.ndarray, centre: float, octaves: float) -> np.ndarray:
    """A smooth band around `centre` Hz, `octaves` wide to either side where it has fallen to exp(-1/2)."""
    return np.exp(-0.5 * (np.log2(np.maximum(frequencies, 1.0) / centre) / octaves) ** 2)


def edges(samples: int, rise: int, fall: int) -> np.ndarray:
    """An envelope (T,): linear attack and release of so many samples, 1 between."""
    index = np.arange(samples)
    return np.minimum(1.0, np.minimum((index + 1) / rise, (samples - index) / fall))


def place(track: np.ndarray, sound: np.ndarray, start: int) -> None:
    """Add `sound` to `track` from sample `start` (may be negative), cut at either end."""
    first, last = max(start, 0), min(start + len(sound), len(track))
    if first < last:
        track[first:last] += sound[first - start : last - start]


def beats(generator: Generator, samples: int, interval: float, jitter: float) -> np.ndarray:
    """Event times in samples, `interval` samples apart with relative jitter, the first at a random phase.

    The first may lie before 0 so that a sound can already be ringing at the start; one always lies inside.
    """
    count = int(samples / interval) + 2
    times = (np.arange(count) + generator.normal(0, jitter, count)) * interval
    times -= generator.uniform(0, interval)
    if not ((times >= 0) & (times < samples)).any():
        times[0] = generator.uniform(0, 0.5 * samples)
    return times.astype(int)


def between(generator: Generator, low: float, high: float) -> float:
    """A number between low and high, evenly on a logarithmic scale."""
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))


def voice(generator: Generator, pitch: np.ndarray, formants: Sequence[Formant], tilt: float, rate: int) -> np.ndarray:
    """A sung tone (n,) at `pitch` (n,) Hz: harmonics falling as k ** -tilt through formants, RMS 1."""
    count = harmonic_count(float(pitch.max()), rate, 40)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    coarse = np.arange(0, len(pitch), 64)
    sound = np.zeros(len(pitch))
    for k in range(1, count + 1):
        gain = np.full(len(coarse), 0.03)
        for centre, octaves, weight in formants:
            middle = centre[coarse] if isinstance(centre, np.ndarray) else np.full(len(coarse), centre)
            gain += weight * np.exp(-0.5 * (np.log2(k * pitch[coarse] / middle) / octaves) ** 2)
        smooth = np.interp(np.arange(len(pitch)), coarse, gain)
        sound += k**-tilt * smooth * np.sin(k * phase + generator.uniform(0, 2 * np.pi))
    return sound / np.sqrt(np.mean(sound**2) + 1e-12)


def bump(samples: int, rise: float, fall: float) -> np.ndarray:
    """An envelope (T,) that starts and ends at nothing: sine over the first `rise` and last `fall` shares."""
    x = (np.arange(samples) + 0.5) / samples
    return np.sin(0.5 * np.pi * np.minimum(1.0, np.minimum(x / rise, (1 - x) / fall)))


def breath(generator: Generator, samples: int, rate: int, centre: float, octaves: float) -> np.ndarray:
    """Noise (T,) in a band around `centre` Hz, RMS 1."""
    return filtered_noise(generator, samples, rate, lambda f: bell_gain(f, centre, octaves))


def struck(generator: Generator, rate: int, modes: np.ndarray, decays: np.ndarray, snap: float) -> np.ndarray:
    """Modes in Hz that die away with time constants in seconds, and a click of `snap` times their level."""
    time = np.arange(max(2, int(5 * decays.max() * rate))) / rate
    weights = generator.uniform(0.2, 1.0, len(modes)) * (modes < 0.48 * rate)
    phases = generator.uniform(0, 2 * np.pi, len(modes))
    ring = np.zeros(len(time))
    for mode, decay, weight, phase in zip(modes, decays, weights, phases, strict=True):
        ring += weight * np.sin(2 * np.pi * mode * time + phase) * np.exp(-time / decay)
    click = generator.standard_normal(len(time)) * np.exp(-time / between(generator, 0.0005, 0.003))
    return ring + snap * np.abs(ring).max() * click


def scattered(
    generator: Generator, samples: int, rate: int, event: Event, gap: float, jitter: float = 0.2, variants: int = 3
) -> np.ndarray:
    """A track (T,) of `event`, one every `gap` seconds or so, each one of so many variants, louder or softer."""
    drawn = [event() for _ in range(variants)]
    track = np.zeros(samples)
    for start in beats(generator, samples, gap * rate, jitter):
        place(track, drawn[generator.integers(variants)] * generator.uniform(0.5, 1.0), start)
    return track


def duration(generator: Generator, low: float, high: float, rate: int) -> int:
    """A number of samples that lasts low..high seconds."""
    return max(4, int(between(generator, low, high) * rate))


def with_room_noise(sound: np.ndarray, generator: Generator, rate: int) -> np.ndarray:
    """`sound` (T,) on a floor of coloured noise 18 to 55 dB below it, as recordings are."""
    tilt = generator.uniform(0.2, 1.2)
    floor = filtered_noise(generator, len(sound), rate, lambda f: (f > 30) * np.maximum(f, 30.0) ** -tilt)
    return sound + floor * np.sqrt(np.mean(sound**2)) * 10 ** (-generator.uniform(18, 55) / 20)
