"""One clause of an editing instruction, "turn the rain down by 6 dB", as an operation on things. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from flowsep.gains import MUTE
from flowsep.instruction_words import (
    ABOUT,
    AMOUNT,
    DEGREE,
    FAINT_DB,
    NUMBER,
    STRONG,
    Things,
    change_db,
    decibels,
    things_of,
    words,
)


@dataclass(frozen=True)
class Operation:
    """What a clause does to the things that it names; `mention` only names them, for a pronoun to come."""

    action: str  # extract, remove, keep, untouched, gain, mention
    things: Things
    gain_db: float = 0.0  # of the action gain


def either(*phrases: str) -> str:
    """A pattern for any of the phrases, the longest first."""
    return "(?:" + "|".join(sorted(phrases, key=len, reverse=True)) + ")"


VERBS = {
    "up": either(
        *words("raise boost amplify increase lift strengthen enhance emphasise emphasize accentuate magnify up"),
        *(f"{verb} up" for verb in words("turn bring push crank pump bump dial pull move fade ramp")),
        *("bring out", "turn way up"),
    ),
    "down": either(
        *words("lower reduce decrease attenuate soften quiet quieten duck fade dampen damp diminish weaken lessen dim"),
        *(f"{verb} down" for verb in words("turn bring tone dial pull push fade move bump quiet calm hush")),
        *("turn way down",),
    ),
    "remove": either(
        *words("remove eliminate delete erase drop cut strip mute silence kill lose discard ditch scrap suppress omit"),
        *words("exclude subtract block dump banish nix unmix denoise"),
        *(f"{verb} out" for verb in words("take cut filter strip throw wipe leave edit block clear clean get mute")),
        *(f"{verb} away" for verb in words("take strip throw clear")),
        *(f"{verb} off" for verb in words("turn switch shut")),
        *("get rid of", "do away with", "rid this of", "remove away", "clean up"),
    ),
    "extract": either(
        *words("extract isolate separate solo retrieve"),
        *(f"{verb} out" for verb in words("separate pull single pick lift solo isolate filter-in")),
        *(
            f"{verb} (?:only|just|solely|nothing except)"
            for verb in words("keep leave retain preserve extract isolate")
        ),
        *(f"(?:only|just|solely) {verb}" for verb in words("keep leave retain preserve extract isolate")),
        *("(?:give|get|play|show)(?: me)? (?:only|just)", "(?:only|just) (?:hear|want|listen to|play|give me|need)"),
        *("let me (?:only |just )?hear (?:only|just)", "let me (?:only|just) hear"),
        "(?:only |just )?(?:hear|listen to) (?:only|just)",
    ),
    "keep": either("keep", "leave", "retain", "preserve", "maintain", "hold on to", "save"),
    "mention": either(*words("find locate identify detect take"), "there(?: is| are|'s)", "i (?:can )?hear"),
}
SPLIT = {  # "turn X down": verb, particle -> direction
    either("turn", "bring", "push", "crank", "pump", "bump", "dial", "pull", "move", "fade", "ramp"): {
        "up": "up",
        "down": "down",
        "off": "remove",
    },
    either("tone", "calm", "quiet"): {"down": "down"},
    either("take", "cut", "filter", "strip", "throw", "wipe", "leave", "edit", "block", "get", "clear", "mute"): {
        "out": "remove",
        "away": "remove",
    },
    either("switch", "shut"): {"off": "remove"},
    either("separate", "pull", "single", "pick", "lift"): {"out": "extract"},
    "bring": {"out": "up"},
}
FACTORS = {"double": 2.0, "triple": 3.0, "treble": 3.0, "quadruple": 4.0, "halve": 0.5}
OUT_OF = r"(?: of (?:there|here|it|this|that|the (?:mix|mixture|recording|audio|track|clip|file)))?"
BE = r"(?:(?:should|must|needs? to|has to|have to|ought to|could|can|to|shall|might|will)(?: please)? be|is to be|be) "
LOUDER = r"(?:louder|more audible|more prominent|clearer|higher|stronger|up)"
QUIETER = r"(?:quieter|softer|fainter|lower|less loud|less prominent|less noisy|more quiet|calmer|weaker|down)"
DONE = {  # participles and states after a sound
    "remove": r"(?:removed|muted|gone|deleted|erased|eliminated|silenced|(?:cut|taken|filtered|stripped) out|"
    r"taken away|"
    r"turned off|silent|inaudible|disappear|vanish|go away|off|out|mute)",
    "extract": r"(?:isolated|extracted|separated|only|alone|(?:on|by) (?:its|his|her|their) own|and nothing else|"
    r"in isolation)",
    "keep": r"(?:kept|preserved|retained|left)",
    "untouched": r"(?:alone|as (?:it is|they are|is|it was|before)|unchanged|untouched|intact|the same|"
    r"like (?:it is|they are))",
    "up": r"(?:raised|boosted|amplified|increased|turned up|brought up|stand out)",
    "down": r"(?:lowered|reduced|decreased|attenuated|turned down|brought down|softened|quiet|soft)",
}
TOO = r"(?:is|are|sounds?|seems?|feels?|'s) (?:(?P<much>way|far|much|really) |(?P<bit>a (?:bit|little)|slightly) )?too "
SIGN = {"up": 1, "down": -1}

GERUNDS = {"cutting": "cut", "getting": "get", "stripping": "strip", "dropping": "drop", "omitting": "omit"}
GERUNDS |= {"scrapping": "scrap", "dimming": "dim", "letting": "let", "setting": "set", "putting": "put"}
for verbs in VERBS.values():
    for first in re.findall(r"[a-z]{3,}", verbs):
        GERUNDS.setdefault(f"{first.removesuffix('e')}ing", first)
GERUNDS |= {"turning": "turn", "making": "make", "giving": "give", "doubling": "double", "halving": "halve"}
GERUNDS |= {"muting": "mute", "freeing": "free", "tripling": "triple", "leaving": "leave"}

ASKING = (
    r"(?:(?:can|could|would|will|won't|might|may|should) (?:you|we|i|somebody|someone)(?: all)?(?: please|"
    r" possibly| maybe| just| "
    r"kindly| perhaps)*(?: mind| be able to| have| try to| help me(?: to)?)?|"
    r"(?:is|would) it (?:be )?(?:possible|ok|okay|feasible) (?:for you )?(?:to|if you)|is there (?:any |a |"
    r"some )?way (?:for you )?"
    r"(?:(?:you|we|i|that you) )?(?:could|can|to)|(?:i|we) (?:really |just )?(?:want|need|wish|prefer|(?:would|"
    r"'d) (?:really )?"
    r"(?:like|love|prefer))(?: you| for you| it if you)?(?: to(?! be\b))?|(?:i|we)'d (?:really )?(?:like|love|"
    r"prefer)(?: it if)?(?: for)?"
    r"(?: you)?(?: to(?! be\b))?|i would appreciate it if you(?: could| would)?|do me a favou?r and|"
    r"be so kind (?:as )?to|i need you to|"
    r"go ahead and|let's|let us|try to|try|help me(?: to)?|make sure (?:that )?(?:you|to)|how about|what about|"
    r"what if (?:you|we)|"
    r"your task is to|you (?:should|must|can|could)|we should|i think(?: that)?|are you able to|"
    r"do you think you (?:can|could)|"
    r"what (?:does|would|will) (?:it|this|that) sound like|play (?:it|this|that)(?: back)?|start by|begin by|"
    r"and finish by|"
    r"the task is to|i'm hoping to|i am hoping to|i'm trying to|it would be (?:nice|great|good|"
    r"lovely) (?:if you (?:could )?|to))"
)
FILLER = (
    r"(?:please|kindly|and|also|then|first|firstly|second|secondly|third|next|finally|lastly|after that|"
    r"afterwards|now|ok|okay|"
    r"hi|hello|hey|hi there|hey there|dear computer|thanks|thank you|so|well|just(?= \w+ (?:the|all))|but|"
    r"or rather|maybe|"
    r"perhaps|instead|meanwhile|additionally|in addition|furthermore|at the same time|while|whereas|otherwise|"
    r"um|uh|yes)"
)
TAIL = (
    r"(?:please|thanks|thank you|thanks a lot|thank you very much|thanks so much|for me|as well|too|if you can|"
    r"if possible|"
    r"if you would|would you|will you|ok|okay|cheers|now)"
)


def trimmed(clause: str) -> str:
    """The clause without politeness and fillers at its ends, a gerund after them as a plain verb."""
    before = None
    asked = False
    while before != clause:
        before = clause
        clause = re.sub(rf"^{FILLER}(?:[, ]+|$)", "", clause)
        clause = re.sub(rf"(?:^|[, ]+){TAIL}$", "", clause)
        shorter = re.sub(rf"^{ASKING} ", "", clause)
        asked |= shorter != clause
        clause = shorter.strip(" ,:")
    first, _, others = clause.partition(" ")
    if (
        first in GERUNDS
        and others
        and (asked or re.match(r"the |a |an |all |every|it |them |up |down |out ", f"{others} "))
    ):
        clause = f"{GERUNDS[first]} {others}"
    determiner = "(?:the|a|an|my|this|that|these|those|all|everything)"
    return re.sub(rf"^(?:could|can|would|should|may|might) (?={determiner} )", "", clause)


def clause_operation(clause: str, quoted: list[str]) -> Operation | None:
    """What one clause asks for; None where it cannot be read."""
    clause = trimmed(clause)
    clause = re.sub(r"^(.*?\b(?:everything|all(?: the)? sounds?)) (.+?),? (except(?: for)? .+)$", r"\1 \3 \2", clause)
    same = r"\b(?:do not|don't|dont|never|without) (?:touch|change|alter|modify|affect|edit|touching|changing) "
    clause = re.sub(same, "%same ", clause)
    for rule in RULES:
        found = rule(clause, quoted)
        if found is not None:
            return found
    return None


def operation(action: str, phrase: str, quoted: list[str], gain: float | None = 0.0) -> Operation | None:
    """An operation on what `phrase` names, if it names anything and there is a gain; one of MUTE removes."""
    things = things_of(phrase, quoted)
    if things is None or gain is None:
        return None
    if action == "gain" and gain == MUTE:
        action = "remove"
    return Operation(action, things, gain if action == "gain" else 0.0)


def changed(direction: str, phrase: str, amount: str | None, quoted: list[str]) -> Operation | None:
    """An action, or a gain in a direction; removing by an amount is turning down."""
    if direction == "remove" and amount:
        direction = "down"
    if direction in SIGN:
        return operation("gain", phrase, quoted, change_db(amount, SIGN[direction]))
    return None if amount else operation(direction, phrase, quoted)


def by_state(clause: str, quoted: list[str]) -> Operation | None:
    """ "leave X alone", "don't touch X", "don't remove X"."""
    found = re.fullmatch(rf"(?:leave|keep) (.+?) {DONE['untouched']}", clause) or re.fullmatch(r"%same (.+)", clause)
    found = found or re.fullmatch(rf"(?:don't|do not) {VERBS['remove']} (.+)", clause)
    return operation("untouched", found[1], quoted) if found else None


def by_wish(clause: str, quoted: list[str]) -> Operation | None:
    """ "I don't want to hear X", "no more X", "a bit less X", "I can't hear X", "hear X on its own"."""
    wants = r"(?:i (?:don't|do not|never) (?:want|like)(?: to (?:hear|have))?|i'd rather not hear|i hate|i can't stand)"
    found = re.fullmatch(rf"(?:{wants}|no more|no|without|stop) (?:any |hearing )?(.+?)(?: any ?more)?", clause)
    if found:
        return operation("remove", found[1], quoted)
    found = re.fullmatch(rf"(?:({DEGREE}) )?(more|less) (.+)", clause)
    if found:
        return changed("up" if found[2] == "more" else "down", found[3], found[1], quoted)
    cannot = r"i (?:can't|cannot|can not|can (?:barely|hardly|scarcely)) hear"
    found = re.fullmatch(rf"{cannot} (.+?)(?: (?:well|properly|clearly))?", clause)
    found = found or re.fullmatch(r"hear (.+) (?:better|more|more clearly|more loudly)", clause)
    if found:
        return changed("up", found[1], None, quoted)
    found = re.fullmatch(r"(?:(?:give|get) me|hear|listen to) (.+?)", clause)
    named = found and re.sub(rf" {DONE['extract']}$", "", found[1])
    return operation("extract", named, quoted) if named else None


def by_only(clause: str, quoted: list[str]) -> Operation | None:
    """ "only X", "X only", "everything except X"."""
    found = re.fullmatch(r"(?:only|just|solely|nothing except) (.+)", clause)
    found = found or re.fullmatch(rf"(.+?),? {DONE['extract']}", clause)
    if found:
        inner = re.sub(rf"^{either('keep', 'leave', 'have', 'play', 'want', 'hear')} ", "", found[1])
        return operation("extract", inner, quoted)
    things = things_of(re.sub(r"^(?:keep|leave|play|give me) ", "", clause), quoted)
    return Operation("keep", things) if things and things.kind == "except" else None


def by_dose(clause: str, quoted: list[str]) -> Operation | None:
    """ "add 3 dB to X", "take 3 dB off X", "-6 dB on X", "give X 3 dB more", "set X to 30%"."""
    number = rf"(?P<n>{NUMBER})db"
    for sign, pattern in (
        (1, rf"(?:add|apply|give|put) (?:{ABOUT})\+?{number} (?:to|on|of gain to|more to) (?P<x>.+)"),
        (-1, rf"(?:take|cut|remove|subtract|shave|knock) {ABOUT}-?{number} (?:off|from|off of|out of) (?P<x>.+)"),
        (-1, rf"(?:apply |add |put )?-{number} (?:on|to|for|of gain to|off) (?P<x>.+)"),
        (1, rf"\+{number} (?:on|to|for) (?P<x>.+)"),
        (1, rf"give (?P<x>.+?) (?:an? (?:extra )?)?(?:boost of )?\+?{number}(?: more| extra| boost)?"),
    ):
        found = re.fullmatch(pattern, clause)
        if found:
            return operation("gain", found["x"], quoted, sign * float(found["n"]))
    boost = r"(?:a|some) (?:(?P<little>little|slight|small) |(?P<big>big|huge|strong) )?(?:boost|more volume)"
    found = re.fullmatch(rf"give (.+?) {boost}", clause)
    if found:
        return changed("up", found[1], "a little" if found["little"] else "a lot" if found["big"] else None, quoted)
    number = rf"(?:to|at|by) {ABOUT}[+-]?(?:{NUMBER})(?:db|%|x)?"
    found = re.fullmatch(rf"(?:set|scale|multiply|put|change|adjust|gain) (.+?) ({number})", clause)
    if found is None:
        return None
    amount = found[2]
    if not re.search(r"db$|%$|x$", amount):
        return operation("gain", found[1], quoted, decibels(float(re.findall(NUMBER, amount)[-1])))
    return operation("gain", found[1], quoted, change_db(amount.replace("by", "to") if "%" in amount else amount, 0))


def by_factor(clause: str, quoted: list[str]) -> Operation | None:
    """ "double X", "make X 3x louder", "X half as loud"."""
    found = re.fullmatch(rf"({'|'.join(FACTORS)}) (.+)", clause)
    if found:
        return operation("gain", found[2], quoted, decibels(FACTORS[found[1]]))
    found = re.fullmatch(
        rf"(?:make |get |have |let |turn |play )?(.+?) (?:{BE})?({NUMBER})x (?:as )?(loud|louder|the (?:volume|"
        rf"level|loudness)|"
        rf"quiet|quieter|softer|lower|higher)(?: as (?:it is|before|now|they are))?",
        clause,
    )
    if found is None:
        return None
    quiet = found[3] in ("quiet", "quieter", "softer", "lower")
    return operation("gain", found[1], quoted, decibels(float(found[2])) * (-1 if quiet else 1))


def by_verb(clause: str, quoted: list[str]) -> Operation | None:
    """ "turn down X by 6 dB", "slightly raise X", "get rid of X", "turn X up a little"."""
    found = re.match(rf"({DEGREE}) (?=\w)", clause)
    if found and not re.match(r"(?:more|less|too)\b", clause[found.end() :]):
        clause = f"{clause[found.end() :]} {found[1]}"
    for verbs, particles in SPLIT.items():
        for particle, direction in particles.items():
            found = re.fullmatch(
                rf"{verbs} (.+?) (?:(way|right|all the way) )?{particle}{OUT_OF}(?: ({AMOUNT}))?", clause
            )
            result = found and changed(direction, found[1], found[3] or (found[2] and STRONG_WORD), quoted)
            if result:
                return result
    if re.match("there |i ", clause):
        clause = re.sub(r" (?:in|from) the (?:back|fore)ground$", "", clause)
    for direction, verbs in VERBS.items():
        found = re.fullmatch(rf"{verbs} (.+?)(?:,? ({AMOUNT}))?", clause)
        result = found and changed(direction, found[1], found[2], quoted)
        if result:
            return result
    return None


def by_predicate(clause: str, quoted: list[str]) -> Operation | None:
    """ "make X quieter by 3 dB", "X down 6 dB", "X should be removed", "X is too loud", "X +3 dB"."""
    verb = "(?:make|get|have|let|leave|set|put|move|want)"
    make = rf"(?:{verb} )?(.+?)(?: (?:{BE.strip()}|should|must|needs to|has to|go|to be))?"
    for sign, louder in ((1, LOUDER), (-1, QUIETER)):
        found = re.fullmatch(rf"{make} (?:({AMOUNT}) )?{louder}(?: ({AMOUNT}))?", clause)
        result = found and operation("gain", found[1], quoted, change_db(found[2] or found[3], sign))
        if result:
            return result
    for sign, loud in ((-1, r"(?:loud|noisy|high|strong|prominent)"), (1, r"(?:quiet|soft|faint|low|weak)")):
        found = re.fullmatch(rf"(.+?) {TOO}{loud}", clause)
        if found:
            amount = STRONG_WORD if found["much"] else found["bit"]
            return operation("gain", found[1], quoted, change_db(amount, sign))
    faint = r"(?:(?:barely|hardly|scarcely|just) audible|(?:almost|nearly|practically) (?:silent|inaudible))"
    found = re.fullmatch(rf"{make} {faint}", clause)
    if found:
        return operation("gain", found[1], quoted, FAINT_DB)
    for action, done in DONE.items():
        found = re.fullmatch(rf"{make} {done}(?: ({AMOUNT}))?", clause)
        result = found and changed(action, found[1], found[2], quoted)
        if result:
            return result
    found = re.fullmatch(rf"(?:make )?(.+?) ?:? ([+-](?:{NUMBER})db)", clause)
    found = found or re.fullmatch(rf"(?:(?:turn|bring|move|put) )?(.+?) (?:to|at) ((?:{NUMBER})%)", clause)
    if found:
        amount = found[2] if "db" in found[2] else f"to {found[2]}"
        return operation("gain", found[1], quoted, change_db(amount, 0))
    found = re.fullmatch(r"(.+?) (?:should|must|has to|needs to) (?:go|leave|disappear)", clause)
    return operation("remove", found[1], quoted) if found else None


STRONG_WORD = "a lot"
assert re.fullmatch(STRONG, STRONG_WORD)
Rule = Callable[[str, list[str]], Operation | None]
RULES: tuple[Rule, ...] = (by_state, by_factor, by_dose, by_verb, by_wish, by_predicate, by_only)
