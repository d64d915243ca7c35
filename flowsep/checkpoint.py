"""Model folders in the diffusers layout, and `load_separator`, which finds and loads one.

The parts of a FlowSep folder (`flowsep.masks.folder` has those of the mask separators):

model_index.json                     class names per component, name and version
unet/, vae/                          config.json, diffusion_pytorch_model.safetensors (patches: config.json only)
vocoder/                             the same; absent where there is none
text_encoder/, tokenizer/            transformers layout; absent where model_index.json names a hub model instead
feature_extractor/preprocessor_config.json   the mel definition
scheduler/scheduler_config.json      what the flow or the diffusion is, and the default sampling settings
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsep.atomic import atomic_output
from flowsep.errors import DeviceError, InputError, ModelError
from flowsep.options import ALL_SOLVERS, METHODS

if TYPE_CHECKING:
    import torch

    from flowsep.masks.separator import MaskSeparator
    from flowsep.separator import LatentSeparator
    from flowsep.text import TextEncoder
    from vocoder.model import Vocoder

SHIPPED = Path(__file__).parent / "pretrained"
CLASSES = {"FlowSep": "flow", "DiffusionSep": "diffusion"}  # in model_index.json, and the method of each


def list_models() -> list[str]:
    """Names of the models that ship in the package."""
    return sorted(folder.parent.name for folder in SHIPPED.glob("*/model_index.json"))


def find_model(name: Path | str) -> Path:
    """Folder of a shipped model, of a path, or of a hub id (downloaded unless HF_HUB_OFFLINE); ModelError otherwise."""
    text = str(name)
    if (SHIPPED / text / "model_index.json").is_file():
        return SHIPPED / text
    folder = Path(text)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ModelError(f"{text} is not a model folder: it has no model_index.json")
        return folder
    known = ", ".join(list_models()) or "none"
    if text.count("/") != 1 or text.startswith(("/", ".", "~")):
        others = "a model folder or a hub id such as owner/name"
        raise ModelError(f"unknown model {text!r}; give one of {known}, {others}{how_to_get(text)}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(text))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"unknown model {text!r}: not shipped ({known}), no such folder, and not to be had from the hub "
            f"({type(error).__name__}); check the name and the connection"
        ) from error


def how_to_get(name: str) -> str:
    """For an error: what a separator that is listed but not here needs; nothing for other names."""
    from flowsep.models import PUBLISHED, TRAINABLE

    needs = {entry.name: entry.needs for entry in (*PUBLISHED, *TRAINABLE)}
    return f". {name} is not bundled; it needs: {needs[name]}" if name in needs else ""


def pick_device(device: str) -> torch.device:
    """`auto` is CUDA, then Apple's MPS, then the CPU; DeviceError for one that is not there."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"cannot use the device {device!r}; choose auto, cpu, cuda, cuda:0 or mps") from error
    return chosen


def load_separator(
    name: Path | str = "small", device: str = "auto", dtype: torch.dtype | None = None
) -> LatentSeparator | MaskSeparator:
    """A separator by shipped name, folder or hub id, ready to use.

    dtype None is float32, whatever precision the weights are stored in. Raises ModelError for a folder that is not
    complete and DeviceError for a device that is not there.
    """
    import torch
    from safetensors import SafetensorError

    folder = find_model(name)
    chosen = pick_device(device)
    try:
        separator = load_folder(folder, dtype or torch.float32)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the model folder {name} cannot be read: {str(error).splitlines()[0]}") from error
    return separator.to(chosen, dtype or torch.float32).eval()


def solver_names(name: Path | str) -> tuple[str, ...]:
    """Solvers of the model `name`, read from its index alone; those of every method where it is not on this disk."""
    for folder in (SHIPPED / str(name), Path(name)):
        try:
            index = read_json(folder / "model_index.json")
        except (OSError, ValueError, ModelError):
            continue
        method = CLASSES.get(index.get("_class_name"))
        return METHODS[method] if method else ALL_SOLVERS
    return ALL_SOLVERS


def separator_class(method: str) -> type[LatentSeparator]:
    """The class of a method's models: flow or diffusion."""
    from flowsep.diffusion.separator import DiffusionSep
    from flowsep.separator import FlowSep

    return {"flow": FlowSep, "diffusion": DiffusionSep}[method]


def load_folder(folder: Path, dtype: torch.dtype) -> LatentSeparator | MaskSeparator:
    """The separator in `folder`, on the CPU in `dtype` (a mask separator in float32)."""
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") == "MaskSeparator":
        from flowsep.masks.folder import load_masker

        return load_masker(folder, index)
    from flowsep.config import SamplingConfig
    from flowsep.diffusion.process import DiffusionConfig
    from flowsep.flow.path import FlowConfig
    from flowsep.postponed import postpone
    from flowsep.presence import PresenceConfig
    from flowsep.unet import load_unet
    from vae.model import load_codec
    from vocoder.mel import MelConfig
    from vocoder.model import Vocoder

    postpone("scipy.stats")  # diffusers imports it for noise schedules of a kind that no model has
    if index["_class_name"] not in CLASSES:
        raise ModelError(f"{folder} holds a {index['_class_name']}, which this version does not know; update flowsep")
    method = CLASSES[index["_class_name"]]
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    process = {"flow": FlowConfig, "diffusion": DiffusionConfig}[method](**scheduler[method])
    vocoder = Vocoder.from_pretrained(folder / "vocoder", dtype) if (folder / "vocoder").is_dir() else None
    separator = separator_class(method)(
        unet=load_unet(folder / "unet", dtype),
        codec=load_codec(folder / "vae", dtype),
        text=load_text(folder, index["_text"], dtype),
        vocoder=vocoder,
        mel=MelConfig(**read_json(folder / "feature_extractor" / "preprocessor_config.json")),
        process=process,
        sampling=SamplingConfig(**scheduler["sampling"]),
        name=index["_name"],
    )
    if "presence" in scheduler:
        separator.presence = PresenceConfig(**scheduler["presence"])
    return separator.eval().requires_grad_(False)


