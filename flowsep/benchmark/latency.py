"""Latency of a configuration, stage by stage. Without a model weights are random: time does not depend on them."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from flowsep.benchmark.timing import count_gflop, matmul_gflops, measure
from flowsep.config import ModelConfig
from flowsep.flow.path import seeded_noise, start_of
from flowsep.separator import FlowSep
from flowsep.text import TextEncoder, TextState, build_t5
from flowsep.unet import build_unet
from vae.model import build_codec
from vocoder.mel import stft
from vocoder.model import Vocoder

TOKENS = 12  # of an ordinary query, for models that do not pad to a fixed length


class RandomTokens:
    """Stands in for a tokenizer where none can be had: a query's length matters to latency, its words do not."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, texts: Any, **_: Any) -> dict[str, torch.Tensor]:
        return {name: torch.ones(len(texts), self.length, dtype=torch.long) for name in ("input_ids", "attention_mask")}


def random_separator(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> FlowSep:
    """A whole model of this configuration with random weights."""
    torch.manual_seed(0)
    codec = build_codec(config.codec)
    unet = build_unet(config.unet, config.flow.stream_count, codec.latent_channels, config.text.d_model)
    tokens = config.text.max_length if config.text.pad_to_max else TOKENS
    text = TextEncoder(build_t5(config.text), RandomTokens(tokens), config.text)
    separator = FlowSep.of_parts(config, unet, codec, text, Vocoder(config.vocoder))
    return separator.to(device, dtype).eval().requires_grad_(False)


def stage_calls(separator: FlowSep, samples: int, batch: int) -> dict[str, Callable[[], Any]]:
    """Each stage as a call on inputs made beforehand; `samples` is the length of the mixture."""
    device = separator.device
    mixture = 0.1 * torch.randn(batch, samples, device=device)
    padded = separator.pad(mixture)
    mel = separator.log_mel(stft(padded, separator.mel))
    source = separator.codec.encode(mel.to(separator.dtype)).float()
    text = TextState(*(row.expand(batch, *row.shape[1:]) for row in _state(separator)))
    shape = (source.shape[1] * separator.flow.stream_count, *source.shape[2:])
    start = start_of(source, seeded_noise(shape, [0] * batch).to(source), separator.flow)
    velocity = separator.velocity(source, text)
    t = torch.zeros((), device=device)
    streams = start.chunk(separator.flow.stream_count, dim=1)
    target, residual = mel, (mel + 0.1 if len(streams) > 1 else None)
    options = separator.resolve(None)
    ones = torch.ones(batch, 1, device=device)

    def mask() -> Any:
        mels = [target] if residual is None else [target, residual]
        return separator.render(mels, mel, mixture, 0 * ones, ones, replace(options, render="mixture"))

    calls: dict[str, Callable[[], Any]] = {
        "mel": lambda: separator.log_mel(stft(padded, separator.mel)),
        "VAE encode": lambda: separator.codec.encode(mel.to(separator.dtype)),
        "text encoder": lambda: separator.text._run(["a dog barking"]),
        "UNet, one call": lambda: velocity(t, start),
        "VAE decode": lambda: [separator.codec.decode(stream.to(separator.dtype)) for stream in streams],
        "mask rendering": mask,
    }
    if separator.vocoder is not None:
        calls["vocoder"] = lambda: separator.vocoder.audio(mel.to(separator.dtype), samples)
    return calls


def _state(separator: FlowSep) -> tuple[torch.Tensor, torch.Tensor]:
    state = separator.text._run(["a dog barking"])
    return state.hidden, state.mask


@torch.inference_mode()
def benchmark_latency(
    separator: FlowSep, name: str, seconds: float, steps: int, batch: int = 1, repeats: int = 5
) -> dict[str, Any]:
    """Report: one row per stage with its seconds, GFLOP, GFLOP/s and share of the measured matrix-product rate."""
    device, dtype = separator.device, separator.dtype
    samples = min(separator.window, round(seconds * separator.sample_rate))
    ceiling = matmul_gflops(device, dtype)
    rows = []
    for stage, call in stage_calls(separator, samples, batch).items():
        timing, gflop = measure(call, device, repeats), count_gflop(call)
        rate = gflop / timing.median
        row = {"stage": stage, "calls": steps if stage.startswith("UNet") else 1, **asdict(timing)}
        rows.append({**row, "gflop": gflop, "gflops": rate, "share": rate / ceiling})
    vocoder = sum(row["median"] * row["calls"] for row in rows if row["stage"] != "mask rendering")
    mask = sum(row["median"] * row["calls"] for row in rows if row["stage"] != "vocoder")
    return {
        "schema_version": 1,
        "model": name,
        "parameters": sum(parameter.numel() for parameter in separator.parameters()),
        "audio_seconds": samples / separator.sample_rate,
        "batch": batch,
        "steps": steps,
        "matmul_gflops": ceiling,
        "stages": rows,
        "total_vocoder_s": vocoder,
        "total_mixture_s": mask,
        "machine": machine(device, dtype),
    }


def machine(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What the figures were taken on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": f"{device.type} ({name})",
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    info = report["machine"]
    lines = [
        f"{report['model']}: {report['parameters'] / 1e6:.1f} M parameters, {report['audio_seconds']:.2f} s of audio, "
        f"batch {report['batch']}, {info['device']}, {info['dtype']}, {info['threads']} threads, "
        f"torch {info['torch']}; matrix product {report['matmul_gflops']:.0f} GFLOP/s",
        "",
        "| stage | calls | seconds per call (median, p10-p90) | GFLOP | GFLOP/s | share of the matrix product |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["stages"]:
        spread = f"{row['median']:.3f} ({row['p10']:.3f}-{row['p90']:.3f})"
        work = (
            f"{row['gflop']:.1f} | {row['gflops']:.0f} | {100 * row['share']:.0f} %"
            if row["gflop"] > 0.05
            else "- | - | -"
        )
        lines.append(f"| {row['stage']} | {row['calls']} | {spread} | {work} |")
    lines.append(f"| **sum, vocoder rendering** | | {report['total_vocoder_s']:.2f} | | | |")
    lines.append(f"| **sum, mixture rendering** | | {report['total_mixture_s']:.2f} | | | |")
    return "\n".join(lines)
