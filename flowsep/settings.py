"""What is to be done to a file, whatever the verb, and how the sidecar remembers it. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from flowsep.encodings import check_format
from flowsep.errors import InputError
from flowsep.options import ALL_SOLVERS, check_options
from flowsep.protocol import SampleOptions
from flowsep.spans import Spans, check_stretch, shifted

ROWS = 4  # (window, query) pairs through the network at once, candidates count, too: bounds the memory


@dataclass(frozen=True)
class FileSettings:
    """How a file is separated and written."""

    options: SampleOptions = field(default_factory=SampleOptions)
    start: float = 0.0  # seconds: the stretch of the file that is read and written
    end: float | None = None
    spans: Spans = ()  # seconds of the file in which the targets may be active; none at all is everywhere
    subtype: str | None = None  # None: like the input
    clip: str = "warn"
    rows: int = ROWS

    def check(self, format: str | None, solvers: Sequence[str] = ALL_SOLVERS) -> None:
        """UsageError for settings that do not exist or do not go together; `solvers` are those that the model knows."""
        check_options(self.options, solvers)
        check_stretch(self.start, self.end)
        check_format(format, self.subtype, self.clip)

    @property
    def spans_inside(self) -> Spans:
        """The spans in seconds of the stretch that is read."""
        return shifted(self.spans, self.start)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> FileSettings:
        """The settings that `asdict` and JSON have made of these; InputError where they are not."""
        try:
            known = {one.name: document[one.name] for one in fields(cls)}
            known["options"] = sample_options(known["options"])
            known["spans"] = tuple((float(first), float(last)) for first, last in known["spans"])
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the sidecar's request cannot be read ({error}); it is of another version") from error


def sample_options(document: dict[str, Any]) -> SampleOptions:
    """The options among the settings that JSON keeps; KeyError for one that is missing."""
    chosen = {one.name: document[one.name] for one in fields(SampleOptions)}
    if chosen["guidance_interval"] is not None:
        chosen["guidance_interval"] = tuple(chosen["guidance_interval"])
    return SampleOptions(**chosen)
