"""How far bfloat16, float16 and compiled paths are from plain float32, stage by stage on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowsep.benchmark.latency import Note, Workload, describe_settings, prepare, silent
from flowsep.benchmark.machine import describe_machine
from flowsep.benchmark.models import compile_parts
from flowsep.benchmark.report import SCHEMA_VERSION, table
from flowsep.errors import UsageError
from flowsep.heard import normalise
from flowsep.options import DTYPES
from flowsep.protocol import SampleOptions
from flowsep.separator import LatentSeparator
from flowsep.text import TextState
from flowsep.unet import call_unet
from vocoder.mel import log_mel, stft

TEXTS = "a sound to compare"
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Variant:
    """A way to run the model: a precision, compiled or not."""

    dtype: str
    compiled: bool

    @property
    def name(self) -> str:
        """As it is given on the command line."""
        return self.dtype + ("+compile" if self.compiled else "")


def parse_variants(text: str) -> list[Variant]:
    """Variants written as bfloat16,float32+compile; UsageError for what does not exist."""
    found = []
    for part in text.split(","):
        dtype, plus, word = part.strip().partition("+")
        if dtype not in DTYPES or (plus and word != "compile"):
            raise UsageError(f"unknown variant {part.strip()!r}; write {', '.join(DTYPES)}, or one with +compile")
        found.append(Variant(dtype, bool(plus)))
    return found


@torch.inference_mode()
def compare_precision(
    build: Callable[[torch.dtype], LatentSeparator],
    name: str,
    variants: Sequence[Variant],
    work: Workload,
    compile_mode: str = "default",
    note: Note = silent,
) -> dict[str, Any]:
    """Report of each variant's errors against the float32 model that `build` makes; the same weights each time.

    Every stage gets the reference's inputs, so its error is its own; the last row runs the whole chain. `relative` is
    the norm of the difference over the norm of the reference (nan where a value is not finite: that is a failure);
    the whole run also has the signal-to-noise ratio of its waveform in dB and the mean absolute log-mel difference.
    """
    note("float32")
    reference = build(torch.float32)
    mixture, options = prepare(reference, work)
    inputs = inputs_of(reference, mixture)
    expected = outputs_of(reference, inputs, mixture, options)
    settings = describe_settings(reference, name, work, options)
    rows = []
    for variant in variants:
        note(variant.name)
        separator = build(getattr(torch, variant.dtype))
        if variant.compiled:
            compile_parts(separator, compile_mode)
        found = outputs_of(separator, inputs, mixture, options)
        errors = {stage: relative_error(found[stage], value) for stage, value in expected.items()}
        whole = [outputs["whole run"] for outputs in (found, expected)]
        mels = [log_mel(wave, reference.mel) for wave in whole]
        rows.append(
            {
                "name": variant.name,
                "relative": errors,
                "snr_db": -20 * torch.tensor(errors["whole run"]).clamp(min=1e-10).log10().item(),
                "log_mel_l1": (mels[0] - mels[1]).abs().mean().item(),
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "precision",
        "settings": {**settings, "compile": compile_mode},
        "rows": rows,
        "machine": describe_machine(),
    }


def inputs_of(separator: LatentSeparator, mixture: Tensor) -> Outputs:
    """What the stages are given: log-mel, mixture latent, text state, a state on the way and a latent to decode."""
    mel = separator.log_mel(stft(separator.pad(normalise(mixture)[0]), separator.mel))
    source = separator.codec.encode(mel)
    text = separator.text.encode([TEXTS] * len(mixture))
    channels = separator.unet.config.in_channels - source.shape[1]
    noise = torch.randn(len(source), channels, *source.shape[2:], generator=torch.Generator().manual_seed(1))
    return {"mel": mel, "source": source, "hidden": text.hidden, "mask": text.mask, "state": noise.to(source)}


def outputs_of(separator: LatentSeparator, inputs: Outputs, mixture: Tensor, options: SampleOptions) -> Outputs:
    """Each stage's output in float32 on the CPU, and the target waveform of the whole run."""
    mel, dtype = inputs["mel"].to(separator.dtype), separator.dtype
    text = TextState(inputs["hidden"].to(dtype), inputs["mask"].to(dtype))
    t = torch.full((), 0.5, device=separator.device)
    outputs = {
        "text": separator.text.encode([TEXTS]).hidden,
        "VAE encode": separator.codec.encode(mel),
        "UNet": call_unet(separator.unet, t, inputs["state"], inputs["source"], text),
        "VAE decode": separator.codec.decode(inputs["source"].to(dtype)),
    }
    if separator.vocoder is not None:
        outputs["vocoder"] = separator.vocoder.audio(mel)
    outputs["whole run"] = separator.separate(mixture, [TEXTS] * len(mixture), options).target
    return {stage: value.float().cpu() for stage, value in outputs.items()}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of `expected`; nan where `found` is not finite."""
    return ((found.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30)).item()


def precision_lines(report: dict[str, Any]) -> list[str]:
    """The report as Markdown."""
    chosen, stages = report["settings"], list(report["rows"][0]["relative"])
    rows = [
        [
            row["name"],
            *(f"{row['relative'][stage]:.1e}" for stage in stages),
            f"{row['snr_db']:.1f} dB",
            f"{row['log_mel_l1']:.4f}",
        ]
        for row in report["rows"]
    ]
    about = f"{chosen['model']}, {chosen['steps']} steps, {chosen['device_name']}: relative error against float32"
    return [about, "", *table(["variant", *stages, "waveform SNR", "log-mel L1"], rows)]
