"""The two stages of a mask separator, for `flowsep benchmark latency`: its query encoder and its network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowsep.masks.query import T5Query, TextQuery
from flowsep.masks.separator import MaskSeparator

TEXT, NETWORK = "text", "mask network"


def acquaint(separator: object, texts: Sequence[str]) -> None:
    """Let a mask separator that reads no words (USS) know the texts by random vectors, as it does by those of clips."""
    if isinstance(separator, MaskSeparator) and not isinstance(separator.text, TextQuery | T5Query):
        for text in texts:
            separator.remember(text, torch.rand(separator.text.size))


def encoder_of(separator: MaskSeparator) -> nn.Module | None:
    """The network that reads descriptions; None where there is none."""
    query = separator.text
    if isinstance(query, T5Query):
        return query.text.model
    return query.model if isinstance(query, TextQuery) else None


def read(separator: MaskSeparator, texts: Sequence[str]) -> list[Tensor]:
    """What the encoder makes of each text, computed anew."""
    query = separator.text
    if isinstance(query, T5Query):
        return [query.text.run([text]).hidden for text in texts]
    return [query.vector(query.tokens(text).to(separator.device)) for text in texts]
