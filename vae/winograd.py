"""3 x 3 convolutions with fewer multiplications, for inference on a CPU: Winograd's minimal filtering.

A tile of 4 x 4 outputs takes 36 multiplications per pair of channels instead of 144 (Lavin and Gray, "Fast Algorithms
for Convolutional Neural Networks", 2016, F(4 x 4, 3 x 3)): y = A^T [(G g G^T) * (B^T d B)] A for a tile d of 6 x 6
inputs and a filter g. Over all tiles and channels the product in the middle is 36 matrix products; the transforms
around it are two more, with Kronecker products of the small matrices: a CPU is faster at these than at sums of slices.

Its rounding error is about 4 times the direct convolution's. Only float32 is treated: bfloat16 bears tiles of 2 alone,
which made a run 5 % faster for 0.25 GB of transformed weights.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from vae.products import by_columns, few_places
from vocoder.measures import for_inference, measures, replace_modules
from vocoder.scratch import Scratch

TILE = 4  # outputs per side
# Where the polynomials of the transform are evaluated, besides infinity: the points that make the rounding error least,
# less than half of that of the usual 0, 1, -1, 2, -2. Found by search; 8/5 = 1 / (5/8).
POINTS = (0.0, 5 / 8, -5 / 8, 8 / 5, -8 / 5)
LEAST_CHANNELS = 256  # in and out; with fewer, the transforms cost what the products save
TILES_AT_ONCE = 128  # so that what lies between the products stays in the cache
LEAST_PIXELS = 256  # below, the products have few rows and the time goes into reading 4 times the weights


class WinogradConv2d(nn.Conv2d):
    """A drop-in for a 3 x 3 convolution, made from one whose parameters it shares.

    Shapes that do not pay, gradients, other precisions and other devices take the direct convolution, or one product
    where there are few places (vae/products.py).
    """

    def __init__(self, plain: nn.Conv2d) -> None:
        nn.Module.__init__(self)
        self.__dict__.update({name: value for name, value in vars(plain).items() if not name.startswith("_")})
        self._reversed_padding_repeated_twice = plain._reversed_padding_repeated_twice
        self.weight, self.bias = plain.weight, plain.bias
        self.training = plain.training
        self.kept: tuple[tuple[int, int, torch.dtype], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        if measures().winograd and pays(x, self.weight):
            return winograd(x, self.filters(), self.bias)
        if few_places(x, self.weight):
            return by_columns(x, self.weight, self.bias)
        return super().forward(x)

    def filters(self) -> Tensor:
        """The transformed weights (t * t, C', C), kept while the weights are: 4 times their memory."""
        version = 0 if self.weight.is_inference() else self.weight._version
        key = (self.weight.data_ptr(), version, self.weight.dtype)
        if self.kept is None or self.kept[0] != key:
            self.kept = (key, transformed(self.weight))
        return self.kept[1]


def use_winograd(module: nn.Module) -> None:
    """Replace every 3 x 3 convolution of stride 1 with many channels below `module`; parameters and names stay."""
    replace_modules(module, _is_usual, WinogradConv2d)


def _is_usual(plain: nn.Module) -> bool:
    if type(plain) is not nn.Conv2d:
        return False
    shape = (plain.kernel_size, plain.stride, plain.padding, plain.dilation)
    same = shape == ((3, 3), (1, 1), (1, 1), (1, 1)) and plain.groups == 1 and plain.padding_mode == "zeros"
    return same and min(plain.in_channels, plain.out_channels) >= LEAST_CHANNELS


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether the fast path may run on x (B, C, H, W), and pays there."""
    return for_inference(x) and x.dtype == weight.dtype == torch.float32 and x.shape[2] * x.shape[3] >= LEAST_PIXELS


@cache
def matrices() -> tuple[Tensor, Tensor, Tensor]:
    """A^T (m, t), G (t, 3), B^T (t, t) of F(m, 3), m = TILE, t = m + 2, in float64: y = A^T [(G g) * (B^T d)].

    Toom and Cook: a polynomial product by values at `POINTS` and at infinity, transposed. The rows of G and B^T have
    length 1, so that no product is of other size than its factors.
    """
    points = torch.tensor(POINTS, dtype=torch.float64)

    def values(count: int) -> Tensor:  # of a polynomial with `count` coefficients at the points and at infinity
        powers = points[:, None] ** torch.arange(count)
        return torch.cat([powers, torch.eye(count, dtype=torch.float64)[-1:]])

    output, filters, inputs = values(TILE).T, values(3), torch.linalg.inv(values(TILE + 2)).T
    lengths = filters.norm(dim=1), inputs.norm(dim=1)
    return output * (lengths[0] * lengths[1]), filters / lengths[0][:, None], inputs / lengths[1][:, None]


@cache
def products() -> tuple[Tensor, Tensor, Tensor]:
    """`matrices` for both axes at once: (m * m, t * t), (t * t, 9), (t * t, t * t)."""
    output, filters, inputs = (torch.kron(matrix, matrix).float() for matrix in matrices())
    return output, filters, inputs


def transformed(weight: Tensor) -> Tensor:
    """Weights (C', C, 3, 3) as (t * t, C', C)."""
    channels = weight.shape[:2]
    filters = products()[1] @ weight.reshape(-1, 9).T
    return filters.view(-1, *channels)


def winograd(x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of x (B, C, H, W), zeros around it, with filters (t * t, C', C), in tiles of TILE x TILE outputs.

    Items are treated one by one, so that none depends on the others of its batch. The result is (B, C', H, W).
    """
    m, t = TILE, TILE + 2
    batch, channels, height, width = x.shape
    down, across = -(-height // m), -(-width // m)
    padded = x.new_empty(batch, down * m + 2, across * m + 2, channels)
    padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
    for edge in (padded[:, :1], padded[:, height + 1 :], padded[:, :, :1], padded[:, :, width + 1 :]):
        edge.zero_()
    item, row, column, _ = padded.stride()
    made = x.new_empty(batch, down * m, across * m, filters.shape[1])
    bias = 0 if bias is None else bias
    rows = max(1, TILES_AT_ONCE // across)
    for number in range(batch):
        for first in range(0, down, rows):
            count = min(rows, down - first)
            tiles = padded.as_strided(
                (t, t, count, across, channels), (row, column, m * row, m * column, 1), number * item + first * m * row
            )
            outputs = multiplied(tiles, filters).view(m, m, count, across, -1)
            place = made[number, first * m : (first + count) * m].view(count, m, across, m, -1)
            torch.add(outputs, bias, out=place.permute(1, 3, 0, 2, 4))
    # In torch's usual order: its group norm sums over channels-last inputs with 2 to 3 times the rounding error.
    return made[:, :height, :width].permute(0, 3, 1, 2).contiguous()


def multiplied(tiles: Tensor, filters: Tensor) -> Tensor:
    """Outputs (m * m, tiles * C') of tiles (t, t, rows, columns, C), until the next call in this thread."""
    places, count, outputs = filters.shape[0], tiles.shape[2] * tiles.shape[3], filters.shape[1]
    to_outputs, _, from_inputs = products()
    gathered = _scratch.take("gathered", places, count * tiles.shape[4])
    inside = _scratch.take("inside", *gathered.shape)
    found = _scratch.take("found", places, count * outputs)
    made = _scratch.take("made", to_outputs.shape[0], count * outputs)
    gathered.view(tiles.shape).copy_(tiles)
    torch.mm(from_inputs, gathered, out=inside)
    torch.bmm(inside.view(places, count, -1), filters.transpose(1, 2), out=found.view(places, count, -1))
    return torch.mm(to_outputs, found, out=made)


# What lies between the products: asked of the system anew at every block it took a fifth of the time. 33 MB at most.
_scratch = Scratch()
