"""The UNet's gated layers without fresh memory, for inference on a CPU.

A gated layer is 8 times as wide as its input: at official size its product is 8 MB, its gate 4 and its result 4, which
the system hands out anew, page by page, at every call. Here the two halves of the product are made in memory that is
kept, and gated in place.
"""

from __future__ import annotations

from functools import partial

import torch
from diffusers.models.activations import GEGLU
from torch import Tensor, nn

from vocoder.measures import for_inference, measures, replace_modules, sharing
from vocoder.scratch import Scratch


class KeptGEGLU(GEGLU):
    """A drop-in for diffusers' GEGLU inside its FeedForward, made from one whose modules it shares.

    Its result is there until the next gated layer in the same thread: the linear layer behind it has read it by then.
    """

    def forward(self, hidden_states: Tensor, *others: object, **named: object) -> Tensor:
        """(..., D) -> (..., D'): value * gelu(gate)."""
        if not (measures().gated and for_inference(hidden_states) and hidden_states.dtype == self.proj.weight.dtype):
            return super().forward(hidden_states, *others, **named)
        rows = hidden_states.flatten(0, -2)
        weights, biases = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        value, gate = (_kept.take(name, len(rows), len(biases[0]), rows.dtype) for name in ("value", "gate"))
        torch.addmm(biases[0], rows, weights[0].T, out=value)
        torch.addmm(biases[1], rows, weights[1].T, out=gate)
        torch.ops.aten.gelu_(gate)
        return value.mul_(gate).view(*hidden_states.shape[:-1], -1)


_kept = Scratch()


def keep_gated(unet: nn.Module) -> None:
    """Replace every gated layer with a bias below `unet`; parameters and names stay."""
    replace_modules(unet, _is_usual, partial(sharing, KeptGEGLU))


def _is_usual(plain: nn.Module) -> bool:
    return type(plain) is GEGLU and plain.proj.bias is not None
