"""The demo: an example mixture of two sounds that this project synthesises, separated by description.

Its sounds are drawn with seeds that training never uses (`flowsep.data.synth.DEMO_SEEDS`), so the model meets them for
the first time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from flowsep.atomic import refuse_unwritable
from flowsep.audio import open_audio, read_audio, write_audio
from flowsep.checkpoint import write_json
from flowsep.data.mixing import limit_together, mix_at_snr
from flowsep.data.synth import DEMO_SEEDS, SYNTH_KINDS, synthesise
from flowsep.errors import InputError, UsageError
from flowsep.evaluation.signal import si_sdr
from flowsep.files import LoadedModel, separate_file
from flowsep.naming import FileJob, Naming, Source, plan_outputs
from flowsep.protocol import SampleOptions
from flowsep.settings import FileSettings

KINDS = ("chirping_birds", "car_engine")
SECONDS = 8.0
SAMPLE_RATE = 16000  # Hz
MADE_BY = "flowsep demo"
RECORD = "demo.json"  # lists what an earlier demo wrote into the folder, and may be overwritten


@dataclass(frozen=True)
class Example:
    """A mixture (1, T) and its parts by description, at SAMPLE_RATE; mixture = sum of the parts."""

    mixture: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True)
class DemoRow:
    """What came out for one query: SI-SDR in dB against the part that went in, seconds, network calls."""

    query: str
    before: float
    after: float
    seconds: float
    nfe: int


@dataclass(frozen=True)
class DemoReport:
    """The rows of the table and the files, those of the example first."""

    rows: list[DemoRow]
    example: list[Path]
    separated: list[Path]
    figures: list[Path]


def build_example(seed: int = 0, kinds: tuple[str, str] = KINDS) -> Example:
    """Two kinds of `SYNTH_KINDS` at 0 dB SNR, 8 s; the same `seed` (0..499999) gives the same samples."""
    seeds = [DEMO_SEEDS.start + len(KINDS) * seed + index for index in range(len(KINDS))]
    if seed < 0 or seeds[-1] not in DEMO_SEEDS:
        raise UsageError(f"the demo's seed must be 0 to {len(DEMO_SEEDS) // len(KINDS) - 1}, not {seed}")
    first, second = (synthesise(kind, SECONDS, one, SAMPLE_RATE) for kind, one in zip(kinds, seeds, strict=True))
    mixture, second = mix_at_snr(first, second, snr_db=0.0)
    mixture, *parts = (torch.from_numpy(part)[None] for part in limit_together(mixture, first, second))
    return Example(mixture, dict(zip((SYNTH_KINDS[kind].captions[0] for kind in kinds), parts, strict=True)))


def run_demo(folder: Path, load: Callable[[], LoadedModel], seed: int = 0) -> DemoReport:
    """Write the example and what the model takes out of it into `folder`, and measure it.

    Goes through the same code as `flowsep separate`. Files of an earlier demo are replaced; anything else of the same
    name raises InputError before `load` is called.
    """
    example = build_example(seed)
    mixture = folder / "mixture.wav"
    [job] = plan_outputs([Source(mixture)], list(example.parts), Naming(folder), residual=True, plot=True)
    references = {
        query.text: query.target.with_name(query.target.name.replace("mixture", "reference", 1))
        for query in job.queries
    }
    claim(folder, [mixture, *references.values(), *job.paths()])
    write_audio(mixture, example.mixture, SAMPLE_RATE, overwrite=True)
    for text, path in references.items():
        write_audio(path, example.parts[text], SAMPLE_RATE, overwrite=True)
    model = load()
    rows = [_separate_one(model, job, index, example, SampleOptions(seed=seed)) for index in range(len(KINDS))]
    wavs = [path for query in job.queries for path in (query.target, query.residual) if path is not None]
    figures = [query.plot for query in job.queries if query.plot is not None]
    return DemoReport(rows, [mixture, *references.values()], wavs, figures)


def _separate_one(model: LoadedModel, job: FileJob, index: int, example: Example, options: SampleOptions) -> DemoRow:
    """Separate the example by one of the job's queries alone, so that its seconds are its own."""
    query = job.queries[index]
    audio = read_audio(job.source)
    alone, settings = replace(job, queries=(query,)), FileSettings(options)
    [document] = separate_file(model, alone, open_audio(job.source), settings, overwrite=True)
    reference = example.parts[query.text]
    estimate = read_audio(query.target).samples
    return DemoRow(
        query=query.text,
        before=float(si_sdr(audio.samples, reference)),
        after=float(si_sdr(estimate, reference)),
        seconds=document["timing"]["run_s"],
        nfe=document["params"]["nfe"],
    )


def claim(folder: Path, paths: list[Path]) -> None:
    """Make `folder` and record that the demo writes `paths` there.

    InputError where one of them exists that no earlier demo recorded, or the folder cannot be written.
    """
    refuse_unwritable(folder)
    record = folder / RECORD
    owned = _recorded(record)
    foreign = [path.name for path in (record, *paths) if os.path.lexists(path) and path.name not in owned]
    if foreign:
        raise InputError(f"{folder} holds {', '.join(foreign)}, not written by the demo; choose another folder with -o")
    names = sorted(owned | {path.name for path in (record, *paths)})
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}; choose another with -o") from error
    write_json(record, {"made_by": MADE_BY, "files": names})


def _recorded(record: Path) -> set[str]:
    """Names of the files that an earlier demo wrote; none where the record is missing or not the demo's."""
    try:
        document = json.loads(record.read_text())
        return set(document["files"]) if document["made_by"] == MADE_BY else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()
