"""One comparison with golden arrays, and what is allowed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

LIMIT = 2e-5  # float32 on the CPU; the suggested limits of tests/reference/README.md


@dataclass(frozen=True)
class Parity:
    """One comparison: largest absolute difference from the official result, and what is allowed."""

    name: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """False also where the error is NaN."""
        return self.error <= self.limit


def difference(name: str, ours: Tensor, official: Tensor, limit: float = LIMIT) -> Parity:
    """Largest absolute difference; a wrong shape is an infinite one."""
    if ours.shape != official.shape:
        return Parity(name, float("inf"), limit)
    return Parity(name, (ours.double() - official.double()).abs().max().item(), limit)
