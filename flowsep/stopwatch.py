"""Wall-clock time of the stages of a computation."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Wall-clock seconds per stage; waits for the device, so that a stage's work is counted where it was started."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, {}
        self.last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Book the time since the last lap under `stage`."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self.last
        self.last = now
