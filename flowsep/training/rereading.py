"""A UNet that has learnt to read one text encoder reads another: by least squares, before any training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowsep.text import TextEncoder

RIDGE = 1e-3  # of the mean square of a state's numbers: keeps directions that hardly occur from being blown up
BATCH = 256


def reread(unet: nn.Module, before: TextEncoder, now: TextEncoder, texts: Sequence[str]) -> float | None:
    """Fold into `unet`, trained with the encoder `before`, a linear map from states of `now` to those; in place.

    Both are equally wide. The map is the ridge regression of the pooled states of `texts`; every layer that reads text
    is linear in it, so that the network then does with mapped states what it did with its own. Returns the share of
    the variance that the map explains; None where both encoders say the same of the first texts and nothing is done.
    """
    few = list(texts[:16])
    if torch.equal(pooled(before, few), pooled(now, few)):
        return None
    old, new = pooled(before, texts), pooled(now, texts)
    gram = new.T @ new
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    mapping = torch.linalg.solve(gram, new.T @ old).T
    with torch.no_grad():
        for layer in text_layers(unet):
            layer.weight.copy_(layer.weight.double() @ mapping)
    left = (new @ mapping.T - old).square().sum() / (old - old.mean(0)).square().sum()
    return 1.0 - float(left)


@torch.no_grad()
def pooled(encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
    """Mean states (len(texts), width) in float64, on the CPU."""
    states = [encoder.run(texts[first : first + BATCH]).pooled() for first in range(0, len(texts), BATCH)]
    return torch.cat(states).double().cpu()


def text_layers(unet: nn.Module) -> list[nn.Linear]:
    """The layers that read text: keys and values of cross-attention, and the pooled state's projection."""
    from diffusers.models.attention_processor import Attention

    crossing = [m for m in unet.modules() if isinstance(m, Attention) and m.is_cross_attention]
    layers = [layer for attention in crossing for layer in (attention.to_k, attention.to_v)]
    return layers + ([] if unet.class_embedding is None else [unet.class_embedding])
