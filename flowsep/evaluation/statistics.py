"""Means with their uncertainty, differences between systems, and tables by class and by SNR."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from flowsep.errors import UsageError

SIGNS_AT_ONCE = 500  # patterns of a permutation test in memory: 20 MB for 5,000 items


def bootstrap_mean(values: Sequence[float], seed: int = 0, draws: int = 2000) -> dict[str, float]:
    """Mean and its 95 % bootstrap interval (percentiles of `draws` resampled means)."""
    array = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = array[rng.integers(len(array), size=(draws, len(array)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(array.mean()), "low": float(low), "high": float(high)}


def average(
    items: Sequence[Mapping[str, Any]], figure: str, rule: str = "mean", seed: int = 0, draws: int = 2000
) -> dict[str, float] | None:
    """A figure over the items that have it: mean, 95 % bootstrap interval and count; None where none has it.

    Rule "mean": of the items. "class_mean": mean over classes of the mean within each, so that every class counts the
    same (AudioSep's MUSIC). "class_median": mean over classes of the median within each (AudioSep's and USS's AudioSet
    figures). Resampling is of items, within the classes where there are any.
    """
    groups: dict[Hashable, list[float]] = {}
    for item in items:
        if item.get(figure) is not None and not np.isnan(item[figure]):
            groups.setdefault("" if rule == "mean" else item["target_class"], []).append(float(item[figure]))
    if not groups:
        return None
    within = np.median if rule == "class_median" else np.mean
    rng = np.random.default_rng(seed)
    centre = np.zeros(draws)
    for values in map(np.asarray, groups.values()):
        centre += within(values[rng.integers(len(values), size=(draws, len(values)))], axis=1) / len(groups)
    low, high = np.percentile(centre, [2.5, 97.5])
    mean = float(np.mean([within(values) for values in groups.values()]))
    return {"mean": mean, "low": float(low), "high": float(high), "count": sum(map(len, groups.values()))}


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0, draws: int = 10_000) -> dict[str, float]:
    """Mean of a - b over the same items, its 95 % bootstrap interval, and the p-value of a permutation test.

    The test is two-sided: under the hypothesis that the systems are alike, each difference could as well have the other
    sign. p is the share of sign patterns whose mean is at least as far from zero; all patterns up to 2^12, above that
    `draws` random ones and the one observed. UsageError where the lists are of different length or empty.
    """
    if len(a) != len(b) or len(a) == 0:
        raise UsageError(f"paired figures are of the same items; got {len(a)} and {len(b)}")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    count = len(differences)
    if count <= 12:
        patterns = [1.0 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)]
    else:
        rng = np.random.default_rng(seed)
        sizes = [min(SIGNS_AT_ONCE, draws - 1 - done) for done in range(0, draws - 1, SIGNS_AT_ONCE)]
        random = (1.0 - 2 * rng.integers(2, size=(size, count), dtype=np.int8) for size in sizes)
        patterns = chain([np.ones((1, count))], random)
    means = np.abs(np.concatenate([signs @ differences for signs in patterns])) / count
    p = float(np.mean(means >= abs(differences.mean()) - 1e-12))
    return {**bootstrap_mean(differences, seed), "p": p, "count": float(count)}


def grouped(
    items: Sequence[Mapping[str, Any]], figure: str, group: Callable[[Mapping[str, Any]], Hashable]
) -> dict[Any, dict[str, float]]:
    """`bootstrap_mean` of a figure, with the count, for each group of items in order of the groups' names.

    Items without the figure are left out; so are groups without items.
    """
    groups: dict[Any, list[float]] = {}
    for item in items:
        if item.get(figure) is not None:
            groups.setdefault(group(item), []).append(float(item[figure]))
    return {name: {**bootstrap_mean(groups[name]), "count": len(groups[name])} for name in sorted(groups)}


def by_class(items: Sequence[Mapping[str, Any]], figure: str) -> dict[str, dict[str, float]]:
    """A figure by the class of the target (`target_class`)."""
    return grouped(items, figure, lambda item: item["target_class"])


def by_snr(items: Sequence[Mapping[str, Any]], figure: str, width: float = 2.5) -> dict[float, dict[str, float]]:
    """A figure by the SNR of the mixture (`snr_db`), in bins of `width` dB named by their lower edge."""
    return grouped(items, figure, lambda item: float(np.floor(item["snr_db"] / width) * width))
