"""FlowSep's published checkpoint -> a model folder that `load_separator` reads.

Names and shapes are checked first, against our modules built without numbers; then the tensors go one at a time from
file to file. Nothing in the checkpoint is executed.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import nn

from flowsep.checkpoint import write_settings
from flowsep.config import ModelConfig
from flowsep.convert import names
from flowsep.convert.files import open_checkpoint
from flowsep.convert.lazy import LazyTensor, reshaped, without_weight_norm, write_safetensors
from flowsep.errors import InputError, ModelError
from flowsep.text import build_t5
from flowsep.unet import build_unet
from vae.model import MelVAE
from vocoder.model import WEIGHTS, build_generator

LISTED = 20  # names per kind of fault in one message
TEXT_WEIGHTS = "model.safetensors"  # where transformers looks
Report = Callable[[str], None]


@dataclass
class Component:
    """One sub-folder of the model: its tensors under our names, and what writes its config.json."""

    folder: str
    tensors: dict[str, LazyTensor]
    write_config: Callable[[Path], object]
    weights: str = WEIGHTS

    @property
    def numbers(self) -> int:
        """How many numbers its tensors have."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())


@dataclass
class Source:
    """The official tensors by name, which of them were asked for, and what was wrong with them."""

    tensors: dict[str, LazyTensor]
    used: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)

    def take(self, name: str, shape: tuple[int, ...]) -> LazyTensor | None:
        """The tensor `name` in this shape, with weight norm removed; None, and a note, where it cannot be had."""
        tensor = self._find(name)
        if tensor is None:
            self.missing.append(f"{name} {list(shape)}")
        elif tensor.shape != shape:
            # Attention of the VAE: 1x1 convolutions there, linear layers here.
            if tensor.shape == (*shape, 1, 1):
                return reshaped(tensor, shape)
            self.misshapen.append(f"{name} {list(tensor.shape)} instead of {list(shape)}")
            return None
        return tensor

    def _find(self, name: str) -> LazyTensor | None:
        if name in self.tensors:
            self.used.add(name)
            return self.tensors[name]
        for magnitude, direction in names.weight_norm_names(name):
            if magnitude in self.tensors and direction in self.tensors:
                self.used |= {magnitude, direction}
                return self._normed(magnitude, direction)
        return None

    def _normed(self, magnitude: str, direction: str) -> LazyTensor:
        v, g = self.tensors[direction], self.tensors[magnitude]
        if g.shape != (*v.shape[:1], *(1 for _ in v.shape[1:])):
            self.misshapen.append(f"{magnitude} {list(g.shape)} for {direction} {list(v.shape)}")
        return without_weight_norm(v, g)

    def check(self, path: Path) -> None:
        """Raise ModelError naming what is missing, extra or misshapen."""
        faults = [
            f"{kind}: {listed(found)}"
            for kind, found in (("missing", self.missing), ("extra", self.extra), ("misshapen", self.misshapen))
            if found
        ]
        if faults:
            raise ModelError(f"{path} does not hold the tensors of this model. {'. '.join(faults)}")


def listed(found: list[str]) -> str:
    """The names, as many as one can read."""
    rest = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return f"{', '.join(found[:LISTED])}{rest}"


