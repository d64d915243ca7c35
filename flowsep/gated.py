"""The UNet's gated layers without fresh memory, for inference on a CPU.

A gated layer is 8 times as wide as its input: at official size its product is 8 MB, its gate 4 and its result 4, which
the system hands out anew, page by page, at every call. Here the two halves of the product are made in memory that is
kept, and gated in place.
"""

from __future__ import annotations

import threading
from typing import Self

import torch
from diffusers.models.activations import GEGLU
from torch import Tensor, nn

from vocoder.measures import for_inference, measures


class KeptGEGLU(GEGLU):
    """A drop-in for diffusers' GEGLU inside its FeedForward, made from one whose modules it shares.

    Its result is there until the next gated layer in the same thread: the linear layer behind it has read it by then.
    """

    @classmethod
    def of(cls, plain: GEGLU) -> Self:
        """Shares everything with `plain`."""
        made = cls.__new__(cls)
        made.__dict__.update(plain.__dict__)
        return made

    def forward(self, hidden_states: Tensor, *others: object, **named: object) -> Tensor:
        """(..., D) -> (..., D'): value * gelu(gate)."""
        if not (measures().gated and for_inference(hidden_states) and hidden_states.dtype == self.proj.weight.dtype):
            return super().forward(hidden_states, *others, **named)
        rows = hidden_states.flatten(0, -2)
        weights, biases = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        value, gate = _kept.pair(len(rows), len(biases[0]), rows.dtype)
        torch.addmm(biases[0], rows, weights[0].T, out=value)
        torch.addmm(biases[1], rows, weights[1].T, out=gate)
        torch.ops.aten.gelu_(gate)
        return value.mul_(gate).view(*hidden_states.shape[:-1], -1)


class Kept(threading.local):
    """Memory of the largest pair of halves so far, per precision."""

    def __init__(self) -> None:
        self.buffers: dict[torch.dtype, Tensor] = {}

    def pair(self, rows: int, columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Two of (rows, columns), of anything."""
        size = rows * columns
        buffer = self.buffers.get(dtype)
        if buffer is None or len(buffer) < 2 * size:
            with torch.inference_mode(False):  # so that it may be written to in either mode
                buffer = self.buffers[dtype] = torch.empty(2 * size, dtype=dtype)
        return buffer[:size].view(rows, columns), buffer[size : 2 * size].view(rows, columns)


_kept = Kept()


def keep_gated(unet: nn.Module) -> None:
    """Replace every gated layer with a bias below `unet`; parameters and names stay."""
    for name, child in unet.named_children():
        if type(child) is GEGLU and child.proj.bias is not None:
            setattr(unet, name, KeptGEGLU.of(child))
        else:
            keep_gated(child)
