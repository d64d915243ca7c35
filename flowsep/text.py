"""Captions -> text states for the UNet: a T5 encoder and its tokenizer.

FlowSep uses the frozen encoder of Flan-T5-large; the small model a T5 encoder of our own (`flowsep train text`), which
is frozen in the flow's training too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vocoder.measures import measures
from vocoder.weights import load_network

CACHED_NUMBERS = 2**24  # of the states that a text encoder keeps (64 MiB), the oldest go first


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the T5 encoder. The defaults are Flan-T5-large's: 341 M parameters."""

    hub: str | None = "google/flan-t5-large"  # where tokenizer and frozen weights come from; None: our own
    vocab_size: int = 32128
    d_model: int = 1024
    d_kv: int = 64
    d_ff: int = 2816
    num_layers: int = 24
    num_heads: int = 16
    max_length: int = 50  # tokens; longer captions are cut
    pad_to_max: bool = True  # FlowSep pads every caption to max_length
    dropout: float = 0.1


@dataclass(frozen=True)
class TextState:
    """Text as the network sees it: hidden (B, L, D), mask (B, L) float with 1 = keep."""

    hidden: Tensor
    mask: Tensor

    def pooled(self) -> Tensor:
        """Mean hidden state over the kept positions (B, D)."""
        weights = self.mask[..., None].to(self.hidden)
        return (self.hidden * weights).sum(1) / weights.sum(1).clamp(min=1)

    def cat(self, other: TextState) -> TextState:
        """Both along the batch, the shorter one padded with masked zeros."""
        length = max(self.hidden.shape[1], other.hidden.shape[1])
        return TextState(*(torch.cat([a, b]) for a, b in zip(self.padded(length), other.padded(length), strict=True)))

    def padded(self, length: int) -> tuple[Tensor, Tensor]:
        """hidden and mask with `length` positions."""
        extra = length - self.hidden.shape[1]
        return nn.functional.pad(self.hidden, (0, 0, 0, extra)), nn.functional.pad(self.mask, (0, extra))


def rows_of(text: TextState | None, rows: slice | Tensor) -> TextState | None:
    """Some items of a batch of texts; None of none."""
    return None if text is None else TextState(text.hidden[rows], text.mask[rows])


def build_t5(config: TextConfig) -> nn.Module:
    """A freshly initialised T5EncoderModel of these sizes (gated GELU, as Flan-T5)."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=config.vocab_size,
            d_model=config.d_model,
            d_kv=config.d_kv,
            d_ff=config.d_ff,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            feed_forward_proj="gated-gelu",
            dropout_rate=config.dropout,
            tie_word_embeddings=False,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def load_t5(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The T5EncoderModel saved in `folder`, frozen; OSError where its file lacks tensors."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config.from_pretrained(folder, local_files_only=True)
    tied = {"encoder.embed_tokens.weight": "shared.weight"}
    model = load_network(lambda: T5EncoderModel(config), folder / "model.safetensors", dtype, tied)
    model.tie_weights()
    return model


class TextEncoder(nn.Module):
    """Captions -> TextState. States of distinct queries are computed once and kept, when no gradient is asked for."""

    def __init__(self, model: nn.Module, tokenizer: Any, config: TextConfig) -> None:
        super().__init__()
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self.capacity: int | None = CACHED_NUMBERS  # None: nothing goes
        self._cache: dict[tuple[str, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def encode(self, texts: Sequence[str]) -> TextState:
        """TextState of the captions as they are: no template, no lower-casing (the tokenizer may do it)."""
        if any(p.requires_grad for p in self.model.parameters()):  # in training: what is kept would go stale
            return self.run(texts)
        weight = next(self.model.parameters())
        keys = [(text, weight.device, weight.dtype) for text in texts]
        missing = list(dict.fromkeys(key for key in keys if key not in self._cache))
        # One at a time: the result must not depend on which other queries share the call.
        for key in missing:
            state = self.run([key[0]])
            self._cache[key] = (state.hidden, state.mask)
        rows = [TextState(*self._cache[key]) for key in keys]
        full = bool(missing) and self.capacity is not None
        kept = sum(hidden.numel() for hidden, _ in self._cache.values()) if full else 0
        while full and kept > self.capacity:
            kept -= self._cache.pop(next(iter(self._cache)))[0].numel()
        length = max(row.hidden.shape[1] for row in rows)
        padded = [row.padded(length) for row in rows]
        return TextState(torch.cat([hidden for hidden, _ in padded]), torch.cat([mask for _, mask in padded]))

    def unconditional(self, batch: int) -> TextState:
        """The empty caption, with an all-ones mask: what FlowSep's unconditional batches saw."""
        state = self.encode([""])
        hidden = state.hidden.expand(batch, -1, -1)
        return TextState(hidden, torch.ones_like(state.mask).expand(batch, -1))

    def token_count(self, text: str) -> int:
        """Number of tokens of a caption before it is cut, end token included."""
        return len(self.tokenizer(text)["input_ids"])

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask (B, L), cut at max_length, on the model's device."""
        tokens = self.tokenizer(
            list(texts),
            max_length=self.config.max_length,
            padding="max_length" if self.config.pad_to_max else "longest",
            truncation=True,
            return_tensors="pt",
        )
        device = next(self.model.parameters()).device
        return tokens["input_ids"].to(device), tokens["attention_mask"].to(device)

    def states(self, ids: Tensor, mask: Tensor) -> TextState:
        """TextState of token ids and mask (B, L)."""
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return TextState(hidden, mask.to(hidden.dtype))

    def run(self, texts: Sequence[str]) -> TextState:
        """TextState of the captions, computed anew: a known one is not looked up and none is kept.

        The states of padding are zeros, since the mask hides them and no other state depends on them. Not so those of
        the empty caption, which the UNet sees without its mask (`unconditional`).
        """
        ids, mask = self.tokens(texts)
        length = int(mask.sum(1).max()) if measures().trimmed and all(texts) else mask.shape[1]
        state = self.states(ids[:, :length], mask[:, :length])
        return TextState(*state.padded(mask.shape[1]))


def train_tokenizer(captions: Sequence[str], vocab_size: int) -> Any:
    """A lower-casing word-piece tokenizer of the captions, with T5's special tokens (pad 0, end 1, unknown 2)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.Lowercase(), normalizers.StripAccents()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=["<pad>", "</s>", "<unk>"], min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(sorted(set(captions)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=int(1e9)
    )


def load_tokenizer(folder: Path | str) -> Any:
    """The tokenizer saved as tokenizer.json in `folder`."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
