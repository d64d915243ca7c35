"""Our components against golden arrays of the official ones: `flowsep convert --self-test` and tests/test_parity.py.

One component is built at a time and freed before the next; the largest takes 1.4 GB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from flowsep.config import ModelConfig
from flowsep.convert import names
from flowsep.convert.loader import official_load
from flowsep.convert.mask_parity import check_lassnet, check_resunet, check_resunet_16k
from flowsep.convert.parity import Parity, difference
from flowsep.convert.synthetic import with_synthetic_weights
from flowsep.errors import InputError
from flowsep.flow.path import FlowConfig, flow_matching_loss, state_at
from flowsep.text import TextState, build_t5
from flowsep.unet import build_unet, call_unet, hasten
from vae.model import MelVAE
from vocoder.measures import PLAIN, using
from vocoder.mel import log_mel
from vocoder.model import build_generator

MEL_LIMIT = 5e-5  # log domain
EXACT = 1e-12  # of attributes
RESOLVED = math.log(1e4)  # 80 dB: what lies further below a clip's loudest band is rounding noise of float32 transforms
CONFIG = ModelConfig()  # FlowSep at official size


def reference_folder(given: Path | None = None) -> Path:
    """The folder of golden arrays, as given or tests/reference of a source checkout. InputError where there is none."""
    folder = given or Path(__file__).parents[2] / "tests" / "reference"
    if not (folder / "mel.npz").is_file():
        raise InputError(
            f"no golden arrays in {folder}; the self-test needs the folder tests/reference of the project's "
            "repository: run it in a clone, or name the folder with --reference"
        )
    return folder


def self_test(folder: Path) -> Iterator[Parity]:
    """All comparisons, each as soon as it is made: of the plain computation, which docs/performance.md speeds up."""
    for check in CHECKS.values():
        with using(PLAIN):
            found = check(folder)
        yield from found


def arrays(path: Path) -> dict[str, Tensor]:
    """The numeric arrays of a golden file."""
    with np.load(path) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files if stored[key].dtype.kind in "fi"}


@torch.inference_mode()
def check_mel(folder: Path) -> list[Parity]:
    """Level and log-mel of a full and of a short clip at 16 kHz."""
    golden = arrays(folder / "mel.npz")
    found = []
    for clip in ("", "_short"):
        loaded = official_load(golden[f"wav{clip}"][None], rate=16000)
        if not clip:
            found.append(difference("loader 16 kHz", loaded.audio, golden["wav_norm"]))
        mel = log_mel(loaded.audio, CONFIG.vocoder.mel)[:1024]
        found.append(difference(f"log-mel{clip.replace('_', ' ')}", mel, golden[f"log_mel{clip}"], MEL_LIMIT))
    return found


@torch.inference_mode()
def check_loader(folder: Path) -> list[Parity]:
    """Resampling, channel choice and level from other rates, and the log-mel of what the official loader gave."""
    golden = arrays(folder / "loader.npz")
    found = []
    for clip, rate in (("44100_stereo", 44100), ("48000", 48000), ("8000", 8000)):
        loaded, official = official_load(golden[f"wav_{clip}"], rate), golden[f"norm_{clip}"]
        found.append(difference(f"loader {rate / 1000:g} kHz", loaded.audio[: loaded.length], official))
        # From the official samples: the resampler has been judged above.
        padded = nn.functional.pad(official, (0, len(loaded.audio) - len(official)))
        mel, official_mel = log_mel(padded, CONFIG.vocoder.mel)[:200], golden[f"logmel_{clip}"]
        # A float64 transform is itself 3e-4 from the official log-mel in the empty upper half of the 8 kHz clip.
        heard = official_mel > official_mel.max() - RESOLVED
        found.append(difference(f"log-mel of {rate / 1000:g} kHz", mel[heard], official_mel[heard], MEL_LIMIT))
    return found


@torch.inference_mode()
def check_vae(folder: Path) -> list[Parity]:
    """Posterior of a mel, and mel of a latent with the scale factor."""
    encoding, decoding = arrays(folder / "vae_encode.npz"), arrays(folder / "vae_decode.npz")
    autoencoder = with_synthetic_weights(lambda: MelVAE.build(CONFIG.codec).autoencoder, names.vae_name)
    autoencoder.register_to_config(scaling_factor=decoding["scale_factor"].item())
    vae = MelVAE(autoencoder)
    mean, logvar = vae.posterior(encoding["log_mel"][:, 0])
    return [
        difference("VAE encode, mean", mean, encoding["mean"]),
        difference("VAE encode, logvar", logvar, encoding["logvar"]),
        difference("VAE decode", vae.decode(decoding["z"]), decoding["log_mel"][:, 0]),
    ]


def build_official_unet() -> nn.Module:
    """The UNet at official size, as separators run it."""
    return hasten(build_unet(CONFIG.unet, CONFIG.flow.stream_count, CONFIG.codec.latent_channels, CONFIG.text.d_model))


def synthetic_unet(ema: bool) -> nn.Module:
    """The UNet at official size with synthetic weights, raw or of the EMA copy."""
    return with_synthetic_weights(build_official_unet, partial(names.unet_name, ema=ema))


@torch.inference_mode()
def check_unet(folder: Path) -> list[Parity]:
    """Raw weights: the network at two times, one training loss, and what the numbers cannot resolve: norm epsilons."""
    golden, training = arrays(folder / "unet.npz"), arrays(folder / "flow_loss.npz")
    unet = synthetic_unet(ema=False)
    found = [
        difference(f"UNet raw, t = {t:g}", run_unet(unet, golden, t), golden[f"out_t{index}"])
        for index, t in enumerate(golden["t"].tolist())
    ]
    return found + flow_loss(unet, training) + epsilons(unet)


@torch.inference_mode()
def check_unet_ema(folder: Path) -> list[Parity]:
    """EMA weights."""
    inputs, golden = arrays(folder / "unet.npz"), arrays(folder / "unet_ema.npz")
    output = run_unet(synthetic_unet(ema=True), inputs, golden["t"].item())
    return [difference("UNet EMA", output, golden["out"])]


def run_unet(unet: nn.Module, inputs: dict[str, Tensor], t: float) -> Tensor:
    """All 16 output channels (1, 16, S, F); `call_unet` would drop the unused half."""
    time = torch.full((len(inputs["x"]),), t)
    return unet(
        inputs["x"], time, encoder_hidden_states=inputs["context"], encoder_attention_mask=inputs["mask"]
    ).sample


def flow_loss(unet: nn.Module, golden: dict[str, Tensor]) -> list[Parity]:
    """One training loss of FlowSep's objective through the functions that training uses."""
    flow = FlowConfig()
    state = state_at(golden["t"], golden["noise"], golden["x1"], flow.sigma_min)
    velocity = call_unet(unet, golden["t"], state, golden["mix_latent"], TextState(golden["context"], golden["mask"]))
    loss = flow_matching_loss(velocity, golden["noise"], golden["x1"], flow)
    return [
        difference("flow velocity", velocity, golden["velocity"]),
        difference("flow loss per item", loss, golden["loss_per_sample"]),
        difference("flow loss", loss.mean(), golden["loss"]),
    ]


