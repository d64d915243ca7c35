"""What somebody asks for on the page, checked before any work: a recording within limits, and what is to become of it.

The words of an error are for people who have never seen the command line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsep.errors import InputError, UsageError
from flowsep.gains import LIMIT_DB, MUTE, check_gains, refuse_twice, tidied
from flowsep.instructions import parse_instruction
from flowsep.options import check_options
from flowsep.protocol import SampleOptions

if TYPE_CHECKING:
    from flowsep.audio import AudioFile

REMOVED = -LIMIT_DB  # dB: the lower end of a slider stands for none of the sound
LOUDEST = 24.0  # dB: its upper end
MOST_STEPS = 100


@dataclass(frozen=True)
class Limits:
    """What one person may ask for at a time."""

    minutes: float = 10.0
    megabytes: float = 100.0
    sounds: int = 8

    def check(self) -> None:
        """UsageError for limits that would let nothing through."""
        for name, value in (("--max-minutes", self.minutes), ("--max-megabytes", self.megabytes)):
            if not value > 0 or not math.isfinite(value):
                raise UsageError(f"{name} must be a number above 0, not {value:g}")

    @property
    def bytes(self) -> int:
        """The size of a file."""
        return int(self.megabytes * 1e6)


@dataclass(frozen=True)
class Order:
    """What is to become of a recording."""

    verb: str  # remix, or edit where it was said in a sentence
    gains: dict[str, float]  # dB by description, MUTE removes
    rest: float = 0.0  # dB of everything else
    options: SampleOptions = field(default_factory=SampleOptions)
    instruction: dict[str, Any] | None = None  # of edit, for the sidecar
    understood: tuple[str, ...] = ()  # of edit, for people


def checked_recording(path: Path, limits: Limits) -> tuple[AudioFile, float]:
    """The recording at `path` and its seconds.

    InputError, with the file's name alone, where it is missing, unreadable, empty or too large.
    """
    from flowsep.media import open_media

    try:
        size = path.stat().st_size
        if size > limits.bytes:
            raise InputError(
                f"{path.name} has {size / 1e6:.1f} MB, and this page takes up to {limits.megabytes:g}; "
                "save it as flac or mp3, or cut it"
            )
        recording = open_media(path)
        most, frames = round(60 * limits.minutes * recording.sample_rate), 0
        for block in recording.blocks():  # what a header says of the length need not be true
            frames += block.shape[-1]
            if frames > most:
                raise InputError(f"{path.name} is longer than the {limits.minutes:g} minutes that this page takes")
    except FileNotFoundError as error:
        raise InputError(f"{path.name} is no longer here; upload it again") from error
    except InputError as error:
        raise InputError(without_folder(error, path)) from error
    if not frames:
        raise InputError(f"{path.name} holds no samples")
    return recording, frames / recording.sample_rate


def without_folder(error: Exception, path: Path) -> str:
    """An error's text in which `path`, a temporary one that nobody knows, is only its name."""
    return str(error).replace(str(path), path.name)


def order_of_sounds(
    texts: Sequence[str | None],
    gains: Sequence[float | None],
    rest: float | None,
    options: SampleOptions,
    limits: Limits,
) -> Order:
    """Descriptions with the gain in dB of each; those that are empty do not count. UsageError where none is left."""
    wanted: dict[str, float] = {}
    for text, gain in zip(texts, gains, strict=True):
        if text and text.strip():
            text = tidied(text, "a description")
            refuse_twice([*wanted, text], "the list")
            wanted[text] = slider_gain(gain)
    if not wanted:
        raise UsageError('No sound is described yet; write for example "a dog barking"')
    return checked(Order("remix", wanted, slider_gain(rest), options), limits)


def order_of_sentence(sentence: str | None, options: SampleOptions, limits: Limits) -> Order:
    """What an English sentence asks for; UsageError with the words that were not understood."""
    if not sentence or not sentence.strip():
        raise UsageError('The sentence is empty; write for example "remove the dog and turn the rain down by 6 dB"')
    found = parse_instruction(sentence)
    order = Order("edit", found.gains(), found.rest, options, found.document(), tuple(found.lines()))
    return checked(order, limits)


def checked(order: Order, limits: Limits) -> Order:
    """The order; UsageError for too many sounds, and for gains and options that cannot be."""
    if len(order.gains) > limits.sounds:
        raise UsageError(
            f"{len(order.gains)} sounds are more than the {limits.sounds} that this page takes at once; "
            "take some first, and the others from the result"
        )
    check_gains(order.gains, order.rest)
    check_options(order.options)
    return order


def slider_gain(value: float | None) -> float:
    """The dB that a slider stands for: its lower end mutes."""
    if value is None or not math.isfinite(value):
        raise UsageError("A slider holds no number; move it")
    return MUTE if value <= REMOVED else float(value)


def sampling(steps: float | None, seed: float | None, defaults: SampleOptions) -> SampleOptions:
    """The options of the advanced drawer; the model's own number of steps is left to the model."""
    for name, value, least, most in (("steps", steps, 1, MOST_STEPS), ("seed", seed, 0, 2**32 - 1)):
        if value is not None and not (math.isfinite(value) and least <= value <= most and value == int(value)):
            raise UsageError(f"The {name} must be a whole number from {least} to {most}")
    chosen = None if steps is None or int(steps) == defaults.steps else int(steps)
    return SampleOptions(steps=chosen, seed=int(seed or 0))
