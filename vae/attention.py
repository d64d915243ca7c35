"""Self-attention over many places in bfloat16, for inference on a CPU, as two matrix products and a softmax.

torch's fused attention keeps scores in float32: it multiplies bfloat16 no faster than float32. Where there are many
places, products in bfloat16 with the scores between them in the cache are faster, at the price of scores that are
rounded to bfloat16, as every other feature is. With float32 the fused attention is the faster one.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from vocoder.measures import for_inference, measures

LEAST_PLACES = 1024  # below, the fused attention is as fast
SCORES = 2**20  # that lie between the products: 2 MB


class ByProducts(AttnProcessor2_0):
    """diffusers' attention on a latent itself, blocked where that pays."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *others: Any,
        **named: Any,
    ) -> Tensor:
        """hidden_states (B, S, D) or (B, D, H, W) -> the same shape."""
        if encoder_hidden_states is not None or attention_mask is not None or not pays(hidden_states):
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb, *others, **named)
        states = hidden_states.flatten(2).transpose(1, 2) if hidden_states.ndim == 4 else hidden_states
        if attn.group_norm is not None:
            states = attn.group_norm(states.transpose(1, 2)).transpose(1, 2)
        queries, keys, values = (
            split_heads(project(states), attn.heads) for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        made = attn.to_out[0](blocked_attention(queries, keys, values))
        if hidden_states.ndim == 4:
            made = made.transpose(1, 2).unflatten(2, hidden_states.shape[2:])
        if attn.residual_connection:
            made = hidden_states + made  # in this order: the sum lies in memory as its first term
        return made / attn.rescale_output_factor if attn.rescale_output_factor != 1 else made


def pays(x: Tensor) -> bool:
    """Whether features x (B, S, D) or (B, D, H, W) are treated here."""
    places = x.shape[2] * x.shape[3] if x.ndim == 4 else x.shape[1]
    return measures().blocked and for_inference(x) and x.dtype == torch.bfloat16 and places >= LEAST_PLACES


def split_heads(x: Tensor, count: int) -> Tensor:
    """(B, S, D) -> (B, heads, S, D / heads)."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def blocked_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of (B, heads, S, d) each, as (B, S, heads * d)."""
    batch, heads, places, width = queries.shape
    made = queries.new_empty(batch, heads, places, width)
    rows = max(1, SCORES // keys.shape[2])
    scores = queries.new_empty(min(rows, places), keys.shape[2])
    for item in range(batch):
        for head in range(heads):
            for first in range(0, places, rows):
                part = slice(first, first + rows)
                block = scores[: min(rows, places - first)]
                torch.mm(queries[item, head, part] * width**-0.5, keys[item, head].T, out=block)
                torch.softmax(block, dim=-1, out=block)
                torch.mm(block, values[item, head], out=made[item, head, part])
    return made.transpose(1, 2).flatten(2)


def block_attention(module: nn.Module) -> None:
    """Have every attention of `module` on its own features take the blocked form where it pays."""
    for part in module.modules():
        usual = isinstance(part, Attention) and type(part.processor) is AttnProcessor2_0 and part.spatial_norm is None
        if usual and not part.is_cross_attention and not (part.norm_q or part.norm_k):
            part.set_processor(ByProducts())
