"""FlowSep Toolkit: describe a sound, get it out of a recording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowsep.protocol import SampleOptions, Separation, TextSeparator

if TYPE_CHECKING:
    from flowsep.activity import find_segments
    from flowsep.checkpoint import list_models, load_separator
    from flowsep.diffusion.separator import DiffusionSep
    from flowsep.longform import separate_audio, separate_stream
    from flowsep.plot import plot_separation
    from flowsep.remixing import remix, remix_stream, remove
    from flowsep.separator import FlowSep
    from flowsep.sliders import explore

__version__ = "0.1.0"
__all__ = [
    "DiffusionSep",
    "FlowSep",
    "SampleOptions",
    "Separation",
    "TextSeparator",
    "explore",
    "find_segments",
    "list_models",
    "load_separator",
    "plot_separation",
    "remix",
    "remix_stream",
    "remove",
    "separate_audio",
    "separate_stream",
]

_HEAVY = {
    "DiffusionSep": "flowsep.diffusion.separator",
    "FlowSep": "flowsep.separator",
    "explore": "flowsep.sliders",
    "find_segments": "flowsep.activity",
    "list_models": "flowsep.checkpoint",
    "load_separator": "flowsep.checkpoint",
    "plot_separation": "flowsep.plot",
    "remix": "flowsep.remixing",
    "remix_stream": "flowsep.remixing",
    "remove": "flowsep.remixing",
    "separate_audio": "flowsep.longform",
    "separate_stream": "flowsep.longform",
}


def __getattr__(name: str) -> Any:
    """Names that need torch are imported when they are first used, so that the command line starts at once."""
    if name in _HEAVY:
        from importlib import import_module

        return getattr(import_module(_HEAVY[name]), name)
    raise AttributeError(f"module 'flowsep' has no attribute {name!r}")
