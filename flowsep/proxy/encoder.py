"""ProxyEncoder: the trained network as a `TextAudioEncoder`, and its folder.

config.json                          sizes, mel definition, and which text encoder it stands on
model.safetensors                    weights
text_encoder/, tokenizer/            absent where config.json names a shipped model whose encoder it shares
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowsep.checkpoint import SHIPPED, load_text, pick_device, read_json, save_text, write_json
from flowsep.errors import InputError, ModelError
from flowsep.files import sha256
from flowsep.proxy.config import ProxyConfig
from flowsep.proxy.network import ProxyNetwork, pool_frames
from flowsep.text import TextEncoder
from vocoder.mel import MelConfig, log_mel

DEFAULT = "small-clap"  # the shipped one
KIND = "ProxyEncoder"
COUNTER = "num_batches_tracked"  # of the batch norms: whole numbers that nothing uses
TEXT_WEIGHTS = Path("text_encoder") / "model.safetensors"


class ProxyEncoder(nn.Module):
    """Texts and sounds in one space, learned from the clips. A `TextAudioEncoder` and a `FrameEncoder`.

    What it knows are the kinds of sound and the wordings that it was taught. `name` is printed beside every score.
    """

    score_name = "proxy"

    def __init__(self, network: ProxyNetwork, text: TextEncoder, mel: MelConfig, name: str) -> None:
        super().__init__()
        self.network, self.words, self.mel, self.name = network, text, mel, name

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.mel.sample_rate

    @torch.inference_mode()
    def text(self, texts: Sequence[str]) -> Tensor:
        """(B, D), rows of length one, on the CPU; no text depends on the others."""
        return self.network.words(self.words.encode(texts).pooled()).cpu()

    @torch.inference_mode()
    def audio(self, audio: Tensor) -> Tensor:
        """Audio (B, T) at `sample_rate` -> (B, D), rows of length one, on the CPU. The level does not matter."""
        return self.network.audio(self.pooled_mel(audio)).cpu()

    def frames(self, audio: Tensor) -> Tensor:
        """Audio (T,) at `sample_rate` -> (N, D): one row per piece of a training item's length, evenly spread."""
        length = round(self.network.config.seconds * self.sample_rate)
        count = max(1, -(-len(audio) // length))
        starts = [round(n * max(0, len(audio) - length) / max(1, count - 1)) for n in range(count)]
        return self.audio(torch.stack([audio[start : start + length] for start in starts]))

    def pooled_mel(self, audio: Tensor) -> Tensor:
        """What the network sees of audio (B, T); sounds shorter than two windows of the STFT get silence."""
        audio = audio.to(next(self.network.parameters()).device, torch.float32)
        audio = nn.functional.pad(audio, (0, max(0, 2 * self.mel.n_fft - audio.shape[-1])))
        return pool_frames(log_mel(audio, self.mel), self.network.config.pool)

    def save_pretrained(self, folder: Path, shared: str | None = None, training: dict[str, Any] | None = None) -> None:
        """Write the folder, weights as float16, through a temporary name; an earlier one is replaced.

        `shared` names the shipped model whose text encoder this one is: it is then not stored again. InputError where
        `folder` holds something else.
        """
        import os
        import shutil

        from safetensors.torch import save_file

        if folder.exists() and not is_proxy(folder):
            raise InputError(f"{folder} holds something that is not a proxy encoder; choose another folder")
        partial = folder.parent / f".{folder.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        text: dict[str, Any] = {"config": asdict(self.words.config)}
        if shared is None:
            save_text(self.words, partial)
        else:
            text |= {"model": shared, "sha256": sha256(SHIPPED / shared / TEXT_WEIGHTS)}
        settings = {"_class_name": KIND, "_name": self.name, "mel": asdict(self.mel), "text": text}
        write_json(partial / "config.json", {**settings, "network": asdict(self.network.config)})
        tensors = {name: one for name, one in self.network.state_dict().items() if not name.endswith(COUNTER)}
        save_file({name: one.half().contiguous() for name, one in tensors.items()}, partial / "model.safetensors")
        if training:
            write_json(partial / "training.json", training)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)


def is_proxy(folder: Path) -> bool:
    """Whether the folder holds a proxy encoder."""
    try:
        return read_json(folder / "config.json").get("_class_name") == KIND
    except (ModelError, OSError, ValueError):
        return False


def proxy_ships() -> bool:
    """Whether a proxy encoder is part of the package."""
    return is_proxy(SHIPPED / DEFAULT)


def load_proxy(name: Path | str = DEFAULT, device: str = "cpu") -> ProxyEncoder:
    """The proxy encoder of a folder, or a shipped one by name, in float32. ModelError where it cannot be had."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = next((place for place in (SHIPPED / name, Path(name)) if is_proxy(place)), None)
    if folder is None:
        raise ModelError(
            f"no proxy encoder at {name}; give a folder that `flowsep train clap` wrote (docs/training.md)"
        )
    try:
        settings = read_json(folder / "config.json")
        text = load_own_text(folder, settings["text"])
        values = {key: tuple(one) if isinstance(one, list) else one for key, one in settings["network"].items()}
        mel = MelConfig(**settings["mel"])
        network = ProxyNetwork(ProxyConfig(**values), mel.n_mels, text.config.d_model)
        fill(network, load_file(folder / "model.safetensors"))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the proxy encoder {name} cannot be read: {str(error).splitlines()[0]}") from error
    encoder = ProxyEncoder(network, text, mel, settings["_name"])
    return encoder.eval().requires_grad_(False).to(pick_device(device))


def fill(network: ProxyNetwork, tensors: dict[str, Tensor]) -> None:
    """Give the network its weights; ValueError where they are not all of its own."""
    found = network.load_state_dict(tensors, strict=False)
    wrong = [name for name in [*found.missing_keys, *found.unexpected_keys] if not name.endswith(COUNTER)]
    if wrong:
        raise ValueError(f"{len(wrong)} tensors are missing or foreign, the first is {wrong[0]}")


def load_own_text(folder: Path, settings: dict[str, Any]) -> TextEncoder:
    """The text encoder in the folder, or that of the shipped model that it shares.

    ModelError where that model has another encoder by now: the vectors would mean nothing.
    """
    shared = settings.get("model")
    if shared is None:
        return load_text(folder, settings["config"])
    place = SHIPPED / shared
    if not (place / TEXT_WEIGHTS).is_file() or sha256(place / TEXT_WEIGHTS) != settings["sha256"]:
        raise ModelError(
            f"{folder} was trained with another text encoder than that of {shared}; train it again (flowsep train clap)"
        )
    return load_text(place, settings["config"])
