"""Keys and values of the text, once for all steps: the text of a generation does not change, the latent does."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from vae.attention import split_heads
from vocoder.measures import for_inference, measures

KEPT = 2  # texts at once: guidance alternates between the query and what it leads away from


class TextOnce(AttnProcessor2_0):
    """diffusers' attention on a text, with the text's keys and values kept while the same tensor comes again."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []  # text, keys, values; the newest last

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *others: Any,
        **named: Any,
    ) -> Tensor:
        """hidden_states (B, S, D), text (B, L, D'), mask (B, 1, L) added to the scores -> (B, S, D)."""
        if encoder_hidden_states is None or not self.may_keep():
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, *others, **named)
        keys, values = self.states(attn, encoder_hidden_states)
        queries = split_heads(attn.to_q(hidden_states), attn.heads)
        if attention_mask is not None:
            if measures().trimmed and for_inference(hidden_states):
                length = seen(attention_mask)
                keys, values, attention_mask = keys[:, :, :length], values[:, :, :length], attention_mask[..., :length]
            attention_mask = attention_mask[:, None]  # the same for every head and every place of the latent
        found = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=attention_mask)
        return attn.to_out[0](found.transpose(1, 2).flatten(2))

    def may_keep(self) -> bool:
        """Not in training, where weights change under the same text, nor in a graph that is compiled once."""
        return measures().text_once and not torch.is_grad_enabled() and not torch.compiler.is_compiling()

    def states(self, attn: Attention, text: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, L, D / heads) of text (B, L, D')."""
        for known, keys, values in self.kept:
            if known is text:
                return keys, values
        keys, values = (split_heads(project(text), attn.heads) for project in (attn.to_k, attn.to_v))
        self.kept = [*self.kept, (text, keys, values)][-KEPT:]
        return keys, values


def seen(mask: Tensor) -> int:
    """How many tokens it takes to hold all that a mask (B, 1, L) of 0 and large negative numbers lets any item see."""
    return int((mask.amax((0, 1)) == 0).nonzero().amax()) + 1


def keep_text_states(unet: nn.Module) -> None:
    """Have every attention of `unet` on a text keep its keys and values; all others stay as they are."""
    for module in unet.modules():
        usual = isinstance(module, Attention) and type(module.processor) is AttnProcessor2_0
        if usual and module.is_cross_attention and not (module.norm_q or module.norm_k or module.norm_cross):
            module.set_processor(TextOnce())
