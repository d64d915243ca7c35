"""The precision check: no error against itself, a small one in bfloat16, and a failure that shows."""

import json
import math

import pytest
import torch

from flowsep.benchmark.latency import Workload
from flowsep.benchmark.precision import Variant, compare_precision, parse_variants, precision_lines, relative_error
from flowsep.cli import main
from flowsep.config import save_config
from flowsep.errors import UsageError
from tests.tiny import PAPER, tiny_separator

WORK = Workload(seconds=0.64, steps=2, batch=2)


def build(dtype):
    return tiny_separator(PAPER).to(dtype)


def test_float32_differs_from_itself_by_nothing_and_bfloat16_by_its_rounding():
    report = compare_precision(build, "tiny", parse_variants("float32,bfloat16"), WORK)
    same, half = report["rows"]
    assert max(same["relative"].values()) < 1e-5 and same["snr_db"] > 100 and same["log_mel_l1"] < 1e-5
    assert set(half["relative"]) == {"text", "VAE encode", "UNet", "VAE decode", "vocoder", "whole run"}
    assert all(1e-4 < error < 0.1 for stage, error in half["relative"].items() if stage != "whole run")
    assert half["snr_db"] == pytest.approx(-20 * math.log10(half["relative"]["whole run"]), abs=1e-3)
    assert "| bfloat16" in "\n".join(precision_lines(json.loads(json.dumps(report))))


def test_the_relative_error_is_its_formula_and_nan_never_passes():
    expected = torch.tensor([3.0, 4.0])
    assert relative_error(expected + torch.tensor([0.0, 0.5]), expected) == pytest.approx(0.1)
    assert math.isnan(relative_error(torch.tensor([3.0, math.nan]), expected))


def test_variants_are_read_and_refused():
    assert parse_variants("bfloat16, float32+compile") == [Variant("bfloat16", False), Variant("float32", True)]
    assert Variant("bfloat16", True).name == "bfloat16+compile"
    for wrong in ("float8", "bfloat16+graph", "", "bfloat16+"):
        with pytest.raises(UsageError, match=r"unknown variant .* or one with"):
            parse_variants(wrong)


def test_the_command_writes_its_report(tmp_path, capsys):
    save_config(PAPER, tmp_path / "tiny.yaml")
    out = tmp_path / "precision.json"
    command = ["benchmark", "precision", "--config", str(tmp_path / "tiny.yaml"), "-q", "-o", str(out)]
    assert main([*command, "--variants", "bfloat16", "--seconds", "0.64"]) == 0
    assert json.loads(out.read_text())["kind"] == "precision" and "waveform SNR" in capsys.readouterr().out
    assert main([*command, "--overwrite", "--variants", "float8"]) == 2
    assert "unknown variant 'float8'" in capsys.readouterr().err
