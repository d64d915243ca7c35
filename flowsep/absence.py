"""`--fail-if-absent`: which of the described sounds a run judged not to be there. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from flowsep.errors import SoundAbsent, UsageError
from flowsep.gains import shown

THRESHOLD = 0.5  # of the probability that a sound is there
NO_SCORE = "has no presence score, which --fail-if-absent needs; calibrate the model first (flowsep calibrate MODEL)"


def need_score(separator: object, id: str) -> None:
    """UsageError for a separator that was never calibrated."""
    if getattr(separator, "presence", None) is None:
        raise UsageError(f"{id} {NO_SCORE}")


def refuse_absent(documents: Sequence[dict[str, Any]], threshold: float) -> None:
    """SoundAbsent where a query of any sidecar document (or that of segments) has a score below `threshold`.

    A file of which no window was asked, a silent one say, holds no sound. UsageError for documents of a model without
    a score: outputs that were made before it was calibrated and are kept.
    """
    absent = []
    for document in documents:
        for text, score in presence_scores(document):
            if score is None and document["params"]["windows"] > document["params"]["skipped_windows"]:
                raise UsageError(f"{document['sidecar']} {NO_SCORE} and --overwrite")
            if (score or 0.0) < threshold:
                absent.append(f"{shown(text)} in {document['input']['path']} ({score or 0:.2f})")
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise SoundAbsent(
            f"judged absent, below {threshold:g}: {', '.join(absent[:3])}{more}; "
            "all outputs are written; use other words, or a lower --fail-if-absent"
        )


def presence_scores(document: dict[str, Any]) -> Iterator[tuple[str, float | None]]:
    """Query and score of each sound that the user named; failed files have none."""
    if "query" in document:
        yield document["query"], document["scores"]["presence"]
    yield from ((one["query"], one.get("presence")) for one in document.get("queries", ()))
    named = document.get("instruction", {}).get("edits")
    for verb in ("remix", "remove", "edit"):
        for part in document.get(verb, {}).get("parts", ()):
            if named is None or any(edit["text"] == part["query"] for edit in named):
                yield part["query"], part.get("presence")
