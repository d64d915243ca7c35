"""Stand-ins for the official checkpoint, tiny and full size: official names, synthetic weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from flowsep.config import ModelConfig
from flowsep.convert import names
from flowsep.convert.synthetic import TIED_EMBEDDING, synthetic_weight
from flowsep.text import TextConfig, build_t5
from flowsep.unet import UNetConfig, build_unet
from vae.model import CodecConfig, MelVAE
from vocoder.model import VocoderConfig, build_generator

REFERENCE = Path(__file__).parent / "reference"

# FlowSep's structure at a thousandth of its size.
TINY = ModelConfig(
    codec=CodecConfig(channels=(8, 8, 16), groups=4),
    text=TextConfig(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2),
    unet=UNetConfig(channels=(8, 8, 16, 16), head_width=4, groups=4),
    vocoder=VocoderConfig(
        upsample_initial_channel=32, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3, 5),)
    ),
)


def official_manifest() -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Name -> (shape, dtype) of every tensor of the published checkpoint."""
    stored = json.loads((REFERENCE / "flowsep_state_dict.json").read_text())
    return {name: (tuple(entry[:-1]), getattr(torch, entry[-1])) for name, entry in stored.items()}


def tiny_manifest() -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """The same for the tiny model, with some of the tensors that conversion has to leave out."""
    unet = build_unet(TINY.unet, TINY.flow.stream_count, TINY.codec.latent_channels, TINY.text.d_model).state_dict()
    shapes = {names.unet_name(name): tuple(tensor.shape) for name, tensor in unet.items()}
    shapes |= {names.ema_name(name): shape for name, shape in shapes.items()}
    for name, tensor in MelVAE.build(TINY.codec).autoencoder.state_dict().items():
        extra = (1, 1) if "mid_block.attentions" in name and tensor.ndim == 2 else ()
        shapes[names.vae_name(name)] = (*tensor.shape, *extra)
    for build, rule in ((build_generator(TINY.vocoder), names.vocoder_name), (build_t5(TINY.text), names.text_name)):
        shapes |= {rule(name): tuple(tensor.shape) for name, tensor in build.state_dict().items()}
    shapes |= {"scale_factor": (), "betas": (1000,), "logvar": (1000,), "model_ema.decay": ()}
    shapes["first_stage_model.loss.discriminator.main.0.weight"] = (4, 1, 4, 4)
    return {name: (shape, torch.float32) for name, shape in shapes.items()} | {
        "model_ema.num_updates": ((), torch.int32)
    }


def synthetic_state(manifest: dict[str, tuple[tuple[int, ...], torch.dtype]], config: ModelConfig) -> dict[str, Tensor]:
    """The state dict of a manifest: synthetic weights, the vocoder's real filters, zeros for the schedule."""
    filters = {names.vocoder_name(name): value for name, value in build_generator(config.vocoder).state_dict().items()}
    state = {}
    for name, (shape, dtype) in manifest.items():
        value = synthetic_weight(name, shape)
        if value is not None:
            state[name] = torch.from_numpy(value).reshape(shape).to(dtype)
        else:
            state[name] = filters.get(name, torch.zeros(shape)).clone()
    if TIED_EMBEDDING in state:  # one storage under two names, as in the official file
        state[TIED_EMBEDDING] = state[names.text_name("shared.weight")]
    return state
