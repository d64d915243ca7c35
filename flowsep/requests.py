"""What was asked for, as the sidecar remembers it: to ask for the same again, and to know that it is done already."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowsep.gains import MUTE
from flowsep.naming import FileJob, Job, MixJob, QueryFiles
from flowsep.references import described
from flowsep.settings import FileSettings

SCHEDULE = ("rows",)  # settings that decide how fast and how exactly rounded, not what comes out


def separate_request(job: FileJob, query: QueryFiles, settings: FileSettings) -> dict[str, Any]:
    """For one query; `texts` are all that went through the model in one call."""
    kinds = {name: getattr(query, name) is not None for name in ("residual", "plot", "video")}
    about = {"verb": "separate", "text": query.text, "texts": job.texts, **kinds, **described(job.references)}
    return plain(about, job.format, settings)


def mix_request(job: MixJob, verb: str, rest: float, settings: FileSettings) -> dict[str, Any]:
    """For a remix, a removal or an edit; a gain of null mutes."""
    gains = {text: finite(gain) for text, gain in job.gains.items()}
    about = {"verb": verb, "gains": gains, "rest": finite(rest), "video": job.video is not None}
    about |= described(job.references)
    if job.instruction is not None:
        about["instruction"] = job.instruction
    if job.parts:
        about["parts"] = True
    return plain(about, job.format, settings)


def plain(about: dict[str, Any], format: str, settings: FileSettings) -> dict[str, Any]:
    """As JSON gives it back."""
    return json.loads(json.dumps({**about, "format": format, "settings": asdict(settings)}))


def finite(gain: float) -> float | None:
    """A gain for JSON, which has no infinity."""
    return None if gain == MUTE else gain


def done_before(
    job: Job, requests: list[dict[str, Any]], model_hash: Callable[[], str | None]
) -> list[dict[str, Any]] | None:
    """The sidecars of a job that was done before with these requests, one per sidecar; None where it was not.

    It was done where every sidecar asks for the same of an input with the same content and a model with the same
    weights, and all outputs are there. Seconds of reading the input are paid only where sidecars exist.
    """
    from flowsep.files import sha256

    found = [read_sidecar(path) for path in job.sidecars]
    if not all(found) or not all(path.is_file() for path in job.paths()):
        return None
    for document, request in zip(found, requests, strict=True):
        if not same_request(document.get("request"), request):
            return None
    try:
        content = sha256(job.source)
    except OSError:
        return None
    hashes = {document["input"]["sha256"] for document in found} | {content}
    models = {document["model"]["hash"] for document in found} | {model_hash()}
    return found if len(hashes) == len(models) == 1 else None


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """A sidecar document; None where the file is missing or none of ours."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        kinds = isinstance(document["request"], dict), document["input"]["sha256"], document["model"]["hash"]
        return document if kinds[0] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def same_request(one: Any, other: dict[str, Any]) -> bool:
    """Whether two requests ask for the same, whatever the schedule and the other queries of the call."""
    return isinstance(one, dict) and _essence(one) == _essence(other)


def _essence(found: dict[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in found.get("settings", {}).items() if key not in SCHEDULE}
    asked = [found["text"]] if "text" in found else found.get("gains", ())
    clips = {text: found["references"][text] for text in asked if text in found.get("references", ())}
    hashes = {text: [clip["sha256"] for clip in some] for text, some in clips.items()}  # wherever the clips lie
    rest = {key: value for key, value in found.items() if key not in ("texts", "references")}
    return {**rest, "settings": settings, "references": hashes}