def convert_official(
    checkpoint: Path,
    out: Path,
    vocoder: Path | None = None,
    report: Report = print,
    overwrite: bool = False,
    config: ModelConfig | None = None,
) -> Path:
    """Write the model folder `out` from an official checkpoint (torch or safetensors) and return it.

    `vocoder` is a BigVGAN file such as g_01000000, used in place of the checkpoint's own. Without Flan-T5 in the
    checkpoint the folder names the hub model. `config` says the sizes (official ones if not given). `report` gets a
    line per component. The weights are written as float32; no more than one tensor is in memory.

    Raises ModelError for a checkpoint that is damaged or not of this model, InputError where `out` exists (without
    `overwrite`) or cannot be written.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    config = config or ModelConfig()
    refuse_output(out, overwrite)
    with open_checkpoint(checkpoint) as content:
        source = Source(state_dict(content, "state_dict", checkpoint))
        unet = unet_component(source, config, report)
        text = text_component(source, config, report)
        vae = vae_component(source, config)
        with vocoder_component(source, config, vocoder, report) as waveform:
            ema_used = names.has_ema(source.tensors)
            source.extra += [
                name for name in source.tensors if name not in source.used and not names.is_ignored(name, ema_used)
            ]
            source.check(checkpoint)
            components = [component for component in (unet, vae, waveform, text) if component is not None]
            with folder_output(out, overwrite, sum(4 * component.numbers for component in components)) as folder:
                for component in components:
                    write_component(folder, component, report)
                write_model_settings(folder, config)
    report(f"model folder: {out}")
    return out


def state_dict(content: Any, key: str, path: Path) -> dict[str, LazyTensor]:
    """The tensors of a checkpoint, whether it wraps them in `key` or not; ModelError where there are none."""
    if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
        content = content[key]
    tensors = content.items() if isinstance(content, Mapping) else ()
    found = {name: value for name, value in tensors if isinstance(name, str) and isinstance(value, LazyTensor)}
    if not found:
        raise ModelError(f"{path} holds no tensors by name, neither at its top nor under {key!r}")
    return found


def shapes_of(build: Callable[[], nn.Module]) -> tuple[nn.Module, dict[str, tuple[int, ...]]]:
    """A module without numbers, and the names and shapes of its tensors."""
    with torch.device("meta"):
        module = build()
    return module, {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def take_all(
    source: Source, shapes: Mapping[str, tuple[int, ...]], official: Callable[[str], str]
) -> dict[str, LazyTensor]:
    """Every tensor of a module by our name, as far as the source has it."""
    taken = {name: source.take(official(name), shape) for name, shape in shapes.items()}
    return {name: tensor for name, tensor in taken.items() if tensor is not None}


def unet_component(source: Source, config: ModelConfig, report: Report) -> Component:
    """The UNet, from the EMA weights if the checkpoint has them: those are what official inference uses."""
    ema = names.has_ema(source.tensors)
    report(f"UNet weights: {'EMA' if ema else 'raw, the checkpoint has no EMA copy'}")
    unet, shapes = shapes_of(
        lambda: build_unet(config.unet, config.flow.stream_count, config.codec.latent_channels, config.text.d_model)
    )

    return Component("unet", take_all(source, shapes, partial(names.unet_name, ema=ema)), unet.save_config)


def vae_component(source: Source, config: ModelConfig) -> Component:
    """The VAE; the checkpoint's scale factor goes into its config."""
    tensor = source.take(names.SCALE, ())
    scale = tensor.load().item() if tensor is not None else 1.0
    if not (math.isfinite(scale) and scale > 0):
        raise ModelError(f"the checkpoint's scale_factor is {scale}; it must be a positive number")
    codec = replace(config.codec, scaling_factor=scale)
    autoencoder, shapes = shapes_of(lambda: MelVAE.build(codec).autoencoder)
    return Component("vae", take_all(source, shapes, names.vae_name), autoencoder.save_config)


def text_component(source: Source, config: ModelConfig, report: Report) -> Component | None:
    """The text encoder, or None where the checkpoint has none and the hub's is meant."""
    if not any(name.startswith(names.TEXT) for name in source.tensors):
        if config.text.hub is None:
            raise ModelError("the checkpoint holds no text encoder, and the configuration names none on the hub")
        report(f"text encoder: not in the checkpoint; the model folder names {config.text.hub} on the hub")
        return None
    encoder, shapes = shapes_of(lambda: build_t5(config.text))
    # One tensor under two names. transformers stores it as `shared` and ties the other to it.
    alias = shapes.pop("encoder.embed_tokens.weight")
    tied, shared = names.text_name("encoder.embed_tokens.weight"), names.text_name("shared.weight")
    if shared not in source.tensors and tied in source.tensors:
        source.tensors[shared] = source.tensors[tied]
    if tied in source.tensors:
        source.take(tied, alias)
    return Component("text_encoder", take_all(source, shapes, names.text_name), encoder_config(encoder), TEXT_WEIGHTS)


