"""The project's own sounds: nine kinds rendered from a seed, free of anyone's rights.

They serve the demo and the tests, and join the recordings in training so that the shipped model knows them; eighteen
more (`flowsep.data.stand_ins`) only take the place of recordings that there are none of. A sound is a pure function of
(kind, seconds, seed, sample rate). Seeds in `DEMO_SEEDS` are never used in training, so what the demo separates has
parameters the model has not met. Kind names and families are those of the training manifest.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np
from numpy.random import Generator

from flowsep.data.stand_ins import STAND_INS
from flowsep.data.waves import (
    Kind,
    beats,
    bell_gain,
    curve,
    edges,
    filtered_noise,
    harmonic_count,
    harmonic_tone,
    noise_spectrum,
    place,
)
from flowsep.errors import UsageError

DEMO_SEEDS = range(1_000_000, 2_000_000)  # reserved for the demo and the documentation; training draws below
PEAK = 0.7  # largest absolute sample of every rendered sound


def synthesise(kind: str, seconds: float, seed: int, sample_rate: int = 16000) -> np.ndarray:
    """Render `seconds` of a kind of `KINDS` -> (T,) float32 of peak `PEAK`; silence where its one knock comes later.

    T = round(seconds * sample_rate). `seed` is a non-negative int from which every parameter is drawn. Raises
    `UsageError` for an unknown kind or fewer than one sample.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown kind of sound {kind!r}; choose from {', '.join(KINDS)}")
    samples = round(seconds * sample_rate)
    if samples < 1:
        raise UsageError(f"cannot synthesise {seconds} s; ask for at least one sample")
    # The kind is part of the seed: a siren and a whistle of one seed would otherwise share their random numbers.
    generator = np.random.default_rng([seed, crc32(kind.encode())])
    sound = KINDS[kind].render(generator, samples, sample_rate)
    return (sound * (PEAK / max(np.abs(sound).max(), 1e-12))).astype(np.float32)


# The kinds


def _siren(generator: Generator, samples: int, sample_rate: int) -> np.ndarray:
    low = generator.uniform(380, 750)
    style = generator.choice(["wail", "yelp", "two-tone"], p=[0.45, 0.2, 0.35])
    high = low * (generator.uniform(1.22, 1.5) if style == "two-tone" else generator.uniform(1.6, 2.4))
    rate = {"wail": (0.12, 0.5), "yelp": (1.5, 4.0), "two-tone": (0.4, 1.1)}[style]
    swing = 2 * np.pi * (np.arange(samples) * generator.uniform(*rate) / sample_rate + generator.uniform())
    height = 0.5 - 0.5 * np.cos(swing)
    if style == "two-tone":
        height = 0.5 + 0.5 * np.tanh(25 * np.cos(swing))  # a glide of some milliseconds, not a click
    frequency = low * (high / low) ** height
    harmonics = harmonic_count(high, sample_rate, generator.integers(4, 12))
    amplitudes = np.arange(1, harmonics + 1) ** -generator.uniform(0.7, 1.8)
    amplitudes *= generator.uniform(0.4, 1.0, harmonics)
    tone = harmonic_tone(np.cumsum(frequency) / sample_rate, amplitudes, generator)
    return tone * curve(generator, samples, sample_rate, 0.3, 0.5, 1.0)


def _alarm_beep(generator: Generator, samples: int, sample_rate: int) -> np.ndarray:
    frequency = generator.uniform(1000, 4000)
    harmonics = harmonic_count(frequency, sample_rate, generator.integers(1, 5))
    amplitudes = generator.uniform(0.3, 1.0) ** np.arange(harmonics)
    length = int(generator.uniform(0.05, 0.35) * sample_rate)
    group = generator.integers(1, 5)  # beeps in a row, then a rest
    step = int(length * generator.uniform(1.4, 2.2))
    period = group * step + generator.uniform(0, 0.8) * sample_rate
    second = frequency * generator.choice([1.0, 1.0, 1.25, 0.8])  # some alarms alternate between two pitches
    edge = max(1, int(0.003 * sample_rate))
    beeps = [
        harmonic_tone(np.arange(length) * min(f, 4000) / sample_rate, amplitudes, generator) * edges(length, edge, edge)
        for f in (frequency, second)
    ]
    track = np.zeros(samples)
    for start in beats(generator, samples, period, 0.0):
        for n in range(group):
            place(track, beeps[n % 2], start + n * step)
    return track


