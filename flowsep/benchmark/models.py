"""Models to measure: any configuration with random weights, and compiled parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flowsep.checkpoint import separator_class
from flowsep.config import ModelConfig
from flowsep.separator import LatentSeparator
from flowsep.text import TextEncoder, build_t5
from flowsep.unet import build_unet
from vae.model import build_codec
from vocoder.model import Vocoder

TOKENS = 12  # of an ordinary query


class RandomTokens:
    """Stands in for a tokenizer where none can be had: a query's length matters to latency, its words do not."""

    def __init__(self, length: int) -> None:
        self.length = length  # of the padded query

    def __call__(self, texts: Any, **_: Any) -> dict[str, Tensor]:
        """Token ids and mask (B, length)."""
        mask = torch.ones(len(texts), self.length, dtype=torch.long)
        mask[:, TOKENS:] = 0
        return {"input_ids": mask.clone(), "attention_mask": mask}


def random_separator(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> LatentSeparator:
    """A whole model of this configuration with random weights, the same ones each time."""
    torch.manual_seed(0)
    codec = build_codec(config.codec)
    unet = build_unet(config.unet, config.process.stream_count, codec.latent_channels, config.text.d_model)
    tokens = config.text.max_length if config.text.pad_to_max else TOKENS
    text = TextEncoder(build_t5(config.text), RandomTokens(tokens), config.text)
    separator = separator_class(config.method).of_parts(config, unet, codec, text, Vocoder(config.vocoder))
    return separator.to(device, dtype).eval().requires_grad_(False)


def compile_parts(separator: LatentSeparator, mode: str) -> None:
    """Compile UNet, VAE and vocoder in place, for fixed shapes; the work is done at their first call.

    `mode` is the UNet's, which runs at every step; the others run once and are compiled plainly. With reduce-overhead
    (CUDA graphs) a call's output lives until the next call, which Euler's steps respect; solvers that look back do not.
    The text encoder stays as it is: a query's state is kept.
    """
    separator.unet.compile(mode=mode, dynamic=False)
    autoencoder = getattr(separator.codec, "autoencoder", None)
    once = [] if autoencoder is None else [autoencoder.encoder, autoencoder.decoder]
    once += [] if separator.vocoder is None else [separator.vocoder.generator]
    for module in once:
        module.compile(dynamic=False)
