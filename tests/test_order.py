"""The picture of the solvers' orders: its slopes are the theory's, and the command writes it."""

import pytest

from flowsep.benchmark.order import THEORY, errors_of, slope
from flowsep.cli import main
from flowsep.flow import ADAPTIVE, SOLVER_NAMES


def test_a_slope_is_the_exponent_of_a_power_law():
    assert slope([(2, 1.0), (4, 0.125), (8, 1 / 64)]) == pytest.approx(3)


@pytest.mark.parametrize("name", [name for name in THEORY if name not in ADAPTIVE])
def test_the_line_of_a_solver_falls_at_its_order(name):
    assert slope(errors_of(name)) == pytest.approx(THEORY[name], abs=0.2)


def test_every_solver_is_drawn_and_nothing_is_overwritten_unasked(tmp_path, capsys):
    assert set(THEORY) == set(SOLVER_NAMES)
    picture = tmp_path / "order.png"
    assert main(["benchmark", "solvers", "-o", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size < 100_000
    assert capsys.readouterr().out.count("slope") == len(THEORY) - len(ADAPTIVE)
    assert main(["benchmark", "solvers", "-o", str(picture)]) == 3
    assert "exists; add --overwrite" in capsys.readouterr().err
