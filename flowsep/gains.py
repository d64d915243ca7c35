"""Gains as words: "dog barking=-12" is 12 dB less of a dog barking, "dog barking=mute" none of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from flowsep.errors import UsageError

MUTE = -math.inf  # dB
LIMIT_DB = 60.0  # beyond it a gain is a slip of the finger
LONGEST_TEXT = 1000  # characters; every text model reads far less
EXAMPLE = 'write it like "dog barking=-12", "speech=+3" or "hum=mute"'


def parse_gains(arguments: Sequence[str]) -> dict[str, float]:
    """Arguments "text=dB" or "text=mute" -> dB by text, white space tidied, in order; MUTE (-inf) for mute.

    UsageError for a missing '=', a text that is empty, too long or given twice (in any case), a gain that is not a
    number, and one beyond +-60 dB.
    """
    gains: dict[str, float] = {}
    for argument in arguments:
        text, sign, gain = argument.rpartition("=")
        if not sign:
            raise UsageError(f"--gain {shown(argument)} has no '='; {EXAMPLE}")
        text = tidied(text, "--gain")
        refuse_twice([*gains, text], "--gain")
        gains[text] = parse_decibels(gain, f"--gain {shown(argument)}")
    return gains


def parse_decibels(value: str, option: str) -> float:
    """ "-12", "+3 dB", "0.5" or "mute" -> dB; UsageError that begins with `option` for anything else."""
    word = value.strip().replace("−", "-").casefold().removesuffix("db").strip()
    if word == "mute":
        return MUTE
    if re.fullmatch(r"[+-]?(inf|infinity)", word):
        raise UsageError(f"{option}: infinity is no gain; write mute to remove a sound")
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)", word):
        raise UsageError(f"{option}: {shown(value)} is not a number of dB; {EXAMPLE}")
    return float(word)


def check_gains(gains: Mapping[str, float], rest: float) -> None:
    """UsageError unless there is a gain, every text is one, and all gains and `rest` are dB within +-60, or MUTE."""
    if not gains:
        raise UsageError(f"no gain was given; {EXAMPLE}")
    for text in gains:
        tidied(text, "--gain")
    for name, gain in [*((f"--gain {shown(text)}", gain) for text, gain in gains.items()), ("--rest", rest)]:
        if gain != MUTE and not abs(gain) <= LIMIT_DB:  # NaN fails, too
            raise UsageError(f"{name}: {gain:g} dB is beyond +-{LIMIT_DB:g} dB; write mute to remove a sound")


def amplitude(gain: float) -> float:
    """The factor of a gain in dB: exactly 1 for 0 dB, 0 for MUTE."""
    return 10 ** (gain / 20)


def tidied(text: str, option: str) -> str:
    """The described sound with single spaces; UsageError that names `option` where it is empty or far too long."""
    if len(text) > LONGEST_TEXT:
        limit = f"at most {LONGEST_TEXT} are allowed"
        raise UsageError(f"{option} has a text of {len(text)} characters, {limit}; describe one sound in a sentence")
    if not text.strip():
        raise UsageError(f'{option} is empty; describe the sound, for example "a dog barking"')
    return " ".join(text.split())


def refuse_twice(texts: Sequence[str], option: str) -> None:
    """UsageError that names `option` where two texts differ in case at most."""
    seen: set[str] = set()
    for text in texts:
        if text.casefold() in seen:
            raise UsageError(f"{option} names {shown(text)} twice; name each sound once")
        seen.add(text.casefold())


def in_words(gain: float) -> str:
    """A gain for a file name: minus 12, plus 3, 0, mute."""
    if gain == MUTE:
        return "mute"
    return f"{'minus ' if gain < 0 else 'plus ' if gain > 0 else ''}{abs(gain):g}"


def gains_in_words(verb: str, rest: float, gains: Mapping[str, float]) -> str:
    """What a remix is named after: its verb and every gain that is asked for."""
    names = [*gains.items(), *([("rest", rest)] if rest != 0 else [])]
    return " ".join([verb, *(f"{text} {in_words(value)}" for text, value in names)])


def shown(text: str) -> str:
    """A text in quotes, cut to 40 characters, for a message."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
