"""Several systems in one table."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from flowsep.cli import main
from flowsep.errors import UsageError
from flowsep.evaluation.compare import evaluate_systems, leaderboard_lines
from flowsep.evaluation.recipe import MixtureRow, write_recipe
from flowsep.protocol import SampleOptions
from tests.tiny import MIXTURE, tiny_separator, write_clips
from tests.tiny_masks import tiny_masker

ROWS = [
    MixtureRow("a", "low_hum/0.wav", "hiss/0.wav", 0.0, 0.0, 3.0, "hum", "low_hum", "hiss", 1.0),
    MixtureRow("b", "high_whistle/0.wav", "clicks/0.wav", 0.0, 0.0, 0.0, "whistle", "high_whistle", "clicks", 1.0),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_clips(tmp_path_factory.mktemp("data"))
    (folder / "models").mkdir()
    tiny_separator(replace(MIXTURE, sampling=replace(MIXTURE.sampling, window_frames=128))).save_pretrained(
        folder / "models" / "flow"
    )
    tiny_masker("clap").save_pretrained(folder / "models" / "mask")
    return folder


def test_systems_share_the_mixtures_and_are_ranked_with_paired_differences(data):
    flow, mask = (str(data / "models" / name) for name in ("flow", "mask"))
    options = SampleOptions(steps=2, solver="heun")  # for the flow; the mask separator samples nothing
    report = evaluate_systems([flow, "mixture", mask, "oracle"], ROWS, data, options, "two")
    systems = report["systems"]
    assert [item["id"] for item in systems[mask]["items"]] == ["a", "b"]
    assert systems["mixture"]["si_sdri"]["mean"] == pytest.approx(0, abs=1e-6)
    assert systems["oracle"]["si_sdri"]["mean"] > 5
    assert systems[flow]["nfe"] == 3 and systems[mask]["nfe"] == 1
    expected = -systems[flow]["si_sdri"]["mean"]
    assert report["differences"]["mixture"]["mean"] == pytest.approx(expected) and flow not in report["differences"]
    table = leaderboard_lines(report)
    assert table[4].startswith("| oracle |") and len(table) == 8 and " - " in table[4]
    with pytest.raises(UsageError, match="named twice"):
        evaluate_systems(["mixture", "mixture"], ROWS, data, options, "two")


def test_evaluate_command_takes_several_models(data, tmp_path, capsys):
    write_recipe(tmp_path / "r.csv", ROWS)
    command = ["evaluate", "--recipe", str(tmp_path / "r.csv"), "--data", str(data), "-q"]
    assert main([*command, "--model", "mixture,oracle", "-o", str(tmp_path / "o.json"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert set(summary["systems"]) == {"mixture", "oracle"} and "items" not in summary["systems"]["mixture"]
    assert len(json.loads((tmp_path / "o.json").read_text())["systems"]["oracle"]["items"]) == 2
    assert main([*command, "--model", "oracle"]) == 0
    assert "| oracle |" in capsys.readouterr().out
