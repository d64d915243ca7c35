"""Instructions drawn from the grammars of Listen, Chat, and Remix (16 tasks) and HSM-TSS, with the edits they ask for.

An LCR edit gives each of two speakers and two sounds an action, 0 remove, 1 keep, U twice and D half the level; the
strings of the 16 tasks are derived from their rules. Prompts name a source only where its action needs it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

ADJECTIVES = (
    *("happy", "sad", "angry", "loud", "quiet", "energetic", "calm", "surprised"),
    *("fast-talking", "slow-talking", "high-pitched", "low-pitched"),
)
ENDS = (
    "",
    " with a high pitch",
    " with a low pitch and high energy",
    " who speaks fast",
    " with a low and sad voice",
    " speaking slowly and quietly",
    " with a fast tempo",
)
PEOPLE = ("female speaker", "male speaker", "woman", "man", "female voice", "male voice", "lady", "guy")
VGGSOUND = (  # class labels
    "dog barking|rain falling|playing acoustic guitar|people crowd|wind noise|baby laughter|cap gun shooting|"
    "car engine knocking|ripping paper|black capped chickadee calling|lathe spinning|mosquito buzzing|"
    "arc welding|ice cracking|mouse clicking|church bell ringing|playing double bass|driving buses|"
    "people sniggering|fire truck siren|sheep bleating|train horning|toilet flushing|tap dancing|hail|thunder|"
    "vacuum cleaner cleaning floors|cat purring|sea waves|bird chirping|skateboarding|"
    "typing on computer keyboard|helicopter|police car (siren)|splashing water|frog croaking|chainsawing trees|"
    "people eating crisps|opening or closing drawers|volcano explosion|playing the harp|chopping wood|"
    "strike lighter"
)
SOUNDS = VGGSOUND.split("|")
FRAMES = ("Please {}.", "I want to {}.", "Can you {}?", "{}", "Could you please {}?", "I'd like you to {}")
FRAMES += ("Would you {}, please?",)
DESCRIPTIONS = [*SOUNDS, "man talking over music", "dog barking in the distance", "water dripping into a bucket"]


@dataclass(frozen=True)
class Case:
    """An instruction, its task, and what it asks for: {text: (action, dB)} and dB of the rest."""

    task: str
    sentence: str
    edits: dict[str, tuple[str, float]]
    rest: float


def task_strings() -> dict[str, list[str]]:
    """The action strings of LCR's 16 tasks, derived from their rules; speech1, speech2, sound3, sound4."""
    one = {"up": "U", "down": "D"}
    tasks = {
        "TSE": ["1000", "0100"],
        "TAE": ["0010", "0001"],
        "TSR": ["0111", "1011"],
        "TAR": ["1101", "1110"],
        "SE": ["1100"],
        "SR": ["0011"],
        "HE": [a + b for a, b in product(("10", "01"), repeat=2)],
        **{f"TS-{w}": [f"{c}111", f"1{c}11"] for w, c in one.items()},
        **{f"TA-{w}": [f"11{c}1", f"111{c}"] for w, c in one.items()},
        "S-up": ["UUDD", "UU11", "11DD"],
        "S-down": ["DDUU", "11UU", "DD11"],
        "OVC": ["UUUU", "DDDD"],
    }
    listed = {string for strings in tasks.values() for string in strings}
    every = ["".join(actions) for actions in product("01UD", repeat=4)]
    changed = [string for string in every if set(string) & set("UD") and string not in listed]
    tasks["HVC"] = [string for string in changed if "0" not in string]
    tasks["RHVC"] = [string for string in changed if "0" in string]
    return tasks


def clause(action: str, name: str, draw: random.Random) -> str:
    """One action on a thing in words."""
    words = {
        "0": ("remove {}", "eliminate {}", "take away {}", "get rid of {}", "take {} out", "mute {}"),
        "only": ("extract {}", "only keep {}", "isolate {}", "keep only {}"),
        "1": ("keep {}", "leave {} as it is", "leave {} unchanged"),
        "D": ("turn down {}", "lower the volume of {}", "make {} quieter", "turn {} down", "reduce the volume of {}"),
        "U": ("turn up {}", "raise the volume of {}", "make {} louder", "turn {} up", "increase the volume of {}"),
        "D2": ("make {} half as loud", "halve the volume of {}", "lower {} by half", "reduce {} by 6 dB"),
        "U2": ("make {} twice as loud", "double the volume of {}", "amplify {} by a factor of two", "boost {} by 6 dB"),
    }
    return draw.choice(words[action]).format(name)


def wrapped(clauses: list[str], draw: random.Random) -> str:
    """Clauses as one request: please, I want to, can you, joined by commas and "and"."""
    *others, last = clauses
    joined = ", ".join(others) + draw.choice((" and ", ", and ")) + last if others else last
    sentence = draw.choice(FRAMES).format(joined)
    return sentence[0].upper() + sentence[1:]


