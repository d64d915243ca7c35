"""The latent UNet, shared by flow and diffusion: diffusers' AudioLDM2UNet2DConditionModel at our sizes.

This class reproduces the official network exactly: `flowsep convert --self-test` shows it on golden arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vae.products import use_products
from vae.winograd import use_winograd
from vocoder.weights import WEIGHTS, load_network

if TYPE_CHECKING:
    from flowsep.text import TextState


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the UNet. The defaults are FlowSep's: 265.5 M parameters."""

    channels: tuple[int, ...] = (128, 256, 384, 640)
    layers: int = 2  # residual blocks per level on the way down, one more on the way up
    attention: tuple[bool, ...] = (False, True, True, True)  # which levels have transformers; the middle always has
    double_attention: bool = True  # FlowSep: a transformer without text before each one with text
    head_width: int = 32
    groups: int = 32
    pooled_text: bool = False  # the mean text state is also added to the time embedding
    scale_shift: bool = False  # time (and pooled text) scale and shift the normalised features instead of being added
    out_channels: int | None = 16  # None: what the streams need. FlowSep has 16 of which it uses 8

    def __post_init__(self) -> None:
        if len(self.attention) != len(self.channels):
            raise ValueError(f"unet.attention names {len(self.attention)} levels, unet.channels {len(self.channels)}")


def build_unet(config: UNetConfig, streams: int, latent_channels: int, text_width: int) -> nn.Module:
    """A freshly initialised network: latent channels x (streams + 1) in, at least latent channels x streams out."""
    from diffusers.pipelines.audioldm2.modeling_audioldm2 import AudioLDM2UNet2DConditionModel

    attention = list(config.attention)
    extra = {}
    if config.pooled_text:
        extra = {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": text_width}
    text_dims = (None, text_width) if config.double_attention else (text_width,)
    return AudioLDM2UNet2DConditionModel(
        in_channels=latent_channels * (streams + 1),
        out_channels=config.out_channels or latent_channels * streams,
        block_out_channels=tuple(config.channels),
        layers_per_block=config.layers,
        down_block_types=tuple("CrossAttnDownBlock2D" if here else "DownBlock2D" for here in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attention)),
        cross_attention_dim=[text_dims] * len(attention),
        # In this class the argument is the number of heads, not their width.
        attention_head_dim=tuple(width // config.head_width for width in config.channels),
        norm_num_groups=config.groups,
        resnet_time_scale_shift="scale_shift" if config.scale_shift else "default",
        **extra,
    )


def load_unet(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The network saved in `folder`, frozen; ModelError where its file lacks tensors."""
    from diffusers.pipelines.audioldm2.modeling_audioldm2 import AudioLDM2UNet2DConditionModel

    config = AudioLDM2UNet2DConditionModel.load_config(folder, local_files_only=True)
    build = partial(AudioLDM2UNet2DConditionModel.from_config, config)
    return load_network(build, folder / WEIGHTS, dtype)


def hasten(unet: nn.Module) -> nn.Module:
    """`unet` itself, with the fast forms of what it computes, which `vocoder.measures` switches; weights stay."""
    from flowsep.attention import keep_text_states
    from flowsep.gated import keep_gated
    from vae.attention import block_attention

    use_winograd(unet)
    use_products(unet)
    keep_gated(unet)
    keep_text_states(unet)
    block_attention(unet)
    return unet


def call_unet(unet: nn.Module, t: Tensor, x: Tensor, mixture: Tensor, text: TextState) -> Tensor:
    """Network output, like the state x (B, K * C, S, F) in shape and precision, at time t, () or (B,).

    t is a flow's time in 0..1, not scaled, or a diffusion's timestep, a whole number from 0. It
    keeps its precision, whatever the network's, which takes its sines in float32. The state's channels come first, the
    mixture latent (B, C, S, F) last. Output channels beyond the state's are never trained and are dropped.
    """
    labels = text.pooled() if unet.config.class_embed_type is not None else None
    out = unet(
        torch.cat([x, mixture], dim=1).to(unet.dtype),
        t.expand(x.shape[0]),
        encoder_hidden_states=text.hidden,
        encoder_attention_mask=text.mask,
        class_labels=labels,
    ).sample
    return out[:, : x.shape[1]].to(x.dtype)
