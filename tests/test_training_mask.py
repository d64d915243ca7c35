"""`flowsep train mask`: the losses, resumption, and that what it writes separates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from flowsep.checkpoint import load_separator
from flowsep.cli import main
from flowsep.config import load_config, save_config
from flowsep.data.dataset import collate
from flowsep.errors import ModelError, UsageError
from flowsep.masks.config import MaskConfig, MaskLossConfig
from flowsep.masks.lassnet import LassNet
from flowsep.masks.resunet import ResUNet30
from flowsep.masks.separator import MaskSeparator
from flowsep.training.mask import MaskObjective, mask_losses, train_mask
from flowsep.training.recipes import training_data
from tests.test_training import losses_of
from tests.tiny import MIXTURE, STAGE, tiny_separator, write_clips
from tests.tiny_masks import t5_query

CONFIG = replace(
    MIXTURE,
    name="tiny-mask",
    data=replace(MIXTURE.data, phrasings=False),
    mask=MaskConfig(n_fft=256, hop_length=64, widths=(4, 8), window_seconds=2.0),
    mask_stage=STAGE,
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A model whose text encoder is used."""
    folder = tmp_path_factory.mktemp("text") / "model"
    tiny_separator(MIXTURE).save_pretrained(folder)
    return folder


def test_a_run_that_was_interrupted_and_resumed_equals_one_that_was_not(clips, text, tmp_path):
    whole = train_mask(CONFIG, clips, tmp_path / "whole", text=text, quiet=True)
    train_mask(CONFIG, clips, tmp_path / "parts", text=text, max_minutes=0, quiet=True)  # stops after its first step
    resumed = train_mask(CONFIG, clips, tmp_path / "parts", text=text, quiet=True)
    expected, found = (load_file(model / "network" / "model.safetensors") for model in (whole, resumed))
    assert "normalise.running_var" in expected
    assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")


@pytest.mark.parametrize("network", ["resunet", "lassnet"])
def test_a_network_learns_what_one_batch_has_to_teach(network, clips):
    torch.manual_seed(0)
    _, dataset = training_data(CONFIG, clips)
    batch = collate([dataset[n] for n in range(3)])
    batch = {key: value[:, :4000] if torch.is_tensor(value) else value for key, value in batch.items()}
    query = t5_query()
    built = replace(CONFIG.mask, network=network).build(16000, query.size)
    objective = MaskObjective(built, query, MaskLossConfig(wave=1.0, magnitude=1.0, snr=0.1)).train()
    optimiser = torch.optim.AdamW(built.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss, parts = objective(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(parts["wave"].item())
    assert losses[-1] < 0.8 * losses[0]


def test_a_trained_model_folder_separates_and_was_watched(clips, text, tmp_path):
    config = replace(CONFIG, mask_stage=replace(STAGE, steps=2, media_steps=2))
    separator = load_separator(train_mask(config, clips, tmp_path / "run", text=text, quiet=True), "cpu")
    assert isinstance(separator, MaskSeparator) and separator.origin.source == "trained here"
    result = separator.separate(0.1 * torch.randn(1, 8000), ["low hum"])
    assert torch.isfinite(result.target).all()
    assert '"media/si_sdri"' in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_losses_equal_their_formulas():
    config = CONFIG.mask.build(16000, 16).config
    target, other = torch.randn(2, 4000), torch.randn(2, 4000)
    true = mask_losses(target, target, target + other, config)
    assert true["wave"] == 0 and true["magnitude"] == 0 and true["snr"] == pytest.approx(-3.0, abs=1e-4)
    nothing = mask_losses(torch.zeros(2, 4000), target, target, config)
    assert nothing["wave"] == pytest.approx(target.abs().mean().item()) and nothing["snr"] == pytest.approx(0, abs=1e-3)
    turned = mask_losses(-target, target, target, config)
    assert turned["magnitude"] == pytest.approx(0, abs=1e-6)  # the phase is not its business
    assert turned["wave"] == pytest.approx(2 * target.abs().mean().item())


def test_every_weight_of_the_loss_counts_and_the_text_stays_frozen():
    torch.manual_seed(0)
    query = t5_query()
    network = CONFIG.mask.build(16000, query.size)
    batch = {"mixture": 0.1 * torch.randn(2, 4000), "target": 0.1 * torch.randn(2, 4000), "text": ["a dog", "rain"]}
    totals = {}
    for name in ("wave", "magnitude", "snr"):
        weights = MaskLossConfig(**{**dict.fromkeys(("wave", "magnitude", "snr"), 0.0), name: 2.0})
        objective = MaskObjective(network, query, weights).train()
        total, parts = objective(batch)
        torch.testing.assert_close(total, 2.0 * parts[name])
        totals[name] = total.item()
    assert len(set(totals.values())) == 3
    assert not any(parameter.requires_grad for parameter in query.parameters()) and not query.training


def test_a_masker_goes_on_from_another_and_from_nothing_else(clips, text, tmp_path):
    short = replace(CONFIG, mask_stage=replace(STAGE, steps=1))
    first = train_mask(short, clips, tmp_path / "first", text=text, quiet=True)
    still = replace(short, mask_stage=replace(STAGE, steps=1, learning_rate=1e-30, weight_decay=0.0))
    second = train_mask(still, clips, tmp_path / "second", start=first, quiet=True)
    one, other = (load_file(model / "network" / "model.safetensors") for model in (first, second))
    assert torch.equal(one["enter.weight"], other["enter.weight"])
    wider = replace(short, mask=replace(short.mask, widths=(4, 12)))
    with pytest.raises(ModelError, match="does not fit this configuration"):
        train_mask(wider, clips, tmp_path / "wider", start=first, quiet=True)
    with pytest.raises(ModelError, match="no mask separator"):
        train_mask(short, clips, tmp_path / "third", start=text, quiet=True)
    with pytest.raises(UsageError, match="train the text encoder first"):
        train_mask(short, clips, tmp_path / "fourth", quiet=True)


@pytest.mark.parametrize(("name", "network"), [("small-audiosep", ResUNet30), ("small-lassnet", LassNet)])
def test_small_configurations_share_data_and_text_with_the_flow(name, network):
    config, flow = load_config(name), load_config("small")
    assert config.name == name and config.data == flow.data and config.text == flow.text
    made = config.mask.build(config.vocoder.mel.sample_rate, config.text.d_model)
    assert isinstance(made, network) and made.config.sample_rate == 16000
    assert sum(parameter.numel() for parameter in made.parameters()) < 10e6


def test_train_mask_command_writes_a_model(clips, text, tmp_path, capsys):
    save_config(replace(CONFIG, mask_stage=replace(STAGE, steps=1)), tmp_path / "c.yaml")
    run = ["--data", str(clips), "--run", str(tmp_path / "run"), "--text", str(text), "-q"]
    assert main(["train", "mask", str(tmp_path / "c.yaml"), *run]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "model")
    assert main(["train", "mask", str(tmp_path / "c.yaml"), "mask.network=gan", *run]) == 2
