"""Model folders of mask separators.

model_index.json                 class MaskSeparator, name, window, origin, and how queries are read (`_query`)
network/                         config.json (class and sizes), model.safetensors
text_encoder/, tokenizer/        transformers layout; absent where the index names a hub model, or words are not read
text_projection/model.safetensors    LASS-Net's linear layer on BERT
audio_encoder/                   what hears references (`flowsep.masks.listening`); absent where the checkpoint had none
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flowsep.checkpoint import (
    load_text,
    model_folder,
    no_progress_bar,
    read_json,
    refuse_missing,
    save_text,
    write_json,
)
from flowsep.errors import ModelError
from flowsep.masks.lassnet import LassNet, LassNetConfig
from flowsep.masks.query import BertQuery, ClapQuery, ClassQuery, ClipQuery, Query, QueryConfig, T5Query, settings_of
from flowsep.masks.resunet import ResUNet30, ResUNetConfig
from flowsep.masks.separator import MaskSeparator, Origin
from flowsep.references import AUDIO
from flowsep.text import load_tokenizer

WEIGHTS = "model.safetensors"
NETWORKS = {"ResUNet30": (ResUNet30, ResUNetConfig), "LassNet": (LassNet, LassNetConfig)}
ENCODERS = {"clap": "ClapTextModelWithProjection", "bert": "BertModel", "t5": "T5EncoderModel"}


def save_masker(separator: MaskSeparator, folder: Path, training: dict[str, Any] | None = None) -> None:
    """Write a model folder, through a temporary name; weights keep their precision. Errors as `save_separator`."""
    from safetensors.torch import save_file

    text = separator.text
    with model_folder(folder) as partial:
        write_json(partial / "network" / "config.json", network_settings(separator.network))
        save_file(contiguous(separator.network), partial / "network" / WEIGHTS)
        if isinstance(text, T5Query):
            save_text(text.text, partial)
        elif isinstance(text, ClapQuery | BertQuery):
            text.model.save_pretrained(partial / "text_encoder")
            text.tokenizer.save_pretrained(partial / "tokenizer")
        if separator.folder is not None and (separator.folder / AUDIO).is_dir():  # read only where clips are heard
            shutil.copytree(separator.folder / AUDIO, partial / AUDIO)
        if isinstance(text, BertQuery):
            (partial / "text_projection").mkdir()
            save_file(contiguous(text.projection), partial / "text_projection" / WEIGHTS)
        write_index(
            partial,
            separator.name,
            separator.window_seconds,
            separator.origin,
            type(separator.network).__name__,
            settings_of(text),
        )
        if training:
            write_json(partial / "training.json", training)


def contiguous(module: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a module as safetensors wants them."""
    return {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}


def network_settings(network: nn.Module) -> dict[str, Any]:
    """network/config.json."""
    return {"_class_name": type(network).__name__, **asdict(network.config)}


def write_index(
    folder: Path, name: str, window_seconds: float, origin: Origin, network: str, query: dict[str, Any]
) -> None:
    """model_index.json of a mask separator."""
    from flowsep import __version__

    index: dict[str, Any] = {"_class_name": "MaskSeparator", "_name": name, "_flowsep_version": __version__}
    index |= {"_window_seconds": window_seconds, "_origin": asdict(origin), "_query": query}
    index["network"] = ["flowsep.masks", network]
    if query["kind"] in ENCODERS:
        index["text_encoder"] = ["transformers", ENCODERS[query["kind"]]]
        index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    if (folder / AUDIO).is_dir():
        index[AUDIO] = (
            ["transformers", "ClapAudioModelWithProjection"] if query["kind"] == "clap" else ["flowsep.masks", "Cnn14"]
        )
    write_json(folder / "model_index.json", index)


def load_masker(folder: Path, index: dict[str, Any]) -> MaskSeparator:
    """The mask separator in `folder`, on the CPU in float32. ModelError where a part is missing or does not fit."""
    separator = MaskSeparator(
        load_network(folder / "network"),
        load_query(folder, index["_query"]),
        index["_window_seconds"],
        index["_name"],
        Origin(**index["_origin"]),
    )
    separator.folder = folder
    return separator.eval().requires_grad_(False)


def load_network(folder: Path) -> ResUNet30 | LassNet:
    """The network saved in `folder`."""
    settings = read_json(folder / "config.json")
    kind = settings.pop("_class_name")
    if kind not in NETWORKS:
        raise ModelError(f"{folder} holds a {kind}, which this version does not know; it knows {', '.join(NETWORKS)}")
    network_class, config_class = NETWORKS[kind]
    network = network_class(config_class(**settings))
    load_weights(network, folder / WEIGHTS)
    return network


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill a module from a safetensors file. ModelError where it lacks tensors."""
    from safetensors.torch import load_file

    found = module.load_state_dict(load_file(path), strict=False)
    refuse_missing(path.parent.name, {"missing_keys": found.missing_keys})
    if found.unexpected_keys:
        raise ModelError(f"{path} holds tensors of another model, the first is {found.unexpected_keys[0]}")


def load_query(folder: Path, settings: dict[str, Any]) -> Query:
    """The query encoder of a model folder: its own files, or the hub's where they are absent."""
    settings = dict(settings)
    extras = {name: settings.pop(name) for name in ("text", "labels", "size") if name in settings}
    config = QueryConfig(**settings)
    if config.kind == "t5":
        return T5Query(load_text(folder, extras["text"]))
    if config.kind == "classes":
        return ClassQuery(extras["labels"])
    if config.kind == "clips":
        return ClipQuery(extras["size"])
    try:
        model, tokenizer = load_encoder(folder, config), tokenizer_of(folder, config)
    except (OSError, ValueError) as error:
        if not missing_parts(folder):
            raise
        raise ModelError(
            f"the model needs parts of {config.hub} from the hub, which cannot be had; connect once, or put them into "
            "the model folder as text_encoder/ and tokenizer/"
        ) from error
    if config.kind == "clap":
        return ClapQuery(model, tokenizer, config)
    from safetensors.torch import load_file

    rows, columns = load_file(folder / "text_projection" / WEIGHTS)["weight"].shape
    projection = nn.Linear(columns, rows)
    load_weights(projection, folder / "text_projection" / WEIGHTS)
    return BertQuery(model, projection, tokenizer, config)


def missing_parts(folder: Path) -> list[str]:
    """Which of text encoder and tokenizer a model folder leaves to the hub."""
    return [part for part in ("text_encoder", "tokenizer") if not (folder / part).is_dir()]


def load_encoder(folder: Path, config: QueryConfig) -> nn.Module:
    """CLAP's text branch or BERT, from the folder or the hub."""
    from transformers import BertModel, ClapTextModelWithProjection

    settings: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True}
    if config.kind == "bert":
        encoder_class, settings["add_pooling_layer"] = BertModel, False
    else:
        encoder_class = ClapTextModelWithProjection
    own = (folder / "text_encoder").is_dir()
    place = folder / "text_encoder" if own else config.hub
    with no_progress_bar():
        model, found = encoder_class.from_pretrained(place, local_files_only=own, **settings)
    refuse_missing("text_encoder", found)
    return model


def tokenizer_of(folder: Path, config: QueryConfig) -> Any:
    """The tokenizer, from the folder or the hub."""
    if (folder / "tokenizer").is_dir():
        return load_tokenizer(folder / "tokenizer")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(config.hub)
