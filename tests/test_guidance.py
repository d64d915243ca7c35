"""Wrappers of a velocity: what they change, what they cost, and that a solver never learns of them."""

import pytest
import torch

from flowsep.flow.grids import uniform
from flowsep.flow.guidance import Counted, Stopped, Trajectory, guided, limited, watched
from flowsep.flow.solvers import SOLVERS, ab2, euler, midpoint


def three(t, x):
    return 3 * x


def one(t, x):
    return x


def test_guidance_is_without_plus_scale_times_the_difference():
    x = torch.randn(4)
    torch.testing.assert_close(guided(three, one, 2.5)(torch.tensor(0.0), x), x + 2.5 * 2 * x)


def test_guidance_of_one_costs_one_call():
    with_text, without_text = Counted(three), Counted(one)
    euler(guided(with_text, without_text, 1.0), torch.ones(1), uniform(4))
    assert (with_text.calls, without_text.calls) == (4, 0)


def test_outside_its_interval_guidance_costs_nothing_and_changes_nothing():
    with_text, without_text = Counted(three), Counted(one)
    velocity = limited(guided(with_text, without_text, 2.0), with_text, (0.2, 0.7))
    found = [velocity(t, torch.ones(1)).item() for t in uniform(10)[:-1]]
    assert found == [3.0] * 2 + [5.0] * 6 + [3.0] * 2  # both ends of the interval are inside
    assert (with_text.calls, without_text.calls) == (10, 6)


def test_no_interval_is_guidance_everywhere():
    assert limited(three, one, None) is three


@pytest.mark.parametrize("name", SOLVERS)
def test_watching_does_not_change_the_result(name):
    x = torch.randn(2, 3)
    seen = Trajectory()
    counted = Counted(lambda t, x: x * torch.cos(t))
    reached = SOLVERS[name](watched(counted, seen), x, uniform(3))
    assert torch.equal(reached, SOLVERS[name](lambda t, x: x * torch.cos(t), x, uniform(3)))
    assert len(seen.times) == len(seen.states) == len(seen.velocities) == counted.calls
    assert torch.equal(seen.states[0], x)


@pytest.mark.parametrize("solver", [euler, ab2])
def test_the_trajectory_of_a_one_call_solver_is_its_states_at_the_grid(solver):
    seen, x = Trajectory(), torch.ones(1)
    solver(watched(three, seen), x, uniform(4))
    assert seen.times == [0.0, 0.25, 0.5, 0.75]
    for count, state in enumerate(seen.states[1:], start=1):
        torch.testing.assert_close(state, solver(three, x, uniform(4)[: count + 1]))


def test_the_target_in_sight_of_a_straight_path_is_its_end():
    noise, target, seen = torch.randn(2, 5), torch.randn(2, 5), Trajectory()
    midpoint(watched(lambda t, x: target - noise, seen), noise, uniform(3))
    for estimate in seen.estimates():
        torch.testing.assert_close(estimate, target, atol=1e-5, rtol=1e-5)


def test_a_watch_that_says_true_ends_the_sampling_with_the_target_in_sight():
    counted = Counted(three)
    with pytest.raises(Stopped) as stopped:
        euler(watched(counted, lambda t, x, v: t >= 0.5), torch.ones(1), uniform(4))
    assert counted.calls == 3
    at_half = 1.75**2  # after two steps of 1 + 3 / 4
    assert stopped.value.estimate.item() == pytest.approx(at_half * (1 + 0.5 * 3))
