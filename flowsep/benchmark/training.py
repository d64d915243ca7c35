"""What a training step costs when the frozen networks work at every step, and when their results are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from flowsep.benchmark.latency import Note, silent
from flowsep.benchmark.machine import describe_machine, device_name
from flowsep.benchmark.models import random_separator
from flowsep.benchmark.report import SCHEMA_VERSION, seconds, table
from flowsep.benchmark.timing import Timing, measure
from flowsep.config import ModelConfig
from flowsep.errors import UsageError
from flowsep.training.loop import Trainer, training_device
from flowsep.training.objectives import LatentObjective, latent_objective

WAYS = ("encoded at every step", "latents kept", "latents and text states kept")


def time_training(
    config: ModelConfig, name: str, batch: int | None, repeats: int, note: Note = silent
) -> dict[str, Any]:
    """The report: seconds of a whole step (loss, derivatives, optimiser, average) of this configuration, three ways.

    Random weights, `batch` items (None: the stage's) of noise as long as a window, where training trains. The ways
    take turns, so that what else the machine does meets each alike; the first round does not count. UsageError for a
    loss that cannot be had from latents.
    """
    if config.unet_loss.needs_waveforms:
        raise UsageError(f"the losses of {name} need waveforms, so that no latents can be kept; set them to 0")
    device, stage = training_device(), config.unet_stage
    stage = replace(stage, batch_size=batch or stage.batch_size)
    objective = random_objective(config, device)
    batches = batches_of(objective, config, stage.batch_size, device)
    samples: dict[str, list[float]] = {way: [] for way in WAYS}
    with TemporaryDirectory() as run:
        trainer = Trainer(objective.train(), stage, Path(run), config.seed)
        for number in range(repeats + 1):
            for way in WAYS:
                note(f"round {number}, {way}")
                items = next(batches[way])
                timing = measure(lambda items=items: trainer.learn(items), device, 1, warmup=0)
                samples[way] += timing.samples if number else ()
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "training",
        "settings": {
            "model": name,
            "batch": stage.batch_size,
            "precision": stage.precision,
            "device_name": device_name(device),
            "threads": torch.get_num_threads(),
        },
        "rows": [{"name": way, "seconds": Timing(tuple(samples[way])).summary()} for way in WAYS],
        "machine": describe_machine(),
    }


def random_objective(config: ModelConfig, device: torch.device) -> LatentObjective:
    """Loss and networks of this configuration, random weights, the UNet to be trained."""
    separator = random_separator(config, device, torch.float32)
    unet = separator.unet.requires_grad_(True)
    return latent_objective(unet, separator.text, separator.codec, config).to(device)


def batches_of(
    objective: LatentObjective, config: ModelConfig, batch: int, device: torch.device
) -> dict[str, Iterator[dict[str, Any]]]:
    """Endless batches for each of WAYS: waveforms, or their latents, with captions that are new or known."""
    generator = torch.Generator().manual_seed(0)
    samples = config.sampling.window_frames * config.vocoder.mel.hop_length
    target, other = 0.1 * torch.randn(2, batch, samples, generator=generator)
    audio = {"mixture": target + other, "target": target}
    latent, source = objective.latents({key: value.to(device) for key, value in audio.items()})
    kept = {"latent": latent, "source": source}
    known = [f"sound {item}" for item in range(batch)]
    captions = ([f"sound {number} of item {item}" for item in range(batch)] for number in count())
    return {
        WAYS[0]: ({**audio, "text": next(captions)} for _ in count()),
        WAYS[1]: ({**kept, "text": next(captions)} for _ in count()),
        WAYS[2]: ({**kept, "text": known} for _ in count()),
    }


def training_lines(report: dict[str, Any]) -> list[str]:
    """The report as Markdown."""
    chosen, first = report["settings"], report["rows"][0]["seconds"]["median"]
    rows = []
    for row in report["rows"]:
        median = row["seconds"]["median"]
        rows.append([row["name"], seconds(median), f"{first / median:.2f}x"])
    about = (
        f"{chosen['model']}: steps of {chosen['batch']} item(s), precision {chosen['precision']}, {chosen['threads']} "
        f"threads, {chosen['device_name']}; medians of {report['rows'][0]['seconds']['repeats']}"
    )
    return [about, "", *table(["step", "time", "against the first"], rows)]
