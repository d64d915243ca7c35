"""One audio file remixed onto the disk, with the JSON that says how."""

from __future__ import annotations

import time
import warnings
from typing import Any

from torch import Tensor

from flowsep.atomic import atomic_outputs
from flowsep.audio import SUBTYPES, Audio, AudioWarning, write_audio
from flowsep.files import (
    SCHEMA_VERSION,
    LoadedModel,
    decibels,
    describe_input,
    describe_params,
    describe_timing,
    output,
    versions,
    write_sidecar,
)
from flowsep.gains import MUTE, MixSettings
from flowsep.longform import Progress
from flowsep.naming import MixJob
from flowsep.protocol import SampleOptions
from flowsep.remixing import Remix, remix


def remix_file(
    model: LoadedModel,
    job: MixJob,
    audio: Audio,
    settings: MixSettings,
    options: SampleOptions,
    format: str = "wav",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Remix `audio` and write output and sidecar together once both are complete; returns the sidecar document.

    Errors as `remix` and `flowsep.atomic.atomic_outputs`.
    """
    clock = time.perf_counter()
    found = remix(model.separator, audio.samples, audio.sample_rate, settings.gains, settings.rest, options, progress)
    seconds = time.perf_counter() - clock
    samples, clipping = fit(found.audio, job.output.name, settings.clip, format)
    with atomic_outputs(job.folder, job.paths(), overwrite) as staging:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AudioWarning)  # `fit` has told of clipping
            write_audio(staging / job.output.name, samples, audio.sample_rate, format)
        document = {
            "schema_version": SCHEMA_VERSION,
            "input": describe_input(audio),
            settings.verb: describe_gains(found),
            "outputs": [{**output(settings.verb, job.output, samples), "clipping": clipping}],
            "sidecar": str(job.sidecar),
            "params": {
                **describe_params(model, options, found, format),
                "masks": "model" if found.own_masks else "level ratio",
            },
            "scores": {"sum_error_db": found.sum_error_db},
            "timing": describe_timing(model, found.seconds, seconds, audio),
            "model": {"id": model.id, "hash": model.hash},
            "versions": versions(),
        }
        write_sidecar(staging / job.sidecar.name, document)
    return document


def fit(samples: Tensor, name: str, clip: str, format: str) -> tuple[Tensor, dict[str, Any]]:
    """Samples (C, T) as they are to be written, and the report on their peak; an AudioWarning above full scale.

    The report: the policy, the peak in dBFS before anything was done, the scaling in dB, and how many samples the
    format clips.
    """
    peak = float(samples.abs().max())
    integer = SUBTYPES[format] not in ("FLOAT", "DOUBLE")
    report = {"policy": clip, "peak_dbfs": round(decibels(peak), 2), "scale_db": 0.0, "clipped_samples": 0}
    if peak <= 1:
        return samples, report
    if clip == "scale":
        report["scale_db"] = round(-decibels(peak), 4)
        done = f"the output is turned down by {decibels(peak):.2f} dB"
        samples = (samples / peak).clamp(-1, 1)
    elif integer:
        report["clipped_samples"] = int((samples.abs() > 1).sum())
        done = f"{report['clipped_samples']} samples are clipped; --clip scale turns it down, --format wav keeps it"
    else:
        done = "float wav keeps it, players clip it; --clip scale turns it down"
    warnings.warn(
        f"{name}: peak {report['peak_dbfs']:+.2f} dBFS is above full scale: {done}", AudioWarning, stacklevel=3
    )
    return samples, report


def describe_gains(found: Remix) -> dict[str, Any]:
    """Each part with its gain in dB (null where muted) and its level in the input; the rest likewise."""
    parts = [
        {"query": text, "gain_db": finite(gain), "rms_db": level}
        for (text, gain), level in zip(found.gains.items(), found.levels_db[:-1], strict=True)
    ]
    return {"parts": parts, "rest": {"gain_db": finite(found.rest), "rms_db": found.levels_db[-1]}}


def finite(gain: float) -> float | None:
    """A gain for JSON, which has no infinity."""
    return None if gain == MUTE else gain
