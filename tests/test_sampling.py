"""Sampling options through a whole separator: every one changes the result, costs what it says, and long files work."""

import json
from dataclasses import replace

import pytest
import torch

from flowsep.config import SamplingConfig
from flowsep.errors import UsageError
from flowsep.flow import ADAPTIVE, SOLVER_NAMES
from flowsep.flow.guidance import Trajectory
from flowsep.longform import separate_audio
from flowsep.protocol import SampleOptions
from tests.fakes import tone
from tests.tiny import MIXTURE, PAPER, tiny_separator

TEXT = "a dog barking"
LOOSE = {"rtol": 0.3, "atol": 0.3}


@pytest.fixture(scope="module")
def paper():
    return tiny_separator(PAPER)


@pytest.fixture(scope="module", params=[PAPER, MIXTURE], ids=["paper", "mixture"])
def separator(request):
    return tiny_separator(request.param)


def mixture(batch=1, samples=9000):
    return 0.2 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(7))


def target(separator, **options):
    return separator.separate(mixture(), [TEXT], SampleOptions(**options)).target


@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_same_seed_same_result_in_any_batch_with_any_solver(separator, solver):
    sounds, texts = mixture(batch=3), [TEXT, "rain falling", "a siren"]
    options = SampleOptions(steps=2, solver=solver, seed=5, guidance=1.5, negative="someone speaking", **LOOSE)
    together = separator.separate(sounds, texts, options).target
    alone = separator.separate(sounds[1:2], texts[1:2], options).target
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together[1:2], alone, atol=3e-5, rtol=0)


@pytest.mark.parametrize(
    "change", [{"grid": "shift:3"}, {"grid": "sway:-1"}, {"grid": "0,0.1,0.5,1"}, {"solver": "ab2"}]
)
def test_grids_and_solvers_change_the_result_at_the_same_cost(separator, change):
    plain = separator.separate(mixture(), [TEXT], SampleOptions(steps=3))
    other = separator.separate(mixture(), [TEXT], SampleOptions(**{"steps": 3, **change}))
    assert other.nfe == plain.nfe == 3
    assert not torch.allclose(other.target, plain.target, atol=1e-6)


def test_an_evenly_spaced_list_is_the_uniform_grid(separator):
    listed = separator.separate(mixture(), [TEXT], SampleOptions(grid="0,0.5,1"))
    torch.testing.assert_close(listed.target, target(separator, steps=2), atol=1e-6, rtol=0)
    assert {"steps": 2, "grid": "0,0.5,1"}.items() <= listed.settings.items()


def test_the_models_own_grid_is_used_unless_steps_or_grid_or_solver_say_otherwise():
    separator = tiny_separator(PAPER)
    separator.sampling = replace(separator.sampling, grid="0,0.1,0.4,1")
    chosen = [SampleOptions(), SampleOptions(steps=3), SampleOptions(steps=5), SampleOptions(grid="sway:-1", steps=4)]
    resolved = [separator.resolve(options) for options in [*chosen, SampleOptions(solver="bosh3")]]
    assert [(options.steps, options.grid) for options in resolved] == [
        (3, "0,0.1,0.4,1"), (3, "0,0.1,0.4,1"), (5, "uniform"), (4, "sway:-1"), (2, None)
    ]  # fmt: skip
    assert [separator.resolve(options) for options in resolved] == resolved
    assert separator.defaults.grid == "0,0.1,0.4,1"


def test_a_model_folder_keeps_its_grid_and_one_without_is_uniform(tmp_path):
    from flowsep.checkpoint import load_separator

    separator = tiny_separator(MIXTURE)
    separator.sampling = replace(separator.sampling, grid="sway:-0.5")
    separator.save_pretrained(tmp_path)
    assert load_separator(tmp_path, "cpu").defaults.grid == "sway:-0.5"
    path = tmp_path / "scheduler" / "scheduler_config.json"
    settings = json.loads(path.read_text())
    del settings["sampling"]["grid"]
    path.write_text(json.dumps(settings))
    assert load_separator(tmp_path, "cpu").defaults.grid == SamplingConfig().grid == "uniform"


def test_guidance_costs_its_second_call_only_inside_its_interval(paper):
    options = SampleOptions(steps=10, guidance=2.0)
    everywhere = paper.separate(mixture(), [TEXT], options)
    within = paper.separate(mixture(), [TEXT], replace(options, guidance_interval=(0.2, 0.5)))
    assert (everywhere.nfe, within.nfe) == (20, 14)  # 0.2, 0.3, 0.4 and 0.5 are inside
    assert within.settings["guidance_interval"] == (0.2, 0.5)
    assert not torch.allclose(everywhere.target, within.target, atol=1e-6)
    torch.testing.assert_close(target(paper, steps=10, guidance=2.0, guidance_interval=(0.0, 1.0)), everywhere.target)


