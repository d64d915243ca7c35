"""Deterministic stand-ins for the official weights: the rule of tests/reference/README.md."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from flowsep.convert.names import SCALE, SCHEDULE, TEXT

CONSTANTS = {
    SCALE: np.float32(0.75),
    "model_ema.decay": np.float32(0.9999),
    "model_ema.num_updates": np.int32(100000),
}
EMBEDDING, TIED_EMBEDDING = f"{TEXT}shared.weight", f"{TEXT}encoder.embed_tokens.weight"


def synthetic_weight(key: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Value of the official tensor `key`, float32 (counters excepted); None = what the constructor computes."""
    if key in SCHEDULE or key.endswith(".filter"):
        return None
    if key in CONSTANTS:
        return np.asarray(CONSTANTS[key])
    if key == "logvar" or key.startswith("first_stage_model.loss."):
        return np.zeros(shape, np.float32)
    if key == TIED_EMBEDDING:
        key = EMBEDDING
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    normal = generator.standard_normal(tuple(shape), dtype=np.float32)
    if len(shape) >= 2:
        # A transposed convolution keeps its inputs on the first axis.
        fan_in = shape[0] * shape[2] if ".vocoder.ups." in key else math.prod(shape[1:])
        normal *= np.float32(gain(key) / math.sqrt(fan_in))
        return normal
    # 1-d weights are all norm weights; the rest are biases and snake parameters.
    return np.float32(key.endswith("weight")) + np.float32(0.1) * normal


def synthetic_mask_weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Value of the tensor `key` of a mask network: the rule of tests/reference/audiosep/README.md, drawn in float64."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    normal = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)
    if key.endswith("running_var"):
        value = 1 + 0.1 * np.abs(normal)
    elif key.endswith(("running_mean", "bias")):
        value = 0.1 * normal
    elif len(shape) == 1:
        value = 1 + 0.1 * normal
    else:
        value = normal / math.sqrt(math.prod(shape[1:]))  # also of transposed convolutions, on purpose
    return np.asarray(value, np.float32)


def gain(key: str) -> float:
    """Factor on 1 / sqrt(fan-in) that keeps the network's signals in a sensible range."""
    if ".vocoder.resblocks." in key:
        return 0.4
    if ".vocoder.conv_pre." in key:
        return 0.2
    if ".vocoder.ups." in key:
        return 1.5
    return 0.125 if key.endswith(".SelfAttention.q.weight") else 1.0


def with_synthetic_weights(
    build: Callable[[], nn.Module],
    official: Callable[[str], str],
    rule: Callable[[str, tuple[int, ...]], np.ndarray | None] = synthetic_weight,
) -> nn.Module:
    """The module that `build` makes, in evaluation mode, holding the synthetic weights of its official names by `rule`.

    It is built without numbers first, so that it takes its size in memory once.
    """
    with torch.device("meta"):
        module = build()
    state = {}
    for name, empty in module.state_dict().items():
        value = rule(official(name), tuple(empty.shape))
        if value is None:  # the vocoder's filters; it is small enough to be built for them
            return _filled(build(), official)
        state[name] = torch.from_numpy(value).reshape(empty.shape)
    module.load_state_dict(state, assign=True)
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    return module.eval().requires_grad_(False)


def _filled(module: nn.Module, official: Callable[[str], str]) -> nn.Module:
    state = {name: synthetic_weight(official(name), tuple(old.shape)) for name, old in module.state_dict().items()}
    module.load_state_dict({k: torch.from_numpy(v) for k, v in state.items() if v is not None}, strict=False)
    return module.eval().requires_grad_(False)
