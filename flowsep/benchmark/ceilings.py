"""What the machine can do at best, measured the way a model uses it: a large matrix product and a large copy."""

from __future__ import annotations

import torch

from flowsep.benchmark.timing import measure, quantile

MATRIX = {"cuda": 8192}  # rows and columns; large enough to fill the device, small enough for a second
COPY_MIB = {"cuda": 2048}  # beyond every cache
SMALL_MATRIX, SMALL_COPY_MIB = 2048, 256  # elsewhere


def measure_ceilings(device: torch.device, dtype: torch.dtype, repeats: int = 10) -> dict[str, float]:
    """`gflops` of a matrix product in `dtype` and `gbytes` per second of a copy, read and written bytes counted."""
    size, mib = MATRIX.get(device.type, SMALL_MATRIX), COPY_MIB.get(device.type, SMALL_COPY_MIB)
    return {
        "gflops": matmul_gflops(device, dtype, size, repeats),
        "gbytes": copy_gbytes(device, mib, repeats),
        "matrix": size,
        "copy_mib": mib,
    }


def matmul_gflops(device: torch.device, dtype: torch.dtype, size: int, repeats: int = 10) -> float:
    """GFLOP/s of a size x size matrix product of random numbers, at the fastest tenth of `repeats`."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    timing = measure(lambda: a @ b, device, repeats, warmup=3)
    return 2 * size**3 / quantile(timing.samples, 0.1) / 1e9


def copy_gbytes(device: torch.device, mib: int, repeats: int = 10) -> float:
    """Gigabytes per second of copying `mib` MiB on the device, at the fastest tenth of `repeats`."""
    source = torch.randn(mib * 2**18, device=device)  # float32
    goal = torch.empty_like(source)
    timing = measure(lambda: goal.copy_(source), device, repeats, warmup=2)
    return 2 * 4 * source.numel() / quantile(timing.samples, 0.1) / 1e9
