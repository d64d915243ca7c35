"""Latents that are computed once: a pool of mixtures as the frozen codec sees them, on the disk.

The networks before the UNet do not learn, and at official size they cost more than its step. A pool gives up that no
mixture comes twice; `data.pool` says how many there are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from flowsep.checkpoint import write_json
from flowsep.config import ModelConfig
from flowsep.data.dataset import MixtureDataset, collate
from flowsep.errors import UsageError

PARTS = ("latent", "source")  # of each mixture: the latents of its streams (K * C, S, F), and its own (C, S, F)
Encode = Callable[[dict[str, Any]], tuple[Tensor, Tensor]]


class LatentDataset(Dataset[dict[str, Any]]):
    """Items of a pool, in a new order at each pass; `dataset[n]` is a dict of latent, source and text."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.texts: list[str] = read_items(folder)["texts"]

    def __len__(self) -> int:
        return 2**31 - 1  # items are drawn, not stored

    def __getitem__(self, index: int) -> dict[str, Any]:
        lap, place = divmod(index, len(self.texts))
        number = int(order(self.seed, lap, len(self.texts))[place])
        parts = {part: torch.from_numpy(array(self.folder, part)[number].copy()) for part in PARTS}
        return {**parts, "text": self.texts[number]}


@lru_cache(2)
def order(seed: int, lap: int, count: int) -> np.ndarray:
    """Numbers of the items in the order of one pass over all."""
    return np.random.default_rng([seed, lap]).permutation(count)


@lru_cache(4)
def array(folder: Path, part: str) -> np.ndarray:
    """One part of all items (N, C, S, F), mapped; each process that reads items opens its own."""
    return np.load(folder / f"{part}.npy", mmap_mode="r")


def latent_dataset(
    config: ModelConfig, codec: Path | None, dataset: MixtureDataset, encode: Encode, run: Path, quiet: bool
) -> LatentDataset:
    """The first `config.data.pool` items of `dataset`, encoded into run/latents as far as they are not there yet.

    `encode(batch)` gives latent (B, K * C, S, F) and source (B, C, S, F). An interrupted call goes on where it was.
    Raises UsageError where the folder was begun with other data or another codec.
    """
    from tqdm import tqdm

    folder, stage, pool = run / "latents", config.unet_stage, config.data.pool
    folder.mkdir(parents=True, exist_ok=True)
    about = {**asdict(config.data), **asdict(config.codec), "seed": config.seed, "from": str(codec)}
    about |= {"streams": config.process.stream_count, "mel": asdict(config.vocoder.mel), "clips": dataset.fingerprint()}
    about = json.loads(json.dumps(about))
    items = read_items(folder) or {"about": about, "texts": []}
    if items["about"] != about:
        raise UsageError(f"{folder} was made from other data or another codec; use a new --run")
    first = len(items["texts"])
    batches = [range(n, min(n + stage.batch_size, pool)) for n in range(first, pool, stage.batch_size)]
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=stage.workers)
    for numbers, batch in zip(batches, tqdm(loader, disable=quiet, unit="batch", desc="latents"), strict=True):
        for part, value in zip(PARTS, encode(batch), strict=True):
            write_rows(folder / f"{part}.npy", numbers, value.float().cpu().numpy(), pool)
        items["texts"] += batch["text"]
        write_json(folder / "items.json", items)
    return LatentDataset(folder, config.seed)


def write_rows(path: Path, numbers: range, values: np.ndarray, count: int) -> None:
    """Items `numbers` of the array file at `path`, which has room for `count`; it is made with the first of them."""
    shape = (count, *values.shape[1:])
    made = {} if numbers.start else {"dtype": np.float32, "shape": shape}
    rows = np.lib.format.open_memmap(path, mode="r+" if numbers.start else "w+", **made)
    rows[numbers.start : numbers.stop] = values
    rows.flush()


def read_items(folder: Path) -> dict[str, Any] | None:
    """What was encoded so far: `about` its origin, and the `texts`; None where nothing was."""
    path = folder / "items.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
