"""What a mask separator is asked with: captions, class names or example clips -> condition vectors (B, D).

AudioSep and the DCASE baseline take CLAP's text embedding, LASS-Net a fine-tuned BERT-mini, our small models the pooled
state of their own T5 encoder, USS the probabilities of AudioSet classes or an embedding of clips that sound alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from flowsep.errors import UsageError
from flowsep.text import TextEncoder

KEPT = 4096  # condition vectors of past captions, the oldest go first


@dataclass(frozen=True)
class QueryConfig:
    """How captions are read, beside the encoder's own configuration."""

    kind: str  # clap | bert | t5 | classes | clips
    hub: str | None = None  # where the tokenizer comes from, and the encoder where a model folder has none
    max_length: int = 512  # tokens; longer captions are cut


class TextQuery(nn.Module):
    """A frozen encoder of captions. Vectors of distinct captions are computed one by one, once, and kept."""

    def __init__(self, model: nn.Module, tokenizer: Any, config: QueryConfig) -> None:
        super().__init__()
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self._kept: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    @property
    def size(self) -> int:
        """D."""
        raise NotImplementedError

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Condition vectors (B, D) of the captions as they are; each is independent of the others."""
        weight = next(self.model.parameters())
        rows = []
        for text in texts:
            key = (text, weight.device, weight.dtype)
            if key not in self._kept:
                with torch.no_grad():
                    self._kept[key] = self.vector(self.tokens(text).to(weight.device))
                if len(self._kept) > KEPT:
                    self._kept.pop(next(iter(self._kept)))
            rows.append(self._kept[key])
        return torch.cat(rows)

    def tokens(self, text: str) -> Tensor:
        """Token ids (1, L) of one caption, cut at max_length."""
        found = self.tokenizer(text, truncation=True, max_length=self.config.max_length, return_tensors="pt")
        return found["input_ids"]

    def vector(self, ids: Tensor) -> Tensor:
        """Condition vector (1, D) of token ids (1, L). Without padding no mask is needed."""
        raise NotImplementedError

    def token_count(self, text: str) -> int:
        """Number of tokens of a caption before it is cut, special ones included."""
        return len(self.tokenizer(text)["input_ids"])


class ClapQuery(TextQuery):
    """CLAP's text branch (RoBERTa, a projection of its pooler's output), scaled to length one.

    AudioSep pads captions to 512 tokens and masks the padding; leaving it out gives the same vector.
    """

    @property
    def size(self) -> int:
        """D."""
        return self.model.config.projection_dim

    def vector(self, ids: Tensor) -> Tensor:
        """Condition vector (1, D) of length one."""
        return nn.functional.normalize(self.model(input_ids=ids).text_embeds, dim=-1)


class BertQuery(TextQuery):
    """LASS-Net's: the last state of BERT at [CLS], then a linear layer and a ReLU.

    The caption is written behind a literal "[CLS] " and has no [SEP], as LASS-Net tokenises.
    """

    def __init__(self, model: nn.Module, projection: nn.Linear, tokenizer: Any, config: QueryConfig) -> None:
        super().__init__(model, tokenizer, config)
        self.projection = projection

    @property
    def size(self) -> int:
        """D."""
        return self.projection.out_features

    def tokens(self, text: str) -> Tensor:
        """Token ids (1, L): [CLS] and the caption, cut at max_length."""
        settings = {"add_special_tokens": False, "truncation": True, "max_length": self.config.max_length}
        return self.tokenizer(f"[CLS] {text}", return_tensors="pt", **settings)["input_ids"]

    def vector(self, ids: Tensor) -> Tensor:
        """Condition vector (1, D), never negative."""
        return torch.relu(self.projection(self.model(input_ids=ids).last_hidden_state[:, 0]))

    def token_count(self, text: str) -> int:
        """Number of tokens of a caption before it is cut, [CLS] included."""
        return len(self.tokenizer(f"[CLS] {text}", add_special_tokens=False)["input_ids"])


class T5Query(nn.Module):
    """The mean state of our own T5 encoder over the caption's tokens: what the small models are conditioned on."""

    def __init__(self, text: TextEncoder) -> None:
        super().__init__()
        self.text, self.config = text, QueryConfig("t5", None, text.config.max_length)

    @property
    def size(self) -> int:
        """D."""
        return self.text.config.d_model

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Condition vectors (B, D)."""
        return self.text.encode(texts).pooled()

    def token_count(self, text: str) -> int:
        """Number of tokens of a caption before it is cut, end token included."""
        return self.text.token_count(text)


class ClassQuery(nn.Module):
    """USS with class probabilities: a class by its name, as the vector that is one there and zero elsewhere.

    USS itself gives each 2-s segment the probabilities that a tagger (Cnn14) finds in it, those of other classes set to
    zero, and skips segments without the class. Without a tagger the class is taken to be there, all the time.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels, self.config = tuple(labels), QueryConfig("classes")

    @property
    def size(self) -> int:
        """Number of classes."""
        return len(self.labels)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Condition vectors (B, D). UsageError for a name that is no class, with names that look like it."""
        rows = {label.casefold(): row for row, label in enumerate(self.labels)}
        vectors = torch.zeros(len(texts), self.size)
        for number, text in enumerate(texts):
            row = rows.get(text.strip().casefold())
            if row is None:
                near = get_close_matches(text.strip().casefold(), rows, 3, 0.5)
                hint = f"; did you mean {' or '.join(self.labels[rows[one]] for one in near)}?" if near else ""
                raise UsageError(f"{text!r} is none of the {self.size} classes of this model{hint}")
            vectors[number, row] = 1.0
        return vectors


class ClipQuery(nn.Module):
    """USS by example: it knows no words. Conditions come from clips (`flowsep.masks.listening`)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size, self.config = size, QueryConfig("clips")

    @property
    def size(self) -> int:
        """D."""
        return self._size

    def encode(self, texts: Sequence[str]) -> Tensor:
        """UsageError, always: MaskSeparator.remember gives a description its meaning."""
        raise UsageError(
            f"this model is asked by example and does not know {texts[0]!r}; give it clips of the sound with "
            "--reference CLIP, in Python separator.remember(text, condition)"
        )


Query = ClapQuery | BertQuery | T5Query | ClassQuery | ClipQuery


def settings_of(query: Query) -> dict[str, Any]:
    """What a model folder's index says of a query encoder: all that its own files do not."""
    settings = asdict(query.config)
    if isinstance(query, T5Query):
        settings["text"] = asdict(query.text.config)
    if isinstance(query, ClassQuery):
        settings["labels"] = list(query.labels)
    if isinstance(query, ClipQuery):
        settings["size"] = query.size
    return settings
