"""Time grids: from 0 to 1, rising, with the density that their names promise; bad names get one clear line."""

import math

import pytest
import torch

from flowsep.errors import UsageError
from flowsep.flow.grids import Grid, parse_grid, shifted, swayed, uniform

FAMILIES = ["uniform", "shift:3", "shift:0.2", "shift:1", "sway:-1", "sway:0.5", "sway:1.75"]


@pytest.mark.parametrize("steps", [1, 2, 10, 200])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_grid_has_k_steps_from_0_to_1_and_rises(name, steps):
    times = parse_grid(name).times(steps)
    assert times.shape == (steps + 1,) and times.dtype == torch.float32
    assert times[0] == 0 and times[-1] == 1 and (times.diff() > 0).all()


def test_shift_is_the_formula_of_stable_diffusion_3_on_the_noise_level():
    noise = 1 - uniform(10)
    torch.testing.assert_close(shifted(10, 3.0), 1 - 3 * noise / (1 + 2 * noise))
    t = uniform(10)
    torch.testing.assert_close(shifted(10, 3.0), t / 3 / (1 + (1 / 3 - 1) * t))  # the same family in t, with 1 / S
    torch.testing.assert_close(shifted(10, 1.0), t)


def test_sway_is_the_formula_of_f5_tts():
    t = uniform(10)
    torch.testing.assert_close(swayed(10, -1.0), 1 - torch.cos(math.pi / 2 * t))
    torch.testing.assert_close(swayed(10, 0.4), t + 0.4 * (torch.cos(math.pi / 2 * t) - 1 + t))


@pytest.mark.parametrize(("name", "finer_at_noise"), [("shift:3", True), ("shift:0.3", False), ("sway:-1", True)])
def test_the_sign_of_the_strength_says_which_end_gets_the_fine_steps(name, finer_at_noise):
    distances = parse_grid(name).times(10).diff()
    assert (distances[0] < 0.1 < distances[-1]) == finer_at_noise
    assert (distances[-1] < 0.1 < distances[0]) != finer_at_noise


def test_a_list_is_taken_as_it_is_and_counts_its_steps():
    grid = parse_grid(" 0, 0.1,0.5 ,1")
    assert grid == Grid("list", points=(0.0, 0.1, 0.5, 1.0)) and grid.steps == 3
    torch.testing.assert_close(grid.times(3), torch.tensor([0.0, 0.1, 0.5, 1.0]))
    assert parse_grid("uniform").steps is None


BAD_GRIDS = [
    ("", "cannot read the grid ''; write uniform, shift:S"),
    ("cosine", "cannot read the grid 'cosine'; write uniform, shift:S"),
    ("uniform:2", "cannot read the grid"),
    ("0,x,1", "cannot read the grid"),
    ("0,,1", "cannot read the grid"),
    ("0,nan,1", "cannot read the grid"),
    ("0;0.5;1", "cannot read the grid"),
    ("1", "start at 0 and end at 1"),
    ("0.1,0.5,1", "start at 0 and end at 1"),
    ("0,0.5,0.9", "start at 0 and end at 1"),
    ("0,0.5,0.5,1", "must rise"),
    ("0,0.6,0.4,1", "must rise.*0.4 follows 0.6"),
    ("0,1e-9,1", "must rise"),
    ("shift", "needs a number; write shift:3"),
    ("shift:", "needs a number"),
    ("shift:inf", "needs a number"),
    ("shift:0", "above 0"),
    ("shift:-2", "above 0"),
    ("sway:a", "needs a number; write sway:-1"),
    ("sway:-1.1", "from -1 to 1.75"),
    ("sway:2", "from -1 to 1.75"),
]


@pytest.mark.parametrize(("text", "message"), BAD_GRIDS)
def test_a_bad_grid_says_what_is_wrong_and_what_to_write(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_grid(text)
    assert "\n" not in str(caught.value)


def test_times_that_float32_cannot_tell_apart_are_refused():
    with pytest.raises(UsageError, match="fall together; choose fewer steps or a weaker shift"):
        parse_grid("shift:1e-7").times(10)


def test_zero_steps_are_refused():
    with pytest.raises(ValueError, match="steps must be at least 1"):
        uniform(0)
