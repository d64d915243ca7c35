"""Where the official checkpoint keeps each tensor of ours: pure name rules.

The rules go from our names to the official ones, because the EMA copy's names, which have lost their dots, can be made
from the raw names but not read back. They hold for FlowSep's structure (two ResBlocks per level, two transformers after
each ResBlock that has attention, three VAE levels) at any width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

UNET = "model.diffusion_model."
EMA = "model_ema."
VAE = "first_stage_model."
VOCODER = "first_stage_model.vocoder."
TEXT = "cond_stage_models.0.model."
SCALE = "scale_factor"

VAE_LEVELS = 3

# Never used at inference: VAE training losses, the diffusion schedule, the loss weight per time, EMA counters.
IGNORED_PREFIXES = ("first_stage_model.loss.",)
SCHEDULE = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
IGNORED = (*SCHEDULE, "logvar", "model_ema.decay", "model_ema.num_updates")

Rule = tuple[str, Callable[..., str]]

_RESBLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_RULES: tuple[Rule, ...] = (
    (r"conv_in", lambda: "input_blocks.0.0"),
    (r"conv_norm_out", lambda: "out.0"),
    (r"conv_out", lambda: "out.2"),
    (r"time_embedding\.linear_(\d)", lambda layer: f"time_embed.{2 * (int(layer) - 1)}"),
    (r"down_blocks\.(\d)\.resnets\.(\d)\.(\w+)", lambda i, j, part: f"input_blocks.{_below(i, j)}.0.{_RESBLOCK[part]}"),
    (r"down_blocks\.(\d)\.attentions\.(\d)", lambda i, j: f"input_blocks.{_below(i, int(j) // 2)}.{1 + int(j) % 2}"),
    (r"down_blocks\.(\d)\.downsamplers\.0\.conv", lambda i: f"input_blocks.{_below(i, 2)}.0.op"),
    (r"mid_block\.resnets\.(\d)\.(\w+)", lambda j, part: f"middle_block.{3 * int(j)}.{_RESBLOCK[part]}"),
    (r"mid_block\.attentions\.(\d)", lambda j: f"middle_block.{1 + int(j)}"),
    (r"up_blocks\.(\d)\.resnets\.(\d)\.(\w+)", lambda i, j, part: f"output_blocks.{_above(i, j)}.0.{_RESBLOCK[part]}"),
    (r"up_blocks\.(\d)\.attentions\.(\d)", lambda i, j: f"output_blocks.{_above(i, int(j) // 2)}.{1 + int(j) % 2}"),
    (r"up_blocks\.(\d)\.upsamplers\.0\.conv", lambda i: f"output_blocks.{_above(i, 2)}.3.conv"),
)
_VAE_RULES: tuple[Rule, ...] = (
    (r"conv_norm_out", lambda: "norm_out"),
    (r"down_blocks\.(\d)\.resnets\.(\d)", lambda i, j: f"down.{i}.block.{j}"),
    (r"down_blocks\.(\d)\.downsamplers\.0", lambda i: f"down.{i}.downsample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda i, j: f"up.{_reversed(i)}.block.{j}"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda i: f"up.{_reversed(i)}.upsample"),
    (r"mid_block\.resnets\.(\d)", lambda j: f"mid.block_{1 + int(j)}"),
    (r"mid_block\.attentions\.0\.group_norm", lambda: "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", lambda part: f"mid.attn_1.{part}"),
    (r"mid_block\.attentions\.0\.to_out\.0", lambda: "mid.attn_1.proj_out"),
)


def _below(level: str, position: str | int) -> int:
    """Number of the input block at a position (0, 1: ResBlocks, 2: downsampler) of a level; block 0 is conv_in."""
    return 1 + 3 * int(level) + int(position)


def _above(level: str, position: str | int) -> int:
    """Number of the output block at a position of an upward level."""
    return 3 * int(level) + int(position)


def _reversed(level: str) -> int:
    """The official VAE decoder counts its levels from the waveform's side."""
    return VAE_LEVELS - 1 - int(level)


def _renamed(name: str, rules: tuple[Rule, ...]) -> str:
    """`name` with its beginning replaced by the rule that matches there; unchanged where none does."""
    for pattern, build in rules:
        if match := re.match(rf"{pattern}(?=\.)", name):
            return build(*match.groups()) + name[match.end() :]
    return name


def unet_name(name: str, ema: bool = False) -> str:
    """Official name of a tensor of diffusers' AudioLDM2UNet2DConditionModel: the raw one or its EMA copy."""
    official = UNET + _renamed(name, _UNET_RULES)
    return ema_name(official) if ema else official


def ema_name(official: str) -> str:
    """Name of the EMA copy of the raw UNet tensor `official`: the path below `model.` without its dots."""
    return EMA + official.removeprefix("model.").replace(".", "")


def vae_name(name: str) -> str:
    """Official name of a tensor of diffusers' AutoencoderKL."""
    side, dot, rest = name.partition(".")
    if side not in ("encoder", "decoder"):
        return VAE + name  # the 1x1 convolutions between
    return VAE + side + dot + _renamed(rest, _VAE_RULES).replace("conv_shortcut", "nin_shortcut")


def vocoder_name(name: str) -> str:
    """Official name of a tensor of bigvgan.BigVGAN without weight norm."""
    return VOCODER + name


def text_name(name: str) -> str:
    """Official name of a tensor of transformers' T5EncoderModel."""
    return TEXT + name


def weight_norm_names(name: str) -> tuple[tuple[str, str], ...]:
    """Names (magnitude, direction) under which torch's two kinds of weight norm keep the tensor `name`."""
    stem = name.removesuffix("weight")
    return (
        (f"{stem}weight_g", f"{stem}weight_v"),
        (f"{stem}parametrizations.weight.original0", f"{stem}parametrizations.weight.original1"),
    )


def is_ignored(name: str, ema_used: bool) -> bool:
    """Whether the official tensor `name` is known and not needed; of the two UNets one is not."""
    if name in IGNORED or name.startswith(IGNORED_PREFIXES):
        return True
    return name.startswith(UNET) if ema_used else name.startswith(EMA)


def has_ema(names: Mapping[str, object]) -> bool:
    """Whether a checkpoint holds an EMA copy of the UNet."""
    return any(name.startswith(f"{EMA}diffusion_model") for name in names)