def _rain(generator: Generator, samples: int, sample_rate: int) -> np.ndarray:
    tilt, cut = generator.uniform(0.2, 0.7), generator.uniform(300, 900)
    hiss = filtered_noise(
        generator, samples, sample_rate, lambda f: (f / (f + cut)) ** 2 * (np.maximum(f, 1.0) / 1000) ** -tilt
    )
    hiss *= curve(generator, samples, sample_rate, 0.5, 0.75, 1.0)
    # Drops: short ringing clicks, scattered at random with a heavy-tailed loudness (few near, many far).
    count = max(1, int(generator.uniform(60, 500) * samples / sample_rate))
    length = max(1, int(0.006 * sample_rate))
    time = np.arange(length) / sample_rate
    pitch = generator.uniform(900, 0.42 * sample_rate, (count, 1))
    decay = generator.uniform(0.0005, 0.002, (count, 1))
    drops = np.sin(2 * np.pi * pitch * time) * np.exp(-time / decay) * generator.lognormal(0, 0.8, (count, 1))
    at = generator.integers(0, samples, (count, 1)) + np.arange(length)
    clicks = np.bincount(at.ravel(), drops.ravel(), samples + length)[:samples]
    clicks *= generator.uniform(0.3, 1.0) / np.sqrt(np.mean(clicks**2) + 1e-12)
    return np.tanh((hiss + clicks) / 5)  # the nearest drop would otherwise set the level of the whole


def _clock_tick(generator: Generator, samples: int, sample_rate: int) -> np.ndarray:
    interval = sample_rate / generator.choice([1.0, 1.0, 2.0, 2.0, 2.5, 4.0, 5.0]) * generator.uniform(0.97, 1.03)
    time = np.arange(int(0.08 * sample_rate)) / sample_rate
    modes = generator.uniform(1200, min(6500, 0.45 * sample_rate), 4)
    decays = generator.uniform(0.002, 0.012, 4)
    weights = generator.uniform(0.2, 1.0, 4)
    detune, softness = generator.uniform(0.85, 1.0), generator.uniform(0.4, 1.0)
    ticks = []
    for pitch, gain in ((1.0, 1.0), (detune, softness)):  # tick and tock
        phases = 2 * np.pi * modes[:, None] * pitch * time
        ring = (weights[:, None] * np.sin(phases) * np.exp(-time / decays[:, None])).sum(0)
        snap = generator.standard_normal(len(time)) * np.exp(-time / 0.0007)
        ticks.append(gain * (ring + generator.uniform(0.3, 1.2) * snap))
    track = np.zeros(samples)
    for n, start in enumerate(beats(generator, samples, interval, 0.004)):
        place(track, ticks[n % 2] * generator.uniform(0.85, 1.0), start)
    return track


def _car_engine(generator: Generator, samples: int, sample_rate: int) -> np.ndarray:
    idle = generator.uniform(22, 65)  # firing frequency, Hz
    revs = curve(generator, samples, sample_rate, generator.uniform(0.2, 0.8), 1.0, generator.uniform(1.05, 2.0))
    jitter = curve(generator, samples, sample_rate, idle, 0.96, 1.04)
    cycles = np.cumsum(idle * revs * jitter) / sample_rate
    harmonics = harmonic_count(2.1 * idle, sample_rate, 45)
    order = np.arange(1, harmonics + 1)
    resonance = 1 + 3 * bell_gain(order * idle, generator.uniform(100, 350), 0.6)
    amplitudes = order ** -generator.uniform(0.8, 1.5) * resonance * generator.uniform(0.4, 1.0, harmonics)
    tone = harmonic_tone(cycles, amplitudes, generator)
    tone /= np.sqrt(np.mean(tone**2) + 1e-12)
    strokes = generator.normal(1.0, generator.uniform(0.05, 0.25), int(cycles[-1]) + 2)  # no two explosions are equal
    tone *= np.interp(cycles, np.arange(len(strokes)), strokes)
    corner = generator.uniform(200, 700)
    rumble = filtered_noise(generator, samples, sample_rate, lambda f: (f > 20) / (1 + (f / corner) ** 2))
    rumble *= 1 + 0.7 * np.cos(2 * np.pi * cycles)  # intake and exhaust breathe with the strokes
    return tone + generator.uniform(0.1, 0.5) * rumble


