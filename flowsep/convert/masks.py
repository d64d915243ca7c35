"""Published checkpoints of AudioSep, the DCASE 2024 Task 9 baseline, USS and LASS-Net -> model folders.

As in `flowsep.convert.official`: names and shapes are checked first, tensors go one at a time from file to file, and
nothing in the checkpoint is executed. The weights are the user's; none are bundled.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowsep.checkpoint import write_json
from flowsep.convert import mask_names as names
from flowsep.convert.files import open_checkpoint
from flowsep.convert.lazy import LazyTensor
from flowsep.convert.listeners import clap_audio_component, cnn14_component
from flowsep.convert.official import (
    TEXT_WEIGHTS,
    Component,
    Report,
    Source,
    encoder_config,
    folder_output,
    refuse_output,
    shapes_of,
    state_dict,
    take_all,
    write_component,
)
from flowsep.errors import InputError, ModelError
from flowsep.masks.folder import WEIGHTS, network_settings, write_index
from flowsep.masks.lassnet import LassNet, LassNetConfig
from flowsep.masks.query import QueryConfig
from flowsep.masks.resunet import AUDIOSEP, DCASE, USS, ResUNet30, ResUNetConfig
from flowsep.masks.separator import Origin
from flowsep.models import UNSTATED

# RoBERTa-base; transformers' default epsilon for CLAP is another than RoBERTa's.
CLAP_SIZES = {"layer_norm_eps": 1e-5}
BERT_MINI = {
    "vocab_size": 30522,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}
CLAP_HUB = "laion/larger_clap_general"
ROBERTA_HUB = "FacebookAI/roberta-base"
BERT_HUB = "prajjwal1/bert-mini"
COUNTERS = ("position_ids", "token_type_ids")  # buffers that hold nothing learned; transformers wants them stored
WINDOW_SECONDS = 10.0


@dataclass(frozen=True)
class System:
    """A published separator: its network, and what is known of where it comes from."""

    name: str
    network: ResUNetConfig | LassNetConfig
    origin: Origin


SYSTEMS = {
    "audiosep": System("audiosep", AUDIOSEP, Origin("AudioSep", "Audio-AGI/AudioSep, arXiv 2308.05037", "MIT")),
    "dcase": System(
        "dcase2024-task9",
        DCASE,
        Origin("DCASE 2024 Task 9 baseline", "Audio-AGI/dcase2024_task9_baseline, Zenodo 10887460", UNSTATED),
    ),
    "uss": System("uss", USS, Origin("USS", "bytedance/uss, arXiv 2305.07447", "Apache-2.0")),
    "lassnet": System("lassnet", LassNetConfig(), Origin("LASS-Net", "liuxubo717/LASS, arXiv 2203.15147", UNSTATED)),
}


def convert_masker(
    system: str,
    checkpoint: Path,
    out: Path,
    report: Report = print,
    overwrite: bool = False,
    labels: Path | None = None,
    network: ResUNetConfig | LassNetConfig | None = None,
    text: Mapping[str, Any] | None = None,
) -> Path:
    """Write the model folder `out` from a checkpoint of a system of SYSTEMS, and return it.

    `labels` is AudioSet's class_labels_indices.csv, for USS: with it, classes can be asked for by name. `network` and
    `text` (of the transformers configuration) say other sizes than the published ones. Raises ModelError for a
    checkpoint that is damaged or lacks, has too many or misshapen tensors (each named), InputError where `out` exists
    (without `overwrite`) or cannot be written.
    """
    known = SYSTEMS[system]
    network = network or known.network
    refuse_output(out, overwrite)
    with source_of(checkpoint) as source:
        if system == "uss":
            size = condition_size(source, checkpoint)
            network = replace(network, condition_size=size)
        components = [network_component(source, network)]
        if system == "lassnet":
            encoders, query = bert_components(source, dict(text or {}))
        elif system == "uss":
            encoders, query = cnn14_component(source, size, report), uss_query(size, labels)
        else:
            encoders, query = clap_components(source, dict(text or {}), report)
            encoders = [*encoders, *clap_audio_component(source, report)]
        source.extra += [name for name in source.tensors if name not in source.used and not names.is_known(name)]
        source.check(checkpoint)
        components += encoders
        with folder_output(out, overwrite, sum(4 * component.numbers for component in components)) as folder:
            for component in components:
                write_component(folder, component, report)
            kind = "LassNet" if isinstance(network, LassNetConfig) else "ResUNet30"
            write_index(folder, known.name, WINDOW_SECONDS, known.origin, kind, query)
    report(f"model folder: {out}")
    return out


@contextmanager
def source_of(checkpoint: Path) -> Iterator[Source]:
    """The tensors of a checkpoint (a Lightning file, or LASS-Net's under "model"), without DataParallel's prefix."""
    with open_checkpoint(checkpoint) as content:
        key = "model" if isinstance(content, Mapping) and "model" in content else "state_dict"
        tensors = state_dict(content, key, checkpoint)
        yield Source({name.removeprefix(names.REPLICA): tensor for name, tensor in tensors.items()})


def network_component(source: Source, config: ResUNetConfig | LassNetConfig) -> Component:
    """The mask network."""
    if isinstance(config, LassNetConfig):
        network, shapes = shapes_of(lambda: LassNet(config))
        rule: Callable[[str], str] = names.lassnet_name
    else:
        network, shapes = shapes_of(lambda: ResUNet30(config))

        def rule(name: str) -> str:
            return names.SEPARATOR + names.resunet_name(name)

    def write_config(folder: Path) -> None:
        write_json(folder / "config.json", network_settings(network))

    return Component("network", take_all(source, shapes, rule), write_config, WEIGHTS)


def condition_size(source: Source, checkpoint: Path) -> int:
    """D of a USS checkpoint: 527 class probabilities or an embedding."""
    name = names.SEPARATOR + names.resunet_name("encoder.0.shift1.weight")
    tensor = source.tensors.get(name)
    if tensor is None or len(tensor.shape) != 2:
        raise ModelError(f"{checkpoint} is no USS checkpoint: it lacks {name}")
    return tensor.shape[1]


def uss_query(size: int, labels: Path | None) -> dict[str, Any]:
    """How USS is asked: by class names where their list is given, otherwise by example."""
    if labels is None:
        return {**asdict(QueryConfig("clips")), "size": size}
    found = read_labels(labels)
    if len(found) != size:
        raise InputError(f"{labels} names {len(found)} classes, the checkpoint is conditioned on {size} numbers")
    return {**asdict(QueryConfig("classes")), "labels": found}


def read_labels(path: Path) -> list[str]:
    """The display_name column of AudioSet's class_labels_indices.csv, in its order."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [row["display_name"] for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, KeyError) as error:
        raise InputError(f"cannot read classes from {path}; give AudioSet's class_labels_indices.csv") from error


def clap_components(
    source: Source, sizes: dict[str, Any], report: Report
) -> tuple[Sequence[Component], dict[str, Any]]:
    """CLAP's text branch, and how it is asked; without it the folder names a model of the hub."""
    if not any(name.startswith(names.CLAP_TEXT) for name in source.tensors):
        report(
            f"text encoder: not in the checkpoint; the model folder names {CLAP_HUB}, which is described as the same "
            "weights. That has not been verified"
        )
        return [], asdict(QueryConfig("clap", CLAP_HUB))
    component = encoder_component(source, partial(build_clap, sizes), names.clap_text_name)
    return [component], asdict(QueryConfig("clap", ROBERTA_HUB))


def bert_components(source: Source, sizes: dict[str, Any]) -> tuple[Sequence[Component], dict[str, Any]]:
    """LASS-Net's BERT and the linear layer on it, and how they are asked."""
    encoder = encoder_component(source, partial(build_bert, sizes), names.bert_name)
    width = BERT_MINI["hidden_size"] if "hidden_size" not in sizes else sizes["hidden_size"]
    _, shapes = shapes_of(lambda: nn.Linear(width, width))
    linear = take_all(source, shapes, lambda name: names.LASSNET_LINEAR + name)
    projection = Component("text_projection", linear, lambda folder: None, WEIGHTS)
    return [encoder, projection], asdict(QueryConfig("bert", BERT_HUB))


def encoder_component(source: Source, build: Callable[[], nn.Module], official: Callable[[str], str]) -> Component:
    """A text encoder under the names of transformers."""
    encoder, shapes = shapes_of(build)
    tensors = take_all(source, {k: v for k, v in shapes.items() if not k.endswith(COUNTERS)}, official)
    for name in (name for name in shapes if name.endswith(COUNTERS)):
        tensors[name] = LazyTensor(torch.int64, shapes[name], partial(counter, name, shapes[name]))
    return Component("text_encoder", tensors, encoder_config(encoder), TEXT_WEIGHTS)


def counter(name: str, shape: tuple[int, ...]) -> Tensor:
    """What the constructor puts into a buffer: positions 0, 1, 2, ..., or types 0, 0, 0, ..."""
    return torch.arange(shape[-1])[None] if name.endswith("position_ids") else torch.zeros(shape, dtype=torch.int64)


def build_clap(sizes: Mapping[str, Any]) -> nn.Module:
    """CLAP's text branch with its projection, RoBERTa-base unless `sizes` say otherwise."""
    from transformers import ClapTextConfig, ClapTextModelWithProjection

    return ClapTextModelWithProjection(ClapTextConfig(**{**CLAP_SIZES, **sizes}))


def build_bert(sizes: Mapping[str, Any]) -> nn.Module:
    """BERT-mini without its pooler, unless `sizes` say otherwise."""
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**{**BERT_MINI, **sizes}), add_pooling_layer=False)
