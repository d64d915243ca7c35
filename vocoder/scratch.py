"""Memory that is kept between calls: the system hands out fresh memory page by page, at a price."""

from __future__ import annotations

import threading

import torch
from torch import Tensor


class Scratch(threading.local):
    """Named memory of each thread. It grows to the largest that was asked for, per name and precision, and stays."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, rows: int, columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(rows, columns) of anything, until the same name is asked for again."""
        buffer = self.buffers.get((name, dtype))
        if buffer is None or len(buffer) < rows * columns:
            with torch.inference_mode(False):  # so that it may be written to in either mode
                buffer = self.buffers[name, dtype] = torch.empty(rows * columns, dtype=dtype)
        return buffer[: rows * columns].view(rows, columns)
