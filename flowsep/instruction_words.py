"""The words of editing instructions: numbers, amounts of change, and the sounds that a phrase names. Needs no torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from flowsep.gains import MUTE

PLAIN_DB = 6.0  # "louder", "turn down"
SLIGHT_DB, STRONG_DB, FAINT_DB = 3.0, 12.0, -20.0  # "slightly", "a lot", "barely audible"


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


ONES = [
    *words("zero one two three four five six seven eight nine ten"),
    *words("eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"),
]
NUMBERS = {
    **{word: number for number, word in enumerate(ONES)},
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
}
NUMBER = r"\d+(?:\.\d+)?|\.\d+"
SLIGHT = (
    r"(?:ever so )?slightly|somewhat|(?:just )?a (?:little bit|little|bit|touch|tad|notch|hair)|a small amount|gently"
)
STRONG = (
    r"quite a (?:bit|lot)|a (?:whole )?lot|a great deal|lots|way|much|far|significantly|considerably|drastically|"
    r"substantially|greatly|strongly|heavily|dramatically|massively|really|very much"
)
DEGREE = rf"(?:{SLIGHT}|{STRONG}|moderately|noticeably)"
ABOUT = r"(?:(?:about|around|roughly|exactly|approximately|some|another|only|just) )?"
AMOUNT = (
    rf"(?:(?:by|to|at) )?{ABOUT}(?:[+-]?(?:{NUMBER})db|(?:{NUMBER})%|(?:{NUMBER})x)"
    rf"(?: of (?:its|their|the) (?:volume|level|loudness))?(?: each| both)?|"
    rf"(?:by|to) {ABOUT}[+-]?(?:{NUMBER})(?: each)?|in 0\.5x|{DEGREE}"
)


def canonical(sentence: str) -> tuple[str, list[str]]:
    """The sentence in lower case with numbers, units and quotation marks in one spelling, and the quoted texts.

    "six decibels" becomes 6db, "50 percent" 50%, "twice" 2x, "half" in an amount 0.5x; the quoted text number k is
    replaced by the word quoted-k, so that what it holds is not read.
    """
    quoted: list[str] = []

    def keep(match: re.Match[str]) -> str:
        quoted.append(" ".join(match[1].split()))
        return f"quoted-{len(quoted) - 1}"

    text = sentence.translate(str.maketrans("“”„‘’−–", '"""\'\'--'))
    text = re.sub(r'"([^"]*[^"\s][^"]*)"', keep, text).lower()
    text = re.sub(rf"\b({'|'.join(NUMBERS)})(?= ?(?:db|decibels?|percent|%|times|fold|-fold)\b)", digits, text)
    text = re.sub(r"\ba (decibel|db)\b", r"1 \1", text)
    text = re.sub(rf"\bfactor of ({'|'.join(NUMBERS)})\b", lambda m: f"factor of {NUMBERS[m[1]]}", text)
    text = re.sub(rf"([+-]?) ?({NUMBER})[ -]?(?:decibels?|db)\b", r" \1\2db", text)
    text = re.sub(r"\b(?:plus|minus) (?=[\d.]+db)", lambda m: "+" if m[0].startswith("plus") else "-", text)
    text = re.sub(rf"({NUMBER}) ?(?:percent|per cent|%)", r"\1%", text)
    text = re.sub(rf"(?:a factor of|factor) ({NUMBER})", r"\1x", text)
    text = re.sub(r"\btwice\b|\btwofold\b", "2x", text)
    text = re.sub(r"\bthreefold\b", "3x", text)
    text = re.sub(rf"({NUMBER})(?: times|x|[ -]?fold)(?!\w)", r"\1x", text)
    text = re.sub(r"\bfourfold\b", "4x", text)
    for part, factor in (("half", "0.5"), ("a third", "0.333333333"), ("a quarter", "0.25"), ("a fifth", "0.2")):
        text = re.sub(rf"(?<=\bby )(?:a )?{part}\b|(?<=\bin ){part}\b|(?<=\bto ){part}\b", f"{factor}x", text)
        text = re.sub(
            rf"\b{part}(?= as (?:loud|quiet)| the (?:volume|level|loudness)| (?:its|their) )", f"{factor}x", text
        )
    return " ".join(text.split()), quoted


def digits(match: re.Match[str]) -> str:
    """A number word in digits."""
    return str(NUMBERS[match[1]])


def decibels(factor: float) -> float:
    """A factor of the amplitude in dB; MUTE for 0."""
    return 20 * math.log10(factor) if factor > 0 else MUTE