def encoder_config(encoder: nn.Module) -> Callable[[Path], object]:
    """What writes the config.json of a transformers model without its weights."""

    def write(folder: Path) -> None:
        encoder.config.architectures = [type(encoder).__name__]
        encoder.config.save_pretrained(folder)

    return write


@contextmanager
def vocoder_component(source: Source, config: ModelConfig, path: Path | None, report: Report) -> Iterator[Component]:
    """The vocoder from its own file if one is given, else from the checkpoint; with or without weight norm."""
    generator, shapes = shapes_of(lambda: build_generator(config.vocoder))
    del generator

    def write_config(folder: Path) -> None:
        settings = {"_class_name": "BigVGAN", **asdict(config.vocoder)}
        (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")

    inside = [name for name in source.tensors if name.startswith(names.VOCODER)]
    if path is None:
        if not inside:
            raise ModelError("the checkpoint holds no vocoder; give its file (g_01000000) with --vocoder")
        report("vocoder: from the checkpoint")
        yield Component("vocoder", take_all(source, shapes, names.vocoder_name), write_config)
        return
    source.used.update(inside)
    report(f"vocoder: from {path}{', in place of the checkpoint’s' if inside else ''}")
    with open_checkpoint(path) as content:
        own = Source(state_dict(content, "generator", path))
        tensors = take_all(own, shapes, lambda name: name)
        own.extra = [name for name in own.tensors if name not in own.used]
        own.check(path)
        yield Component("vocoder", tensors, write_config)


def write_component(folder: Path, component: Component, report: Report) -> None:
    """Config and weights of one sub-folder."""
    place = folder / component.folder
    place.mkdir()
    component.write_config(place)
    write_safetensors(place / component.weights, component.tensors)
    report(f"{component.folder}: {len(component.tensors)} tensors, {component.numbers / 1e6:.1f} M numbers")


def write_model_settings(folder: Path, config: ModelConfig) -> None:
    """The JSON files of the model as a whole."""
    write_settings(
        folder,
        name=config.name,
        text=asdict(config.text),
        mel=asdict(config.vocoder.mel),
        process=asdict(config.flow),
        sampling=asdict(config.sampling),
        codec="AutoencoderKL",
        vocoder=True,
    )


def refuse_output(out: Path, overwrite: bool) -> None:
    """Raise InputError where writing `out` would replace something without leave, or something that is no model."""
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise InputError(f"{out} exists; add --overwrite to replace it, or name another folder")
    if not (out / "model_index.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not a model folder and will not be replaced; name another folder")


@contextmanager
def folder_output(out: Path, overwrite: bool, size: int) -> Iterator[Path]:
    """A temporary folder beside `out`, which becomes `out` when the block ends well and vanishes when it does not.

    `size` is what will be written, in bytes; InputError where the disk has less.
    """
    mark = uuid4().hex
    partial, old = out.parent / f".flowsep-{mark}.part", out.parent / f".flowsep-{mark}.old"
    try:
        partial.mkdir(parents=True)
        free = shutil.disk_usage(partial).free
        if free < size:
            raise InputError(f"{out.parent} has {free / 1e9:.1f} GB free and {size / 1e9:.1f} GB are needed")
        yield partial
        refuse_output(out, overwrite)  # somebody else may have been quicker
        if os.path.lexists(out):
            os.replace(out, old)
        os.replace(partial, out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}; name another folder") from error
    finally:
        if os.path.lexists(old) and not os.path.lexists(out):
            os.replace(old, out)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
