"""The one training loop: an objective and a dataset -> checkpoints, logs, EMA weights.

Every step seeds the generators with (seed, step) and draws items by number, so that a run that was interrupted and
resumed sees the same data and noise as one that was not.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from flowsep.config import StageConfig
from flowsep.data.dataset import collate
from flowsep.errors import ModelError


class FromStep(Sampler[list[int]]):
    """Batches of item numbers, beginning with those of step `first`."""

    def __init__(self, first: int, last: int, batch_size: int) -> None:
        self.first, self.last, self.batch_size = first, last, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.last):
            yield list(range(step * self.batch_size, (step + 1) * self.batch_size))

    def __len__(self) -> int:
        return self.last - self.first


def learning_rate_share(step: int, stage: StageConfig) -> float:
    """Share of the learning rate at `step`: linear warm-up, constant, then half a cosine over the last decay_share."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup))
    begin = stage.steps * (1 - stage.decay_share)
    if step <= begin or stage.decay_share == 0:
        return warm
    progress = min(1.0, (step - begin) / max(1.0, stage.steps - begin))
    return warm * (
        stage.final_learning_rate + (1 - stage.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * progress))
    )


class Logs:
    """Scalars to TensorBoard and, line by line, to metrics.jsonl."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.tensorboard = SummaryWriter(str(run / "tensorboard"))
        self.lines = (run / "metrics.jsonl").open("a", encoding="utf-8")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.tensorboard.add_scalar(name, value, step)
        self.lines.write(json.dumps({"step": step, **{k: round(v, 6) for k, v in values.items()}}) + "\n")
        self.lines.flush()

    def close(self) -> None:
        self.tensorboard.close()
        self.lines.close()


def fit(
    objective: nn.Module,
    dataset: Dataset[dict[str, Any]],
    stage: StageConfig,
    run: Path,
    seed: int,
    max_minutes: float | None = None,
    media: Callable[[Logs, int], None] | None = None,
    quiet: bool = False,
) -> int:
    """Train `objective` (batch -> loss, parts) until stage.steps or max_minutes; resume from run/checkpoints if there.

    Leaves the averaged (EMA) weights in `objective` and returns the step reached. `media(logs, step)` adds figures and
    audio every media_steps with the averaged weights in place.
    """
    from accelerate import Accelerator
    from diffusers.training_utils import EMAModel
    from tqdm import tqdm

    accelerator = Accelerator(mixed_precision=stage.precision)
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_share(step, stage))
    average = EMAModel(parameters, decay=stage.ema)
    wrapped, optimiser = accelerator.prepare(objective, optimiser)
    average.to(accelerator.device)
    saved = latest_checkpoint(run)
    step = 0 if saved is None else load_checkpoint(saved, objective, optimiser, schedule, average)
    objective.train()
    sampler = FromStep(step, stage.steps, stage.batch_size * accelerator.num_processes)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=1, prefetch_factor=4)
    logs, started, window = Logs(run), time.monotonic(), time.monotonic()
    totals: dict[str, float] = {}
    progress = tqdm(
        total=stage.steps, initial=step, disable=quiet or not accelerator.is_local_main_process, unit="step"
    )
    try:
        for batch in loader:
            torch.manual_seed(seed * 1_000_003 + step + 7919 * accelerator.process_index)
            part = slice(accelerator.process_index, None, accelerator.num_processes)
            batch = {k: v[part] if k == "text" else v[part].to(accelerator.device) for k, v in batch.items()}
            with accelerator.autocast():
                loss, parts = wrapped(batch)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(parameters, stage.clip_norm)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            average.step(parameters)
            step += 1
            progress.update()
            for name, value in {"loss": loss, "grad_norm": norm, **parts}.items():
                totals[name] = totals.get(name, 0.0) + float(value.detach()) / stage.log_steps
            if step % stage.log_steps == 0:
                check_finite(totals, step)
                now = time.monotonic()
                rate = stage.log_steps * stage.batch_size * accelerator.num_processes / (now - window)
                values = {f"train/{name}": value for name, value in totals.items()}
                logs.scalars(step, {**values, "train/lr": schedule.get_last_lr()[0], "train/items_per_s": rate})
                progress.set_postfix(loss=f"{totals['loss']:.3f}")
                totals, window = {}, now
            out_of_time = max_minutes is not None and time.monotonic() - started > 60 * max_minutes
            if step % stage.checkpoint_steps == 0 or step == stage.steps or out_of_time:
                save_checkpoint(run, step, objective, optimiser, schedule, average)
            if media and step % stage.media_steps == 0:
                average.store(parameters)
                average.copy_to(parameters)
                media(logs, step)
                average.restore(parameters)
            if out_of_time:
                break
    finally:
        progress.close()
        logs.close()
    average.copy_to(parameters)
    objective.eval()
    return step


def check_finite(totals: dict[str, float], step: int) -> None:
    """Stop a run that has diverged, with what to do."""
    if not math.isfinite(totals["loss"]):
        raise ModelError(
            f"the loss is not finite before step {step}; resume from the last checkpoint with a lower learning rate"
        )


def latest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint folder of a run."""
    found = sorted((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name.split("-")[1]))
    return found[-1] if found else None


def save_checkpoint(run: Path, step: int, objective: nn.Module, optimiser: Any, schedule: Any, average: Any) -> None:
    """Write run/checkpoints/step-N atomically, weights as safetensors, and drop all but the newest two."""
    from safetensors.torch import save_file

    folder = run / "checkpoints" / f"step-{step}"
    if folder.exists():
        return
    partial = run / "checkpoints" / f".step-{step}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {name: p.detach().contiguous() for name, p in objective.named_parameters() if p.requires_grad}
    save_file(weights, partial / "weights.safetensors")
    shadows = dict(zip(weights, (p.contiguous() for p in average.shadow_params), strict=True))
    save_file(shadows, partial / "ema.safetensors")
    torch.save({"optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}, partial / "optimiser.pt")
    (partial / "state.json").write_text(json.dumps({"step": step, "ema_updates": average.optimization_step}))
    partial.rename(folder)
    for old in sorted((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name.split("-")[1]))[:-2]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path, objective: nn.Module, optimiser: Any, schedule: Any, average: Any) -> int:
    """Restore what `save_checkpoint` wrote; returns the step. ModelError if the weights do not fit this objective."""
    from safetensors.torch import load_file

    weights, shadows = load_file(folder / "weights.safetensors"), load_file(folder / "ema.safetensors")
    parameters = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    wrong = [n for n in parameters.keys() | weights.keys() if n not in weights or n not in parameters]
    wrong += [n for n, p in parameters.items() if n in weights and p.shape != weights[n].shape]
    if wrong:
        raise ModelError(
            f"{folder} does not fit this configuration ({sorted(wrong)[0]}, {len(wrong)} in all); use a new --run"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    state = torch.load(folder / "optimiser.pt", map_location="cpu", weights_only=True)
    optimiser.load_state_dict(state["optimiser"])
    schedule.load_state_dict(state["schedule"])
    numbers = json.loads((folder / "state.json").read_text())
    average.shadow_params = [shadows[name].to(p.device) for name, p in parameters.items()]
    average.optimization_step = numbers["ema_updates"]
    return int(numbers["step"])
