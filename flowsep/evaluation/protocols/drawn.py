"""Protocols whose mixtures are drawn here: your own folder or recipe, and those of FlowSep and HSM-TSS.

FlowSep and HSM-TSS did not publish their lists. What is drawn has their data, numbers and levels, but not their pairs:
a figure on it compares systems that were run on the same draw, and is only of the same kind as those of the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowsep.data.manifest import read_manifest, select
from flowsep.errors import InputError, UsageError
from flowsep.evaluation.protocols.datasets import Recording
from flowsep.evaluation.protocols.item import Item, Mixed, RecipeMixed
from flowsep.evaluation.recipe import MixtureRow, draw_recipe, read_recipe

SEED = 20261121
CLIP_SECONDS = 10.0  # of a drawn mixture; longer clips give their first 10 s, shorter ones are continued by silence
TRIES = 1000  # to find an interferer without a class in common


@dataclass(frozen=True)
class Draw:
    """What a user may say about which mixtures are made."""

    seed: int = SEED
    count: int | None = None  # of mixtures; None: the protocol's
    recipe: Path | None = None  # of the protocol "own": this list instead of a draw
    split: str | None = None  # of the protocol "own"; None: test where there is one, otherwise all clips


@dataclass(frozen=True)
class DrawRule:
    """How many mixtures are drawn from the recordings of a data set, and at which levels."""

    read: Callable[[Path], list[Recording]]
    count: int
    others: int = 1  # interferers that each target is mixed with
    snr_db: tuple[float, float] | None = None  # uniform between
    lufs: tuple[float, float] | None = None  # of either clip, uniform between
    length_s: float = CLIP_SECONDS


def draw_items(rule: DrawRule, data: Path, draw: Draw) -> list[Item]:
    """Mixtures of two recordings that share no class; the same for a seed and the same files."""
    recordings = rule.read(data)
    count = draw.count or rule.count
    wanted = -(-count // rule.others)
    if len(recordings) < max(2, wanted):
        needed = f"{count} mixtures need {max(2, wanted)} clips"
        raise InputError(f"{data} has {len(recordings)} clips, {needed}; get the missing ones or give a lower --count")
    rng = np.random.default_rng(draw.seed)
    targets = [recordings[index] for index in rng.permutation(len(recordings))[:wanted]]
    pairs = [(target, draw_other(target, recordings, rng)) for target in targets for _ in range(rule.others)]
    return [draw_item(number, *pair, rule, rng) for number, pair in enumerate(pairs[:count])]


def draw_other(target: Recording, recordings: Sequence[Recording], rng: np.random.Generator) -> Recording:
    """A recording without a class in common with the target; InputError where none turns up."""
    for _ in range(TRIES):
        other = recordings[rng.integers(len(recordings))]
        if not set(other.classes) & set(target.classes):
            return other
    raise InputError(f"no clip found that shares no class with {target.path.name}; give clips of more classes")


def draw_item(number: int, target: Recording, other: Recording, rule: DrawRule, rng: np.random.Generator) -> Item:
    """One mixture of a pair: its query and its levels."""
    text = target.texts[rng.integers(len(target.texts))]
    snr = None if rule.snr_db is None else round(float(rng.uniform(*rule.snr_db)), 2)
    levels = None
    if rule.lufs is not None:
        levels = (round(float(rng.uniform(*rule.lufs)), 2), round(float(rng.uniform(*rule.lufs)), 2))
    source = Mixed(target.path, other.path, snr, levels, rule.length_s)
    return Item(f"{number:04d}", text, source, target.label, other.label, snr)


def own_items(data: Path, draw: Draw) -> list[Item]:
    """Mixtures of your own clips: those of a recipe, or drawn from a manifest or from folders named by class."""
    if draw.recipe is not None:
        if draw.count is not None or draw.split is not None:
            raise UsageError("a recipe says which mixtures there are; leave --count and --split out")
        return recipe_items(read_recipe(draw.recipe), data)
    if not data.is_dir():
        raise InputError(f"{data} is not a folder; give one of clips, with a manifest.csv or folders named by class")
    clips = read_manifest(data)
    outside = [clip for clip in clips if not clip.path.is_relative_to(data)]
    if outside:
        raise InputError(f"{outside[0].path} is not below {data}; write paths that start from the manifest's folder")
    splits = {clip.split for clip in clips}
    split = draw.split or ("test" if "test" in splits else None)
    if split is not None:
        clips = select(clips, split, commercial_only=False)
    if not clips:
        raise InputError(f"{data} has no clips in its {split} split; it has {', '.join(sorted(splits))}")
    return recipe_items(draw_recipe(clips, data, draw.count or 200, draw.seed), data)


def recipe_items(rows: Sequence[MixtureRow], data: Path) -> list[Item]:
    """The rows of a recipe as items."""
    return [
        Item(row.id, row.query, RecipeMixed(row, data), row.target_class, row.interferer_class, row.snr_db)
        for row in rows
    ]
