"""Differences between systems, and tables by class and by SNR."""

from __future__ import annotations

import numpy as np
import pytest

from flowsep.errors import UsageError
from flowsep.evaluation.statistics import (
    average,
    by_class,
    by_snr,
    grouped,
    paired_difference,
)


def test_permutation_test_of_few_items_is_exact():
    found = paired_difference([2.0, 3.0, 4.0], [1.0, 1.0, 1.0])
    assert found["mean"] == 2.0 and found["p"] == 2 / 8  # only +++ and --- are as far from zero
    assert paired_difference([1.0, 0.0], [0.0, 1.0])["p"] == 1.0
    assert paired_difference([1.0], [1.0])["p"] == 1.0


def test_permutation_test_of_many_items_finds_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 10, 100)  # shared by both systems
    better = difficulty + rng.normal(0.5, 1, 100)
    found = paired_difference(better, difficulty)
    assert found["p"] < 0.01 and found["low"] > 0
    assert found == paired_difference(better, difficulty)
    chance = [paired_difference(rng.normal(0, 1, 50), np.zeros(50), draws=1000)["p"] for _ in range(100)]
    assert 0.3 < np.mean(chance) < 0.7 and np.mean(np.array(chance) < 0.05) < 0.15  # uniform without an effect


def test_paired_figures_must_be_of_the_same_items():
    with pytest.raises(UsageError, match="got 2 and 1"):
        paired_difference([1.0, 2.0], [1.0])


ITEMS = [
    {"target_class": "dog", "snr_db": -4.9, "gain": 1.0},
    {"target_class": "dog", "snr_db": 0.1, "gain": 2.0},
    {"target_class": "dog", "snr_db": 0.2, "gain": 9.0},
    {"target_class": "bell", "snr_db": 2.5, "gain": 7.0},
    {"target_class": "bell", "snr_db": 2.4},
]


def test_tables_are_by_class_and_by_bins_of_snr():
    table = by_class(ITEMS, "gain")
    assert list(table) == ["bell", "dog"]
    assert (table["dog"]["mean"], table["dog"]["count"], table["bell"]["count"]) == (4.0, 3, 1)
    assert {edge: row["mean"] for edge, row in by_snr(ITEMS, "gain").items()} == {-5.0: 1.0, 0.0: 5.5, 2.5: 7.0}
    assert list(grouped(ITEMS, "gain", lambda item: item["gain"] > 5)) == [False, True]


def test_classes_count_the_same_whatever_their_size():
    whole = [*ITEMS[:4], {"target_class": "dog", "gain": float("nan")}]
    assert average(whole, "gain")["mean"] == (1.0 + 2.0 + 9.0 + 7.0) / 4
    assert average(whole, "gain", "class_mean")["mean"] == (4.0 + 7.0) / 2
    found = average(whole, "gain", "class_median")
    assert found["mean"] == (2.0 + 7.0) / 2 and found["count"] == 4
    assert found["low"] == (1.0 + 7.0) / 2 and found["high"] == (9.0 + 7.0) / 2  # bells are resampled among bells
    assert average(ITEMS, "loss") is None
