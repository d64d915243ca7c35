"""Stretches of time in which a described sound may be active; outside of them it has no share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowsep.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Spans = tuple[tuple[float, float], ...]  # start and end of each in seconds; none at all is everywhere

EDGE = 0.05  # seconds in which the gain falls to zero outside of a span


def parse_spans(arguments: Sequence[str]) -> Spans:
    """Arguments "3.2-4.1" -> spans in seconds; UsageError for what is not two rising numbers of at least 0."""
    return tuple(parse_span(argument) for argument in arguments)


def parse_span(argument: str) -> tuple[float, float]:
    """ "3.2-4.1" -> (3.2, 4.1)."""
    number = r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*"
    found = re.fullmatch(f"{number}[-–:]{number}", argument)
    if not found:
        raise UsageError(f"cannot read the span {argument[:40]!r}; write start and end in seconds, as 3.2-4.1")
    start, end = float(found[1]), float(found[2])
    if not start < end:
        raise UsageError(f"the span {argument[:40]!r} does not rise; write its start before its end, as 3.2-4.1")
    return start, end


def check_stretch(start: float, end: float | None) -> None:
    """UsageError unless `start` and `end` are seconds of at least 0 that rise."""
    for name, value in (("start", start), ("end", end)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"--{name} must be seconds of at least 0, not {value:g}")
    if end is not None and not start < end:
        raise UsageError(f"--end {end:g} is not after --start {start:g}")


def shifted(spans: Spans, start: float) -> Spans:
    """The spans as seconds after `start`; they may begin before it."""
    return tuple((first - start, last - start) for first, last in spans)


def touch(spans: Spans, first: float, last: float) -> bool:
    """Whether anything between `first` and `last` seconds is in a span or on its edge."""
    return not spans or any(start - EDGE < last and first < end + EDGE for start, end in spans)


def span_gain(times: Tensor, spans: Spans) -> Tensor:
    """Gain 0..1 at `times` in seconds: 1 in the spans, falling along half a cosine over 50 ms outside of them."""
    import torch

    if not spans:
        return torch.ones_like(times)
    distances = [torch.maximum(start - times, times - end).clamp(min=0) for start, end in spans]
    nearest = torch.stack(distances).amin(0)
    return 0.5 + 0.5 * torch.cos(math.pi * (nearest / EDGE).clamp(max=1))
