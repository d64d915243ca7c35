"""Searched grids: the greedy drop on a formula, and the command that tunes and stores them."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from flowsep.checkpoint import load_separator
from flowsep.cli import main
from flowsep.data.manifest import read_manifest
from flowsep.errors import UsageError
from flowsep.evaluation.recipe import draw_recipe, write_recipe
from flowsep.flow.grids import parse_grid
from flowsep.flow.search import drop_steps, recorded
from flowsep.flow.solvers import SOLVERS
from flowsep.protocol import SampleOptions
from flowsep.tuning import Problem, Tuned, store_grid, tune_steps
from tests.tiny import MIXTURE, PAPER, tiny_separator, write_clips

FINE = [index / 64 for index in range(65)]


def early(t):
    """A velocity that changes near t = 0 and is constant after."""
    return math.exp(-20 * t)


def euler_error(grid):
    """Error of Euler's steps over `grid` on dx/dt = early(t), against the fine grid."""

    def area(points):
        return sum((b - a) * early(a) for a, b in pairwise(points))

    return abs(area(grid) - area(FINE))


def test_steps_are_kept_where_the_velocity_changes():
    grid = drop_steps(FINE, [4], euler_error)[4]
    assert len(grid) == 5 and grid[0] == 0 and grid[-1] == 1
    assert grid[3] < 0.5  # all inner times in the first half
    assert euler_error(grid) < euler_error([0, 0.25, 0.5, 0.75, 1]) / 2


def test_grids_of_several_lengths_are_nested_and_the_fine_one_is_itself():
    found = drop_steps(FINE, [64, 8, 2, 1], euler_error)
    assert found[64] == tuple(FINE) and found[1] == (0, 1)
    assert set(found[2]) < set(found[8]) < set(FINE)


def test_a_trial_overrules_the_estimate_among_the_shortlist():
    def wrong(grid):
        return -euler_error(grid)

    kept = drop_steps(FINE[::8], [3], wrong, trial=euler_error, shortlist=100)[3]
    assert kept == drop_steps(FINE[::8], [3], euler_error)[3]


def test_a_recorded_velocity_is_what_was_seen_and_straight_between():
    velocity = recorded([0.0, 0.5], [torch.tensor(1.0), torch.tensor(3.0)])
    x = torch.zeros(())
    assert [velocity(torch.tensor(t), x).item() for t in (0.0, 0.25, 0.5, 0.9)] == [1, 2, 3, 3]
    reached = SOLVERS["euler"](velocity, x, torch.tensor([0.0, 0.5, 1.0]))
    assert reached == 0.5 * 1 + 0.5 * 3


@pytest.mark.parametrize("config", [PAPER, MIXTURE], ids=["velocity", "target"])
@pytest.mark.parametrize("solver", ["euler", "ab2", "heun"])
def test_tuning_reports_errors_of_real_samples_against_the_fine_solution(config, solver):
    separator = tiny_separator(config)
    mixture, texts = 0.1 * torch.randn(2, 9600), ["rain falling on a roof", "a siren wails"]
    options = SampleOptions(solver=solver)
    (found,) = tune_steps(separator, mixture, texts, [2], options, fine=6, shortlist=2)
    assert found.steps == 2 and parse_grid(found.grid).steps == 2
    problem = Problem(separator, mixture, texts, options)
    fine = problem.mels(
        problem.sample(
            problem.on([i / 6 for i in range(7)])
            if solver == "euler"
            else replace(problem.options, solver="euler", steps=6)
        )
    )
    few = problem.mels(problem.sample(problem.on(found.times)))
    assert found.error == pytest.approx((few - fine).abs().mean().item(), rel=1e-4)
    half = problem.mels(problem.sample(problem.on([0.0, 0.5, 1.0])))
    assert found.uniform == pytest.approx((half - fine).abs().mean().item(), rel=1e-4)


