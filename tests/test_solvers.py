import math

import pytest
import torch
from torchdiffeq import odeint

from flowsep.flow import SOLVER_NAMES
from flowsep.flow.grids import uniform
from flowsep.flow.guidance import Counted, guided
from flowsep.flow.solvers import ADAPTIVE, SOLVERS, dopri5, euler

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
CALLS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}


def decay(t, x):
    """dx/dt = x cos(t): x(1) = x(0) exp(sin 1)."""
    return x * torch.cos(t)


def test_the_light_list_of_names_is_the_list_of_solvers():
    assert tuple(SOLVERS) == SOLVER_NAMES


@pytest.mark.parametrize("name", ORDERS)
def test_error_shrinks_at_the_solvers_order(name):
    x = torch.ones(1, dtype=torch.float64)
    exact = math.exp(math.sin(1.0))
    steps = [8, 16, 32]
    errors = [abs(SOLVERS[name](decay, x, uniform(n).double()).item() - exact) for n in steps]
    slope = math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])
    assert slope == pytest.approx(ORDERS[name], abs=0.2)


@pytest.mark.parametrize("name", SOLVER_NAMES)
def test_every_solver_is_exact_on_a_straight_path(name):
    noise, target = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    reached = SOLVERS[name](lambda t, x: target - noise, noise, uniform(1))
    torch.testing.assert_close(reached, target, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["euler", "midpoint", "rk4"])
def test_fixed_step_solvers_equal_torchdiffeq(name):
    x, times = torch.randn(3, 5, dtype=torch.float64), uniform(40).double()
    expected = odeint(decay, x, times, method=name)[-1]
    # torchdiffeq's "rk4" is the 3/8 rule: the same order, other coefficients.
    tolerance = 1e-6 if name == "rk4" else 1e-12
    torch.testing.assert_close(SOLVERS[name](decay, x, times), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", CALLS)
def test_network_calls_per_step_are_as_documented(name):
    counted = Counted(decay)
    SOLVERS[name](counted, torch.ones(1), uniform(5))
    assert counted.calls == 5 * CALLS[name]


def test_adaptive_solver_meets_its_tolerance():
    x = torch.ones(1, dtype=torch.float64)
    for tolerance in (1e-3, 1e-6):
        reached = dopri5(decay, x, uniform(1).double(), rtol=tolerance, atol=tolerance).item()
        assert abs(reached - math.exp(math.sin(1.0))) < 20 * tolerance
    assert ADAPTIVE == ("dopri5",)


def test_guidance_is_without_plus_scale_times_the_difference():
    with_text, without_text = (lambda t, x: 3 * x), (lambda t, x: x)
    x = torch.randn(4)
    torch.testing.assert_close(guided(with_text, without_text, 2.5)(torch.tensor(0.0), x), x + 2.5 * 2 * x)


def test_guidance_of_one_costs_one_call():
    with_text, without_text = Counted(decay), Counted(decay)
    euler(guided(with_text, without_text, 1.0), torch.ones(1), uniform(4))
    assert (with_text.calls, without_text.calls) == (4, 0)


def test_zero_steps_are_refused():
    with pytest.raises(ValueError, match="steps must be at least 1"):
        uniform(0)
