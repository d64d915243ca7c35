"""References: clips of a sound as the query, heard by the audio encoder of the model's folder.

audio_encoder/   of USS: config.json and model.safetensors of a Cnn14; of AudioSep and the DCASE baseline: CLAP's audio
                 branch in the transformers layout, with its preprocessor_config.json
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from flowsep.checkpoint import no_progress_bar, read_json, refuse_missing
from flowsep.errors import InputError, ModelError, UsageError
from flowsep.masks.cnn14 import Cnn14, Cnn14Config
from flowsep.masks.examples import mean_embedding
from flowsep.masks.folder import WEIGHTS, load_weights
from flowsep.masks.separator import MaskSeparator
from flowsep.references import AUDIO, BY_EXAMPLE, OPTION, References

SHORTEST, LONGEST = 0.1, 600.0  # seconds of a clip
SILENT = 1e-3  # peak, of full scale (-60 dB): the dither of 16 bits is far below, any sound above


@dataclass(frozen=True)
class Listener:
    """An audio encoder whose embeddings condition a separator: clips in, condition out."""

    embed: Callable[[Tensor], Tensor]  # (B, T) at `sample_rate` -> (B, D)
    sample_rate: int  # Hz
    seconds: float  # that it hears at once
    unit: bool  # whether conditions have length one

    def condition(self, clips: Sequence[tuple[Tensor, int]]) -> Tensor:
        """Condition (D,) of clips [(samples (C, T), rate in Hz)] of one sound; InputError where all are silent."""
        return mean_embedding(clips, self.embed, self.sample_rate, self.seconds, self.unit)


def remember_clips(separator: object, id: str, clips: Mapping[str, Sequence[tuple[Tensor, int]]]) -> None:
    """Let each text stand for its clips [(samples (C, T), rate in Hz)] in the separator that the user calls `id`.

    UsageError for a model that is asked in words only, ModelError where its folder lacks the audio encoder.
    """
    listener = listener_of(separator, id)
    for text, some in clips.items():
        separator.remember(text, listener.condition(some))


def read_clips(references: References) -> dict[str, list[tuple[Tensor, int]]]:
    """The clips of each text; errors as `read_clip`."""
    return {text: [read_clip(clip.path) for clip in clips] for text, clips in references.items()}


def read_clip(path: Path) -> tuple[Tensor, int]:
    """Samples (C, T) and rate in Hz of a reference.

    InputError for one that cannot be read, is silent, or lasts less than 0.1 s or more than ten minutes.
    """
    from flowsep.blocks import scan
    from flowsep.media import open_media

    recording = open_media(path)
    seconds = scan(recording).frames / recording.sample_rate
    if not SHORTEST <= seconds <= LONGEST:
        bounds = f"give a reference of {SHORTEST:g} to {LONGEST:g} s"
        raise InputError(f"{path} lasts {seconds:.3g} s; {bounds} that holds little but the sound")
    samples = torch.cat(list(recording.blocks()), dim=-1)
    if samples.abs().max() < SILENT:
        raise InputError(f"{path} is silent; give a reference that holds the sound, or leave it out")
    return samples, recording.sample_rate


def listener_of(separator: object, id: str) -> Listener:
    """What hears references for a separator; errors as `remember_clips`."""
    kind = separator.text.config.kind if isinstance(separator, MaskSeparator) else None
    if kind not in ("clap", "classes", "clips"):
        raise UsageError(f"{id} is asked in words only; {OPTION} needs {BY_EXAMPLE}")
    folder = separator.folder / AUDIO if separator.folder is not None else None
    if folder is None or not folder.is_dir():
        part = "CLAP's audio branch" if kind == "clap" else "its Cnn14 (query_net)"
        raise ModelError(f"{id} has no {AUDIO}, which {OPTION} needs; convert a checkpoint that holds {part}")
    try:
        return load_clap_audio(folder) if kind == "clap" else load_cnn14(folder)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder} cannot be read: {str(error).splitlines()[0]}; convert the model again") from error


def load_cnn14(folder: Path) -> Listener:
    """Cnn14, in pieces of 2 s as in USS."""
    settings = read_json(folder / "config.json")
    if settings.pop("_class_name") != "Cnn14":
        raise ModelError(f"{folder} holds no Cnn14; convert the checkpoint again")
    settings["widths"] = tuple(settings["widths"])
    network = Cnn14(Cnn14Config(**settings))
    load_weights(network, folder / WEIGHTS)
    return Listener(network.eval(), network.config.sample_rate, 2.0, unit=False)


def load_clap_audio(folder: Path) -> Listener:
    """CLAP's audio branch, in pieces of 10 s; embeddings of pieces have length one, and so has their mean."""
    from transformers import ClapAudioModelWithProjection, ClapFeatureExtractor

    settings: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True, "local_files_only": True}
    with no_progress_bar():
        model, found = ClapAudioModelWithProjection.from_pretrained(folder, **settings)
    refuse_missing(AUDIO, found)
    model.eval()
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    rate = extractor.sampling_rate

    @torch.inference_mode()
    def embed(audio: Tensor) -> Tensor:
        features = extractor(list(audio.numpy()), sampling_rate=rate, return_tensors="pt")["input_features"]
        return torch.nn.functional.normalize(model(input_features=features).audio_embeds, dim=-1)

    return Listener(embed, rate, float(extractor.max_length_s), unit=True)
