"""The whole way at official size: a checkpoint file of 3.9 GB, the command, the loaded model, waveform to waveform.

Needs 7 GB of disk and 6 GB of memory, and about a minute and a half.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowsep.checkpoint import load_separator
from flowsep.convert import names
from flowsep.convert.official_mode import OfficialOutput, separate_officially
from flowsep.convert.selftest import CONFIG, build_official_unet
from flowsep.convert.synthetic import with_synthetic_weights
from flowsep.text import build_t5, load_tokenizer, train_tokenizer
from tests.official_files import official_manifest, synthetic_state
from vae.model import MelVAE
from vocoder.mel import log_mel
from vocoder.model import build_generator

DISK, MEMORY = 9e9, 7e9  # bytes, of the whole machine the latter
SCALE = 0.75  # of the synthetic checkpoint
QUERY = "a dog barks"
STEPS = 2
LIMIT = 2e-5

# Prints the peak resident memory of its own life; getrusage would count the parent's, whose image it begins as.
MEASURED = """
import sys
from flowsep.cli import main
code = main(sys.argv[1:])
print("peak", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A place for large files, emptied afterwards: pytest keeps its own for three runs."""
    folder = tmp_path_factory.mktemp("official")
    if shutil.disk_usage(folder).free < DISK:
        pytest.skip(f"needs {DISK / 1e9:.0f} GB of free disk in {folder}")
    if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < MEMORY:
        pytest.skip(f"needs a machine with {MEMORY / 1e9:.0f} GB of memory")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def conversion(folder: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The model folder that the command makes of the synthetic checkpoint, and what the command printed."""
    checkpoint, model = folder / "v2_100k.ckpt", folder / "model"
    torch.save({"state_dict": synthetic_state(official_manifest(), CONFIG), "epoch": 1}, checkpoint)
    command = [sys.executable, "-c", MEASURED, "convert", "official", str(checkpoint), str(model)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    checkpoint.unlink()
    assert done.returncode == 0, done.stderr
    train_tokenizer([QUERY, "rain falls on a roof"], vocab_size=60).save_pretrained(model / "tokenizer")
    return model, done


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_peak_memory_is_below_one_and_a_half_times_the_tensors_kept(conversion):
    model, done = conversion
    kept = sum(file.stat().st_size for file in model.glob("*/*.safetensors"))
    peak = 1024 * int(done.stdout.split("peak")[1].split()[0])
    assert kept == pytest.approx(2.7e9, rel=0.03)
    assert peak < 1.5 * kept


def test_command_says_what_it_took(conversion):
    model, done = conversion
    assert "UNet weights: EMA" in done.stderr
    assert "unet: 1104 tensors, 265.5 M numbers" in done.stderr
    assert str(model) in done.stdout


@pytest.fixture(scope="module")
def recording() -> Tensor:
    """Three seconds of a rising tone in noise, stereo at 44.1 kHz."""
    generator = torch.Generator().manual_seed(0)
    seconds = torch.arange(3 * 44100) / 44100
    tone = torch.sin(2 * torch.pi * (200 * seconds + 300 * seconds**2))
    return 0.2 * tone + 0.05 * torch.randn(2, len(tone), generator=generator)


@pytest.fixture(scope="module")
def noises() -> tuple[Tensor, Tensor]:
    """Posterior noise and start noise."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 8, 256, 16, generator=generator), torch.randn(1, 8, 256, 16, generator=generator)


@pytest.fixture(scope="module")
def separated(conversion, recording: Tensor, noises: tuple[Tensor, Tensor]) -> OfficialOutput:
    """What the loaded model gives in official mode."""
    separator = load_separator(conversion[0], "cpu")
    return separate_officially(separator, recording, 44100, QUERY, STEPS, *noises)


@torch.inference_mode()
def test_converted_model_equals_the_components_composed_by_hand(
    conversion, separated: OfficialOutput, noises: tuple[Tensor, Tensor]
):
    hidden, mask = by_hand_text(conversion[0])
    autoencoder = with_synthetic_weights(lambda: MelVAE.build(CONFIG.codec).autoencoder, names.vae_name)
    mel = log_mel(separated.loaded.audio, CONFIG.vocoder.mel)[None, None, :1024]
    posterior = autoencoder.encode(mel).latent_dist
    mixture = SCALE * (posterior.mean + posterior.std * noises[0])
    torch.testing.assert_close(separated.mixture_latent, mixture, atol=LIMIT, rtol=0)

    unet = with_synthetic_weights(build_official_unet, partial(names.unet_name, ema=True))
    latent = noises[1]
    for step in range(STEPS):
        state = torch.cat([latent, mixture], dim=1)
        output = unet(state, torch.tensor([step / STEPS]), encoder_hidden_states=hidden, encoder_attention_mask=mask)
        latent = latent + output.sample[:, :8] / STEPS
    del unet
    torch.testing.assert_close(separated.latent, latent, atol=LIMIT, rtol=0)

    generated = autoencoder.decode(latent / SCALE).sample
    torch.testing.assert_close(separated.mel, generated[:, 0], atol=LIMIT, rtol=0)
    generator = with_synthetic_weights(lambda: build_generator(CONFIG.vocoder), names.vocoder_name)
    audio = generator(generated[:, 0].transpose(1, 2))[:, 0]
    assert audio.shape == (1, 163872)
    assert audio.std() > 0.01
    torch.testing.assert_close(separated.audio, audio, atol=LIMIT, rtol=0)


def by_hand_text(model: Path) -> tuple[Tensor, Tensor]:
    """Hidden states (1, 50, 1024) and mask (1, 50) of the query, padded to 50 tokens."""
    ids = load_tokenizer(model / "tokenizer")(QUERY)["input_ids"]
    tokens = torch.tensor([ids + [0] * (50 - len(ids))])
    mask = (torch.arange(50) < len(ids)).float()[None]
    encoder = with_synthetic_weights(lambda: build_t5(CONFIG.text), names.text_name)
    return encoder(input_ids=tokens, attention_mask=mask).last_hidden_state, mask
