"""`--reference [TEXT=]CLIP`: files that say by example what a description means. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowsep.errors import InputError, UsageError
from flowsep.gains import shown, tidied

OPTION = "--reference"
AUDIO = "audio_encoder"  # the part of a model folder that hears them
BY_EXAMPLE = "USS (flowsep convert uss), AudioSep or the DCASE baseline (flowsep convert audiosep|dcase)"
NAMED = 3  # clips in the name of a query without words


@dataclass(frozen=True)
class Reference:
    """One clip of a sound."""

    path: Path
    sha256: str  # of the file's bytes


References = Mapping[str, Sequence[Reference]]  # by the text that the clips stand for


def parse_references(arguments: Sequence[str], texts: Sequence[str]) -> dict[str, tuple[Reference, ...]]:
    """Arguments "CLIP" or "TEXT=CLIP" -> the clips of each text.

    `texts` are the other queries of the command. Clips without a text are of the only one there is; without any they
    are a query of their own, called "like" and their names. A name that is a file is no TEXT=. UsageError where it is
    open which sound a clip is of, InputError for a clip that is not there.
    """
    named: dict[str, list[Path]] = {}
    unnamed = []
    spelled = {text.casefold(): text for text in texts}
    for argument in arguments:
        text, sign, path = argument.partition("=")
        if not sign or Path(argument).is_file():
            unnamed.append(Path(argument))
            continue
        text = tidied(text, OPTION)
        named.setdefault(spelled.setdefault(text.casefold(), text), []).append(Path(path))
    if unnamed:
        if len(spelled) > 1:
            raise UsageError(
                f'{OPTION} {unnamed[0]}: of which sound? There are several; write {OPTION} "TEXT={unnamed[0]}"'
            )
        [text] = spelled.values() or [name_of(unnamed)]
        named.setdefault(text, []).extend(unnamed)
    return {text: tuple(reference(path) for path in paths) for text, paths in named.items()}


def name_of(clips: Sequence[Path]) -> str:
    """What a query without words is called: like bell, bell 2."""
    stems = [clip.stem for clip in clips[:NAMED]]
    return f"like {', '.join(stems)}" + (f" and {len(clips) - NAMED} more" if len(clips) > NAMED else "")


def reference(path: Path) -> Reference:
    """A clip with the hash of its file; InputError where it cannot be read."""
    from flowsep.audio import refuse_unreadable
    from flowsep.files import sha256

    refuse_unreadable(path)
    return Reference(path, sha256(path))


def all_texts(texts: Sequence[str], references: References) -> list[str]:
    """The texts, then those that only references name."""
    return [*texts, *(text for text in references if text not in texts)]


def refuse_unused(references: References, texts: Iterable[str]) -> None:
    """UsageError for references of a text that is none of the queries."""
    asked = set(texts)
    for text in references:
        if text not in asked:
            raise UsageError(f"{OPTION}: no query is called {shown(text)}; name the sound as the query does")


def of_texts(references: References, texts: Iterable[str]) -> dict[str, tuple[Reference, ...]]:
    """The references of these texts alone."""
    return {text: tuple(references[text]) for text in texts if text in references}


def described(references: References) -> dict[str, Any]:
    """For the sidecar: nothing where there are none, otherwise path and hash of each clip by text."""
    if not references:
        return {}
    clips = {text: [{**asdict(one), "path": str(one.path)} for one in clips] for text, clips in references.items()}
    return {"references": clips}


def read_references(request: Mapping[str, Any], beside: Path) -> dict[str, tuple[Reference, ...]]:
    """The references of a sidecar's request; InputError for clips that are gone or no longer what they were.

    Clips may have moved into the folder `beside`.
    """
    from flowsep.files import sha256

    found = {}
    for text, clips in request.get("references", {}).items():
        paths = [Path(clip["path"]) for clip in clips]
        places = [path if path.is_file() else beside / path.name for path in paths]
        for path, place, clip in zip(paths, places, clips, strict=True):
            if not place.is_file():
                raise InputError(f"the reference {path} is not there, nor in {beside}; put it back")
            if sha256(place) != clip["sha256"]:
                raise InputError(f"{place} is no longer the reference that was heard: its content differs")
        found[text] = tuple(Reference(place, clip["sha256"]) for place, clip in zip(places, clips, strict=True))
    return found