def _bell(generator: Generator, samples: int, sample_rate: int) -> np.ndarray:
    base = np.exp(generator.uniform(np.log(300), np.log(1400)))
    # Hum, prime, tierce, quint, nominal and above, the partials of a tuned bell, each a little off.
    ratios = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.67, 3.01, 4.17, 5.43]) * generator.normal(1, 0.012, 9)
    pitches = (base * ratios)[:, None]
    weights = generator.uniform(0.2, 1.0, (9, 1)) * ratios[:, None] ** -0.5 * (pitches < 0.47 * sample_rate)
    decays = generator.uniform(0.5, 2.2) / ratios[:, None] ** generator.uniform(0.5, 1.0)
    time = np.arange(int(min(3.0, 5 * decays.max()) * sample_rate), dtype=np.float32) / sample_rate
    ring = np.zeros(len(time))
    for pitch, weight, decay in zip(pitches[:, 0], weights[:, 0], decays[:, 0], strict=True):
        ring += weight * np.sin(np.float32(2 * np.pi * pitch) * time) * np.exp(-time / np.float32(decay))
    ring *= edges(len(ring), max(1, int(0.001 * sample_rate)), max(1, int(0.05 * sample_rate)))
    track = np.zeros(samples)
    for start in beats(generator, samples, generator.uniform(0.4, 2.5) * sample_rate, 0.02):
        place(track, ring * generator.uniform(0.7, 1.0), start)
    return track


def _chirp(generator: Generator, centre: float, sample_rate: int) -> np.ndarray:
    """One syllable: a fast glide with a trill on top."""
    length = max(2, int(generator.uniform(0.03, 0.13) * sample_rate))
    phase = np.arange(length) / length
    glide = generator.uniform(-0.35, 0.35) * (phase - 0.5) + generator.uniform(-0.25, 0.25) * np.sin(np.pi * phase)
    trill = generator.uniform(0, 0.06) * np.sin(2 * np.pi * generator.uniform(1, 6) * phase)
    frequency = np.clip(centre * 2 ** (glide + trill), 1200, 0.45 * sample_rate)
    return np.sin(2 * np.pi * np.cumsum(frequency) / sample_rate) * np.sin(np.pi * phase) ** generator.uniform(0.6, 1.5)


def _chirping_birds(generator: Generator, samples: int, sample_rate: int) -> np.ndarray:
    track = np.zeros(samples)
    for loudness in generator.uniform(0.3, 1.0, generator.integers(1, 4)):  # one to three birds
        centre = generator.uniform(2200, min(6000, 0.4 * sample_rate))
        song = [_chirp(generator, centre * generator.uniform(0.85, 1.2), sample_rate) for _ in range(3)]
        for start in beats(generator, samples, generator.uniform(0.7, 2.0) * sample_rate, 0.15):
            step = generator.uniform(0.07, 0.2) * sample_rate
            for n in range(generator.integers(2, 9)):
                syllable = song[generator.integers(3)] * loudness * generator.uniform(0.7, 1.0)
                place(track, syllable, start + int(n * step))
    return track


def _wind(generator: Generator, samples: int, sample_rate: int) -> np.ndarray:
    spectrum, frequencies, size = noise_spectrum(generator, samples, sample_rate)
    base = generator.uniform(120, 300)
    gust_rate = generator.uniform(0.25, 1.0)
    gusts = curve(generator, samples, sample_rate, gust_rate, 0.15, 1.0)
    track = np.zeros(samples)
    for n in range(4):  # neighbouring bands of one noise that swell in their own time: the pitch wanders
        band = np.fft.irfft(spectrum * bell_gain(frequencies, base * 1.8**n, 0.45), size)[:samples]
        swell = gusts ** (0.5 + 0.5 * n) * curve(generator, samples, sample_rate, 1.5 * gust_rate, 0.1, 1.0)
        track += band * swell * 0.75**n
    return track


