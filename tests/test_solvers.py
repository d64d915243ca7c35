"""Solvers on equations with closed-form solutions: order, calls, tolerance, and agreement with torchdiffeq."""

import math
from itertools import pairwise

import pytest
import torch
from torchdiffeq import odeint

from flowsep.errors import UsageError
from flowsep.flow import ADAPTIVE, SOLVER_NAMES
from flowsep.flow.grids import parse_grid, uniform
from flowsep.flow.guidance import Counted
from flowsep.flow.solvers import SOLVERS, ab2, euler, heun

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "ab2": 2}
ADAPTIVE_ORDERS = {"dopri5": 5, "bosh3": 3, "adaptive_heun": 2}
CALLS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "ab2": 1}


def growth(t, x):
    """dx/dt = x + t: x(1) = 2 e - 2 from x(0) = 1."""
    return x + t


END = 2 * math.e - 2
ONE = torch.ones(1, dtype=torch.float64)


def decay(t, x):
    """dx/dt = x cos(t): x(1) = x(0) exp(sin 1)."""
    return x * torch.cos(t)


def order(errors, steps):
    """The exponent p of error ~ steps^-p between the first and the last."""
    return math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])


def test_the_light_list_of_names_is_the_list_of_solvers():
    assert tuple(SOLVERS) == SOLVER_NAMES
    assert tuple(ADAPTIVE_ORDERS) == ADAPTIVE


@pytest.mark.parametrize("grid", ["uniform", "shift:3", "shift:0.3", "sway:-1", "sway:1"])
@pytest.mark.parametrize("name", ORDERS)
def test_error_shrinks_at_the_solvers_order_on_every_grid(name, grid):
    steps = [32, 64, 128]
    grids = [parse_grid(grid).times(count).double() for count in steps]
    errors = [abs(SOLVERS[name](growth, ONE, times).item() - END) for times in grids]
    assert order(errors, steps) == pytest.approx(ORDERS[name], abs=0.2)


@pytest.mark.parametrize("name", ADAPTIVE_ORDERS)
def test_steps_of_an_adaptive_solver_have_its_order(name):
    steps, errors = [8, 16, 32], []
    for count in steps:
        x = ONE
        for times in pairwise(uniform(count).double()):  # so large a tolerance that each piece is one step
            x = SOLVERS[name](growth, x, torch.stack(times), rtol=1e3, atol=1e3)
        errors.append(abs(x.item() - END))
    assert order(errors, steps) == pytest.approx(ADAPTIVE_ORDERS[name], abs=0.2)


@pytest.mark.parametrize("name", SOLVER_NAMES)
def test_every_solver_is_exact_on_a_straight_path(name):
    noise, target = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    for grid, steps in (("uniform", 1), ("0,0.1,0.5,1", 3)):
        reached = SOLVERS[name](lambda t, x: target - noise, noise, parse_grid(grid).times(steps))
        torch.testing.assert_close(reached, target, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["euler", "midpoint", "heun", "rk4"])
def test_fixed_step_solvers_equal_torchdiffeq(name):
    x, times = torch.randn(3, 5, dtype=torch.float64), parse_grid("sway:-0.5").times(40).double()
    expected = odeint(decay, x, times, method={"heun": "heun2"}.get(name, name))[-1]
    # torchdiffeq's "rk4" is the 3/8 rule: the same order, other coefficients.
    tolerance = 1e-6 if name == "rk4" else 1e-12
    torch.testing.assert_close(SOLVERS[name](decay, x, times), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", CALLS)
def test_network_calls_per_step_are_as_documented(name):
    counted = Counted(decay)
    SOLVERS[name](counted, torch.ones(1), uniform(5))
    assert counted.calls == 5 * CALLS[name]


def test_ab2_is_exact_after_its_first_step_where_the_velocity_is_a_line_in_time_whatever_the_steps():
    times = torch.tensor([0.0, 0.1, 0.15, 0.6, 0.61, 1.0], dtype=torch.float64)
    reached = ab2(lambda t, x: t.expand_as(x), torch.zeros(1, dtype=torch.float64), times)
    assert reached.item() == pytest.approx(0.5 - 0.1**2 / 2, abs=1e-12)  # Euler misses the first triangle, 0.1^2 / 2


def test_one_step_of_ab2_is_eulers():
    assert torch.equal(ab2(growth, ONE, uniform(1).double()), euler(growth, ONE, uniform(1).double()))


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("equation", [(growth, END), (decay, math.exp(math.sin(1.0)))])
def test_adaptive_solvers_meet_their_tolerance_with_more_calls_for_a_finer_one(name, equation):
    velocity, exact = equation
    calls = []
    for tolerance in (1e-3, 1e-6):
        counted = Counted(velocity)
        reached = SOLVERS[name](counted, ONE, uniform(1).double(), rtol=tolerance, atol=tolerance).item()
        assert abs(reached - exact) < 20 * tolerance
        calls.append(counted.calls)
    assert calls[0] < calls[1]


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_solvers_equal_torchdiffeq_that_ends_its_steps_at_the_end(name):
    times = uniform(1).double()
    expected = odeint(growth, ONE, times, rtol=1e-4, atol=1e-5, method=name, options={"step_t": times[1:]})[-1]
    assert torch.equal(SOLVERS[name](growth, ONE, times, rtol=1e-4, atol=1e-5), expected)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_solvers_never_ask_beyond_the_end(name):
    asked = []

    def velocity(t, x):
        asked.append(float(t))
        return growth(t, x)

    SOLVERS[name](velocity, torch.ones(1), torch.tensor([0.0, 0.95]), rtol=0.1, atol=0.1)
    assert min(asked) == 0 and max(asked) <= 0.95 + 1e-7


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_tolerance_out_of_reach_says_so(name, monkeypatch):
    monkeypatch.setattr("flowsep.flow.solvers.MOST_STEPS", 20)
    with pytest.raises(UsageError, match=f"{name} found no steps that meet rtol 1e-12 .* raise them"):
        SOLVERS[name](lambda t, x: torch.randn_like(x), torch.ones(4), uniform(1), rtol=1e-12, atol=1e-12)


def test_heun_on_a_batch_is_heun_on_its_items():
    x, times = torch.randn(4, 3), uniform(3)
    torch.testing.assert_close(heun(decay, x, times)[2:3], heun(decay, x[2:3], times))
