"""What a step-count study compares, and how the command line writes it. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowsep import checkpoint
from flowsep.errors import UsageError
from flowsep.flow import ADAPTIVE


@dataclass(frozen=True)
class Study:
    """What is compared, as it was asked for."""

    models: dict[str, str | None]  # name, folder or hub id -> label, None: the model's own name
    steps: tuple[int, ...]
    solvers: tuple[str, ...] = ()  # each model takes those that it knows; none: its default
    seed: int = 0
    guidance: float = 1.0
    device: str = "auto"


def parse_models(text: str) -> dict[str, str | None]:
    """Models written as "small,mine=runs/mine/model": name, folder or hub id -> label, if one was given."""
    found: dict[str, str | None] = {}
    for part in (part.strip() for part in text.split(",")):
        label, equals, name = part.partition("=")
        if not equals or "/" in label:  # no label, though a folder may have the sign in its name
            label, name = None, part
        if not name or label == "":
            raise UsageError(f"cannot read the models {text!r}; write names or folders, as small,mine=runs/mine/model")
        found[name] = label
    return found


def parse_solvers(text: str | None, models: Sequence[str]) -> tuple[str, ...]:
    """Solvers written as "euler,ddim". UsageError for one that no model knows, and for a model that knows none."""
    if text is None:
        return ()
    known = {model: checkpoint.solver_names(model) for model in models}
    every = list(dict.fromkeys(name for names in known.values() for name in names if name not in ADAPTIVE))
    solvers = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for solver in solvers:
        if solver in ADAPTIVE:
            raise UsageError(f"{solver} chooses its own steps by its tolerance; leave it out of --solvers")
        if solver not in every:
            raise UsageError(f"unknown solver {solver!r}; choose from {', '.join(every)}")
    for model, names in known.items():
        if not set(solvers) & set(names):
            raise UsageError(f"the model {model} knows none of the solvers {text}; it has {', '.join(names)}")
    return solvers