def _whistling(generator: Generator, samples: int, sample_rate: int) -> np.ndarray:
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12])
    root = generator.uniform(700, 1300)
    lengths = generator.uniform(0.2, 0.8, int(5 * samples / sample_rate) + 2)
    ends = np.cumsum(lengths * sample_rate)
    note = np.minimum(np.searchsorted(ends, np.arange(samples)), len(lengths) - 1)
    steps = np.clip(np.cumsum(generator.integers(-2, 3, len(lengths))) + 3, 0, 7)
    # A moving average of 40 ms glides between notes: lips do not jump.
    span = max(1, int(0.04 * sample_rate))
    semitones = np.concatenate([np.full(span, scale[steps[0]]), scale[steps][note]]).cumsum()
    pitch = (semitones[span:] - semitones[:-span]) / span
    time = np.arange(samples) / sample_rate
    vibrato = generator.uniform(0.05, 0.4) * np.sin(2 * np.pi * generator.uniform(4, 6.5) * time)
    cycles = np.cumsum(root * 2 ** ((pitch + vibrato) / 12)) / sample_rate
    since = np.arange(samples) - np.concatenate([[0], ends])[note]
    breath = np.minimum(1, np.minimum(since, ends[note] - np.arange(samples)) / (0.03 * sample_rate))
    loudness = np.maximum(breath, 0.0) * generator.uniform(0.6, 1.0, len(lengths))[note]
    tone = harmonic_tone(cycles, np.array([1.0, generator.uniform(0.0, 0.12)]), generator)
    air = filtered_noise(generator, samples, sample_rate, lambda f: bell_gain(f, 1.6 * root, 0.6))
    return loudness * (tone / np.abs(tone).max() + generator.uniform(0.01, 0.06) * air)


SYNTH_KINDS: dict[str, Kind] = {
    "siren": Kind(
        "siren",
        (
            "a siren", "siren", "an emergency siren", "a police siren wails", "a wailing siren",
            "the siren of an ambulance", "a fire engine's siren", "a siren rises and falls", "sirens in the street",
        ),
        _siren,
    ),
    "alarm_beep": Kind(
        "bell",
        (
            "an alarm beeping", "alarm", "an electronic alarm sounds", "a beeping alarm", "repeated electronic beeps",
            "a smoke detector beeps", "a timer beeping", "high-pitched beeping", "beep beep beep",
        ),
        _alarm_beep,
    ),
    "rain": Kind(
        "water",
        (
            "rain falling", "falling rain", "heavy rain pours down", "rain", "raindrops hitting a surface",
            "the sound of rain", "rain on a roof", "it is raining", "steady rainfall",
        ),
        _rain,
    ),
    "clock_tick": Kind(
        "click",
        (
            "a clock ticking", "ticking clock", "the tick-tock of a clock", "clock", "a ticking wall clock",
            "a watch ticks", "the ticking of a clock", "a clock ticks steadily", "regular ticking",
        ),
        _clock_tick,
    ),
    "car_engine": Kind(
        "motor",
        (
            "a car engine running", "an engine idling", "a car engine revs", "engine", "a running motor",
            "the engine of a car", "an idling car", "the hum of an engine", "a vehicle with its engine on",
        ),
        _car_engine,
    ),
    "bell": Kind(
        "bell",
        (
            "a bell ringing", "bell", "a small bell rings", "the ring of a bell", "a ringing bell",
            "a bell is struck", "a bell tolls", "someone rings a bell", "the sound of a bell",
        ),
        _bell,
    ),
    "chirping_birds": Kind(
        "bird",
        (
            "birds chirping", "chirping birds", "birds sing in the trees", "birdsong", "small birds twitter",
            "a bird chirps", "a bird singing", "tweeting birds", "the song of a bird",
        ),
        _chirping_birds,
    ),
    "wind": Kind(
        "wind",
        (
            "wind blowing", "blowing wind", "strong wind howls", "wind", "the howling of the wind",
            "gusts of wind", "a windy day", "the sound of wind", "wind whooshes past",
        ),
        _wind,
    ),
    "whistling": Kind(
        "whistle",
        (
            "a person whistling", "whistling", "someone whistles", "a whistled tune", "a man whistles a melody",
            "whistling a song", "a person whistles a tune", "human whistling", "the sound of whistling",
        ),
        _whistling,
    ),
}  # fmt: skip
KINDS = SYNTH_KINDS | STAND_INS  # all that can be rendered
