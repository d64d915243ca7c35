"""Convolutions as the plain matrix products that they are, for inference on a CPU: of 1 x 1, and of few places.

oneDNN puts inputs, weights and results into an order of its own at every call. For a 1 x 1 convolution that takes as
long as the product, and where there are few places, reading and re-ordering the weights (29 MB for 1280 to 640 channels
in float32) takes longer. As one product of the weights as they lie, both cost what the product costs.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from vocoder.measures import for_inference, measures, replace_modules, sharing

MOST_PLACES = 128  # of a batch, for 3 x 3 convolutions: beyond, gathering 9 neighbours costs more than it spares
LEAST_WEIGHTS = 2**20  # of a 3 x 3 convolution: fewer stay in the cache


class PointwiseConv2d(nn.Conv2d):
    """A drop-in for a 1 x 1 convolution, made from one whose parameters it shares."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W), in the order in memory that x has."""
        if not (measures().products and for_inference(x) and x.dtype == self.weight.dtype):
            return super().forward(x)
        weight = self.weight.flatten(1)
        if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
            return nn.functional.linear(x.permute(0, 2, 3, 1), weight, self.bias).permute(0, 3, 1, 2)
        places = x.flatten(2)
        weights = weight.expand(len(x), -1, -1)
        if self.bias is None:
            made = torch.bmm(weights, places)
        else:
            made = torch.baddbmm(self.bias[:, None], weights, places)
        return made.unflatten(2, x.shape[2:])


def use_products(module: nn.Module) -> None:
    """Replace every 1 x 1 convolution below `module`; parameters and names stay."""
    replace_modules(module, _is_pointwise, partial(sharing, PointwiseConv2d))


def _is_pointwise(plain: nn.Module) -> bool:
    if type(plain) is not nn.Conv2d:
        return False
    return (plain.kernel_size, plain.stride, plain.padding, plain.groups) == ((1, 1), (1, 1), (0, 0), 1)


def few_places(x: Tensor, weight: Tensor) -> bool:
    """Whether `by_columns` may convolve x (B, C, H, W) with 3 x 3 weights, and pays there."""
    if not (measures().products and for_inference(x) and x.dtype == weight.dtype):
        return False
    return len(x) * x.shape[2] * x.shape[3] <= MOST_PLACES and weight.numel() >= LEAST_WEIGHTS


def by_columns(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of x (B, C, H, W), zeros around it, with weights (C', C, 3, 3) -> (B, C', H, W)."""
    batch, channels, height, width = x.shape
    padded = nn.functional.pad(x, (1, 1, 1, 1)).contiguous()
    item, channel, row, column = padded.stride()
    shape = (channels, 3, 3, batch, height, width)
    columns = padded.as_strided(shape, (channel, row, column, item, row, column)).reshape(channels * 9, -1)
    made = weight.flatten(1) @ columns if bias is None else torch.addmm(bias[:, None], weight.flatten(1), columns)
    return made.view(-1, batch, height, width).transpose(0, 1).contiguous()
