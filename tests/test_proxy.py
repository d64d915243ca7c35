"""The proxy: items whose shares are right, a loss with a known optimum, a folder that gives back what was trained."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flowsep.checkpoint import SHIPPED, load_text
from flowsep.cli import main
from flowsep.config import load_config, save_config
from flowsep.data.manifest import read_manifest
from flowsep.data.mel_items import MelItems, at_snr, change_speed
from flowsep.demo import build_example
from flowsep.errors import InputError, ModelError
from flowsep.proxy.config import ProxyConfig, ProxyDataConfig
from flowsep.proxy.encoder import DEFAULT, ProxyEncoder, load_proxy, proxy_ships
from flowsep.proxy.network import ProxyNetwork, at_level, pool_frames
from flowsep.training.clap import contrastive_losses, shares_of, train_clap
from flowsep.training.recipes import train_text
from tests.tiny import MIXTURE, STAGE, write_clips
from vocoder.mel import MelConfig, band_centres, log_mel

SIZES = ProxyConfig(channels=(4, 8), blocks=(1, 1), hidden=16, heads=2, text_hidden=16, size=8, seconds=1.2)
ITEMS = ProxyDataConfig(shortest=0.8, noise_snr_db=(10, 40))
CONFIG = replace(
    MIXTURE,
    name="tiny-clap",
    data=replace(MIXTURE.data, phrasings=False),
    clap=SIZES,
    clap_data=ITEMS,
    clap_stage=replace(STAGE, batch_size=8),
    text_stage=replace(STAGE, steps=80, batch_size=16, learning_rate=3e-3),
)
PLAIN = replace(ITEMS, mixtures=0.0, noise=0.0, augment=0.0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def text(clips, tmp_path_factory):
    return train_text(CONFIG, clips, tmp_path_factory.mktemp("text"), quiet=True)


@pytest.fixture(scope="module")
def trained(clips, text, tmp_path_factory):
    stage = replace(STAGE, steps=150, batch_size=8, learning_rate=1e-2, warmup=5, checkpoint_steps=150, ema=0.9)
    run = tmp_path_factory.mktemp("run")
    items = replace(ITEMS, mixtures=0.3, noise=0.0, augment=0.2)
    return train_clap(replace(CONFIG, clap_stage=stage, clap_data=items), clips, run, text, quiet=True)


def losses_of(run):
    return [json.loads(line)["train/loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def items_of(clips, config=ITEMS, seed=0):
    return MelItems(read_manifest(clips), config, SIZES, MelConfig(), seed)


# --- items


def test_an_item_depends_on_its_number_and_the_seed_alone(clips):
    items, again = items_of(clips), items_of(clips)
    assert items[7]["text"] == again[7]["text"] and torch.equal(items[7]["mel"], again[7]["mel"])
    assert not torch.equal(items[7]["mel"], items[8]["mel"])
    assert not torch.equal(items[7]["mel"], items_of(clips, seed=1)[7]["mel"])


def test_an_item_that_nothing_is_done_to_is_the_log_mel_of_its_clip_on_a_silent_canvas(clips):
    mel = MelConfig()
    item = items_of(clips, PLAIN)[0]
    assert item["mel"].shape == (60, 64) and item["share"] == 1 and item["other_share"] == 0
    sounding = item["mel"].amax(1) > math.log(mel.floor) + 1e-3
    assert 40 <= sounding.sum() <= 60
    label = items_of(clips).labels[int(item["label"])]
    assert label.replace("_", " ") in item["text"]
    time = torch.arange(24000) / 16000
    tone = torch.sin(2 * torch.pi * 1000 * time)
    pooled = pool_frames(log_mel(tone, mel), 2)
    assert pooled.shape == (75, 64)
    assert pooled[30].exp().square().sum().item() == pytest.approx(
        log_mel(tone, mel)[60].exp().square().sum().item(), 0.01
    )


def test_shares_are_what_the_snr_says_and_noise_is_nobodys(clips):
    items = items_of(clips, replace(PLAIN, mixtures=1.0, snr_db=(6.0, 6.0)))
    wanted = 1 / (1 + 10 ** (-6 / 10))
    assert [items[n]["share"].item() for n in range(4)] == pytest.approx([wanted] * 4, abs=1e-4)
    assert items[0]["other_share"].item() == pytest.approx(1 - wanted, abs=1e-4)
    assert items[0]["label"] != items[0]["other_label"]
    noisy = items_of(clips, replace(PLAIN, noise=1.0, noise_snr_db=(0.0, 0.0)))[0]
    assert noisy["share"].item() == pytest.approx(0.5, abs=1e-4) and noisy["other_share"] == 0


def test_sounds_are_scaled_to_the_snr_in_energy():
    rng = np.random.default_rng(0)
    sound, other = rng.normal(size=(2, 30, 64)).astype(np.float32)
    scaled = at_snr(sound, other, 7.0)
    ratio = 10 * np.log10(np.exp(2 * sound).sum() / np.exp(2 * scaled).sum())
    assert ratio == pytest.approx(7.0, abs=1e-3)
    assert np.ptp(scaled - other) < 1e-5


def test_a_faster_sound_is_shorter_and_higher():
    centres = band_centres(MelConfig()).numpy()
    tone = np.full((40, 64), -11.5, np.float32)
    tone[:, 20] = 0.0
    np.testing.assert_allclose(change_speed(tone, 1.0, 40, centres), tone, atol=1e-5)
    fast = change_speed(tone, 1.15, 34, centres)
    assert fast.shape == (34, 64)
    heard = centres[fast[10].argmax()]
    assert heard == pytest.approx(1.15 * centres[20], abs=centres[21] - centres[20])


def test_training_needs_clips_of_two_families(clips):
    with pytest.raises(InputError, match="two families"):
        MelItems(read_manifest(clips)[:3], ITEMS, SIZES, MelConfig(), 0)


# --- network and loss


def test_sounds_are_heard_whatever_their_level_and_company():
    torch.manual_seed(0)
    network = ProxyNetwork(SIZES, 64, 16).eval()
    mel = torch.randn(3, 50, 64) - 4
    together = network.audio(mel)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(network.audio(mel[1:2]), together[1:2], atol=1e-5, rtol=0)
    torch.testing.assert_close(network.audio(mel - 2.0), together, atol=1e-4, rtol=0)
    assert not torch.allclose(network.audio(mel.flip(2)), together, atol=1e-3)
    assert torch.isfinite(network.audio(torch.full((1, 50, 64), -11.51))).all()


def test_what_lies_78_db_below_the_level_is_silence():
    mel = torch.zeros(1, 10, 64)
    quiet, silent = mel.clone(), mel.clone()
    quiet[:, 5], silent[:, 5] = -9.2, -11.5
    assert torch.equal(at_level(quiet)[:, 5], at_level(silent)[:, 5]) and at_level(quiet).min() == -1


def test_shares_belong_to_all_wordings_of_a_class():
    batch = {
        "label": torch.tensor([0, 1, 0]),
        "other_label": torch.tensor([1, 2, 3]),
        "share": torch.tensor([0.7, 1.0, 0.9]),
        "other_share": torch.tensor([0.3, 0.0, 0.0]),
    }
    expected = [[0.7, 0.3, 0.7, 0.3, 0, 0], [0, 1, 0, 1, 0, 0], [0.9, 0, 0.9, 0, 0, 0]]
    torch.testing.assert_close(shares_of(batch), torch.tensor(expected))


def test_the_losses_are_the_cross_entropies_of_shares_and_cosines():
    shares = torch.tensor([[0.8, 0.2, 0.0], [0.0, 0.5, 0.0]])
    by_sound, by_text = contrastive_losses(torch.zeros(2, 3), shares)
    assert by_sound.item() == pytest.approx(math.log(3)) and by_text.item() == pytest.approx(math.log(2))
    logits = torch.tensor([[math.log(0.8), math.log(0.2), -60.0], [-60.0, 0.0, -60.0]])
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert contrastive_losses(logits, shares)[0].item() == pytest.approx(entropy / 2, abs=1e-5)
    # A mixture at 6 dB is best placed so that its logits differ by 6 dB as a natural logarithm.
    logits = torch.zeros(1, 2, requires_grad=True)
    share = 1 / (1 + 10**-0.6)
    for _ in range(200):
        (slope,) = torch.autograd.grad(contrastive_losses(logits, torch.tensor([[share, 1 - share]]))[0], logits)
        logits = (logits - slope).detach().requires_grad_()
    assert (logits[0, 0] - logits[0, 1]).item() == pytest.approx(0.6 * math.log(10), abs=1e-3)


# --- training and folder


def test_training_lowers_the_loss_and_sounds_are_near_their_words(trained):
    losses = losses_of(trained.parent)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    encoder = load_proxy(trained)
    time = torch.arange(19200) / 16000
    hum, whistle = (0.3 * torch.sin(2 * torch.pi * hertz * time) for hertz in (105, 2520))
    likeness = encoder.audio(torch.stack([hum, whistle])) @ encoder.text(["low hum", "high whistle"]).T
    assert likeness[0, 0] > likeness[0, 1] + 0.1 and likeness[1, 1] > likeness[1, 0] + 0.1


def test_a_run_that_was_interrupted_and_resumed_equals_one_that_was_not(clips, text, tmp_path):
    whole = train_clap(CONFIG, clips, tmp_path / "whole", text, quiet=True)
    train_clap(CONFIG, clips, tmp_path / "parts", text, max_minutes=0, quiet=True)  # stops after its first step
    resumed = train_clap(CONFIG, clips, tmp_path / "parts", text, quiet=True)
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")
    assert (whole / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()


def test_a_saved_encoder_is_the_one_that_was_saved_but_for_half_precision(trained, text, tmp_path):
    encoder = load_proxy(trained)
    assert (encoder.name, encoder.score_name, encoder.sample_rate) == ("tiny-clap", "proxy", 16000)
    encoder.save_pretrained(tmp_path / "again")
    again = load_proxy(tmp_path / "again")
    sound = torch.randn(2, 30000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(encoder.audio(sound), again.audio(sound)) and encoder.audio(sound).shape == (2, 8)
    assert torch.equal(encoder.text(["a hiss"]), again.text(["a hiss"]))
    encoder.save_pretrained(tmp_path / "again")  # replaces its like
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("keep me")
    with pytest.raises(InputError, match="not a proxy encoder"):
        encoder.save_pretrained(tmp_path / "other")


def test_pieces_of_a_long_sound_are_embedded_apart(trained):
    encoder = load_proxy(trained)
    sound = torch.randn(40000)
    rows = encoder.frames(sound)
    assert rows.shape == (3, 8)  # 2.5 s in pieces of 1.2 s
    torch.testing.assert_close(rows[2:], encoder.audio(sound[None, -19200:]), atol=1e-5, rtol=0)
    assert encoder.frames(torch.randn(100)).shape == (1, 8)


def test_an_encoder_that_shares_the_shipped_text_encoder_stores_none_and_notices_another(tmp_path):
    text = load_text(SHIPPED / "small", {"hub": None, "vocab_size": 8000, "d_model": 128, "pad_to_max": False})
    config = load_config("small-clap")
    torch.manual_seed(0)
    network = ProxyNetwork(config.clap, 64, 128)
    folder = tmp_path / "clap"
    ProxyEncoder(network, text, MelConfig(), "small-clap").save_pretrained(folder, shared="small")
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
    loaded = load_proxy(folder)
    torch.testing.assert_close(
        loaded.text(["rain"]), network.eval().words(text.encode(["rain"]).pooled()), atol=2e-3, rtol=0
    )
    settings = json.loads((folder / "config.json").read_text())
    settings["text"]["sha256"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="another text encoder"):
        load_proxy(folder)


def test_what_is_no_proxy_encoder_says_where_one_comes_from(tmp_path, trained):
    with pytest.raises(ModelError, match="flowsep train clap"):
        load_proxy(tmp_path)
    with pytest.raises(ModelError, match="flowsep train clap"):
        load_proxy(SHIPPED / "small")
    damaged = tmp_path / "damaged"
    load_proxy(trained).save_pretrained(damaged)
    weights = load_file(damaged / "model.safetensors")
    assert {one.dtype for one in weights.values()} == {torch.float16}
    weights["from_audio.weights"] = weights.pop("from_audio.weight")
    save_file(weights, damaged / "model.safetensors")
    with pytest.raises(ModelError, match=r"2 tensors are missing or foreign, the first is from_audio\.weight"):
        load_proxy(damaged)
    (damaged / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        load_proxy(damaged)


@pytest.mark.skipif(not proxy_ships(), reason="no proxy encoder ships")
def test_the_shipped_encoder_tells_the_sounds_of_the_example_apart():
    encoder, example = load_proxy(), build_example(seed=0)
    words = encoder.text(list(example.parts))
    sounds = torch.cat([encoder.audio(sound) for sound in example.parts.values()])
    likeness = sounds @ words.T  # (2 sounds, 2 texts)
    assert (likeness.argmax(1) == torch.arange(2)).all() and (likeness.argmax(0) == torch.arange(2)).all()
    assert (SHIPPED / DEFAULT / "model.safetensors").stat().st_size < 2_000_000


def test_train_clap_and_retrieval_commands_run_end_to_end(clips, text, tmp_path, capsys):
    save_config(replace(CONFIG, clap_stage=replace(STAGE, steps=1, batch_size=4)), tmp_path / "tiny.yaml")
    run = tmp_path / "run"
    arguments = ["train", "clap", str(tmp_path / "tiny.yaml"), "clap_stage.warmup=1", "--data", str(clips)]
    assert main([*arguments, "--text", str(text), "--run", str(run), "-q"]) == 0
    assert capsys.readouterr().out.strip().endswith("clap") and (run / "clap" / "config.json").is_file()
    for name, renamed in (("low_hum", "rain"), ("hiss", "wind"), ("clicks", "siren")):  # classes that have wordings
        (tmp_path / "clips" / renamed).mkdir(parents=True)
        for number in range(2):
            os.symlink(clips / name / f"{number}.wav", tmp_path / "clips" / renamed / f"{number}.wav")
    arguments = ["retrieval", "--data", str(tmp_path / "clips"), "--split", "train", "-q"]
    assert main([*arguments, "--encoder", f"proxy:{run / 'clap'}", "-o", str(tmp_path / "report.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "proxy [tiny-clap]" in lines[0] and lines[-1] == "| chance | | 33.3 % | 100.0 % | 100.0 % |"
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["wordings"]["held-out"]["texts"] == 15 and report["clips"] == 6
    assert main([*arguments, "--encoder", "vggish"]) == 2
    assert "unknown encoder 'vggish'; write clap:FOLDER, proxy:FOLDER or proxy" in capsys.readouterr().err
    assert main(["retrieval", "--data", str(clips), "--split", "test"]) == 3
