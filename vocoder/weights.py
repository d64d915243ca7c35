"""Weights from safetensors files into networks that were built without any, one tensor at a time.

Nothing is initialised at random first, and no second copy of a network is ever in memory: on the way to half precision
the process holds what it keeps and the part of the file that it is reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WEIGHTS = "diffusion_pytorch_model.safetensors"  # the file's name in a component's folder, as diffusers has it
PART = 2**26  # bytes of a file that are mapped at once; pages that were read count as the process's own


def load_network(
    build: Callable[[], nn.Module], path: Path, dtype: torch.dtype, tied: Mapping[str, str] | None = None
) -> Any:
    """What `build` makes, with the weights of the file at `path` in `dtype`, frozen and in evaluation mode.

    `tied` names tensors that may be absent from the file, and those that they are the same as. Raises OSError where
    tensors are missing and RuntimeError where shapes differ; tensors that the network does not know are left out.
    """
    with torch.device("meta"):
        network = build()
    known = network.state_dict().keys()
    weights = {name: _cast(tensor, dtype) for name, tensor in stream(path) if name in known}
    for name, other in (tied or {}).items():
        if other in weights:
            weights.setdefault(name, weights[other])
    network.load_state_dict(weights, strict=False, assign=True)
    missing = sorted(name for name, value in _tensors(network) if value.is_meta)
    if missing:
        component = path.parent.name
        raise OSError(f"{component} lacks {len(missing)} tensors, the first is {missing[0]}; get the model again")
    return network.eval().requires_grad_(False)


def stream(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a safetensors file in the order of the file, which is mapped anew after every PART bytes."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = list(reversed(file.offset_keys()))
    while names:
        read = 0
        with safe_open(path, "pt") as file:
            while names and read < PART:
                name = names.pop()
                tensor = file.get_tensor(name)
                read += tensor.nbytes
                yield name, tensor
                del tensor


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # A copy even where the file has this precision: its tensors are not aligned, and sums come out in another order.
    return tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(network.named_parameters(), network.named_buffers())
