"""A pool of latents: the numbers of encoding at every step, kept on the disk, gone on with after an interruption."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from flowsep.config import FlowLossConfig
from flowsep.data.dataset import collate
from flowsep.errors import UsageError
from flowsep.training.latents import latent_dataset, order
from flowsep.training.objectives import FlowObjective
from flowsep.training.recipes import train_flow, train_text, training_data
from tests.tiny import MIXTURE, STAGE, tiny_separator, write_clips

POOL = 5
CONFIG = replace(
    MIXTURE,
    data=replace(MIXTURE.data, phrasings=False, pool=POOL),
    flow_loss=FlowLossConfig(condition_dropout=0.0),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


def objective() -> FlowObjective:
    separator = tiny_separator(MIXTURE)
    return FlowObjective(separator.unet, separator.text, separator.codec, CONFIG)


def make(clips, run, encode, config=CONFIG):
    return latent_dataset(config, None, training_data(config, clips)[1], encode, run, quiet=True)


def test_an_item_of_the_pool_is_what_encoding_it_gives_and_so_is_its_loss(clips, tmp_path):
    made = objective()
    pool, (_, mixtures) = make(clips, tmp_path, made.latents), training_data(CONFIG, clips)
    item = pool[3]
    number = int(order(CONFIG.seed, 0, POOL)[3])
    batch = collate([mixtures[number]])
    latent, source = made.latents(batch)
    assert torch.equal(item["latent"], latent[0]) and torch.equal(item["source"], source[0])
    assert item["text"] == mixtures[number]["text"]
    kept = {"latent": item["latent"][None], "source": item["source"][None], "text": [item["text"]]}
    losses = []
    for one in (batch, kept):
        torch.manual_seed(7)
        losses.append(made(one)[0].item())
    assert losses[0] == losses[1] > 0


def test_each_pass_holds_every_item_once_in_an_order_of_its_own(clips, tmp_path):
    pool = make(clips, tmp_path, objective().latents)
    laps = [[tuple(pool[lap * POOL + n]["latent"].flatten()[:4].tolist()) for n in range(POOL)] for lap in range(3)]
    assert all(Counter(lap) == Counter(laps[0]) for lap in laps) and len(Counter(laps[0])) == POOL
    assert laps[0] != laps[1] or laps[1] != laps[2]


def test_an_interrupted_pool_is_gone_on_with(clips, tmp_path):
    encode, calls = objective().latents, []

    def interrupted(batch):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(len(batch["text"]))
        return encode(batch)

    with pytest.raises(KeyboardInterrupt):
        make(clips, tmp_path / "parts", interrupted)
    counted = []
    parts = make(clips, tmp_path / "parts", lambda batch: (counted.append(len(batch["text"])), encode(batch))[1])
    assert sum(calls) + sum(counted) == POOL and calls
    whole = make(clips, tmp_path / "whole", encode)
    for n in range(POOL):
        assert torch.equal(parts[n]["latent"], whole[n]["latent"]) and parts[n]["text"] == whole[n]["text"]


def test_a_pool_of_other_data_is_refused(clips, tmp_path):
    make(clips, tmp_path, objective().latents)
    other = replace(CONFIG, data=replace(CONFIG.data, snr_db=(0.0, 0.0)))
    with pytest.raises(UsageError, match="other data or another codec; use a new --run"):
        make(clips, tmp_path, objective().latents, other)


def test_a_pool_of_other_clips_is_refused(clips, tmp_path):
    make(clips, tmp_path / "pool", objective().latents)
    others = write_clips(tmp_path / "others", seconds=2.0)
    with pytest.raises(UsageError, match="other data or another codec; use a new --run"):
        make(others, tmp_path / "pool", objective().latents)


def test_training_on_a_pool_encodes_nothing_after_the_first_pass(clips, tmp_path, monkeypatch):
    text = train_text(CONFIG, clips, tmp_path / "text", quiet=True)
    encoded = []
    original = FlowObjective.encode
    monkeypatch.setattr(FlowObjective, "encode", lambda self, *mels: encoded.append(1) or original(self, *mels))
    config = replace(CONFIG, flow_stage=replace(STAGE, steps=6))
    model = train_flow(config, clips, tmp_path / "run", text=text, quiet=True)
    assert (model / "model_index.json").is_file()
    assert len(encoded) == 3  # batches of two: the pool, once
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert sum("train/loss" in json.loads(line) for line in lines) == 6


def test_losses_on_the_rendering_need_waveforms(clips, tmp_path):
    config = replace(CONFIG, flow_loss=FlowLossConfig(mask=1.0))
    with pytest.raises(UsageError, match=r"data\.pool keeps latents, and the losses mel, mask and snr need waveforms"):
        train_flow(config, clips, tmp_path / "run", text="small", quiet=True)
