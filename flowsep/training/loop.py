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
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from flowsep.checkpoint import write_json
from flowsep.config import StageConfig
from flowsep.data.dataset import collate
from flowsep.errors import ModelError, UsageError
from flowsep.training.optimisers import build_optimiser


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


def training_device() -> torch.device:
    """Where `fit` puts what it trains."""
    from accelerate import PartialState

    return PartialState().device


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


class Trainer:
    """Objective, optimiser, schedule and averaged weights of one run, and a step of them."""

    def __init__(self, objective: nn.Module, stage: StageConfig, run: Path, seed: int) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from diffusers.training_utils import EMAModel

        self.objective, self.stage, self.run, self.seed = objective, stage, run, seed
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier stage may have had another precision
        self.accelerator = Accelerator(mixed_precision=stage.precision)
        if self.accelerator.num_processes > 1:
            raise UsageError("training runs in one process for now; start it without torchrun or accelerate launch")
        self.parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        # With -1 the n-th update decays by (1 + n) / (10 + n), as FlowSep's does.
        self.average = EMAModel(self.parameters, decay=stage.ema, update_after_step=-1)
        self.wrapped = self.accelerator.prepare(objective)  # to its device, before the optimiser looks at the weights
        self.optimiser = self.accelerator.prepare(
            build_optimiser(objective, stage.optimiser, stage.learning_rate, stage.weight_decay)
        )
        self.average.to(self.accelerator.device)
        saved = latest_checkpoint(run)
        self.step = 0 if saved is None else self.resume(saved)

    @property
    def learning_rate(self) -> float:
        """Of the present step: from the configuration, also in a resumed run."""
        return self.stage.learning_rate * learning_rate_share(self.step, self.stage)

    def batches(self, dataset: Dataset[dict[str, Any]]) -> DataLoader[Any]:
        """The batches from the present step on."""
        sampler = FromStep(self.step, self.stage.steps, self.stage.batch_size)
        workers = self.stage.workers
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers, prefetch_factor=4)

    def learn(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One optimiser step; returns loss, gradient norm and the loss's parts.

        ModelError, with what to do, where the loss is no longer finite: nothing of that step is kept.
        """
        accelerator = self.accelerator
        torch.manual_seed(self.seed * 1_000_003 + self.step)
        batch = {k: v.to(accelerator.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate
        with accelerator.autocast():
            loss, parts = self.wrapped(batch)
        if not torch.isfinite(loss):
            raise ModelError(
                f"the loss is not finite at step {self.step}; resume from the checkpoint with a lower learning rate"
            )
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(self.parameters, self.stage.clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.average.step(self.parameters)
        self.step += 1
        return {"loss": loss.detach(), "grad_norm": norm, **{name: value.detach() for name, value in parts.items()}}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place of the raw ones, for a while."""
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)
        yield
        self.average.restore(self.parameters)

    def save(self) -> None:
        """Write run/checkpoints/step-N atomically, weights as safetensors, and drop all but the newest two."""
        from safetensors.torch import save_file

        folder = self.run / "checkpoints" / f"step-{self.step}"
        if folder.exists():
            return
        partial = folder.parent / f".{folder.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        weights = {name: p.detach().contiguous() for name, p in self.named_parameters().items()}
        save_file(weights, partial / "weights.safetensors")
        shadows = dict(zip(weights, (p.contiguous() for p in self.average.shadow_params), strict=True))
        save_file(shadows, partial / "ema.safetensors")
        if buffers := self.buffers():
            save_file(buffers, partial / "buffers.safetensors")
        kept = {"optimiser": self.optimiser.state_dict()}
        if self.accelerator.scaler is not None:  # of fp16
            kept["scaler"] = self.accelerator.scaler.state_dict()
        torch.save(kept, partial / "optimiser.pt")
        write_json(partial / "state.json", {"step": self.step, "ema_updates": self.average.optimization_step})
        partial.rename(folder)
        for old in checkpoints(self.run)[:-2]:
            shutil.rmtree(old)

    def resume(self, folder: Path) -> int:
        """Restore what `save` wrote; returns the step. ModelError if the weights do not fit this objective."""
        from pickle import UnpicklingError

        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            weights, shadows = load_file(folder / "weights.safetensors"), load_file(folder / "ema.safetensors")
            buffers = load_file(folder / "buffers.safetensors") if self.buffers() else {}
            state = torch.load(folder / "optimiser.pt", map_location="cpu", weights_only=True)
            numbers = json.loads((folder / "state.json").read_text())
        except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
            raise ModelError(f"the checkpoint {folder} is damaged; delete it to resume from the one before") from error
        parameters = self.named_parameters()
        wrong = [n for n in parameters.keys() | weights.keys() if n not in weights or n not in parameters]
        wrong += [n for n, p in parameters.items() if n in weights and p.shape != weights[n].shape]
        if wrong:
            raise ModelError(
                f"{folder} does not fit this configuration ({sorted(wrong)[0]}, {len(wrong)} in all); use a new --run"
            )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(weights[name])
            for name, buffer in self.buffers().items():
                buffer.copy_(buffers[name])
        try:
            self.optimiser.load_state_dict(state["optimiser"])
        except (KeyError, ValueError) as error:
            raise ModelError(
                f"{folder} was written with another optimiser; set that one, or use a new --run"
            ) from error
        for group in self.optimiser.param_groups:  # the checkpoint's was loaded with it; the configuration's counts
            group["weight_decay"] = self.stage.weight_decay
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.average.shadow_params = [shadows[name].to(p.device) for name, p in parameters.items()]
        self.average.optimization_step = numbers["ema_updates"]
        return int(numbers["step"])

    def buffers(self) -> dict[str, Tensor]:
        """What training moves beside the parameters, by name: running means and variances of batch norms."""
        return {
            f"{name}.{key}": value
            for name, module in self.objective.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for key, value in module.named_buffers()
        }

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: p for name, p in self.objective.named_parameters() if p.requires_grad}


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
    audio every media_steps with the averaged weights in place. UsageError where another process trains in `run`.
    """
    with held(run):
        return train(Trainer(objective, stage, run, seed), dataset, max_minutes, media, quiet)


@contextmanager
def held(run: Path) -> Iterator[None]:
    """The folder for this process alone; UsageError where another one has it. Nothing is left to clean up after a kill.

    Not on Windows, nor on file systems without locks.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of the process: its workers do not inherit it
        except (BlockingIOError, PermissionError) as error:
            raise UsageError(f"another process trains in {run}; wait for it, or use another --run") from error
        except OSError:
            pass
        yield


