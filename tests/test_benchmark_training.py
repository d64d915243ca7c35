"""What a training step costs with and without kept latents: the same loss, less work."""

import json
from dataclasses import replace

import pytest
import torch

from flowsep.benchmark.training import WAYS, batches_of, random_objective, time_training, training_lines
from flowsep.cli import main
from flowsep.config import FlowLossConfig, save_config
from flowsep.errors import UsageError
from tests.tiny import PAPER

CONFIG = replace(PAPER, sampling=replace(PAPER.sampling, window_frames=64), flow_loss=FlowLossConfig())


def test_kept_latents_are_those_of_the_waveforms_so_that_the_loss_is_the_same():
    objective = random_objective(CONFIG, torch.device("cpu"))
    batches = {way: next(found) for way, found in batches_of(objective, CONFIG, 2, torch.device("cpu")).items()}
    assert "latent" not in batches[WAYS[0]] and set(batches[WAYS[1]]) == {"latent", "source", "text"}
    losses = []
    for way in WAYS:
        torch.manual_seed(0)
        losses.append(objective({**batches[way], "text": ["a", "b"]})[0].item())
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-5)


def test_only_the_last_way_repeats_its_captions():
    objective = random_objective(CONFIG, torch.device("cpu"))
    found = batches_of(objective, CONFIG, 1, torch.device("cpu"))
    texts = [next(found[way])["text"] for way in WAYS for _ in range(2)]
    assert texts[-1] == texts[-2] and len({text for (text,) in texts}) == 5


def test_the_report_has_every_way_and_the_command_writes_and_shows_it(tmp_path, capsys):
    save_config(CONFIG, tmp_path / "tiny.yaml")
    out = tmp_path / "training.json"
    command = ["benchmark", "training", "--config", str(tmp_path / "tiny.yaml"), "--repeats", "2", "-q", "-o", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    report = json.loads(out.read_text())
    assert [row["name"] for row in report["rows"]] == list(WAYS)
    assert all(row["seconds"]["repeats"] == 2 and row["seconds"]["median"] > 0 for row in report["rows"])
    assert "1.00x" in printed and printed.rstrip("\n") == "\n".join(training_lines(report))
    assert main(["benchmark", "show", str(out)]) == 0 and capsys.readouterr().out == printed


def test_losses_that_need_waveforms_are_refused():
    with pytest.raises(UsageError, match="need waveforms"):
        time_training(replace(CONFIG, flow_loss=FlowLossConfig(mask=1.0)), "tiny", 1, 1)
