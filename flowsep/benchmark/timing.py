"""Measuring: warm-up, synchronise, repeat; operations counted; the machine's own ceiling beside it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one call over the repeats."""

    median: float
    p10: float
    p90: float
    repeats: int


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(call: Callable[[], Any], device: torch.device, repeats: int, warmup: int = 2) -> Timing:
    """Time `call` after `warmup` calls that do not count."""
    for _ in range(warmup):
        call()
    seconds = []
    for _ in range(repeats):
        synchronise(device)
        started = time.perf_counter()
        call()
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    ordered = sorted(seconds)
    return Timing(
        median=statistics.median(ordered),
        p10=ordered[int(0.1 * (len(ordered) - 1))],
        p90=ordered[round(0.9 * (len(ordered) - 1))],
        repeats=repeats,
    )


def count_gflop(call: Callable[[], Any]) -> float:
    """Floating-point operations of `call` / 1e9, counting a multiply-add as two: convolutions and matrix products.

    Those of the model as defined; what a faster formulation computes on top is not work done.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from vocoder.activation import plain_activations

    # The fused attention kernels of the CPU are not in the counter's table; the plain ones are.
    with sdpa_kernel(SDPBackend.MATH), plain_activations(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def matmul_gflops(device: torch.device, dtype: torch.dtype, size: int = 2048, repeats: int = 10) -> float:
    """The machine's ceiling as we use it: GFLOP/s of a size x size matrix product in `dtype`, best of `repeats`."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    fastest = measure(lambda: a @ b, device, repeats, warmup=3).p10
    return 2 * size**3 / fastest / 1e9
