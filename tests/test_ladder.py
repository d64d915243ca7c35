"""The ladder: its rows are one measure more each, timed in turns, and judged against the plain path."""

from __future__ import annotations

import ctypes
import json
import sys
from dataclasses import fields, replace

import pytest
import torch

from flowsep.benchmark import ceilings, ladder
from flowsep.benchmark.ladder import huge_pages, ladder_lines, measure_ladder, rungs
from flowsep.benchmark.latency import Workload
from flowsep.cli import main
from tests.tiny import PAPER, tiny_separator
from vocoder.measures import PLAIN, Measures, measures

HALF = ("blocked", "channels_last")  # measures of half precision alone


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch):
    """Ceilings of a size that takes no time."""
    monkeypatch.setattr(ceilings, "SMALL_MATRIX", 64)
    monkeypatch.setattr(ceilings, "SMALL_COPY_MIB", 1)


def test_each_rung_of_full_precision_has_more_measures_until_all_are_on():
    steps = [rung for rung in rungs(2.5) if rung.dtype == torch.float32]
    counts = [sum(vars(step.measures).values()) + step.huge_pages for step in steps]
    assert counts == [0, 1, 2, 3, 4, 5, 7, 8] and counts[-1] == len(fields(Measures)) + 1 - len(HALF)
    assert steps[0].measures == PLAIN and steps[-1].measures == replace(Measures(), **dict.fromkeys(HALF, False))
    assert [rung.name for rung in rungs(1.0)] == [rung.name for rung in rungs(2.5) if rung.name != "+paired"]


def test_half_precision_climbs_from_plain_to_all_measures():
    plain, *steps = [rung for rung in rungs(2.5) if rung.dtype == torch.bfloat16]
    counts = [sum(vars(step.measures).values()) for step in steps]
    assert plain.measures == PLAIN and counts == list(range(counts[0], counts[0] + len(HALF) + 1))
    assert steps[-1].measures == Measures()


def test_the_report_holds_turns_ratios_and_errors(monkeypatch):
    seen = []
    original = ladder.run_rung

    def watched(rung, *about):
        seen.append(rung.name)
        found, target = original(rung, *about)
        return {**found, "whole": 2.0 if rung.name == "plain" else 1.0}, target

    monkeypatch.setattr(ladder, "run_rung", watched)
    report = measure_ladder(tiny_separator(PAPER), "tiny", Workload(steps=2, repeats=3), budget=60.0)
    names = [rung.name for rung in rungs(1.0)]
    assert seen == ["+text", "+channels last", *names * 3]  # what sets things up, then three rounds
    rows = {row["name"]: row for row in json.loads(json.dumps(report))["rows"]}
    assert rows["plain"]["speedup"] == 1 and rows["+winograd"]["speedup"] == 2
    assert rows["plain"]["max_error"] == rows["+huge pages"]["max_error"] == 0 and rows["plain"]["snr_db"] is None
    assert rows["+text"]["max_error"] <= 2e-5
    assert rows["+channels last"]["max_error"] > 0 and rows["+channels last"]["snr_db"] < rows["+framed"]["snr_db"]
    assert all(len(row["samples"]) == 3 for row in rows.values())
    assert measures() == Measures()
    text = "\n".join(ladder_lines(report))
    assert "| +winograd " in text and "2.00x" in text and "medians of 3 rounds" in text


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_huge_pages_are_refused_within_the_context_only():
    def allowed() -> bool:
        return ctypes.CDLL(None).prctl(42, 0, 0, 0, 0) == 0  # PR_GET_THP_DISABLE

    with huge_pages(False):
        assert not allowed()
    with huge_pages(True):
        assert allowed()
    assert allowed()


def test_the_budget_ends_the_rounds_but_not_before_two(monkeypatch):
    report = measure_ladder(tiny_separator(PAPER), "tiny", Workload(steps=1, repeats=9), budget=0.0)
    assert report["settings"]["rounds"] == 2


def test_the_command_writes_a_report_that_can_be_shown_again(tmp_path, capsys, monkeypatch):
    config = replace(PAPER, name="tiny")
    monkeypatch.setattr("flowsep.cli.benchmark.Builder.__call__", lambda *_: (tiny_separator(config), 0.1))
    path = tmp_path / "ladder.json"
    assert main(["benchmark", "latency", "--ladder", "--repeats", "1", "-q", "-o", str(path)]) == 0
    shown = capsys.readouterr().out
    assert main(["benchmark", "show", str(path)]) == 0
    assert capsys.readouterr().out == shown
    assert main(["benchmark", "latency", "--ladder", "--dtype", "bfloat16"]) == 2