def change_db(amount: str | None, sign: int) -> float | None:
    """The gain in dB of an `AMOUNT` with the direction `sign` (+1 louder, -1 quieter, 0 as it says itself).

    None where the two do not go together: half louder, down by 150 %, an amount without a direction.
    """
    if not amount:
        return sign * PLAIN_DB if sign else None
    said = re.sub(r" (?:each|both)$| of (?:its|their|the) \w+$", "", amount)
    if re.fullmatch(SLIGHT, said):
        return sign * SLIGHT_DB if sign else None
    if re.fullmatch(STRONG, said):
        return sign * STRONG_DB if sign else None
    if re.fullmatch(DEGREE, said):
        return sign * PLAIN_DB if sign else None
    found = re.fullmatch(rf"(?:(by|to|at|in) )?{ABOUT}([+-]?)({NUMBER})(db|%|x)?", said)
    if found is None:
        return None
    preposition, own_sign, value, unit = found[1], found[2], float(found[3]), found[4] or "db"
    if unit == "db":
        return decibel_change(value, own_sign, sign, preposition)
    if unit == "%":
        factor = value / 100 if preposition == "to" or not sign else 1 + sign * value / 100
        return decibels(factor) if factor > 0 else (MUTE if factor == 0 else None)
    if value <= 0:
        return None
    return factor_change(value, sign, preposition)


def decibel_change(value: float, own_sign: str, sign: int, preposition: str | None) -> float | None:
    """ "6 dB" with a direction, or "-6 dB" with its own; a direction wins over the sign that repeats it."""
    if own_sign and (preposition in ("to", "at") or not sign):
        return -value if own_sign == "-" else value
    if own_sign == "-" and sign > 0:
        return None  # "louder by -3 dB" is not guessed at
    if own_sign == "+" and sign < 0:
        return None
    if not sign:
        return value if preposition in ("to", "at") else None
    return sign * value


def factor_change(value: float, sign: int, preposition: str | None) -> float | None:
    """ "3x" louder, "by 0.5x" quieter, "to 0.25x": a fraction always makes quieter, but "by a third" takes it away."""
    if value < 1:
        if sign < 0 and preposition == "by":
            return decibels(1 - value)
        if sign > 0 and preposition == "by":
            return decibels(1 + value)
        return decibels(value)
    if preposition == "to":
        return decibels(value)
    return (sign or 1) * decibels(value)


@dataclass(frozen=True)
class Things:
    """What a phrase names: sounds, everything else, everything, all except some sounds, or what was named before."""

    kind: str  # sounds, rest, everything, except, pronoun
    texts: tuple[str, ...] = ()


DETERMINER = (
    r"(?:(?:both|all)(?: of)? (?:the|these|those) |both |all (?:of )?|"
    r"(?:the|an?|that|this|those|these|any|some|my|our|every) )"
)
ALL = (
    r"(?:everything|(?:all|every)(?: of)?(?: the)? (?:sounds?|audio|sources|tracks)|all|anything|all of it|everyone|"
    r"the (?:whole|entire|complete|full) (?:thing|mix|mixture|recording|track|audio|clip|file)|"
    r"(?:the )?(?:overall|total|master|general) (?:volume|level|loudness|sound)|the (?:mix|mixture|"
    r"recording|audio|volume|level|loudness))"
)
REST = (
    r"(?:(?:everything|all|anything|everyone|every sound|all the sounds?) (?:else|other)|the (?:rest|others?|"
    r"remainder)|"
    r"(?:all |any |every )?(?:of )?(?:the )?(?:other|remaining) (?:sounds?|noises?|sources|things|stuff|audio|"
    r"ones|tracks)|"
    r"all (?:the )?others|the rest of the (?:sounds?|recording|mix|mixture|audio|noises?|track|clip))"
)
EXCEPT = r"(?:except(?: for)?|besides|apart from|other than|aside from|excluding|that (?:is not|isn't|are not))"
PRONOUN = (
    r"(?:it|them|they|that|this|those|these|him|her|both|both of (?:them|these|those)|them (?:both|all)|it all|"
    r"(?:that|this|the) (?:one|sound|noise)|(?:these|those|the) (?:two|sounds))"
)
VOLUME = r"(?:the )?(?:overall )?(?:(?:sound )?(?:volume|level)|loudness|gain|intensity|amplitude) (?:of|for|on|from) "
WHERE = (
    r" (?:(?:from|in|of|out of|on|off|within|to|for) (?:the|this|that|my|our) (?:\w+ )?"
    r"(?:recording|mix|mixture|audio|clip|file|track|song|video|podcast|sound file|soundtrack|"
    r"background music mix|scene|sample)|"
    r"in here|in it|from it|"
    r"out of (?:there|here|it)|from there|completely|entirely|altogether|fully|totally|for me|as well|too|also|again|"
    r"right now|now|if (?:possible|you can)|in the end|at all|instead)"
)
# Words that no description of a sound holds: where one is left over, the sentence was not understood.
STRAY = frozenset(
    words(
        "i you we me us i'd i'm let's please can could would should must be don't not dont up down louder quieter "
        "softer mute muted remove removed extract isolate isolated only just except else everything then it them its "
        "db decibels volume level too more less keep instead rather unless if when whenever until after before during "
        "between second seconds minute minutes possible"
    )
)
# Nor does one begin with a command.
COMMANDS = frozenset(
    words(
        "make turn add put give set take get raise lower boost amplify increase decrease reduce eliminate erase delete "
        "bring convert translate transcribe apply normalise normalize find tell leave isolate separate export save "
        "send change removing muting making keeping extracting lowering raising"
    )
)
# What may follow "with" or "speaking" after an "and", and so begins no other sound.
DESCRIBING = r"(?:with|who|whose|in an?|speaking|talking|singing)"
NO_MANNER = "(?:slightly|gently|only|kindly|finally|lastly|firstly|secondly|thirdly|additionally|significantly)"
ADVERB = rf"(?!{NO_MANNER}\b)\w+ly"
TRAIT = r"(?:(?:very |rather )?[\w-]+ )?(?:pitch|tempo|energy|emotion|voice|tone|speed|pace|volume|mood|accent)"
ATTRIBUTE = rf"(?:an? |the )?{TRAIT}|{ADVERB}|low|high|normal|fast|slow|loud|soft|sad|happy|angry"
LONGEST = 14  # words of one description


