"""The model that ships: small enough, licensed, and able to do what the README says."""

import hashlib
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flowsep.checkpoint import SHIPPED, load_separator
from flowsep.config import load_config
from flowsep.data.manifest import PHRASINGS
from flowsep.demo import build_example
from flowsep.evaluation.recipe import read_recipe
from flowsep.evaluation.run import evaluate_recipe
from flowsep.evaluation.signal import level_db, si_sdr
from flowsep.heard import normalise
from flowsep.longform import separate_audio
from flowsep.protocol import SampleOptions
from flowsep.unet import build_unet
from vae.model import build_codec
from vocoder.mel import stft

DATA = os.environ.get("FLOWSEP_DATA")


@pytest.fixture(scope="module")
def small():
    return load_separator("small", device="cpu")


def test_all_shipped_weights_are_half_precision_safetensors_of_at_most_24_mb():
    files = [file for file in SHIPPED.rglob("*") if file.is_file() and file.suffix not in {".json", ".md"}]
    assert files and all(file.suffix == ".safetensors" for file in files)
    assert sum(file.stat().st_size for file in files) <= 24e6
    assert all(value.dtype == torch.float16 for file in files for value in load_file(file).values())


def test_the_model_has_a_card_and_names_its_recordings():
    assert "## Limits" in (SHIPPED / "small" / "README.md").read_text()
    assert "philharmonia" in (SHIPPED / "small" / "ATTRIBUTIONS.md").read_text()


def test_the_card_has_the_checksums_of_the_weights_that_ship():
    folder = SHIPPED / "small"
    said = dict(
        reversed(line.split()) for line in (folder / "README.md").read_text().splitlines() if ".safetensors" in line
    )
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.safetensors")}
    assert said == {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def test_the_shipped_network_is_that_of_the_configuration():
    config = load_config("small")
    with torch.device("meta"):
        unet = build_unet(
            config.unet, config.flow.stream_count, build_codec(config.codec).latent_channels, config.text.d_model
        )
    shapes = {name: tuple(value.shape) for name, value in unet.state_dict().items()}
    file = SHIPPED / "small" / "unet" / "diffusion_pytorch_model.safetensors"
    assert shapes == {name: tuple(value.shape) for name, value in load_file(file).items()}


def test_the_example_is_taken_apart_by_description(small):
    example = build_example(seed=0)
    queries = list(example.parts)
    found = separate_audio(small, example.mixture, small.sample_rate, queries)
    for query, other, separation in zip(queries, queries[::-1], found, strict=True):
        reference = example.parts[query][0]
        before = si_sdr(example.mixture[0], reference)
        assert si_sdr(separation.target[0], reference) > before + 6, query
        assert si_sdr(separation.target[0], example.parts[other][0]) < before, query


def test_the_vocoder_gives_noise_like_sounds_back_their_bands(small):
    engine, _, _ = normalise(build_example(seed=0).parts["a car engine running"])
    mel = small.log_mel(stft(small.pad(engine), small.mel))
    with torch.inference_mode():
        again = small.voice(mel, engine.shape[-1])
    found = small.log_mel(stft(small.pad(again), small.mel))
    assert (found - mel).abs().mean() < 0.7
    assert torch.corrcoef(torch.stack([found.mean(1)[0], mel.mean(1)[0]]))[0, 1] > 0.8


def test_the_vocoder_gives_a_low_tone_back(small):
    # High ones it does not, see the model card.
    tone = 0.3 * torch.sin(2 * torch.pi * 300 * torch.arange(32000) / 16000)
    mel = small.log_mel(stft(small.pad(tone[None]), small.mel))
    with torch.inference_mode():
        again = small.voice(mel, len(tone))[0]
    power = torch.fft.rfft(again * torch.hann_window(len(tone))).abs().square()
    assert abs(level_db(again) - level_db(tone)) < 3
    assert power[570:630].sum() > 0.9 * power.sum()  # bins of half a hertz


def test_both_renderings_work(small):
    example = build_example(seed=1)
    masked, spoken = (
        small.separate(example.mixture, ["birds chirping"], SampleOptions(render=render)).target
        for render in ("mixture", "vocoder")
    )
    assert masked.shape == spoken.shape == example.mixture.shape
    assert masked.isfinite().all() and spoken.isfinite().all()
    assert abs(level_db(spoken[0]) - level_db(masked[0])) < 6


@pytest.mark.skipif(DATA is None, reason="set FLOWSEP_DATA to the folder of clips that the recipe's paths start from")
def test_mean_improvement_on_real_recordings(small):
    rows = read_recipe(PHRASINGS.with_name("mixtures_valid.csv"))[:40]
    report = evaluate_recipe(small, rows, Path(DATA), SampleOptions(), model="small", recipe="mixtures_valid.csv")
    assert report["si_sdri"]["mean"] > 4.5
    assert report["query_gap"]["mean"] > 14


def test_shipped_files_name_no_folder_of_the_machine_they_were_made_on():
    files = [file for kind in ("*.json", "*.md") for file in SHIPPED.rglob(kind)]
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert "_name_or_path" not in text, file
        assert not re.search(r"[\s\"'(](/home|/root|/work|/tmp|/Users)/", text), file