def epsilons(unet: nn.Module) -> list[Parity]:
    """GroupNorm epsilons: 1e-6 in the transformers, 1e-5 elsewhere. The former is too small to show in the outputs."""
    norms = {name: module for name, module in unet.named_modules() if isinstance(module, nn.GroupNorm)}
    transformers = [abs(norm.eps - 1e-6) for name, norm in norms.items() if ".attentions." in name]
    others = [abs(norm.eps - 1e-5) for name, norm in norms.items() if ".attentions." not in name]
    return [
        Parity("transformer GroupNorm eps", max(transformers), EXACT),
        Parity("ResBlock GroupNorm eps", max(others), EXACT),
    ]


@torch.inference_mode()
def check_vocoder(folder: Path) -> list[Parity]:
    """Waveform of 200 frames."""
    golden = arrays(folder / "vocoder.npz")
    generator = with_synthetic_weights(lambda: build_generator(CONFIG.vocoder), names.vocoder_name)
    return [difference("vocoder", generator(golden["log_mel"]), golden["wav"])]


@torch.inference_mode()
def check_text(folder: Path) -> list[Parity]:
    """Hidden states of a padded row of token ids."""
    golden = arrays(folder / "text_encoder.npz")
    encoder = with_synthetic_weights(lambda: build_t5(CONFIG.text), names.text_name)
    hidden = encoder(input_ids=golden["input_ids"], attention_mask=golden["attention_mask"]).last_hidden_state
    return [difference("text encoder", hidden, golden["hidden"])]


CHECKS: dict[str, Callable[[Path], list[Parity]]] = {
    "mel": check_mel,
    "loader": check_loader,
    "vae": check_vae,
    "unet": check_unet,
    "unet_ema": check_unet_ema,
    "vocoder": check_vocoder,
    "text": check_text,
    "resunet": check_resunet,
    "resunet_16k": check_resunet_16k,
    "lassnet": check_lassnet,
}
