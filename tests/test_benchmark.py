import json

import pytest
import torch

from flowsep.benchmark.latency import benchmark_latency, random_separator, table
from flowsep.benchmark.timing import count_gflop, matmul_gflops, measure
from flowsep.cli import main
from flowsep.config import save_config
from tests.tiny import MIXTURE, PAPER, tiny_separator

CPU = torch.device("cpu")


def test_operations_are_counted_two_per_multiply_add_attention_included():
    a, b = torch.randn(30, 40), torch.randn(40, 50)
    assert count_gflop(lambda: a @ b) == pytest.approx(2 * 30 * 40 * 50 / 1e9)
    q = torch.randn(1, 2, 16, 8)
    attention = count_gflop(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert attention == pytest.approx(2 * 2 * 2 * 16 * 16 * 8 / 1e9)


def test_median_lies_between_the_percentiles_and_warm_up_does_not_count():
    calls = []
    timing = measure(lambda: calls.append(sum(range(1000))), CPU, repeats=9, warmup=3)
    assert len(calls) == 12 and timing.repeats == 9
    assert 0 < timing.p10 <= timing.median <= timing.p90
    assert matmul_gflops(CPU, torch.float32, size=128, repeats=3) > 0.1


def test_report_adds_up_and_counts_the_networks_calls():
    report = benchmark_latency(tiny_separator(PAPER), "tiny", 1.28, steps=7, repeats=1)
    rows = {row["stage"]: row for row in report["stages"]}
    assert rows["UNet, one call"]["calls"] == 7 and rows["UNet, one call"]["gflop"] > 0
    total = sum(row["median"] * row["calls"] for name, row in rows.items() if name != "mask rendering")
    assert report["total_vocoder_s"] == pytest.approx(total)
    assert "| UNet, one call | 7 |" in table(report)


def test_random_weights_need_no_tokenizer_and_a_model_without_vocoder_is_measured_without():
    separator = random_separator(MIXTURE, CPU, torch.float32)
    separator.vocoder = None
    stages = [row["stage"] for row in benchmark_latency(separator, "tiny", 0.64, steps=1, repeats=1)["stages"]]
    assert "vocoder" not in stages and "mask rendering" in stages


def test_latency_command_writes_its_report(tmp_path, capsys):
    save_config(PAPER, tmp_path / "tiny.yaml")
    command = ["benchmark", "latency", "--config", str(tmp_path / "tiny.yaml"), "--repeats", "1"]
    assert main([*command, "-o", str(tmp_path / "report.json")]) == 0
    assert "sum, vocoder rendering" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["steps"] == 2
    assert main([*command, "--dtype", "float8"]) == 2
    assert "choose float32, bfloat16 or float16" in capsys.readouterr().err
