"""What published mask separators hear clips with -> audio_encoder/ of a model folder: CLAP's audio branch, and Cnn14.

A checkpoint without it is converted all the same: its model is then asked in words only.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsep.checkpoint import write_json
from flowsep.convert import mask_names as names
from flowsep.convert.lazy import LazyTensor
from flowsep.convert.official import TEXT_WEIGHTS, Component, Report, Source, encoder_config, shapes_of, take_all
from flowsep.errors import ModelError
from flowsep.masks.cnn14 import Cnn14, cnn14_config
from flowsep.masks.folder import WEIGHTS
from flowsep.references import AUDIO

MISSING = "audio encoder: not in the checkpoint; the model cannot be asked with --reference"
PATCHES = f"{names.CLAP_AUDIO}patch_embed.proj.weight"
FUSION = f"{names.CLAP_AUDIO}patch_embed.mel_conv2d.weight"
JOINT = ".attn.qkv."  # query, key and value in one tensor
# As CLAP's feature extractor has them for checkpoints without fusion; all else is transformers' default.
CLAP_FEATURES = {"truncation": "rand_trunc", "padding": "repeatpad", "frequency_min": 50, "frequency_max": 14000}


def cnn14_component(source: Source, condition_size: int, report: Report) -> list[Component]:
    """USS's Cnn14 as a list of one, empty where the checkpoint has none, or one of another condition."""
    there = {name: tensor.shape for name, tensor in source.tensors.items() if name.startswith(names.TAGGER)}
    shapes = {names.our_cnn14_name(name): shape for name, shape in there.items()}
    complete = all(f"{part}.weight" in shapes for part in ("bn0", "fc1", "fc_audioset"))
    config = cnn14_config(shapes, condition_size) if complete else None
    if config is None:
        report(MISSING)
        return []
    _, own = shapes_of(lambda: Cnn14(config))

    def write_config(folder: Path) -> None:
        write_json(folder / "config.json", {"_class_name": "Cnn14", **asdict(config)})

    return [Component(AUDIO, take_all(source, own, names.cnn14_name), write_config, WEIGHTS)]


def clap_audio_component(source: Source, report: Report) -> list[Component]:
    """CLAP's audio branch as a list of one, empty where the checkpoint has none or one that fuses views of a clip."""
    if PATCHES not in source.tensors or FUSION in source.tensors:
        report(MISSING)
        return []
    from transformers import ClapAudioConfig, ClapAudioModelWithProjection, ClapFeatureExtractor

    sizes = clap_audio_sizes({name: tensor.shape for name, tensor in source.tensors.items()})
    split_attention(source)
    encoder, shapes = shapes_of(lambda: ClapAudioModelWithProjection(ClapAudioConfig(**sizes)))
    write_encoder = encoder_config(encoder)

    def write_config(folder: Path) -> None:
        write_encoder(folder)
        ClapFeatureExtractor(**CLAP_FEATURES).save_pretrained(folder)

    return [Component(AUDIO, take_all(source, shapes, names.clap_audio_name), write_config, TEXT_WEIGHTS)]


def clap_audio_sizes(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Settings of transformers' ClapAudioConfig by the shapes of LAION's tensors; ModelError where they lack some."""
    branch = names.CLAP_AUDIO
    depths: list[int] = []
    heads: list[int] = []
    try:
        while f"{branch}layers.{len(depths)}.blocks.0.norm1.weight" in shapes:
            stage, depth = f"{branch}layers.{len(depths)}.blocks", 1
            while f"{stage}.{depth}.norm1.weight" in shapes:
                depth += 1
            rows, count = shapes[f"{stage}.0.attn.relative_position_bias_table"]
            depths.append(depth)
            heads.append(count)
        width, _, patch, _ = shapes[PATCHES]
        return {
            "patch_embeds_hidden_size": width,
            "patch_size": patch,
            "patch_stride": [patch, patch],
            "depths": depths,
            "num_hidden_layers": len(depths),
            "num_attention_heads": heads,
            "window_size": (round(rows**0.5) + 1) // 2,
            "num_mel_bins": shapes[f"{branch}bn0.weight"][0],
            "mlp_ratio": shapes[f"{branch}layers.0.blocks.0.mlp.fc1.weight"][0] / width,
            "hidden_size": shapes[f"{names.CLAP}audio_projection.0.weight"][1],
            "projection_dim": shapes[f"{names.CLAP}audio_projection.0.weight"][0],
        }
    except (KeyError, ValueError, UnboundLocalError) as error:
        raise ModelError(f"the audio branch of the checkpoint's CLAP is not complete: {error}") from error


def split_attention(source: Source) -> None:
    """Put query, key and value in the place of the tensors that hold all three."""
    joint = [name for name in source.tensors if name.startswith(names.CLAP_AUDIO) and JOINT in name]
    for name in joint:
        tensor = source.tensors.pop(name)
        rows = tensor.shape[0] // 3
        for number, part in enumerate(("query", "key", "value")):
            place = name.replace(JOINT, f".attn.{part}.")
            source.tensors[place] = rows_of(tensor, number * rows, (number + 1) * rows)


def rows_of(tensor: LazyTensor, first: int, last: int) -> LazyTensor:
    """A stretch of the first axis."""

    def load() -> Tensor:
        return tensor.load()[first:last].clone(memory_format=torch.contiguous_format)

    return LazyTensor(tensor.dtype, (last - first, *tensor.shape[1:]), load)