def load_vocoder(folder: Path) -> Vocoder:
    """The vocoder that `flowsep train vocoder` wrote; ModelError for a folder that holds none, or a damaged one."""
    from safetensors import SafetensorError

    from vocoder.model import Vocoder

    try:
        return Vocoder.from_pretrained(folder)
    except (OSError, AttributeError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} holds no vocoder that can be read; give what flowsep train vocoder wrote"
        ) from error


def refuse_missing(component: str, found: dict[str, Any]) -> None:
    """ModelError where the weight file of a component lacks tensors: the libraries would go on with random ones."""
    missing = sorted(found["missing_keys"])
    if missing:
        raise ModelError(f"{component} lacks {len(missing)} tensors, the first is {missing[0]}; get the model again")


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """transformers draws a bar for every load, however short, on standard error and into notebooks."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_text(folder: Path, values: dict[str, Any], dtype: torch.dtype | None = None) -> Any:
    """The text encoder of a model folder: its own, or the hub's where the folder names one (each part on its own).

    dtype None is float32.
    """
    import torch
    from transformers import AutoTokenizer, T5EncoderModel

    from flowsep.text import TextConfig, TextEncoder, load_t5, load_tokenizer

    config, dtype = TextConfig(**values), dtype or torch.float32
    try:
        if (folder / "text_encoder").is_dir():
            model = load_t5(folder / "text_encoder", dtype)
        else:
            with no_progress_bar():
                model = T5EncoderModel.from_pretrained(config.hub, dtype=dtype)
        if (folder / "tokenizer").is_dir():
            tokenizer = load_tokenizer(folder / "tokenizer")
        else:
            tokenizer = AutoTokenizer.from_pretrained(config.hub)
    except (OSError, ValueError) as error:
        if config.hub is None:
            raise
        raise ModelError(
            f"the model needs the text encoder {config.hub} from the hub, which cannot be had; connect once, or put it "
            "into the model folder as text_encoder/ and tokenizer/"
        ) from error
    return TextEncoder(model, tokenizer, config)


def save_text(text: TextEncoder, folder: Path) -> None:
    """Write text_encoder/ and tokenizer/ into `folder`."""
    with no_progress_bar():
        text.model.save_pretrained(folder / "text_encoder")
    text.tokenizer.save_pretrained(folder / "tokenizer")


@contextmanager
def model_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to write a model into; when the block ends well it takes the place of `folder`.

    An earlier model folder of that name is replaced; anything else raises InputError.
    """
    import shutil

    if (
        folder.exists()
        and (not folder.is_dir() or any(folder.iterdir()))
        and not (folder / "model_index.json").is_file()
    ):
        raise InputError(f"{folder} holds something that is not a model; it is left alone, choose another folder")
    partial = folder.parent / f".{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def save_separator(separator: LatentSeparator, folder: Path, training: dict[str, Any] | None = None) -> None:
    """Write a model folder, through a temporary name (`model_folder`); weights keep their precision."""
    with model_folder(folder) as partial:
        write_parts(separator, partial)
        if training:
            write_json(partial / "training.json", training)


def write_parts(separator: LatentSeparator, partial: Path) -> None:
    """Everything in the model folder `partial` but how it was trained."""
    separator.unet.save_pretrained(partial / "unet")
    separator.codec.save_pretrained(partial / "vae")
    if separator.vocoder is not None:
        separator.vocoder.save_pretrained(partial / "vocoder")
    save_text(separator.text, partial)
    write_settings(
        partial,
        name=separator.name,
        text=asdict(separator.text.config),
        mel=asdict(separator.mel),
        process=asdict(separator.process),
        sampling=asdict(separator.sampling),
        codec=type(getattr(separator.codec, "autoencoder", separator.codec)).__name__,
        vocoder=separator.vocoder is not None,
        class_name=type(separator).__name__,
        presence=asdict(separator.presence) if separator.presence else None,
    )


def write_settings(
    folder: Path,
    name: str,
    text: dict[str, Any],
    mel: dict[str, Any],
    process: dict[str, Any],
    sampling: dict[str, Any],
    codec: str,
    vocoder: bool,
    class_name: str = "FlowSep",
    presence: dict[str, Any] | None = None,
) -> None:
    """The JSON files of a model folder that hold no weights; `process` is what the flow or the diffusion is."""
    from flowsep import __version__

    index: dict[str, Any] = {"_class_name": class_name, "_name": name}
    index |= {"_flowsep_version": __version__, "_text": text}
    index["unet"] = ["diffusers", "AudioLDM2UNet2DConditionModel"]
    index["vae"] = ["diffusers", "AutoencoderKL"] if codec == "AutoencoderKL" else ["vae", codec]
    index["text_encoder"] = ["transformers", "T5EncoderModel"]
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    if vocoder:
        index["vocoder"] = ["vocoder", "BigVGAN"]
    write_json(folder / "model_index.json", index)
    write_json(folder / "feature_extractor" / "preprocessor_config.json", mel)
    scheduler = {CLASSES[class_name]: process, "sampling": sampling}
    if presence is not None:
        scheduler["presence"] = presence
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object; ModelError names the file that is missing."""
    if not path.is_file():
        raise ModelError(f"the model folder lacks {path.parent.name}/{path.name}")
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, values: dict[str, Any]) -> None:
    """One JSON object, readable; whole or not at all, in the place of what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
