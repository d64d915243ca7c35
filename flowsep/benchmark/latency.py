"""Latency of a separator, stage by stage and end to end. Random weights will do: time does not depend on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from flowsep.benchmark.ceilings import measure_ceilings
from flowsep.benchmark.machine import describe_machine, device_name
from flowsep.benchmark.mask_stages import NETWORK as MASK_NETWORK
from flowsep.benchmark.mask_stages import TEXT, acquaint, encoder_of, read
from flowsep.benchmark.models import compile_parts
from flowsep.benchmark.report import SCHEMA_VERSION
from flowsep.benchmark.timing import Timing, count_gbyte, count_gflop, measure, peak_memory, reset_peak, synchronise
from flowsep.errors import UsageError
from flowsep.heard import Heard
from flowsep.masks.separator import MaskSeparator
from flowsep.protocol import SampleOptions
from flowsep.separator import LatentSeparator
from flowsep.unet import call_unet
from vocoder.measures import PLAIN, measures
from vocoder.mel import stft

WARMUP = 2  # calls that do not count
NETWORK, SAMPLER, TOTAL = "UNet, one call", "sampler", "end to end"
Separator = LatentSeparator | MaskSeparator
Note = Callable[[str], None]
Row = dict[str, Any]


def silent(line: str) -> None:
    """A note to nobody."""


@dataclass(frozen=True)
class Workload:
    """What is asked of the separator, and how often. None is the model's own: its window, its steps, its rendering."""

    seconds: float | None = None  # of audio
    steps: int | None = None
    batch: int = 1  # clips at once, each with a query of its own
    render: str | None = None
    repeats: int = 20
    compile: str | None = None  # a mode of torch.compile


@dataclass(frozen=True)
class Stage:
    """A part of the chain as a call on inputs made beforehand."""

    name: str
    call: Callable[[], Any]
    calls: int | None = 1  # in one run from end to end; None: as many as the solver makes
    module: nn.Module | None = None  # whose weights it reads
    inputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Whole:
    """Runs from end to end."""

    total: Timing
    laps: dict[str, Timing]  # by the separator's own stopwatch: mel, encode, text, sampler, decode, render
    nfe: int
    first: float  # seconds of the very first run: with compilation and what libraries set up once
    memory: dict[str, float | None]  # MiB at the peak over the counted runs


@torch.inference_mode()
def benchmark_latency(
    separator: Separator,
    name: str,
    work: Workload,
    load_seconds: float | None = None,
    note: Note = silent,
) -> dict[str, Any]:
    """The report: a row per stage, the sampler and the whole run; ceilings, memory, throughput and the machine.

    Every row has the seconds of its repeats, GFLOP, the gigabytes that its operations move one by one, and its floor:
    the time that its operations, or its weights, inputs and outputs moved once, take at the ceilings measured in the
    same run. The whole run is timed by the host's clock, as a user waits for it; stages on a GPU by CUDA events.
    Compiles the separator in place where the workload says so. Raises UsageError for a length over the window.
    """
    device, dtype = separator.device, separator.dtype
    note("ceilings")
    before = measure_ceilings(device, dtype)
    mixture, options = prepare(separator, work)
    stages = stages_of(separator, mixture, options)
    note("operations and bytes")
    counts = [count(stage) for stage in stages]  # of the eager path: compiled kernels cannot be counted
    if work.compile is not None and isinstance(separator, MaskSeparator):
        separator.network.compile(mode=work.compile, dynamic=False)
    elif work.compile is not None:
        compile_parts(separator, work.compile)
    note(TOTAL)
    whole = run_whole(separator, mixture, options, work.repeats)
    timings = []
    for stage in stages:
        note(stage.name)
        timings.append(measure(stage.call, device, work.repeats, WARMUP))
    after = measure_ceilings(device, dtype)
    ceilings = {name: max(before[name], after[name]) for name in before}  # other work on the machine only lowers them
    rows = []
    for stage, counted, timing in zip(stages, counts, timings, strict=True):
        calls = whole.nfe if stage.calls is None else stage.calls
        rows.append(finished(stage.name, calls, timing, counted, ceilings))
    parts = list(rows)
    if SAMPLER in whole.laps:  # a mask separator has none
        rows.append(summed(SAMPLER, whole.laps[SAMPLER], [row for row in parts if row["name"] == NETWORK], ceilings))
    rows.append(summed(TOTAL, whole.total, parts, ceilings))
    seconds = mixture.shape[-1] / separator.sample_rate
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "latency",
        "settings": {**describe_settings(separator, name, work, options), "audio_seconds": seconds, "nfe": whole.nfe},
        "parameters": sum(parameter.numel() for parameter in separator.parameters()),
        "load_s": load_seconds,
        "first_run_s": whole.first,
        "ceilings": {**ceilings, "before": before, "after": after},
        "rows": rows,
        "real_time_factor": whole.total.median / (seconds * work.batch),
        "clips_per_second": work.batch / whole.total.median,
        "peak_memory": whole.memory,
        "machine": describe_machine(),
    }