def train(
    trainer: Trainer,
    dataset: Dataset[dict[str, Any]],
    max_minutes: float | None,
    media: Callable[[Logs, int], None] | None,
    quiet: bool,
) -> int:
    """The loop of `fit`."""
    from tqdm import tqdm

    objective, stage = trainer.objective, trainer.stage
    objective.train()
    logs, started = Logs(trainer.run), time.monotonic()
    with closing(logs), tqdm(total=stage.steps, initial=trainer.step, disable=quiet, unit="step") as progress:
        totals = Totals(logs, stage.log_steps, stage.batch_size)
        for batch in trainer.batches(dataset):
            values = trainer.learn(batch)
            progress.update()
            if totals.add(trainer.step, values, trainer.learning_rate):
                progress.set_postfix(loss=f"{totals.last_loss:.3f}")
            out_of_time = max_minutes is not None and time.monotonic() - started > 60 * max_minutes
            if trainer.step % stage.checkpoint_steps == 0 or trainer.step == stage.steps or out_of_time:
                trainer.save()
            if media and trainer.step % stage.media_steps == 0:
                with trainer.averaged():
                    media(logs, trainer.step)
                objective.train()
            if out_of_time:
                break
    trainer.average.copy_to(trainer.parameters)
    objective.eval()
    return trainer.step


class Totals:
    """Means of the scalars over log_steps steps, written to the logs."""

    def __init__(self, logs: Logs, every: int, items_per_step: int) -> None:
        self.logs, self.every, self.items_per_step = logs, every, items_per_step
        self.sums: dict[str, float] = {}
        self.count = 0
        self.since = time.monotonic()
        self.last_loss = math.nan

    def add(self, step: int, values: dict[str, Tensor], rate: float) -> bool:
        """Add one step; True where it completed a line."""
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        if step % self.every:
            return False
        means = {name: value / self.count for name, value in self.sums.items()}
        self.last_loss = means["loss"]
        now = time.monotonic()
        speed = self.count * self.items_per_step / (now - self.since)
        scalars = {f"train/{name}": value for name, value in means.items()}
        self.logs.scalars(step, {**scalars, "train/lr": rate, "train/items_per_s": speed})
        self.sums, self.count, self.since = {}, 0, now
        return True


def checkpoints(run: Path) -> list[Path]:
    """Complete checkpoint folders of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name.split("-")[1]))


def latest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint folder of a run."""
    found = checkpoints(run)
    return found[-1] if found else None
