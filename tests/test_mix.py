"""Mixtures written as files for other tools."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flowsep.cli import main
from flowsep.evaluation.recipe import MixtureRow, render_row, write_recipe
from tests.tiny import write_clips

ROWS = [
    MixtureRow("a", "low_hum/0.wav", "hiss/0.wav", 0.2, 0.0, 3.0, "a hum, low", "low_hum", "hiss", 1.5),
    MixtureRow("b é", "clicks/0.wav", "hiss/1.wav", 0.0, 0.0, -2.5, "clicks", "clicks", "hiss", 1.0),
]


@pytest.fixture
def clips(tmp_path) -> Path:
    data = write_clips(tmp_path / "clips é")
    write_recipe(tmp_path / "r.csv", ROWS)
    return data


def mix(clips: Path, out: Path, *words: str) -> int:
    return main(["mix", str(clips.parent / "r.csv"), str(out), "--data", str(clips), "-q", *words])


def index(out: Path) -> list[dict[str, str]]:
    with (out / "index.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_mixtures_targets_and_residuals_are_the_recipes_and_add_up(clips, tmp_path, capsys):
    out = tmp_path / "my out"
    assert mix(clips, out, "--targets", "--residuals") == 0
    assert capsys.readouterr().out.strip() == str(out / "index.csv")
    for row, written in zip(ROWS, index(out), strict=True):
        assert (written["id"], written["text"], written["target_class"]) == (row.id, row.query, row.target_class)
        assert (float(written["snr_db"]), written["sample_rate"]) == (row.snr_db, "16000")
        parts = {}
        for role in ("mixture", "target", "residual"):
            parts[role], rate = soundfile.read(out / written[role], dtype="float32")
            assert rate == 16000 and len(parts[role]) == int(written["samples"])
        expected = render_row(row, clips)
        np.testing.assert_array_equal(parts["mixture"], expected[0])
        np.testing.assert_array_equal(parts["target"], expected[1])
        np.testing.assert_allclose(parts["target"] + parts["residual"], parts["mixture"], atol=1e-7)
    assert sorted(path.name for path in out.iterdir()) == ["index.csv", "mixtures", "residuals", "targets"]


def test_targets_are_kept_back_unless_asked_for(clips, tmp_path, capsys):
    assert mix(clips, tmp_path / "o") == 0
    assert [path.name for path in sorted((tmp_path / "o").iterdir())] == ["index.csv", "mixtures"]
    words = ["evaluate", "mixtures", "--data", str(tmp_path / "o"), "--model", "mixture"]
    assert main(words) == 3 and "write them by flowsep mix --targets" in capsys.readouterr().err


def test_nothing_is_overwritten_unasked_and_a_killed_run_goes_on(clips, tmp_path, monkeypatch, capsys):
    out = tmp_path / "o"
    from flowsep.evaluation import written

    original, calls = written.write_item, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(written, "write_item", stopped)
    assert mix(clips, out) == 130 and not (out / "index.csv").exists()
    first = (out / "mixtures" / "a.wav").stat().st_mtime_ns
    monkeypatch.setattr(written, "write_item", original)
    write_recipe(tmp_path / "r.csv", ROWS[:1])
    assert mix(clips, out) == 3 and "begun with other mixtures" in capsys.readouterr().err
    write_recipe(tmp_path / "r.csv", ROWS)
    assert mix(clips, out) == 0 and len(index(out)) == 2
    assert (out / "mixtures" / "a.wav").stat().st_mtime_ns == first
    assert mix(clips, out) == 3 and "exists" in capsys.readouterr().err
    assert mix(clips, out, "--overwrite", "--limit", "1") == 0 and len(index(out)) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("x")
    assert mix(clips, tmp_path / "mine") == 3


@pytest.mark.parametrize("name", ["../x", "a/b", "", "con:1"])
def test_ids_that_would_leave_the_folder_are_refused(clips, tmp_path, capsys, name):
    write_recipe(tmp_path / "r.csv", [MixtureRow(name, *list(vars(ROWS[0]).values())[1:])])
    assert mix(clips, tmp_path / "o") == 3
    assert "cannot be a file's name" in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_a_recipe_that_is_not_there_is_told(clips, tmp_path, capsys):
    assert main(["mix", "nowhere.csv", str(tmp_path / "o"), "--data", str(clips)]) == 3
    assert "no recipe at nowhere.csv" in capsys.readouterr().err
