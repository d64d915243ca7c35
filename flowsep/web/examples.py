"""Recordings to try the page with, synthesised when it starts: nothing is downloaded, and no recording is shipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowsep.audio import write_audio
from flowsep.demo import SAMPLE_RATE, build_example


@dataclass(frozen=True)
class Example:
    """A recording, and what to try on it."""

    title: str
    path: Path
    sounds: tuple[tuple[str, float], ...]  # description and gain in dB
    sentence: str


# Title, the two kinds of sound, gains in dB of both, and a sentence.
EXAMPLES = (
    ("Birds and an engine", ("chirping_birds", "car_engine"), (0.0, -60.0), "remove the car engine"),
    ("Alarm in the rain", ("alarm_beep", "rain"), (-60.0, 0.0), "mute the alarm and turn the rain down by 6 dB"),
    ("Whistling in the wind", ("whistling", "wind"), (3.0, -12.0), "keep only the whistling"),
)


def render_examples(folder: Path) -> list[Example]:
    """Write all of `EXAMPLES` as wav files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for title, kinds, gains, sentence in EXAMPLES:
        mixed = build_example(kinds=kinds)
        path = folder / f"{'-and-'.join(kinds).replace('_', '-')}.wav"
        write_audio(path, mixed.mixture, SAMPLE_RATE, subtype="PCM_16")
        found.append(Example(title, path, tuple(zip(mixed.parts, gains, strict=True)), sentence))
    return found
