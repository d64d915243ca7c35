"""What separation costs on this machine: seconds and memory of one window, found by trying, and what fits a budget."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowsep.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from flowsep.files import LoadedModel
    from flowsep.protocol import SampleOptions

MOST_ROWS = 16  # more windows at once gain nothing on the machines this was measured on
SAMPLED = 0.002  # seconds between two looks at the memory


def parse_size(text: str) -> int:
    """ "4GB", "800 MB" or "1.5GiB" -> bytes; UsageError for anything else."""
    found = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([kmgt]?)(i?)b?\s*", text.casefold())
    if found:
        thousand = 1024 if found[3] else 1000
        size = int(float(found[1]) * thousand ** " kmgt".index(found[2] or " "))
    if not found or size < 10**6:
        raise UsageError(f"cannot read the size {text[:40]!r}; write it like 4GB or 800MB")
    return size


@dataclass(frozen=True)
class Cost:
    """Of one query in one window."""

    seconds: float
    row_bytes: int  # of memory while the network runs
    base_bytes: int  # that are taken before: the process with its model (on a GPU, the model on it)
    nfe: int  # network calls
    candidates: int = 1  # that the row consists of

    def rows_within(self, limit: int, beside: int) -> int:
        """How many (window, query) pairs at once keep the memory below `limit` bytes, `beside` of them for the audio.

        DeviceError where not even one does.
        """
        rows = (limit - self.base_bytes - beside) // max(1, self.row_bytes)
        if rows < 1:
            need = self.base_bytes + beside + self.row_bytes
            raise DeviceError(
                f"one window at once needs about {need / 1e9:.2f} GB; give --max-memory {need / 0.95e9:.1f}GB, "
                "--dtype bfloat16 or fewer --candidates"
            )
        return min(MOST_ROWS, rows) * self.candidates

    def peak(self, rows: int, beside: int) -> int:
        """Bytes at the peak with so many rows at once."""
        return self.base_bytes + beside + max(1, rows // self.candidates) * self.row_bytes


def try_one_window(model: LoadedModel, options: SampleOptions, text: str) -> Cost:
    """The cost of one window of noise with these options; all candidates are one row's. Tried once for each of them.

    It is asked for `text`, because a separator may not know others.
    """
    if options in model.costs:
        return model.costs[options]
    import torch

    separator = model.separator
    mixture = 0.1 * torch.randn(1, separator.window, generator=torch.Generator().manual_seed(0))
    with Memory(model.device) as memory:
        clock = time.perf_counter()
        found = separator.separate(mixture, [text], options)
        seconds = time.perf_counter() - clock
    if seconds < 5:  # the first call also pays for what is set up once
        clock = time.perf_counter()
        separator.separate(mixture, [text], options)
        seconds = time.perf_counter() - clock
    model.costs[options] = Cost(
        seconds, max(1, memory.peak - memory.before), memory.before, found.nfe, options.candidates
    )
    return model.costs[options]


def beside_model(sample_rate: int, channels: int, queries: int, rows: int, window_seconds: float) -> int:
    """Bytes that a stream takes beside the network: spectra of one channel, outputs, and the audio that waits.

    From the sizes of `flowsep.render.masked_blocks` (12 s at once, five arrays of a spectrogram's size, 1500 bytes per
    Hz of the sample rate) and of the blocks between the stages.
    """
    block = 12 * channels * (3 + 2 * queries)
    waiting = window_seconds * (rows + 1) * channels
    return int(sample_rate * (1500 + 4 * (block + waiting)))


class Memory:
    """Bytes in use before and at the peak of a `with` block: of the process, or of the GPU that the model is on."""

    def __init__(self, device: str) -> None:
        self.gpu = device if device.startswith("cuda") else None
        self.before = self.peak = 0
        self.ended = threading.Event()

    def __enter__(self) -> Memory:
        if self.gpu:
            import torch

            torch.cuda.reset_peak_memory_stats(self.gpu)
            self.before = torch.cuda.memory_allocated(self.gpu)
            return self
        import psutil

        process = psutil.Process()
        self.before = self.peak = process.memory_info().rss

        def watch() -> None:
            while not self.ended.wait(SAMPLED):
                self.peak = max(self.peak, process.memory_info().rss)

        self.thread = threading.Thread(target=watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.gpu:
            import torch

            self.peak = torch.cuda.max_memory_allocated(self.gpu)
            return
        self.ended.set()
        self.thread.join()