def test_with_every_candidate_sampled_the_last_drop_is_the_best_there_is():
    separator = tiny_separator(MIXTURE)
    mixture, texts = 0.1 * torch.randn(1, 9600), ["rain"]
    (found,) = tune_steps(separator, mixture, texts, [2], fine=3, shortlist=99)
    problem = Problem(separator, mixture, texts, SampleOptions())
    fine = problem.mels(problem.sample(problem.on([0, 1 / 3, 2 / 3, 1])))
    errors = {
        t: (problem.mels(problem.sample(problem.on([0, t, 1]))) - fine).abs().mean().item() for t in (1 / 3, 2 / 3)
    }
    assert found.times[1] == min(errors, key=errors.get)


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        ([0], SampleOptions(), "from 1 to 5, below --fine"),
        ([6], SampleOptions(), "from 1 to 5, below --fine"),
        ([], SampleOptions(), "from 1 to 5"),
        ([2], SampleOptions(solver="dopri5"), "dopri5 chooses its own steps"),
    ],
)
def test_what_cannot_be_searched_is_refused(targets, options, message):
    with pytest.raises(UsageError, match=message):
        tune_steps(tiny_separator(), 0.1 * torch.randn(1, 9600), ["rain"], targets, options, fine=6)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with clips, a recipe of four mixtures and a tiny model."""
    folder = tmp_path_factory.mktemp("tuning")
    clips = write_clips(folder / "clips")
    write_recipe(folder / "recipe.csv", draw_recipe(read_manifest(clips), clips, 4, seed=0, length_s=2.0))
    tiny_separator(MIXTURE).save_pretrained(folder / "model")
    return folder


def command(place, *options):
    paths = ["--recipe", place / "recipe.csv", "--data", place / "clips", "--count", 2, "--device", "cpu", "-q"]
    return main(["tune-steps", *map(str, paths), *map(str, options)])


def test_the_command_prints_grids_that_the_other_commands_take(place, capsys):
    assert command(place, "--model", place / "model", "--steps", "2,3", "--fine", 6, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [parse_grid(row["grid"]).steps for row in report["grids"]] == [2, 3] and report["mixtures"] == 2
    assert load_separator(place / "model", "cpu").defaults.grid == "uniform"  # nothing is stored unasked


def test_a_stored_grid_is_the_models_default_and_gives_way_to_other_steps(place):
    folder = place / "model-to-change"
    tiny_separator(MIXTURE).save_pretrained(folder)
    store_grid(folder, Tuned(3, (0.0, 0.125, 0.5, 1.0), 0.1, 0.2), "euler")
    separator = load_separator(folder, "cpu")
    assert separator.resolve(None).steps == 3 and separator.resolve(None).grid == "0,0.125,0.5,1"
    assert separator.resolve(SampleOptions(steps=5)).grid == "uniform"


def test_the_command_stores_a_grid_where_it_is_better_than_uniform(place, monkeypatch, capsys):
    folder = place / "model-to-tune"
    tiny_separator(MIXTURE).save_pretrained(folder)
    better = Tuned(2, (0.0, 0.25, 1.0), 0.1, 0.2)
    monkeypatch.setattr("flowsep.tuning.tune_steps", lambda *arguments: [better])
    assert command(place, "--model", folder, "--steps", "2", "--store") == 0
    assert load_separator(folder, "cpu").resolve(None).grid == "0,0.25,1"
    monkeypatch.setattr("flowsep.tuning.tune_steps", lambda *arguments: [replace(better, error=0.3)])
    assert command(place, "--model", folder, "--steps", "2", "--store") == 2
    assert "nothing was stored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--steps", "0"], 2, "whole numbers from 1"),
        (["--steps", "64"], 2, "below --fine 64, not 64"),
        (["--steps", "2,4", "--store"], 2, "give one number of --steps"),
        (["--solver", "leapfrog"], 2, "unknown solver"),
        (["--model", "none"], 4, "unknown model 'none'"),
        (["--recipe", "none.csv"], 3, "no recipe at none.csv"),
    ],
)
def test_bad_input_gets_one_line(place, options, code, message, capsys):
    assert command(place, *options) == code
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_a_shipped_model_is_never_changed(place, monkeypatch, capsys):
    monkeypatch.setattr("flowsep.tuning.SHIPPED", place)
    assert command(place, "--model", place / "model", "--steps", "2", "--store") == 2
    assert "left as it is; copy the model" in capsys.readouterr().err
