"""A sentence encoder that our small T5 learns meanings from, at training time only.

Words that name no sound of the training set still mean something: the teacher's embedding of a text says near what. Any
folder in the transformers layout will do; docs/training.md names the one used for the shipped model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowsep.checkpoint import no_progress_bar
from flowsep.errors import InputError

BATCH = 64
LONGEST = 64  # tokens of a text


@dataclass(frozen=True)
class Meanings:
    """Unit vectors (N, D) of N texts, and the row of each."""

    vectors: Tensor
    rows: dict[str, int]

    @property
    def width(self) -> int:
        """D."""
        return self.vectors.shape[1]

    def of(self, text: str) -> Tensor:
        """The vector (D,) of one of the texts; KeyError for others."""
        return self.vectors[self.rows[text]].float()


def teacher_words(folder: Path) -> list[str]:
    """The whole words, letters only, of the teacher's vocabulary: texts of one word that no caption need hold."""
    tokenizer = _load(folder)[1]
    return sorted(word for word in tokenizer.get_vocab() if len(word) > 2 and word.isascii() and word.isalpha())


def meanings_of(texts: Sequence[str], folder: Path, kept: Path | None = None) -> Meanings:
    """Meanings of the distinct texts: mean of the teacher's last states over each text's tokens, scaled to length 1.

    What the file `kept` holds is not computed again; what is new is added. InputError if `folder` is no encoder.
    """
    known = _read(kept) if kept is not None and kept.is_file() else {}
    # Shortest first: in a batch of one length no padding is computed.
    missing = sorted(set(texts) - known.keys(), key=lambda text: (len(text), text))
    if missing:
        known |= dict(zip(missing, _embed(missing, folder), strict=True))
        if kept is not None:
            _write(known, kept)
    return Meanings(torch.stack(list(known.values())), {text: row for row, text in enumerate(known)})


@torch.inference_mode()
def _embed(texts: Sequence[str], folder: Path) -> Tensor:
    """Unit vectors (N, D) in half precision."""
    model, tokenizer = _load(folder)
    parts = []
    for first in range(0, len(texts), BATCH):
        batch = list(texts[first : first + BATCH])
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        states = model(**tokens).last_hidden_state
        weights = tokens["attention_mask"][..., None].to(states)
        mean = (states * weights).sum(1) / weights.sum(1)
        parts.append(torch.nn.functional.normalize(mean, dim=-1).half())
    return torch.cat(parts)


def _read(path: Path) -> dict[str, Tensor]:
    tensors = load_file(path)
    texts = bytes(tensors["texts"].tolist()).decode().split("\0")
    return dict(zip(texts, tensors["vectors"], strict=True))


def _write(known: dict[str, Tensor], path: Path) -> None:
    texts = torch.frombuffer(bytearray("\0".join(known).encode()), dtype=torch.uint8)
    save_file({"vectors": torch.stack(list(known.values())), "texts": texts}, path)


def _load(folder: Path) -> tuple:
    from transformers import AutoModel, AutoTokenizer

    try:
        with no_progress_bar():
            model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} holds no sentence encoder (config.json, model.safetensors, tokenizer.json)"
        ) from error
