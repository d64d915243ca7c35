"""The demo: what it mixes, what it prints, and whose files it replaces."""

import os
from pathlib import Path

import pytest
import torch

from flowsep.cli import main
from flowsep.demo import build_example
from tests.conftest import install
from tests.fakes import FakeSeparator


@pytest.fixture
def tenth(monkeypatch) -> None:
    """A separator that takes a tenth of everything: SI-SDR stays what it was."""
    fake = FakeSeparator(gain=lambda text: 0.1, window=163840)
    install(fake, monkeypatch)


def test_the_demo_prints_a_table_its_files_and_the_next_command(tmp_path, tenth, capfd):
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 0
    out, _ = capfd.readouterr()
    assert "this project synthesises" in out and 'separate YOUR_FILE.wav --text "' in out
    rows = [line.split() for line in out.splitlines() if line.startswith(("birds chirping", "a car engine"))]
    for row in rows:
        before, after = float(row[-4]), float(row[-3])
        assert abs(before) < 0.5 and after == pytest.approx(before, abs=0.05)  # 0 dB mixture; a scale changes nothing
    assert len(rows) == 2
    listed = [Path(line.strip()) for line in out.splitlines() if line.startswith(f"  {tmp_path}")]
    assert len(listed) == 9 and all(path.is_file() for path in listed)


def test_the_demo_replaces_its_own_files_and_nobody_elses(tmp_path, tenth, capfd):
    folder = tmp_path / "demo"
    assert main(["demo", "-o", str(folder)]) == main(["demo", "-o", str(folder), "--seed", "3"]) == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "mixture.wav").write_bytes(b"mine")
    capfd.readouterr()
    assert main(["demo", "-o", str(other)]) == 3
    assert "holds mixture.wav, not written by the demo" in capfd.readouterr().err
    assert (other / "mixture.wav").read_bytes() == b"mine" and os.listdir(other) == ["mixture.wav"]


def test_the_demos_mixture_is_the_sum_of_two_equally_loud_sounds():
    example, again, other = build_example(1), build_example(1), build_example(2)
    first, second = example.parts.values()
    torch.testing.assert_close(first + second, example.mixture, rtol=0, atol=1e-6)
    assert float(10 * torch.log10(first.square().sum() / second.square().sum())) == pytest.approx(0, abs=0.01)
    assert torch.equal(example.mixture, again.mixture) and not torch.equal(example.mixture, other.mixture)
    assert example.mixture.abs().max() <= 0.95
