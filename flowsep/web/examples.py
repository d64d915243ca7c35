"""Recordings to try the page with, synthesised when it starts: nothing is downloaded, and no recording is shipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowsep.audio import write_audio
from flowsep.demo import SAMPLE_RATE, build_example
from flowsep.naming import slug


@dataclass(frozen=True)
class Example:
    """A recording, and what to try on it."""

    title: str
    path: Path
    sound: str  # a description
    gain: float  # dB
    sentence: str


# Title, the two kinds of sound, which of them is meant, its gain in dB, and a sentence.
EXAMPLES = (
    ("Birds and an engine", ("chirping_birds", "car_engine"), 1, -60.0, "remove the car engine"),
    ("Whistling in the rain", ("whistling", "rain"), 1, -12.0, "keep only the whistling"),
    ("Siren and an engine", ("siren", "car_engine"), 0, -12.0, "turn the siren down by 12 dB"),
)


def render_examples(folder: Path) -> list[Example]:
    """Write all of `EXAMPLES` as wav files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for title, kinds, which, gain, sentence in EXAMPLES:
        mixed = build_example(kinds=kinds)
        path = folder / f"{slug(title)}.wav"
        write_audio(path, mixed.mixture, SAMPLE_RATE, subtype="PCM_16")
        found.append(Example(title, path, list(mixed.parts)[which], gain, sentence))
    return found
