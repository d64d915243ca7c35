"""`--dry-run`: what a command would do, in windows, network calls, seconds and memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowsep.cli.batch import Batch
    from flowsep.naming import Job


def preview(batch: Batch, jobs: Sequence[Job]) -> None:
    """Print one line per file that is left to do, and the sum; nothing is written.

    Seconds and memory come from one window of noise that goes through the model here and now.
    """
    rows = [estimate(batch, job) for job in jobs]
    if batch.files.as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    width = max([len("file"), *(len(row["path"]) for row in rows)])
    print(f"{'file':{width}}  {'audio s':>9}  {'windows':>7}  {'NFE':>7}  {'seconds':>8}  {'memory':>9}")
    for row in rows:
        seconds, memory = f"{row['seconds']:8.1f}", f"{row['memory_bytes'] / 1e9:6.2f} GB"
        print(f"{row['path']:{width}}  {row['audio_s']:9.2f}  {row['windows']:7}  {row['nfe']:7}  {seconds}  {memory}")
    total = sum(row["seconds"] for row in rows) / batch.files.jobs
    print(f"{len(rows)} files to do, about {total:.0f} s; outputs would be, for the first:")
    for path in jobs[0].paths() if jobs else []:
        print(path)


def estimate(batch: Batch, job: Job) -> dict[str, Any]:
    """What one file would take."""
    from flowsep.budget import beside_model, try_one_window
    from flowsep.cli.batch import rows_for
    from flowsep.spans import touch
    from flowsep.windows import Plan

    recording, facts = batch.opened(job)
    loaded = batch.model(job)
    settings = rows_for(loaded, batch.running, batch.settings, recording, job.texts)
    cost = try_one_window(loaded, settings.options, job.texts[0])
    separator = loaded.separator
    rate = separator.sample_rate
    plan = Plan.of(separator, max(1, round(facts.frames * rate / recording.sample_rate)))
    asked = [
        index == 0 or touch(settings.spans_inside, start / rate, plan.end(index) / rate)
        for index, start in enumerate(plan.starts)
    ]
    calls = sum(asked) * len(job.texts)
    share = min(1.0, plan.length / separator.window)  # a short file is a short window
    at_once = min(settings.rows, calls * cost.candidates)
    beside = beside_model(recording.sample_rate, recording.channels, len(job.texts), at_once, separator.window / rate)
    return {
        "path": str(job.source),
        "audio_s": facts.frames / recording.sample_rate,
        "windows": sum(asked),
        "nfe": calls * cost.nfe,
        "seconds": round(calls * cost.seconds * share, 2),
        "memory_bytes": cost.peak(at_once, beside),
        "rows": settings.rows,
    }
