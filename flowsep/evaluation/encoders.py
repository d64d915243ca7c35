"""The encoders that semantic metrics stand on: what a metric needs of one, and CLAP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from flowsep.errors import ModelError
from flowsep.options import check_encoder

CLAP_SECONDS = 10  # that CLAP sees at once


class TextAudioEncoder(Protocol):
    """Texts and sounds in one space: CLAP, or a stand-in."""

    name: str  # of the weights, printed beside every score
    score_name: str  # "CLAPScore" for a CLAP; a stand-in must not call its score so
    sample_rate: int  # Hz

    def text(self, texts: Sequence[str]) -> Tensor:
        """(B, D), rows of length one."""
        ...

    def audio(self, audio: Tensor) -> Tensor:
        """Audio (B, T) at `sample_rate` -> (B, D), rows of length one."""
        ...


@runtime_checkable
class FrameEncoder(Protocol):
    """Embeddings of the pieces of a sound, for Frechet distances: VGGish gives one per 0.96 s, Cnn14 one per clip."""

    name: str
    sample_rate: int  # Hz

    def frames(self, audio: Tensor) -> Tensor:
        """Audio (T,) at `sample_rate` -> (N, D)."""
        ...


class Tagger(Protocol):
    """A classifier of sounds: PANNs' Cnn14 gives 527 probabilities, PaSST logits."""

    name: str
    sample_rate: int  # Hz

    def logits(self, audio: Tensor) -> Tensor:
        """Audio (B, T) at `sample_rate` -> (B, classes), before the softmax."""
        ...


def load_encoder(name: str, device: str = "cpu") -> TextAudioEncoder:
    """The encoder of "clap:FOLDER", "proxy:FOLDER" or "proxy" (the shipped one); ModelError where it cannot be had."""
    check_encoder(name)
    kind, _, folder = name.partition(":")
    if kind == "clap":
        return ClapEncoder.from_pretrained(folder, device)
    from flowsep.proxy.encoder import DEFAULT, load_proxy

    return load_proxy(folder or DEFAULT, device)


def shipped_encoder() -> TextAudioEncoder | None:
    """The proxy encoder that ships in the package; None where none does."""
    from flowsep.proxy.encoder import load_proxy, proxy_ships

    return load_proxy() if proxy_ships() else None


class ClapEncoder:
    """CLAP by transformers' ClapModel (Wu et al., 2023).

    Clips shorter than 10 s are repeated, then padded with zeros, as CLAP was trained. LAION's code takes a random 10 s
    of longer ones; here the embeddings of their pieces of 10 s, evenly spread, are averaged, so that a score is
    the same every time.
    """

    score_name = "CLAPScore"

    def __init__(self, model: Any, tokenizer: Any, extractor: Any, name: str) -> None:
        self.model, self.tokenizer, self.extractor, self.name = model.eval(), tokenizer, extractor, name
        self.sample_rate = extractor.sampling_rate

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str = "cpu") -> ClapEncoder:
        """The CLAP saved in a folder or on the hub. ModelError where it cannot be had."""
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

        try:
            model = ClapModel.from_pretrained(name, dtype=torch.float32).to(device)
            tokenizer = AutoTokenizer.from_pretrained(name)
            extractor = ClapFeatureExtractor.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the CLAP {name} cannot be had; give a folder with it, or connect once and name one of the hub, "
                "for example laion/larger_clap_general"
            ) from error
        return cls(model, tokenizer, extractor, str(name))

    @torch.inference_mode()
    def text(self, texts: Sequence[str]) -> Tensor:
        """(B, D), rows of length one; each caption on its own, cut at 77 tokens."""
        rows = []
        for text in texts:
            tokens = self.tokenizer(text, truncation=True, max_length=77, return_tensors="pt").to(self.model.device)
            found = self.model.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
            rows.append(found.pooler_output)
        return torch.cat(rows).cpu()

    @torch.inference_mode()
    def audio(self, audio: Tensor) -> Tensor:
        """Audio (B, T) at 48 kHz -> (B, D), rows of length one."""
        rows = [self._pieces(one).mean(0, keepdim=True) for one in audio]
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1).cpu()

    def frames(self, audio: Tensor) -> Tensor:
        """Audio (T,) at 48 kHz -> one embedding per piece of 10 s (N, D), for a Frechet distance on CLAP."""
        with torch.inference_mode():
            return self._pieces(audio).cpu()

    def _pieces(self, audio: Tensor) -> Tensor:
        length = CLAP_SECONDS * self.sample_rate
        count = -(-len(audio) // length)
        starts = [0] if count < 2 else [round(n * (len(audio) - length) / (count - 1)) for n in range(count)]
        pieces = [np.asarray(audio[start : start + length].cpu(), np.float32) for start in starts]
        features = self.extractor(pieces, sampling_rate=self.sample_rate, return_tensors="pt").to(self.model.device)
        found = self.model.get_audio_features(features["input_features"], is_longer=features.get("is_longer"))
        return found.pooler_output