def test_a_negative_query_takes_the_place_of_the_empty_caption(paper):
    options = SampleOptions(steps=2, guidance=2.0, negative="rain falling")
    found = paper.separate(mixture(), [TEXT], options)
    assert found.nfe == 4 and found.settings["negative"] == "rain falling"
    assert not torch.allclose(found.target, target(paper, steps=2, guidance=2.0), atol=1e-6)
    # Away from the query itself there is nowhere to go: the guided velocity is the plain one.
    same = target(paper, steps=2, guidance=2.0, negative=TEXT)
    torch.testing.assert_close(same, target(paper, steps=2), atol=1e-5, rtol=0)
    # Guidance 0 is the negative query alone.
    zero = target(paper, steps=2, guidance=0.0, negative="rain falling")
    rain = paper.separate(mixture(), ["rain falling"], SampleOptions(steps=2)).target
    torch.testing.assert_close(zero, rain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", ["bosh3", "adaptive_heun"])  # dopri5 crosses so smooth a model in one step anyway
def test_a_finer_tolerance_costs_more_calls(separator, solver):
    counts = [
        separator.separate(mixture(), [TEXT], SampleOptions(solver=solver, rtol=tolerance, atol=tolerance)).nfe
        for tolerance in (0.3, 3e-4)
    ]
    assert counts[0] < counts[1]


@pytest.mark.parametrize("solver", SOLVER_NAMES)
def test_a_watch_sees_every_evaluation_and_changes_nothing(separator, solver):
    seen = Trajectory()
    options = SampleOptions(steps=3, solver=solver, guidance=2.0, **LOOSE)
    found = separator.separate(mixture(), [TEXT], options, watch=seen)
    assert torch.equal(found.target, separator.separate(mixture(), [TEXT], options).target)
    assert found.nfe == 2 * len(seen.times)
    assert seen.times == sorted(seen.times) or solver in (*ADAPTIVE, "rk4", "heun", "midpoint")
    assert seen.times[0] == 0 and max(seen.times) <= 1


def test_a_watch_that_says_true_ends_the_sampling(separator):
    found = separator.separate(mixture(), [TEXT], SampleOptions(steps=10), watch=lambda t, x, v: True)
    assert found.nfe == 1
    # One Euler step to the end, from the start: the same as one step asked for.
    torch.testing.assert_close(found.target, target(separator, steps=1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        SampleOptions(solver="ab2", grid="sway:-1", steps=3),
        SampleOptions(solver="bosh3", **LOOSE),
        SampleOptions(grid="0,0.3,1", guidance=2.0, guidance_interval=(0.2, 0.9), negative="rain falling"),
        SampleOptions(candidates=2, guidance=1.5),
    ],
)
def test_long_recordings_take_every_option(separator, options):
    recording = tone(3.0, 44100, channels=2)
    found = separate_audio(separator, recording, 44100, [TEXT, "a siren"], options)
    for one in found:
        assert one.windows > 1 and one.target.shape == recording.shape
        torch.testing.assert_close(one.target + one.residual, recording, rtol=0, atol=1e-6)
        json.dumps(one.settings)  # goes into the sidecar as it is


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SampleOptions(grid="0,0.5,1", steps=3), "makes 2 steps, but 3 were asked for; leave --steps out"),
        (SampleOptions(grid="cosine"), "cannot read the grid 'cosine'; write uniform"),
        (SampleOptions(grid="sway:-1", solver="dopri5"), "dopri5 chooses its own steps .* leave --grid out"),
        (SampleOptions(negative="rain"), "--negative acts through guidance, and guidance 1 is none"),
        (SampleOptions(negative=" ", guidance=2.0), "negative is empty"),
        (SampleOptions(guidance_interval=(0.2, 0.9)), "--guidance-interval acts through guidance"),
        (SampleOptions(guidance=2.0, guidance_interval=(0.9, 0.2)), "must rise within 0 to 1"),
        (SampleOptions(guidance=2.0, guidance_interval=(0.2, float("nan"))), "must rise within 0 to 1"),
        (SampleOptions(guidance=float("nan")), "guidance must be a number"),
        (SampleOptions(rtol=0.0), "rtol must be above 0"),
        (SampleOptions(candidates=0), "candidates must be at least 1"),
        (SampleOptions(candidate_score="beauty"), "unknown candidate score 'beauty'; choose from consistency"),
    ],
)
def test_options_that_do_not_go_together_say_what_to_do(paper, options, message):
    with pytest.raises(UsageError, match=message):
        paper.separate(mixture(), [TEXT], options)
