"""Sounds in place of recordings that training may not have: of eighteen kinds it holds non-commercial clips alone.

Each is drawn from a seed by what acoustics says of its kind (source and filter for animals and throats, modes for what
is struck, bands of noise for breath and water), with wide random parameters, so that a model meets a cat before it
hears one. None was fitted to a recording. They are coarse: real clips replace them as soon as there are any.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from flowsep.data.creatures import (
    breathing,
    brushing_teeth,
    cat_meow,
    coughing,
    drinking_sipping,
    frog,
    hen,
    insect_buzz,
    pig,
    sheep,
    snoring,
)
from flowsep.data.waves import (
    Kind,
    Render,
    beats,
    between,
    breath,
    bump,
    curve,
    duration,
    edges,
    filtered_noise,
    harmonic_count,
    harmonic_tone,
    place,
    scattered,
    struck,
    with_room_noise,
)

# Things


def mouse_click(generator: Generator, samples: int, rate: int) -> np.ndarray:
    modes = np.minimum(generator.uniform(1200, 7000, 5), 0.45 * rate)
    decays = np.exp(generator.uniform(np.log(0.0005), np.log(0.004), 5))
    gap = generator.uniform(0.05, 0.18)

    def click() -> np.ndarray:
        down, up = (struck(generator, rate, modes * pitch, decays, 0.7) for pitch in (1.0, generator.uniform(1.0, 1.3)))
        track = np.zeros(int((2.5 * gap + 0.1) * rate))
        place(track, down, 0)
        place(track, generator.uniform(0.4, 1.0) * up, int(gap * rate))
        if generator.random() < 0.3:
            place(track, down, int(2 * gap * rate))
        return track

    return scattered(generator, samples, rate, click, generator.uniform(0.25, 1.2), 0.3)


def door_knock(generator: Generator, samples: int, rate: int) -> np.ndarray:
    modes = np.concatenate([generator.uniform(70, 350, 3), generator.uniform(300, 1800, 4)])
    decays = np.concatenate([generator.uniform(0.02, 0.08, 3), generator.uniform(0.004, 0.025, 4)])
    step, count = generator.uniform(0.12, 0.32), int(generator.integers(2, 7))

    def knocks() -> np.ndarray:
        track = np.zeros(int((count * step + 0.5) * rate))
        for n in range(count):
            one = struck(generator, rate, modes * generator.uniform(0.97, 1.03), decays, generator.uniform(0.2, 0.8))
            place(track, generator.uniform(0.6, 1.0) * one, int((n * step + generator.uniform(0, 0.02)) * rate))
        return track

    return scattered(generator, samples, rate, knocks, count * step + generator.uniform(0.4, 1.8), 0.05, 2)


def water_drops(generator: Generator, samples: int, rate: int) -> np.ndarray:
    def drop() -> np.ndarray:
        n = duration(generator, 0.04, 0.22, rate)
        time = np.arange(n) / rate
        pitch = between(generator, 500, 3500) * (1 + generator.uniform(0, 6) * time)  # a bubble shrinks, its tone rises
        ring = np.sin(2 * np.pi * np.cumsum(pitch) / rate) * np.exp(-time / generator.uniform(0.006, 0.05))
        tap = generator.standard_normal(n) * np.exp(-time / 0.0008)
        return ring + generator.uniform(0.0, 0.6) * tap

    even = generator.uniform(0.0, 0.4)
    return scattered(generator, samples, rate, drop, between(generator, 0.12, 1.4), even, int(generator.integers(1, 7)))


def fireworks(generator: Generator, samples: int, rate: int) -> np.ndarray:
    def bang() -> np.ndarray:
        n = duration(generator, 0.4, 1.5, rate)
        time = np.arange(n) / rate
        corner = between(generator, 120, 900)
        boom = filtered_noise(generator, n, rate, lambda f: (f > 25) / (1 + (f / corner) ** 1.5))
        boom *= np.exp(-time / generator.uniform(0.06, 0.3)) * np.minimum(1, time / 0.002)
        crack = generator.standard_normal(n) * np.exp(-time / 0.008)
        return generator.uniform(0.3, 1.0) * (boom + generator.uniform(0.1, 0.6) * crack)

    def crackle() -> np.ndarray:
        n = duration(generator, 0.5, 1.6, rate)
        near = generator.random(n) < generator.uniform(40, 200) / rate
        sparks = near * generator.lognormal(0, 0.8, n)
        decay = np.exp(-np.arange(max(2, int(0.004 * rate))) / (0.001 * rate))
        return np.convolve(sparks * generator.standard_normal(n), decay)[:n] * bump(n, 0.2, 0.6)

    def whistle() -> np.ndarray:
        n = duration(generator, 0.5, 1.3, rate)
        pitch = between(generator, 900, 3000) * np.linspace(generator.uniform(0.6, 1.0), generator.uniform(0.8, 1.6), n)
        tone = np.sin(2 * np.pi * np.cumsum(pitch * curve(generator, n, rate, 20, 0.98, 1.02)) / rate)
        return 0.4 * (tone + 0.5 * breath(generator, n, rate, 3000, 1.0)) * bump(n, 0.2, 0.1)

    track = scattered(generator, samples, rate, bang, generator.uniform(0.25, 1.5), 0.3, 4)
    for other, chance in ((crackle, 0.5), (whistle, 0.4)):
        if generator.random() < chance:
            track += 0.6 * scattered(generator, samples, rate, other, generator.uniform(0.8, 2.0), 0.3, 2)
    return track


def church_bells(generator: Generator, samples: int, rate: int) -> np.ndarray:
    track = np.zeros(samples)
    ratios = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 2.67, 3.01, 4.17, 5.43])  # hum, prime, tierce, quint, nominal, ...
    for _ in range(generator.integers(1, 5)):
        base = between(generator, 120, 700)
        modes = base * ratios * generator.normal(1, 0.012, len(ratios))
        decays = np.minimum(generator.uniform(0.8, 2.0) / ratios ** generator.uniform(0.4, 0.9), 1.5)
        ring = struck(generator, rate, modes, decays, generator.uniform(0.0, 0.2))
        ring *= edges(len(ring), max(1, int(0.001 * rate)), max(1, int(0.1 * rate)))
        for start in beats(generator, samples, generator.uniform(0.6, 2.4) * rate, 0.03):
            place(track, ring * generator.uniform(0.7, 1.0), start)
    return track


def clock_alarm(generator: Generator, samples: int, rate: int) -> np.ndarray:
    if generator.random() < 0.5:  # a hammer between two bells
        modes = np.minimum(generator.uniform(1000, 6500, 7), 0.45 * rate)
        decays = generator.uniform(0.05, 0.4, 7)
        ring = struck(generator, rate, modes, decays, generator.uniform(0.2, 0.8))
        track = np.zeros(samples)
        for start in beats(generator, samples, rate / generator.uniform(9, 26), 0.05):
            place(track, ring * generator.uniform(0.6, 1.0), start)
        return track
    height = min(between(generator, 700, 4200), 0.45 * rate)
    count = harmonic_count(height, rate, 7)
    amplitudes = np.arange(1, count + 1) ** -generator.uniform(0.3, 1.5) * (np.arange(count) % 2 == 0)
    n = duration(generator, 0.04, 0.15, rate)
    beep = harmonic_tone(np.arange(n) * height / rate, amplitudes, generator) * edges(
        n, max(1, n // 20), max(1, n // 20)
    )
    row = np.zeros(int(generator.uniform(0.5, 1.1) * rate))
    for k in range(generator.integers(1, 6)):
        place(row, beep, int(k * n * generator.uniform(1.7, 2.0)))
    return scattered(generator, samples, rate, lambda: row, len(row) / rate, 0.0, 1)


def washing_machine(generator: Generator, samples: int, rate: int) -> np.ndarray:
    hum = generator.choice([25.0, 50.0, 60.0, 100.0]) * curve(generator, samples, rate, 0.3, 0.9, 1.1)
    hum = hum * generator.choice([1.0, 1.0, between(generator, 2, 8)])  # spinning
    count = harmonic_count(float(hum.max()), rate, 20)
    amplitudes = np.arange(1, count + 1) ** -generator.uniform(0.4, 1.4) * generator.uniform(0.2, 1.0, count)
    tone = harmonic_tone(np.cumsum(hum) / rate, amplitudes, generator)
    turn = generator.uniform(0.4, 2.0) * np.arange(samples) / rate + generator.uniform()
    slosh = (0.5 + 0.5 * np.cos(2 * np.pi * turn)) ** generator.uniform(0.5, 4.0)
    water = breath(generator, samples, rate, between(generator, 250, 1500), generator.uniform(0.8, 1.5))
    return tone / np.sqrt(np.mean(tone**2) + 1e-12) * generator.uniform(0.1, 0.8) + water * (
        generator.uniform(0.2, 0.8) + slosh
    )


def stand_in(family: str, render: Render) -> Kind:
    """A kind that is asked for by its name where there are no wordings, and heard in a room."""

    def recorded(generator: Generator, samples: int, rate: int) -> np.ndarray:
        return with_room_noise(render(generator, samples, rate), generator, rate)

    return Kind(family, (render.__name__.replace("_", " "),), recorded)


STAND_INS: dict[str, Kind] = {
    "breathing": stand_in("voice", breathing),
    "brushing_teeth": stand_in("mouth", brushing_teeth),
    "cat_meow": stand_in("cat", cat_meow),
    "church_bells": stand_in("bell", church_bells),
    "clock_alarm": stand_in("bell", clock_alarm),
    "coughing": stand_in("voice", coughing),
    "door_knock": stand_in("impact", door_knock),
    "drinking_sipping": stand_in("mouth", drinking_sipping),
    "fireworks": stand_in("bang", fireworks),
    "frog": stand_in("frog", frog),
    "hen": stand_in("bird", hen),
    "insect_buzz": stand_in("insect", insect_buzz),
    "mouse_click": stand_in("click", mouse_click),
    "pig": stand_in("pig", pig),
    "sheep": stand_in("sheep", sheep),
    "snoring": stand_in("voice", snoring),
    "washing_machine": stand_in("motor", washing_machine),
    "water_drops": stand_in("water", water_drops),
}
