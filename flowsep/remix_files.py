"""One audio file remixed onto the disk, with the JSON that says how."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from flowsep.atomic import atomic_outputs
from flowsep.audio import AudioFile
from flowsep.blocks import Facts, scan
from flowsep.files import (
    SCHEMA_VERSION,
    LoadedModel,
    describe_input,
    describe_params,
    describe_timing,
    versions,
    write_sidecar,
    written_as,
)
from flowsep.naming import MixJob
from flowsep.outputs import OutputFile, finish_together
from flowsep.references import described
from flowsep.remixing import RemixBlock, RemixStream, remix_stream
from flowsep.requests import finite, mix_request
from flowsep.settings import FileSettings
from flowsep.windows import Progress


def remix_file(
    model: LoadedModel,
    job: MixJob,
    recording: AudioFile,
    verb: str,
    rest: float,
    settings: FileSettings,
    overwrite: bool = False,
    progress: Progress | None = None,
    facts: Facts | None = None,
) -> dict[str, Any]:
    """Remix (or, with the verb remove, relieve of sounds) a file and write outputs and sidecar together.

    `rest` is the gain in dB of what the job's gains do not name. Where the job names files for them, the parts as they
    were in the recording and the rest are written, too, and add up to it. Returns the sidecar document. Errors as
    `remix_stream` and `flowsep.atomic.atomic_outputs`.
    """
    clock = time.perf_counter()
    facts = facts or scan(recording)
    spans, rows = settings.spans_inside, settings.rows
    stream = remix_stream(model.separator, recording, job.gains, rest, settings.options, progress, spans, rows)
    stream.stream.facts = facts
    about = written_as(job.format, settings, recording, facts, model.separator.mel.fmax)
    with (
        atomic_outputs(job.folder, job.paths(), overwrite) as staging,
        closing(MixOutputs(staging, job, verb, *about)) as outputs,
    ):
        for block in stream.blocks():
            outputs.add(block)
        outputs.finish()
        if job.video is not None:
            from flowsep.media import replace_audio

            replace_audio(recording, outputs.remix.temporary, staging / job.video.name)
        document = {
            "schema_version": SCHEMA_VERSION,
            "input": describe_input(recording, facts),
            **describe_remix(stream, job, verb, outputs),
            "params": {
                **describe_params(model, settings, stream.account, sum(stream.account.nfe), outputs.remix),
                "masks": "model" if stream.account.own_masks else "level ratio",
            },
            "scores": {"sum_error_db": stream.sum_error_db()},
            "timing": describe_timing(model, stream.account, time.perf_counter() - clock, recording, facts),
            "model": {"id": model.id, "hash": model.hash},
            "request": mix_request(job, verb, rest, settings),
            "versions": versions(),
        }
        write_sidecar(staging / job.sidecar.name, document)
    return document


class MixOutputs:
    """The files of one remix while they are written: the remix and, where asked for, the parts and the rest."""

    def __init__(self, staging: Path, job: MixJob, verb: str, *about: Any) -> None:
        self.texts = list(job.gains)
        self.remix = OutputFile(staging / job.output.name, job.output, verb, *about)
        roles = [*("part" for _ in job.parts[1:]), "rest"]
        self.parts = [
            OutputFile(staging / path.name, path, role, *about) for path, role in zip(job.parts, roles, strict=False)
        ]

    def add(self, block: RemixBlock) -> None:
        """Write the next stretch. The rest is what the written parts leave, so that the files add up."""
        self.remix.add(block.remix)
        if self.parts:
            left = block.mixture
            for file, part in zip(self.parts, block.parts, strict=False):
                left = left - file.add(part)
            self.parts[-1].add(left)

    def finish(self) -> None:
        """Complete the files; a scaled remix does not scale the parts."""
        finish_together([self.remix])
        if self.parts:
            finish_together(self.parts)

    def close(self) -> None:
        """Let go of the files, whatever state they are in."""
        for file in (self.remix, *self.parts):
            file.close()

    def describe(self) -> list[dict[str, Any]]:
        """Their entries in the sidecar, the remix first."""
        parts = [
            {**file.describe(), "query": text} for file, text in zip(self.parts, [*self.texts, None], strict=False)
        ]
        return [self.remix.describe(), *parts]


def describe_remix(stream: RemixStream, job: MixJob, verb: str, outputs: MixOutputs) -> dict[str, Any]:
    """What was done, by its verb and as it was understood, and the files that it was written to."""
    return {
        verb: describe_gains(stream, job.gains),
        **described(job.references),
        **({"instruction": job.instruction} if job.instruction is not None else {}),
        "outputs": outputs.describe(),
        "video": str(job.video) if job.video is not None else None,
        "sidecar": str(job.sidecar),
    }


def describe_gains(stream: RemixStream, gains: dict[str, float]) -> dict[str, Any]:
    """Each part with its gain in dB (null where muted), level in the input and presence; the rest likewise."""
    *levels, rest_level = stream.levels_db()
    parts = [
        {"query": text, "gain_db": finite(gain), "rms_db": level, "presence": presence}
        for (text, gain), level, presence in zip(gains.items(), levels, stream.account.presence, strict=True)
    ]
    return {"parts": parts, "rest": {"gain_db": finite(stream.rest), "rms_db": rest_level}}
