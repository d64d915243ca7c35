"""Modules that others import but that a run does not use: they run when something of them is first asked for.

`importlib.util.LazyLoader` does not do here: the import statement itself looks at a module, and it then runs.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any


class Postponed(ModuleType):
    """A module that has not run yet. At the first name that it lacks it runs, and is an ordinary one from then on."""

    def __getattr__(self, name: str) -> Any:
        self.__class__ = ModuleType
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def postpone(name: str) -> None:
    """Have the submodule `name` of a package wait until it is used.

    Nothing happens where it is not installed or imported already. Whoever uses it gets it whole.
    """
    if name in sys.modules:
        return
    package, _, last = name.rpartition(".")
    try:
        spec = importlib.util.find_spec(name)  # imports the package
    except ModuleNotFoundError:
        return
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    module.__class__ = Postponed
    sys.modules[name] = module
    setattr(sys.modules[package], last, module)  # as an import does
