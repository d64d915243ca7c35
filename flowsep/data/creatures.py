"""Animals and people among the stand-ins: source and filter, drawn from a seed (see `flowsep.data.stand_ins`)."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from flowsep.data.waves import (
    Formant,
    between,
    breath,
    bump,
    curve,
    duration,
    edges,
    harmonic_count,
    harmonic_tone,
    scattered,
    voice,
)

# Animals


def cat_meow(generator: Generator, samples: int, rate: int) -> np.ndarray:
    height, tilt = between(generator, 380, 950), generator.uniform(0.2, 1.0)

    def meow() -> np.ndarray:
        n = duration(generator, 0.35, 1.2, rate)
        x = np.arange(n) / n
        top = generator.uniform(0.2, 0.6)
        pitch = height * (1 + generator.uniform(0.1, 0.5) * np.exp(-(((x - top) / 0.3) ** 2)) - 0.25 * x**2)
        pitch *= curve(generator, n, rate, 8, 0.98, 1.02)
        open_ = np.sin(np.pi * np.clip(x / (2 * top), 0, 1) ** 0.7) + 0.3 * (1 - x)  # the mouth opens and closes
        formants: list[Formant] = [
            (600 + 700 * open_, 0.35, 1.0),
            (1500 + 900 * np.cos(np.pi * x) + generator.uniform(0, 500), 0.25, 0.8),
            (generator.uniform(3000, 4200), 0.25, 0.4),
        ]
        sound = voice(generator, pitch, formants, tilt, rate) + 0.05 * breath(generator, n, rate, 3000, 1.0)
        return sound * bump(n, generator.uniform(0.1, 0.4), generator.uniform(0.2, 0.6))

    return scattered(generator, samples, rate, meow, generator.uniform(1.0, 3.0))


def sheep(generator: Generator, samples: int, rate: int) -> np.ndarray:
    height, shake = between(generator, 120, 420), generator.uniform(6, 12)  # lambs are higher

    def bleat() -> np.ndarray:
        n = duration(generator, 0.4, 1.4, rate)
        time = np.arange(n) / rate
        swing = np.sin(2 * np.pi * shake * time * curve(generator, n, rate, 4, 0.97, 1.03))
        pitch = height * (1 + generator.uniform(0.02, 0.08) * swing) * curve(generator, n, rate, 3, 0.92, 1.05)
        formants: list[Formant] = [
            (generator.uniform(500, 900), 0.35, 1.0),
            (generator.uniform(1200, 1900), 0.3, 0.9),
            (generator.uniform(2400, 3400), 0.25, 0.5),
        ]
        sound = voice(generator, pitch, formants, generator.uniform(0.1, 0.7), rate)
        sound += generator.uniform(0.05, 0.3) * breath(generator, n, rate, 1800, 1.0)
        return sound * (1 + generator.uniform(0.3, 0.8) * swing) * bump(n, 0.1, 0.25)

    return scattered(generator, samples, rate, bleat, generator.uniform(1.0, 2.8))


def pig(generator: Generator, samples: int, rate: int) -> np.ndarray:
    squeals, height = generator.random() < 0.3, between(generator, 50, 130)

    def grunt() -> np.ndarray:
        n = duration(generator, 0.12, 0.45, rate)
        pitch = height * curve(generator, n, rate, 15, 0.7, 1.3)
        formants: list[Formant] = [
            (generator.uniform(280, 550), 0.5, 1.0),
            (generator.uniform(900, 1600), 0.4, 0.6),
            (generator.uniform(2200, 3200), 0.4, 0.3),
        ]
        rough = curve(generator, n, rate, 40, 0.2, 1.0)
        sound = voice(generator, pitch, formants, 0.4, rate) * rough
        sound += generator.uniform(0.2, 0.9) * breath(generator, n, rate, between(generator, 500, 1500), 1.0) * rough
        return sound * bump(n, 0.15, 0.4)

    def squeal() -> np.ndarray:
        n = duration(generator, 0.3, 1.1, rate)
        pitch = between(generator, 600, 1500) * curve(generator, n, rate, 4, 0.8, 1.3)
        sound = voice(generator, pitch, [(1800, 0.6, 1.0), (3500, 0.4, 0.8)], 0.5, rate)
        rough = 1 + 0.6 * np.sin(2 * np.pi * generator.uniform(50, 120) * np.arange(n) / rate)
        return (sound * rough + 0.3 * breath(generator, n, rate, 2500, 0.8)) * bump(n, 0.1, 0.2)

    one, gap = (squeal, generator.uniform(0.9, 1.8)) if squeals else (grunt, generator.uniform(0.3, 1.0))
    return scattered(generator, samples, rate, one, gap)


def one_frog(generator: Generator, samples: int, rate: int) -> np.ndarray:
    low, pulses = between(generator, 350, 2600), between(generator, 18, 110)
    high = low * generator.uniform(1.6, 3.0)
    length = generator.uniform(0.12, 0.7)

    def croak() -> np.ndarray:
        n = max(4, int(length * generator.uniform(0.85, 1.15) * rate))
        phase = (np.arange(n) * pulses / rate * generator.uniform(0.95, 1.05)) % 1.0
        train = np.exp(-phase * generator.uniform(2, 6)) * np.minimum(1, phase * 20)
        sweep = np.cumsum(np.linspace(1.0, generator.uniform(0.85, 1.3), n)) / rate
        tone = np.sin(2 * np.pi * low * sweep) + generator.uniform(0.1, 0.8) * np.sin(2 * np.pi * high * sweep)
        noise = breath(generator, n, rate, low, 0.4)
        return (tone + generator.uniform(0.1, 0.8) * noise) * train * bump(n, 0.2, 0.2)

    return scattered(generator, samples, rate, croak, length * generator.uniform(1.3, 3.5), 0.06)


def frog(generator: Generator, samples: int, rate: int) -> np.ndarray:
    loudnesses = generator.uniform(0.3, 1.0, generator.integers(1, 4))
    return sum(loudness * one_frog(generator, samples, rate) for loudness in loudnesses)


def hen(generator: Generator, samples: int, rate: int) -> np.ndarray:
    height = between(generator, 300, 620)
    formants: list[Formant] = [
        (generator.uniform(900, 1500), 0.4, 1.0),
        (generator.uniform(2200, 3600), 0.35, 0.6),
    ]

    def cluck(low: float = 0.05, high: float = 0.16, rise: float = 1.0) -> np.ndarray:
        n = duration(generator, low, high, rate)
        pitch = height * np.linspace(generator.uniform(1.0, 1.3), generator.uniform(0.7, 1.0) * rise, n)
        sound = voice(generator, pitch, formants, 0.3, rate) + 0.15 * breath(generator, n, rate, 2500, 1.0)
        return sound * bump(n, 0.1, 0.5)

    track = scattered(generator, samples, rate, cluck, generator.uniform(0.2, 0.6), 0.25, 4)
    if generator.random() < 0.5:  # and now and then the long cackle
        track += 1.5 * scattered(generator, samples, rate, lambda: cluck(0.25, 0.6, 1.9), generator.uniform(1.0, 2.5))
    return track


def insect_buzz(generator: Generator, samples: int, rate: int) -> np.ndarray:
    track = np.zeros(samples)
    for loudness in generator.uniform(0.3, 1.0, generator.integers(1, 3)):
        base = between(generator, 110, 600)  # wing beats: bees, flies, mosquitoes
        pitch = base * curve(generator, samples, rate, 3, 0.9, 1.12) * curve(generator, samples, rate, 25, 0.985, 1.015)
        count = harmonic_count(float(pitch.max()), rate, 30)
        amplitudes = np.arange(1, count + 1) ** -generator.uniform(0.3, 1.3) * generator.uniform(0.3, 1.0, count)
        tone = harmonic_tone(np.cumsum(pitch) / rate, amplitudes, generator)
        near = curve(generator, samples, rate, generator.uniform(0.5, 3), 0.1, 1.0)
        track += loudness * near * tone / np.sqrt(np.mean(tone**2) + 1e-12)
    return track + generator.uniform(0.0, 0.1) * breath(generator, samples, rate, 3000, 1.0)


# People


def breathing(generator: Generator, samples: int, rate: int) -> np.ndarray:
    inward, outward = between(generator, 1200, 4000), between(generator, 500, 2000)
    length = generator.uniform(0.5, 1.5)

    def cycle() -> np.ndarray:
        n = max(8, int(length * generator.uniform(0.8, 1.2) * rate))
        both = [
            level * breath(generator, n, rate, centre, generator.uniform(0.6, 1.2)) * bump(n, 0.4, 0.5)
            for centre, level in ((inward, generator.uniform(0.3, 1.0)), (outward, 1.0))
        ]
        return np.concatenate([both[0], np.zeros(int(generator.uniform(0, 0.3) * rate)), both[1]])

    return scattered(generator, samples, rate, cycle, length * generator.uniform(2.3, 3.5), 0.05)


def snoring(generator: Generator, samples: int, rate: int) -> np.ndarray:
    height, length = between(generator, 22, 90), generator.uniform(0.7, 1.6)
    formants: list[Formant] = [
        (generator.uniform(150, 400), 0.6, 1.0),
        (generator.uniform(500, 1100), 0.5, 0.5),
        (generator.uniform(1500, 2800), 0.5, 0.2),
    ]

    def snore() -> np.ndarray:
        n = max(8, int(length * generator.uniform(0.85, 1.15) * rate))
        pitch = height * curve(generator, n, rate, 10, 0.8, 1.25)
        flutter = 0.5 + 0.5 * np.cos(2 * np.pi * np.cumsum(pitch) / rate)
        rattle = voice(generator, pitch, formants, 0.2, rate)
        hiss = breath(generator, n, rate, between(generator, 500, 2000), 1.0) * flutter
        return (rattle + generator.uniform(0.2, 1.0) * hiss) * bump(n, 0.4, 0.25)

    track = scattered(generator, samples, rate, snore, length * generator.uniform(1.6, 3.0), 0.05)
    return track + generator.uniform(0.0, 0.08) * breath(generator, samples, rate, 1500, 1.0)


def coughing(generator: Generator, samples: int, rate: int) -> np.ndarray:
    formants: list[Formant] = [
        (generator.uniform(400, 900), 0.4, 1.0),
        (generator.uniform(1100, 1900), 0.35, 0.8),
        (generator.uniform(2300, 3500), 0.3, 0.5),
    ]
    height, voiced = between(generator, 110, 380), generator.uniform(0.1, 1.0)

    def cough() -> np.ndarray:
        n = duration(generator, 0.18, 0.45, rate)
        time = np.arange(n) / rate
        noise = sum(w * breath(generator, n, rate, float(centre), 0.7) for centre, _, w in formants)
        burst = np.exp(-time / generator.uniform(0.02, 0.05)) + generator.uniform(0.1, 0.4)
        tail = np.exp(-time / generator.uniform(0.06, 0.15)) * np.minimum(1, time / 0.02)
        pitch = height * np.linspace(1.2, 0.7, n) * curve(generator, n, rate, 30, 0.9, 1.1)
        sound = noise * burst * np.exp(-time / 0.1) + voiced * voice(generator, pitch, formants, 0.2, rate) * tail
        return sound * edges(n, max(1, int(0.002 * rate)), max(1, n // 4))

    def fit() -> np.ndarray:
        parts = []
        for _ in range(generator.integers(1, 5)):
            parts += [cough(), np.zeros(int(generator.uniform(0.02, 0.25) * rate))]
        return np.concatenate(parts)

    return scattered(generator, samples, rate, fit, generator.uniform(1.2, 2.8))


def drinking_sipping(generator: Generator, samples: int, rate: int) -> np.ndarray:
    slurps = generator.random() < 0.7

    def slurp() -> np.ndarray:
        n = duration(generator, 0.25, 1.0, rate)
        low = breath(generator, n, rate, between(generator, 1200, 3000), 0.6)
        high = breath(generator, n, rate, between(generator, 3000, 6500), 0.5)
        rise = np.linspace(0, 1, n)
        flutter = curve(generator, n, rate, generator.uniform(20, 60), 0.05, 1.0)
        return (low * (1 - rise) + generator.uniform(0.4, 1.2) * high * rise) * flutter * bump(n, 0.4, 0.2)

    def gulp() -> np.ndarray:
        n = duration(generator, 0.05, 0.14, rate)
        pitch = between(generator, 150, 400) * np.linspace(1, generator.uniform(1.4, 3.0), n)
        tone = np.sin(2 * np.pi * np.cumsum(pitch) / rate)
        return (tone + 0.3 * breath(generator, n, rate, 800, 1.0)) * bump(n, 0.2, 0.6)

    track = scattered(generator, samples, rate, gulp, generator.uniform(0.4, 1.0), 0.15, 4)
    if slurps:
        track = 0.6 * track + scattered(generator, samples, rate, slurp, generator.uniform(0.9, 2.4))
    return track


def brushing_teeth(generator: Generator, samples: int, rate: int) -> np.ndarray:
    strokes, centres = generator.uniform(2.5, 7.0), (between(generator, 1800, 4500), between(generator, 2500, 6500))
    phase = np.cumsum(curve(generator, samples, rate, 1.0, 0.85, 1.15)) * strokes / rate
    sharp = generator.uniform(0.5, 2.0)
    track = np.zeros(samples)
    for n, centre in enumerate(centres):  # to and fro sound a little different
        sway = np.clip(np.sin(2 * np.pi * (phase + 0.5 * n)), 0, 1) ** sharp
        track += (
            generator.uniform(0.5, 1.0) * sway * breath(generator, samples, rate, centre, generator.uniform(0.4, 0.9))
        )
    return track * curve(generator, samples, rate, 1.5, 0.3, 1.0)
