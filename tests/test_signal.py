import numpy as np
import pytest
import torch

from flowsep.evaluation.signal import level_db, sdr, si_sdr
from flowsep.evaluation.statistics import bootstrap_mean


def test_si_sdr_of_orthogonal_noise_is_the_energy_ratio():
    time = torch.arange(16000) / 16000
    reference, noise = torch.sin(2 * torch.pi * 100 * time), torch.sin(2 * torch.pi * 200 * time)
    assert si_sdr(reference + 0.1 * noise, reference).item() == pytest.approx(20.0, abs=1e-3)


def test_si_sdr_ignores_scale_and_sdr_does_not():
    torch.manual_seed(0)  # near orthogonality the rounding of the scaled estimate would show
    reference, estimate = torch.randn(2, 3, 1000, dtype=torch.float64)
    torch.testing.assert_close(si_sdr(7 * estimate, reference), si_sdr(estimate, reference))
    assert sdr(2 * reference, reference).tolist() == pytest.approx([0.0] * 3, abs=1e-5)


def test_sdr_equals_its_formula():
    torch.manual_seed(0)
    reference, estimate = torch.randn(2, 500)
    expected = 10 * np.log10(((reference**2).sum() / ((estimate - reference) ** 2).sum()).item())
    assert sdr(estimate, reference).item() == pytest.approx(float(expected), abs=1e-4)


def test_level_of_a_full_scale_square_wave_is_zero_db():
    assert level_db(torch.ones(10)).item() == 0 and level_db(torch.zeros(10)).item() == -200


def test_bootstrap_interval_holds_the_mean_and_narrows_with_count():
    rng = np.random.default_rng(1)
    few, many = bootstrap_mean(rng.normal(3, 1, 20)), bootstrap_mean(rng.normal(3, 1, 2000))
    assert few["low"] < few["mean"] < few["high"]
    assert many["high"] - many["low"] == pytest.approx(4 * 1 / np.sqrt(2000), rel=0.15)
