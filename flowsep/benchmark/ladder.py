"""The ladder: the whole chain with one measure after the other switched on, timed in turns in one process."""

from __future__ import annotations

import copy
import ctypes
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flowsep.benchmark.ceilings import measure_ceilings
from flowsep.benchmark.latency import Note, Workload, describe_settings, prepare, silent
from flowsep.benchmark.machine import describe_machine
from flowsep.benchmark.report import SCHEMA_VERSION, about_machine, seconds, table
from flowsep.benchmark.timing import quantile, synchronise
from flowsep.protocol import SampleOptions
from flowsep.separator import LatentSeparator
from flowsep.text import TextEncoder
from vocoder.measures import PLAIN, Measures, using
from vocoder.mel import log_mel

STAGES = ("encode", "text", "sampler", "decode", "render")
TEXT = "a sound to compare"
PR_SET_THP_DISABLE = 41  # of prctl(2)


@dataclass(frozen=True)
class Rung:
    """A way to run the chain."""

    name: str
    measures: Measures
    huge_pages: bool
    dtype: torch.dtype = torch.float32


def rungs(guidance: float) -> list[Rung]:
    """From plain float32 upwards, each with one measure more; then bfloat16: plain, with all of these, with its own.

    The two measures of the text, 1 % each, are one step. That of guidance is there only where there is some.
    """
    names = {"+framed": ["framed"], "+winograd": ["winograd"], "+products": ["products"], "+gated": ["gated"]}
    names["+text"] = ["trimmed", "text_once"]
    if guidance != 1:
        names["+paired"] = ["paired"]
    steps, chosen = [Rung("plain", PLAIN, False), Rung("+huge pages", PLAIN, True)], PLAIN
    for name, fields in names.items():
        chosen = replace(chosen, **dict.fromkeys(fields, True))
        steps.append(Rung(name, chosen, True))
    half = torch.bfloat16
    steps += [Rung("plain bfloat16", PLAIN, False, half), Rung("bfloat16, all of these", chosen, True, half)]
    for field, name in {"blocked": "+blocked attention", "channels_last": "+channels last"}.items():
        chosen = replace(chosen, **{field: True})
        steps.append(Rung(name, chosen, True, half))
    return steps