def things_of(phrase: str, quoted: list[str]) -> Things | None:
    """The sounds that a phrase like "the rain and the wind" names; None where it is no such phrase."""
    phrase = phrase.strip(" ,:")
    phrase = re.sub(rf"^(?:{VOLUME})", "", phrase)
    while (shorter := re.sub(rf"{WHERE}$", "", phrase)) != phrase:
        phrase = shorter
    phrase = re.sub(r"(?:'s?|s') (?:volume|level|loudness)$", "", phrase)
    phrase = re.sub(r"^(?:its|their|his|her) (?:volume|level|loudness|gain)$", "it", phrase)
    if re.fullmatch(PRONOUN, phrase):
        return Things("pronoun")
    if re.fullmatch(REST, phrase):
        return Things("rest")
    if re.fullmatch(ALL, phrase):
        return Things("everything")
    found = re.fullmatch(rf"(?:{ALL}|{REST}),? {EXCEPT} (.+)", phrase)
    if found:
        texts = sounds_of(found[1], quoted)
        return Things("except", texts) if texts else None
    texts = sounds_of(phrase, quoted)
    return Things("sounds", texts) if texts else None


def sounds_of(phrase: str, quoted: list[str]) -> tuple[str, ...] | None:
    """The descriptions in a list with commas, "and" and the like; None where one cannot be the name of a sound."""
    pieces = re.split(r",? (?:as well as|along with|together with|and also|and|plus) |, | & ", phrase)
    joined: list[str] = []
    for piece in pieces:
        piece = piece.strip(" ,")
        described = joined and re.search(rf" {DESCRIBING}\b", joined[-1])
        if described and re.fullmatch(ATTRIBUTE, piece):
            joined[-1] += f" and {piece}"
        elif piece:
            joined.append(piece)
    texts = [bare(piece) for piece in joined]
    if not texts or not all(plausible(text) for text in texts):
        return None
    restored = [re.sub(r"quoted-(\d+)", lambda m: quoted[int(m[1])], text) for text in texts]
    return tuple(dict.fromkeys(restored))


def bare(piece: str) -> str:
    """A description without article and "sound of"."""
    piece = re.sub(rf"^(?:{DETERMINER})+", "", piece)
    piece = re.sub(r"^(?:sounds?|noises?) (?:of|from|made by) ", "", piece)
    return re.sub(r"^(?:the|a|an|some|any) ", "", piece).strip(" ,:")


def plausible(text: str) -> bool:
    """Whether a text can be the description of a sound: words, none of them one of instructions, not too many."""
    parts = words(text)
    if not 0 < len(parts) <= LONGEST or STRAY & set(parts) or parts[0] in COMMANDS:
        return False
    if re.search(r"\d(?:db|%|x)(?!\w)|\bby \d", text) or not re.search(r"\w", text):
        return False
    if re.match(r"(?!\w+ing )[\w-]+ (?:the|an?|my|our|this|that) ", f"{text} "):
        return False  # a verb of no instruction: "paint the cat blue"
    if {"is", "are", "was", "were"} & set(parts) and not {"who", "that", "which"} & set(parts):
        return False
    return not re.fullmatch(rf"(?:{PRONOUN}|{REST}|{ALL}|the|an?|volume|sounds?|(?:to|of|for|by|with) .*)", text)
