"""An English instruction, "remove the dog, turn the rain down by 6 dB", as a list of edits. Needs no torch.

Deterministic: a sentence is split at commas and conjunctions into clauses, each of which a rule of
`flowsep.instruction_clauses` reads; what no rule reads is refused, never guessed at. The kinds of edits are those of
Listen, Chat, and Remix (keep, remove, volume up and down of each source) and of HSM-TSS (extract, remove).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from flowsep.errors import UsageError
from flowsep.gains import LIMIT_DB, MUTE, shown, tidied
from flowsep.instruction_clauses import Operation, clause_operation, trimmed
from flowsep.instruction_words import ADVERB, DESCRIBING, TRAIT, canonical, things_of

EVERYTHING = "everything"  # the query that stands in where only the whole recording is turned up or down
ADVICE = 'write it like "remove the dog, turn the rain down by 6 dB and keep the speech"; put odd names in "quotes"'


@dataclass(frozen=True)
class Edit:
    """One described sound and what becomes of it."""

    action: str  # extract, remove, keep or gain
    text: str  # the query
    gain_db: float  # MUTE of remove; 0 of keep and of a plain extract


@dataclass(frozen=True)
class Instruction:
    """What a sentence was understood to ask for."""

    sentence: str
    edits: tuple[Edit, ...]
    rest: float  # dB of all that the edits do not name, MUTE after extract and only

    def gains(self) -> dict[str, float]:
        """dB by query, for `flowsep.remixing.remix`; everything by one gain is a query with the gain of the rest."""
        return {edit.text: edit.gain_db for edit in self.edits} or {EVERYTHING: self.rest}

    def lines(self) -> list[str]:
        """What was understood, one line per edit and one for the rest."""
        named = [f"{edit.action} {edit.text!r}{in_brackets(edit)}" for edit in self.edits]
        return [*named, f"{'the rest' if named else EVERYTHING}: {spoken(self.rest)}"]

    def document(self) -> dict[str, Any]:
        """For JSON; a gain of null mutes."""
        edits = [{"action": e.action, "text": e.text, "gain_db": finite(e.gain_db)} for e in self.edits]
        return {"text": self.sentence, "edits": edits, "rest_db": finite(self.rest)}


def finite(gain: float) -> float | None:
    """A gain for JSON, which has no infinity."""
    return None if gain == MUTE else round(gain, 4)


def spoken(gain: float) -> str:
    """A gain for people."""
    return "muted" if gain == MUTE else "unchanged" if gain == 0 else f"{gain:+.4g} dB"


def in_brackets(edit: Edit) -> str:
    """The gain of an edit where its action does not say it."""
    return f" ({spoken(edit.gain_db)})" if edit.action in ("gain", "extract") and edit.gain_db != 0 else ""


def parse_instruction(sentence: str) -> Instruction:
    """The edits that an English sentence asks for.

    UsageError, in one line with what was not understood, for a sentence without edits, a clause that no rule reads, a
    pronoun before any sound, edits of one sound that contradict each other, and gains beyond +-60 dB.
    """
    sentence = tidied(sentence, "the instruction")
    text, quoted = canonical(sentence)
    draft = Draft()
    for part in sentences(text):
        for operation in operations(part, quoted):
            draft.apply(operation)
    return draft.finished(sentence)


def sentences(text: str) -> list[str]:
    """The parts between full stops, semicolons, "then" and "but", each a sentence by itself."""
    text = re.sub(r"\b(?:nothing|anything) (?:but|except|other than)\b", "only", text)
    text = re.sub(r",? \b(?:but|except|save for|apart from|other than)(?= )", but_is_except, text)
    text = re.sub(r"^all except|(?<=[ ,])all except", "everything except", text)
    text = re.sub(r": (?=[+-]?\d)", " ", text)
    borders = r"[!?;]+|\.(?!\d)|:(?= )|,? (?:and )?then (?=\w)|,? (?:but|while|whereas|and finally) "
    parts = re.split(borders, text)
    return [part.strip(" ,") for part in parts if part and part.strip(" ,")]


def but_is_except(match: re.Match[str]) -> str:
    """ "but" after everything or all means except."""
    if match[0].strip(" ,") != "but":
        return match[0] if match[0].strip(" ,").startswith("but") else " except"
    before = match.string[: match.start()]
    return " except" if re.search(r"\b(?:everything|all|all(?: the)?(?: other)? sounds?)$", before) else match[0]


def operations(part: str, quoted: list[str]) -> list[Operation]:
    """The operations of one sentence: the split into the most clauses that all can be read; UsageError without one."""
    pieces = re.split(r"(,? (?:and|as well as|plus) (?:also )?|, )", part)
    atoms = pieces[::2]  # the odd ones are what joins them

    @cache
    def read(first: int, last: int) -> Operation | None:
        joined = "".join(pieces[2 * first : 2 * last - 1])
        return clause_operation(joined, quoted) or bare_mention(joined, first, last, len(atoms), quoted)

    @cache
    def best(first: int) -> tuple[Operation, ...] | None:
        if first == len(atoms):
            return ()
        found: tuple[Operation, ...] | None = None
        for last in range(first + 1, min(len(atoms), first + LONGEST_LIST) + 1):
            if last == first + 1 and polite(atoms[first]):
                one: tuple[Operation, ...] = ()
            else:
                operation = read(first, last)
                if operation is None:
                    continue
                one = (operation,)
            if last < len(atoms) and goes_on(atoms[last - 1], atoms[last]):
                continue
            others = best(last)
            if one and one[0].action == "mention" and others and others[0].things.kind != "pronoun":
                continue
            if others is not None and (found is None or len(one) + len(others) > len(found)):
                found = one + others
        return found

    if len(atoms) > LONGEST_SENTENCE:
        raise UsageError(f"the instruction has more than {LONGEST_SENTENCE} parts in one sentence; use several")
    if (result := best(0)) is None:
        reached = max((last for last in range(1, len(atoms)) if read(0, last)), default=0)
        unread = re.sub(r"quoted-(\d+)", lambda match: f'"{quoted[int(match[1])]}"', "".join(pieces[2 * reached :]))
        raise UsageError(f"did not understand {shown(unread)}; {ADVICE}")
    return list(result)


LONGEST_LIST = 12  # atoms of one clause
LONGEST_SENTENCE = 60


def goes_on(before: str, after: str) -> bool:
    """Whether "and" joins attributes of one sound: "a low pitch" and "high energy", "slowly" and "quietly"."""
    return bool(re.search(rf" {DESCRIBING}\b", before) and re.match(rf"(?:{ADVERB}|{TRAIT})(?= |$)", after))


def polite(atom: str) -> bool:
    """Whether nothing but politeness is said."""
    return not trimmed(atom)


def bare_mention(phrase: str, first: int, last: int, count: int, quoted: list[str]) -> Operation | None:
    """ "the hammering, remove it": sounds named at the start of a sentence, for a pronoun in its next clause."""
    things = things_of(phrase, quoted) if first == 0 and last <= count else None
    named = things is not None and things.kind == "sounds" and re.match(r"(?:the|a|an|that|this|my|quoted) ?", phrase)
    return Operation("mention", things) if named else None


# What becomes of X where "everything except X" is removed, extracted, kept or changed.
OTHERS = {"remove": "extract", "extract": "remove", "keep": "remove", "gain": "untouched"}


@dataclass
class Draft:
    """The edits so far, in the order in which their sounds were named."""

    actions: dict[str, tuple[str, float]] = field(default_factory=dict)  # text -> action, gain
    rest: float | None = None
    named: tuple[str, ...] = ()  # what a pronoun refers to
    dangling: bool = False  # sounds were named with nothing said of them yet
    firm: set[str] = field(default_factory=set)  # sounds to be left as they are, rather than kept alone

    def apply(self, operation: Operation) -> None:
        """Add what one clause asks for."""
        things, action, gain = operation.things, operation.action, operation.gain_db
        if things.kind in ("rest", "everything"):
            self.apply_to_rest(action, gain, things.kind)
            return
        texts = self.named if things.kind == "pronoun" else things.texts
        if self.dangling and things.kind != "pronoun":
            self.refuse_dangling()
        if not texts:
            raise UsageError(f"it is not clear what a word such as 'it' stands for; name the sound; {ADVICE}")
        self.named, self.dangling = texts, action == "mention"
        if action == "mention":
            return
        if things.kind == "except":
            if action == "gain":
                self.set_rest(gain)
            action = OTHERS.get(action, action)
        for text in texts:
            self.put(text, action, gain)

    def apply_to_rest(self, action: str, gain: float, kind: str) -> None:
        """Set the gain of everything (else)."""
        if kind == "everything" and action in ("remove", "mention", "extract"):
            raise UsageError(f"nothing would be left, or nothing changed; {ADVICE}")
        if action == "remove":
            self.set_rest(MUTE)
        elif action == "gain":
            self.set_rest(gain)
        elif action == "extract":
            raise UsageError(f"the rest of what is to be extracted is not said; {ADVICE}")

    def set_rest(self, gain: float) -> None:
        """UsageError where it was set otherwise before."""
        if self.rest is not None and self.rest != gain:
            raise UsageError("the instruction says two things about the rest; say one")
        self.rest = gain

    def put(self, text: str, action: str, gain: float) -> None:
        """Set what becomes of one sound; a later gain refines an earlier one and an extraction."""
        text = next((known for known in self.actions if known.casefold() == text.casefold()), text)
        before, level = self.actions.get(text, (None, 0.0))
        if action == "untouched":
            self.firm.add(text)
            action, gain = "keep", 0.0
        if before is not None and before != action and "remove" in (before, action):
            raise UsageError(f"the instruction removes {shown(text)} and also keeps or changes it; say one")
        if action == "extract":
            self.set_rest(MUTE)
        if action in ("extract", "keep") and before == "gain":
            action, gain = "gain", level
        elif before == "extract" and action == "keep":
            action = "extract"
        self.actions[text] = (action, MUTE if action == "remove" else gain)

    def refuse_dangling(self) -> None:
        """UsageError for sounds that were named and nothing more."""
        raise UsageError(f"nothing is said to be done with {shown(', '.join(self.named))}; {ADVICE}")

    def finished(self, sentence: str) -> Instruction:
        """The instruction; kept sounds stand alone where nothing else is asked for or all else is muted."""
        if self.dangling:
            self.refuse_dangling()
        actions = {action for action, _ in self.actions.values()}
        if not actions and not self.rest:
            raise UsageError(f"the instruction asks for no change; {ADVICE}")
        if actions == {"keep"} and self.rest is None:
            if set(self.actions) <= self.firm:
                raise UsageError(f"the instruction asks for no change; {ADVICE}")
            self.rest = MUTE
        alone = self.rest == MUTE
        edits = [
            Edit("extract" if action == "keep" and alone else action, text, gain)
            for text, (action, gain) in self.actions.items()
        ]
        rest = self.rest or 0.0
        if not edits and rest == MUTE:
            raise UsageError(f"nothing would be left; {ADVICE}")
        check_limits([*(edit.gain_db for edit in edits), rest])
        return Instruction(sentence, tuple(edits), rest)


def check_limits(gains: Sequence[float]) -> None:
    """UsageError for a gain beyond +-60 dB that is no mute."""
    for gain in gains:
        if gain != MUTE and not abs(gain) <= LIMIT_DB:
            raise UsageError(f"{gain:+.4g} dB is beyond +-{LIMIT_DB:g} dB; remove the sound, or change it by less")
