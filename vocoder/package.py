"""What is used of the bigvgan package, imported without what it brings along and does.

For functions that are not used here it imports librosa, matplotlib and scipy's wav reader, a sixth of the time until a
first result, and it switches matplotlib to a backend that shows nothing: figures would vanish from a user's notebook.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

UNUSED = ("librosa", "librosa.filters", "matplotlib", "matplotlib.pylab", "scipy", "scipy.io", "scipy.io.wavfile")
USERS = ("bigvgan", "bigvgan.meldataset", "bigvgan.utils")  # the package's modules that import them


class Nothing(ModuleType):
    """A module in which every name is a function that does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None


@contextmanager
def without_unused() -> Iterator[None]:
    """Have empty modules in the place of UNUSED within this context; whoever imports USERS later gets them whole.

    Where the package is imported already, everything stays as it is.
    """
    if "bigvgan" in sys.modules:
        yield
        return
    before = {name: sys.modules.get(name) for name in (*UNUSED, *USERS)}
    sys.modules.update({name: Nothing(name) for name in UNUSED})
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


with without_unused():
    from bigvgan import BigVGAN
    from bigvgan.alias_free_activation.torch.act import Activation1d
    from bigvgan.env import AttrDict

__all__ = ["Activation1d", "AttrDict", "BigVGAN"]