def prepare(separator: Separator, work: Workload) -> tuple[Tensor, SampleOptions]:
    """Random mixtures (B, T) and the options as resolved. UsageError for a length over the window."""
    longest = separator.window / separator.sample_rate
    if work.seconds is not None and work.seconds > longest:
        raise UsageError(f"the model sees {longest:g} s at once; give --seconds up to that, not {work.seconds:g}")
    samples = separator.window if work.seconds is None else round(work.seconds * separator.sample_rate)
    mixture = 0.1 * torch.randn(work.batch, samples, device=separator.device)
    return mixture, separator.resolve(SampleOptions(steps=work.steps, render=work.render))


def describe_settings(separator: Separator, name: str, work: Workload, options: SampleOptions) -> dict[str, Any]:
    """What was run and on what, as far as the separator and the workload know it."""
    return {
        "model": name,
        "class": type(separator).__name__,
        "device": str(separator.device),
        "device_name": device_name(separator.device),
        "dtype": str(separator.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "compile": work.compile,
        "plain": measures() == PLAIN,
        "batch": work.batch,
        "steps": options.steps,
        "solver": options.solver,
        "render": options.render,
    }


@torch.inference_mode()
def run_whole(
    separator: Separator,
    mixture: Tensor,
    options: SampleOptions,
    repeats: int,
    warmup: int = WARMUP,
) -> Whole:
    """Separate mixture (B, T) again and again. Every clip of every run has a query that the text encoder never met."""
    device = separator.device
    seconds: list[float] = []
    laps: dict[str, list[float]] = {}
    for run in range(warmup + repeats):
        if run == warmup:
            reset_peak(device)
        texts = [f"sound number {run} of item {item}" for item in range(len(mixture))]
        acquaint(separator, texts)
        synchronise(device)
        started = time.perf_counter()
        found = separator.separate(mixture, texts, options)
        synchronise(device)
        seconds.append(time.perf_counter() - started)
        for lap, value in found.seconds.items() if run >= warmup else ():
            laps.setdefault(lap, []).append(value)
    timings = {lap: Timing(tuple(values)) for lap, values in laps.items()}
    return Whole(Timing(tuple(seconds[warmup:])), timings, found.nfe, seconds[0], peak_memory(device))


def stages_of(separator: Separator, mixture: Tensor, options: SampleOptions) -> list[Stage]:
    """The stages of separating mixture (B, T), on the inputs that they get in a run."""
    if isinstance(separator, MaskSeparator):
        return mask_stages(separator, mixture)
    device, dtype, batch = separator.device, separator.dtype, len(mixture)
    mel = separator.log_mel(stft(separator.pad(mixture), separator.mel))
    source = separator.codec.encode(mel.to(dtype)).float()
    queries = [f"sound number {item}" for item in range(batch)]
    text = separator.text.encode(queries)
    channels = separator.unet.config.in_channels - source.shape[1]
    state = torch.randn(batch, channels, *source.shape[2:], device=device)
    streams = [stream.to(dtype) for stream in state.split(source.shape[1], dim=1)]
    t = torch.full((), 0.5, device=device)
    mels = [mel + 0.1 * number for number in range(len(streams))]
    level = torch.ones(batch, 1, device=device)
    masking = replace(options, render="mixture")

    def read() -> list[Tensor]:  # one at a time, as TextEncoder.encode does
        return [separator.text.run([query]).hidden for query in queries]

    def decode() -> list[Tensor]:
        return [separator.codec.decode(stream) for stream in streams]

    def mask() -> Tensor:
        return separator.render(mels, Heard(mixture, mel, 0 * level, level), masking)[0]

    autoencoder = getattr(separator.codec, "autoencoder", None)
    encoder, decoder = (getattr(autoencoder, half, None) for half in ("encoder", "decoder"))
    stages = [
        Stage("text", read, module=separator.text.model),
        Stage("mel", lambda: separator.log_mel(stft(separator.pad(mixture), separator.mel)), inputs=(mixture,)),
        Stage("VAE encode", lambda: separator.codec.encode(mel.to(dtype)), 1, encoder, (mel,)),
        Stage(
            NETWORK, lambda: call_unet(separator.unet, t, state, source, text), None, separator.unet, (state, source)
        ),
        Stage("VAE decode", decode, 1, decoder, (state,)),
        Stage("mask rendering", mask, int(options.render == "mixture"), None, (mixture, *mels)),
    ]
    if separator.vocoder is not None:
        used = int(options.render == "vocoder")
        stages.append(
            Stage("vocoder", lambda: separator.voice(mel, mixture.shape[-1]), used, separator.vocoder, (mel,))
        )
    return stages


def mask_stages(separator: MaskSeparator, mixture: Tensor) -> list[Stage]:
    """Query encoder, where there is one, and network of a mask separator."""
    queries = [f"sound number {item}" for item in range(len(mixture))]
    acquaint(separator, queries)
    conditions, encoder = separator.conditions(queries), encoder_of(separator)
    reading = [] if encoder is None else [Stage(TEXT, lambda: read(separator, queries), module=encoder)]
    network = separator.network
    return [*reading, Stage(MASK_NETWORK, lambda: network(mixture, conditions), 1, network, (mixture, conditions))]


def count(stage: Stage) -> dict[str, float]:
    """GFLOP of one call, gigabytes that its operations move, and the least that it must move: all once."""
    tensors = [leaf for leaf in tree_leaves((stage.inputs, stage.call())) if isinstance(leaf, Tensor)]
    least = (weight_bytes(stage.module) + sum(x.numel() * x.element_size() for x in tensors)) / 1e9
    return {"gflop": count_gflop(stage.call), "gbyte": count_gbyte(stage.call), "least_gbyte": least}


def weight_bytes(module: nn.Module | None) -> int:
    """Bytes of a module's parameters, tables of embeddings left out: a call reads a few of their rows."""
    if module is None:
        return 0
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    return sum(p.numel() * p.element_size() for p in module.parameters() if id(p) not in tables)


def finished(name: str, calls: int, timing: Timing, counted: dict[str, float], ceilings: dict[str, float]) -> Row:
    """One row: seconds, counts, floor, and the achieved part of the ceilings, 0..1 (of the copy more: caches help)."""
    floors = counted["gflop"] / ceilings["gflops"], counted["least_gbyte"] / ceilings["gbytes"]
    return {
        "name": name,
        "calls": calls,
        **timing.summary(),
        **counted,
        "floor_s": max(floors),
        "matmul_share": counted["gflop"] / timing.median / ceilings["gflops"],
        "copy_share": counted["gbyte"] / timing.median / ceilings["gbytes"],
    }


def summed(name: str, timing: Timing, parts: list[Row], ceilings: dict[str, float]) -> Row:
    """A row of what `parts` make up together: seconds of its own, their counts and floors times their calls."""
    keys = ("gflop", "gbyte", "least_gbyte", "floor_s")
    sums = {key: sum(part["calls"] * part[key] for part in parts) for key in keys}
    return {**finished(name, 1, timing, sums, ceilings), **sums}
