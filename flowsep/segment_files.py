"""Segments of activity as JSON, as a table, and as labels of the Audacity editor."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowsep.activity import SegmentRule, segments_of
from flowsep.atomic import atomic_output
from flowsep.audio import Audio
from flowsep.errors import InputError
from flowsep.files import SCHEMA_VERSION, LoadedModel, describe_input, describe_params, describe_timing, versions
from flowsep.longform import Heard, Progress, listen
from flowsep.protocol import SampleOptions

COLUMNS = ("start", "end", "text", "level_db", "share_db")


def describe_segments(
    model: LoadedModel,
    audio: Audio,
    texts: Sequence[str],
    rule: SegmentRule,
    options: SampleOptions,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """When each text is active in `audio`, with the rule, every setting and versions; errors as `find_segments`."""
    clock = time.perf_counter()
    heard = listen(model.separator, audio.samples, audio.sample_rate, texts, options, progress)
    found = segments_of(heard, model.separator, audio.seconds, rule)
    seconds = time.perf_counter() - clock
    queries = []
    for text, segments in zip(texts, found, strict=True):
        active = round(sum(segment.end - segment.start for segment in segments), 6)
        queries.append({"query": text, "active_s": active, "segments": [asdict(segment) for segment in segments]})
    return {
        "schema_version": SCHEMA_VERSION,
        "input": describe_input(audio),
        "queries": queries,
        "rule": asdict(rule),
        "params": describe_params(model, options, _Run.of(heard)),
        "timing": describe_timing(model, heard.seconds, seconds, audio),
        "model": {"id": model.id, "hash": model.hash},
        "versions": versions(),
    }


@dataclass(frozen=True)
class _Run:
    """The network calls of all queries together, and the settings, which are the same for all."""

    nfe: int
    settings: dict[str, Any]
    windows: int

    @classmethod
    def of(cls, heard: Heard) -> _Run:
        return cls(sum(heard.nfe), heard.settings[0], heard.windows)


def formatted(document: dict[str, Any], suffix: str) -> str:
    """The text of a .json, .csv (start, end, text, level_db, share_db) or .txt (Audacity labels) file.

    Labels are lines of start, end and text with tabs between. In both tables the segments stand in order of time.
    """
    if suffix == ".json":
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    rows = [{"text": query["query"], **segment} for query in document["queries"] for segment in query["segments"]]
    rows.sort(key=lambda row: (row["start"], row["end"]))
    if suffix == ".txt":
        return "".join(f"{row['start']:.6f}\t{row['end']:.6f}\t{row['text']}\n" for row in rows)
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def write_segments(path: Path, document: dict[str, Any], overwrite: bool = False) -> None:
    """Write `document` in the format that the suffix of `path` names, whole or not at all; InputError if it cannot."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {path.parent}: {error.strerror or error}; choose another with -o") from error
    with atomic_output(path, overwrite) as temporary:
        temporary.write_text(formatted(document, path.suffix.lower()), encoding="utf-8")
