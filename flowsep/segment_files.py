"""Segments of activity as JSON, as a table, and as labels of the Audacity editor."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowsep.activity import Segment, SegmentRule, segments_of
from flowsep.atomic import atomic_output
from flowsep.audio import AudioFile
from flowsep.blocks import Facts, scan
from flowsep.errors import InputError
from flowsep.files import SCHEMA_VERSION, LoadedModel, describe_input, describe_params, describe_timing, versions
from flowsep.longform import separate_stream
from flowsep.settings import FileSettings
from flowsep.windows import Progress

COLUMNS = ("start", "end", "text", "level_db", "share_db")


def describe_segments(
    model: LoadedModel,
    recording: AudioFile,
    texts: Sequence[str],
    rule: SegmentRule,
    settings: FileSettings,
    progress: Progress | None = None,
    facts: Facts | None = None,
) -> dict[str, Any]:
    """When each text is active in a file, with the rule, every setting and versions; errors as `separate_stream`.

    Times are seconds of the file, also where only a stretch of it was read.
    """
    clock = time.perf_counter()
    facts = facts or scan(recording)
    spans, rows = settings.spans_inside, settings.rows
    stream = separate_stream(model.separator, recording, texts, settings.options, progress, spans, rows)
    stream.facts = facts
    found = segments_of(stream, rule)
    queries = []
    for text, segments, presence in zip(texts, found, stream.account.presence, strict=True):
        active = round(sum(segment.end - segment.start for segment in segments), 6)
        placed = [{**asdict(segment), **moved(segment, settings.start)} for segment in segments]
        queries.append({"query": text, "active_s": active, "presence": presence, "segments": placed})
    account = stream.account
    return {
        "schema_version": SCHEMA_VERSION,
        "input": describe_input(recording, facts),
        "queries": queries,
        "rule": asdict(rule),
        "params": describe_params(model, settings, account, sum(account.nfe)),
        "timing": describe_timing(model, account, time.perf_counter() - clock, recording, facts),
        "model": {"id": model.id, "hash": model.hash},
        "versions": versions(),
    }


def moved(segment: Segment, start: float) -> dict[str, float]:
    """Start and end of a segment of a stretch that begins at `start` seconds of the file."""
    return {"start": round(segment.start + start, 6), "end": round(segment.end + start, 6)}


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