def gain_of(action: str, words: str) -> tuple[str, float]:
    """The edit behind a letter; the words decide between 6 dB and a factor of two, which differ by 0.02 dB."""
    exact = 20 * math.log10(2) if any(word in words for word in ("half", "halve", "twice", "double", "factor")) else 6.0
    return {"0": ("remove", -math.inf), "1": ("keep", 0.0), "U": ("gain", exact), "D": ("gain", -exact)}[action]


def speakers(draw: random.Random) -> list[str]:
    """Two speakers who differ."""
    first, second = draw.sample(range(4), 2)
    made = []
    for kind in (first, second):
        adjective = draw.choice([*ADJECTIVES, "", ""])
        made.append(f"{adjective} {PEOPLE[2 * kind + draw.randrange(2)]}{draw.choice(ENDS)}".strip())
    return made


def lcr_case(task: str, string: str, draw: random.Random) -> Case:
    """A prompt for a string with names for its sources, or, for strings of a whole class, often for the class."""
    names = [*speakers(draw), *draw.sample(SOUNDS, 2)]
    if len(set(string)) == 1:
        return overall(task, string[0], draw)
    if string[0] == string[1] and string[2] == string[3] and draw.random() < 0.5:
        return by_class(task, string, draw)
    edits: dict[str, tuple[str, float]] = {}
    if set(string) == {"0", "1"} and string.count("1") <= 2 and draw.random() < 0.7:
        kept = [name for name, action in zip(names, string, strict=True) if action == "1"]
        edits = {name: ("extract", 0.0) for name in kept}
        return Case(task, wrapped([clause("only", listed(kept), draw)], draw), edits, -math.inf)
    groups: dict[str, list[str]] = {}
    for name, action in zip(names, string, strict=True):
        if action != "1" or draw.random() < 0.1:
            groups.setdefault(action, []).append(name)
    clauses = []
    for action, members in groups.items():
        kind = f"{action}2" if action in "UD" and draw.random() < 0.3 else action
        for part in [members] if draw.random() < 0.5 else [[member] for member in members]:
            words = clause(kind, listed(part), draw)
            clauses.append(words)
            edits |= {name: gain_of(action, words.replace(listed(part), "")) for name in part}
    return Case(task, wrapped(clauses, draw), edits, 0.0)


def listed(names: list[str]) -> str:
    """ "the a and the b"."""
    return " and ".join(f"the {name}" for name in names)


def by_class(task: str, string: str, draw: random.Random) -> Case:
    """All speech against all background sounds."""
    speech = draw.choice(("speech", "voices", "speakers"))
    sounds = draw.choice(("background sounds", "sound effects", "background noise"))
    clauses, edits, rest = [], {}, 0.0
    for name, action in ((speech, string[0]), (sounds, string[2])):
        if action == "1":
            continue
        words = clause(action, f"{draw.choice(('all ', 'all the ', 'the '))}{name}", draw)
        clauses.append(words)
        edits[name] = gain_of(action, words)
    if set(string) == {"0", "1"} and draw.random() < 0.5:
        kept = speech if string[0] == "1" else sounds
        clauses, edits, rest = [clause("only", f"all {kept}", draw)], {kept: ("extract", 0.0)}, -math.inf
    return Case(task, wrapped(clauses, draw), edits, rest)


def overall(task: str, action: str, draw: random.Random) -> Case:
    """The same for all sources."""
    name = draw.choice(("everything", "all sounds", "all the sounds", "the whole recording", "the overall volume"))
    kind = f"{action}2" if draw.random() < 0.3 and name != "the overall volume" else action
    words = clause(kind, name, draw)
    return Case(task, wrapped([words], draw), {}, gain_of(action, words)[1])


def hsm_case(draw: random.Random) -> Case:
    """Extract or remove one description, as HSM-TSS words it."""
    text = draw.choice(DESCRIPTIONS)
    extract = draw.random() < 0.5
    verbs = ("extract", "separate", "keep", "isolate") if extract else ("remove", "drop", "eliminate", "filter out")
    verb = draw.choice(verbs)
    name = draw.choice(("", "the ", "the sound of ", "the sounds of ")) + text
    where = draw.choice(("", " from the mixture", " from this audio", " from the recording", " from the audio clip"))
    edit = ("extract", 0.0) if extract else ("remove", -math.inf)
    return Case(f"HSM {edit[0]}", wrapped([f"{verb} {name}{where}"], draw), {text: edit}, -math.inf if extract else 0.0)


def generated(seed: int = 0, per_task: int = 120, hsm: int = 480) -> Iterator[Case]:
    """16 x `per_task` cases of LCR, cycling the strings inside a task, and `hsm` of HSM-TSS."""
    draw = random.Random(seed)
    for task, strings in task_strings().items():
        for number in range(per_task):
            at = number * len(strings) // per_task if len(strings) > per_task else number % len(strings)
            yield lcr_case(task, strings[at], draw)
    for _ in range(hsm):
        yield hsm_case(draw)