@contextmanager
def huge_pages(wanted: bool) -> Iterator[None]:
    """Let Linux give pages of 2 MiB within this context, or not; the `flowsep` command has torch ask for them.

    It makes no difference elsewhere, nor where the administrator never gives any.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_THP_DISABLE, int(not wanted), 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0)


@torch.inference_mode()
def measure_ladder(
    separator: LatentSeparator, name: str, work: Workload, budget: float, guidance: float = 1.0, note: Note = silent
) -> dict[str, Any]:
    """The report: seconds of each rung and its stages, and how far its result is from the plain one.

    All rungs run once, then all again, so that what else the machine does meets each alike: at least twice, and on
    until `budget` seconds per rung are used or the workload's repeats done. Weights, mixture, text and noise are the
    same for all. `separator` is in float32; a copy of it is made in bfloat16.
    """
    note("ceilings")
    ceilings = {str(dtype): measure_ceilings(separator.device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    ladder = rungs(guidance)
    models = {torch.float32: separator, torch.bfloat16: copy.deepcopy(separator).to(torch.bfloat16)}
    mixture, options = prepare(separator, work)
    options = replace(options, guidance=guidance)
    for rung in {rung.dtype: rung for rung in ladder}.values():  # the last of each: it has the most to set up
        note(f"{rung.name}: first run, one step")
        run_rung(rung, models[rung.dtype], mixture, separator.resolve(replace(options, steps=1, grid=None)))
    samples: dict[str, list[dict[str, float]]] = {rung.name: [] for rung in ladder}
    results: dict[str, Tensor] = {}
    started, rounds = time.perf_counter(), 0
    while rounds < work.repeats:
        spent = time.perf_counter() - started
        if rounds >= 2 and spent * (rounds + 1) / rounds > budget * len(ladder):
            break
        rounds += 1
        for rung in ladder:
            note(f"round {rounds}, {rung.name}")
            found, results[rung.name] = run_rung(rung, models[rung.dtype], mixture, options)
            samples[rung.name].append(found)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "latency-ladder",
        "settings": {**describe_settings(separator, name, work, options), "guidance": guidance, "rounds": rounds},
        "ceilings": ceilings,
        "rows": [row_of(rung, samples, results, separator) for rung in ladder],
        "machine": describe_machine(),
    }


def run_rung(
    rung: Rung, separator: LatentSeparator, mixture: Tensor, options: SampleOptions
) -> tuple[dict[str, float], Tensor]:
    """Seconds of the whole run and its stages, and the target (B, T). The text is never a known one."""
    text = separator.text
    separator.text = TextEncoder(text.model, text.tokenizer, text.config)
    with using(rung.measures), huge_pages(rung.huge_pages):
        synchronise(separator.device)
        began = time.perf_counter()
        found = separator.separate(mixture, [TEXT] * len(mixture), options)
        synchronise(separator.device)
        whole = time.perf_counter() - began
    return {"whole": whole, **found.seconds}, found.target.float().cpu()


def row_of(
    rung: Rung, samples: dict[str, list[dict[str, float]]], results: dict[str, Tensor], separator: LatentSeparator
) -> dict[str, Any]:
    """Medians over the rounds; the ratio to the plain path is the median of the ratios within each round."""
    own, plain = samples[rung.name], samples["plain"]
    ratios = [base["whole"] / mine["whole"] for base, mine in zip(plain, own, strict=True)]
    target, expected = results[rung.name], results["plain"]
    error = target - expected
    mels = [log_mel(wave, separator.mel) for wave in (target, expected)]
    power = (expected.square().mean() / error.square().mean().clamp(min=1e-30)).item()
    return {
        "name": rung.name,
        "dtype": str(rung.dtype).removeprefix("torch."),
        "measures": {**asdict(rung.measures), "huge_pages": rung.huge_pages},
        "samples": [sample["whole"] for sample in own],
        "median": quantile([sample["whole"] for sample in own], 0.5),
        "stages": {stage: quantile([sample[stage] for sample in own], 0.5) for stage in STAGES},
        "speedup": quantile(ratios, 0.5),
        "max_error": error.abs().max().item(),
        "peak": expected.abs().max().item(),
        "snr_db": None if rung.name == "plain" else 10 * torch.tensor(power).log10().item(),
        "log_mel_l1": (mels[0] - mels[1]).abs().mean().item(),
    }


def ladder_lines(report: dict[str, Any]) -> list[str]:
    """The ladder as Markdown."""
    chosen = report["settings"]
    headings: Sequence[str] = ["", "end to end", "against plain", *STAGES, "max error", "SNR", "log-mel L1"]
    rows = []
    for row in report["rows"]:
        snr = "-" if row["snr_db"] is None else f"{row['snr_db']:.0f} dB"
        errors = [f"{row['max_error']:.1e}", snr, f"{row['log_mel_l1']:.4f}"]
        stages = [seconds(row["stages"][stage]) for stage in STAGES]
        rows.append([row["name"], seconds(row["median"]), f"{row['speedup']:.2f}x", *stages, *errors])
    rates = ", ".join(f"{dtype.removeprefix('torch.')} {c['gflops']:.4g}" for dtype, c in report["ceilings"].items())
    return [
        f"{chosen['model']}: batch {chosen['batch']}, {chosen['steps']} steps, guidance {chosen['guidance']:g}, "
        f"{chosen['render']} rendering; medians of {chosen['rounds']} rounds",
        about_machine(report),
        f"matrix product, GFLOP/s: {rates}; peak of the plain waveform {report['rows'][0]['peak']:.3g}",
        "",
        *table(headings, rows),
    ]
