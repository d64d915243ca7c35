"""Measuring: warm-up, synchronise, repeat; peak memory; operations and bytes counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MIB = 2**20


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, over the repeats."""

    samples: tuple[float, ...]  # in the order of measuring

    @property
    def median(self) -> float:
        """Half of the repeats took longer."""
        return quantile(self.samples, 0.5)

    def summary(self) -> dict[str, Any]:
        """median, p10, p90, the number of repeats and every sample, seconds."""
        low, middle, high = (quantile(self.samples, q) for q in (0.1, 0.5, 0.9))
        samples = [float(f"{sample:.6g}") for sample in self.samples]
        return {"median": middle, "p10": low, "p90": high, "repeats": len(samples), "samples": samples}


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile, 0 <= q <= 1, linear between neighbours."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def measure(call: Callable[[], Any], device: torch.device, repeats: int, warmup: int = 2) -> Timing:
    """Time `call` after `warmup` calls that do not count: CUDA events on a GPU, the host's clock elsewhere.

    The device is idle when each repeat begins, so that a stage's launches count as the user waits for them.
    """
    for _ in range(warmup):
        call()
    clock = _events if device.type == "cuda" else _host
    samples = []
    for _ in range(repeats):
        synchronise(device)
        samples.append(clock(call, device))
    return Timing(tuple(samples))


def _host(call: Callable[[], Any], device: torch.device) -> float:
    started = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - started


def _events(call: Callable[[], Any], device: torch.device) -> float:
    with torch.cuda.device(device):
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        started.record()
        call()
        ended.record()
        ended.synchronize()
    return started.elapsed_time(ended) / 1e3


def reset_peak(device: torch.device) -> None:
    """Forget the peak of memory so far, where the system allows it (CUDA; the resident set on Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5): VmHWM starts again from the present size


def peak_memory(device: torch.device) -> dict[str, float | None]:
    """MiB at the peak since `reset_peak`: resident set of this process and, on CUDA, allocated and reserved.

    Where the system cannot forget, the resident set's peak is that of the whole process.
    """
    peak: dict[str, float | None] = {"resident_mib": _resident_peak()}
    if device.type == "cuda":
        peak["cuda_allocated_mib"] = torch.cuda.max_memory_allocated(device) / MIB
        peak["cuda_reserved_mib"] = torch.cuda.max_memory_reserved(device) / MIB
    return peak


def _resident_peak() -> float | None:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024  # bytes on macOS, KiB elsewhere


def count_gflop(call: Callable[[], Any]) -> float:
    """Floating-point operations of `call` / 1e9, counting a multiply-add as two: convolutions and matrix products.

    Those of the model as defined; what a faster formulation computes on top is not work done.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from vocoder.measures import PLAIN, using

    # The fused attention kernels of the CPU are not in the counter's table; the plain ones are.
    with sdpa_kernel(SDPBackend.MATH), using(PLAIN), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, each operation by itself: no cache, no fusion.

    Views move nothing. What a compiled graph or a cache saves does not show: this is what eager execution asks for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out


def count_gbyte(call: Callable[[], Any]) -> float:
    """Bytes / 1e9 that the operations of `call` read and write (`Traffic`)."""
    with Traffic() as traffic:
        call()
    return traffic.bytes / 1e9
