"""Tensors that stay in their file until asked for, and a safetensors writer that holds one of them at a time."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from flowsep.errors import ModelError


@dataclass(frozen=True)
class LazyTensor:
    """What is known of a tensor without reading it, and how to read it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    load: Callable[[], Tensor]  # a new contiguous tensor at each call

    def __setstate__(self, state: object) -> None:
        """Ignore the state that a pickle may try to put on top."""


class Bytes(Protocol):
    """Where the numbers of a storage lie: a part of a file."""

    def size(self) -> int: ...  # bytes
    def read(self, start: int, count: int) -> bytearray: ...  # exactly count bytes; ModelError if they are not there


def strided_tensor(
    source: Bytes, dtype: torch.dtype, offset: int, shape: Sequence[int], stride: Sequence[int], swap: bool = False
) -> LazyTensor:
    """The view (offset, shape, stride, in elements) of a storage; `swap` where its byte order is not the machine's.

    All numbers come from a file and are trusted only after the checks here and in `load_view`.
    """
    for numbers in ((offset,), shape, stride):
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ModelError(f"damaged checkpoint: a tensor of shape {shape!r}, stride {stride!r}, offset {offset!r}")
    if len(shape) != len(stride):
        raise ModelError(f"damaged checkpoint: a tensor of shape {shape!r} with stride {stride!r}")
    shape, stride = tuple(shape), tuple(stride)
    return LazyTensor(dtype, shape, lambda: load_view(source, dtype, offset, shape, stride, swap))


def load_view(
    source: Bytes, dtype: torch.dtype, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], swap: bool
) -> Tensor:
    """Read only the bytes that the view spans, and make it contiguous."""
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    span = 1 + sum((count - 1) * step for count, step in zip(shape, stride, strict=True))
    if (offset + span) * dtype.itemsize > source.size():
        raise ModelError(f"damaged checkpoint: a tensor of shape {shape} needs more numbers than its storage has")
    data = source.read(offset * dtype.itemsize, span * dtype.itemsize)
    if swap:
        width = dtype.itemsize // (2 if dtype.is_complex else 1)
        torch.frombuffer(data, dtype=torch.uint8).view(-1, width).copy_(
            torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, width).flip(1)
        )
    return torch.frombuffer(data, dtype=dtype).as_strided(shape, stride).contiguous()


def reshaped(tensor: LazyTensor, shape: tuple[int, ...]) -> LazyTensor:
    """The same numbers in another shape of equal size."""
    return LazyTensor(tensor.dtype, shape, lambda: tensor.load().reshape(shape))


def without_weight_norm(direction: LazyTensor, magnitude: LazyTensor) -> LazyTensor:
    """weight = g v / ||v||, the norm over all axes but the first, as torch.nn.utils.remove_weight_norm computes it."""
    return LazyTensor(
        direction.dtype, direction.shape, lambda: torch._weight_norm(direction.load(), magnitude.load(), 0)
    )


def write_safetensors(path: Path, tensors: Mapping[str, LazyTensor]) -> None:
    """Write the tensors in the order given, with no more than one of them in memory: float32, whole numbers int64.

    The format: header length as a little-endian uint64, a JSON header, the numbers; safetensors' own writer wants
    everything in memory at once.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        kind, _, width = stored_as(tensor)
        start, end = end, end + width * math.prod(tensor.shape)
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            _, dtype, _ = stored_as(tensor)
            numbers = tensor.load().to(dtype).contiguous().numpy()
            file.write(numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).tobytes())


def stored_as(tensor: LazyTensor) -> tuple[str, torch.dtype, int]:
    """Name, type and bytes of the numbers of a written tensor."""
    if tensor.dtype.is_floating_point:
        return "F32", torch.float32, 4
    return "I64", torch.int64, 8
