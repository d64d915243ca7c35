"""What sampling options can be and what goes together, said before any model is loaded. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flowsep import diffusion
from flowsep.errors import UsageError
from flowsep.flow import ADAPTIVE, SOLVER_NAMES
from flowsep.flow.grids import parse_grid
from flowsep.protocol import CANDIDATE_SCORES, ENCODER_SCORES, RENDERINGS, SampleOptions

DTYPES = ("float32", "bfloat16", "float16")
METHODS = {"flow": SOLVER_NAMES, "diffusion": diffusion.SOLVER_NAMES}  # how a model samples, and its solvers
ALL_SOLVERS = tuple(name for names in METHODS.values() for name in names)
SCORE_HELP = ", ".join([*CANDIDATE_SCORES, *(f"{name}FOLDER" for name in ENCODER_SCORES)])
SOLVER_HELP = f"{', '.join(SOLVER_NAMES)}; of a diffusion model {', '.join(diffusion.SOLVER_NAMES)}"


def check_options(options: SampleOptions, solvers: Sequence[str] = ALL_SOLVERS) -> None:
    """UsageError for values that no model can use and for options that contradict one another; None is left alone.

    `solvers` are those that the model knows.
    """
    if options.steps is not None and options.steps < 1:
        raise UsageError(f"steps must be at least 1, not {options.steps}")
    if options.candidates < 1:
        raise UsageError(f"candidates must be at least 1, not {options.candidates}")
    check_choice("solver", options.solver, solvers)
    check_choice("rendering", options.render, RENDERINGS)
    check_candidate_score(options.candidate_score)
    for name, value in (("rtol", options.rtol), ("atol", options.atol)):
        if not math.isfinite(value) or value <= 0:
            raise UsageError(f"{name} must be above 0, not {value}")
    check_guidance(options)
    check_grid(options)


def check_choice(name: str, value: str | None, known: Sequence[str]) -> None:
    """UsageError that lists what is known, unless `value` is among it or was not given."""
    if value is not None and value not in known:
        raise UsageError(f"unknown {name} {value!r}; choose from {', '.join(known)}")


def check_candidate_score(name: str) -> None:
    """UsageError for a score that does not exist, and for an encoder's without its folder."""
    if name not in CANDIDATE_SCORES:
        check_encoder(name, f"candidate score {name!r}; choose from {SCORE_HELP}")


def check_encoder(name: str, words: str | None = None) -> None:
    """UsageError for what is neither "proxy" nor a kind of encoder with its folder."""
    kind = next((one for one in ENCODER_SCORES if name.startswith(one)), None)
    if kind is None and name != "proxy":
        raise UsageError(f"unknown {words or f'encoder {name!r}; write clap:FOLDER, proxy:FOLDER or proxy'}")
    if kind is not None and not name.removeprefix(kind).strip():
        raise UsageError(f"{name!r} names no folder; write {kind}FOLDER")


def check_guidance(options: SampleOptions) -> None:
    """UsageError for a guidance that is no number, and for what has no effect without guidance."""
    if not math.isfinite(options.guidance) or options.guidance < 0:
        raise UsageError(f"guidance must be a number of at least 0, not {options.guidance}")
    if options.negative is not None and not options.negative.strip():
        raise UsageError("negative is empty; describe what to stay away from, or leave it out")
    for name, value in (("negative", options.negative), ("guidance-interval", options.guidance_interval)):
        if value is not None and options.guidance == 1:
            raise UsageError(f"--{name} acts through guidance, and guidance 1 is none; add --guidance 2 for example")
    if options.guidance_interval is not None:
        low, high = options.guidance_interval
        if not 0 <= low < high <= 1:  # also refuses nan
            raise UsageError(f"the guidance interval must rise within 0 to 1, as 0.2,0.9 does; not {low:g},{high:g}")


def check_grid(options: SampleOptions) -> None:
    """UsageError for a grid that cannot be read, or that the steps or the solver contradict."""
    if options.grid is None:
        return
    steps = parse_grid(options.grid).steps
    if steps is not None and options.steps not in (None, steps):
        raise UsageError(
            f"the grid {options.grid!r} makes {steps} steps, but {options.steps} were asked for; leave --steps out"
        )
    if options.solver in ADAPTIVE:
        raise UsageError(f"{options.solver} chooses its own steps by rtol and atol; leave --grid out")


def parse_interval(text: str) -> tuple[float, float]:
    """Two times written as "0.2,0.9". UsageError where they are not two numbers."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"cannot read the guidance interval {text!r}; write two times, as 0.2,0.9") from error
    return low, high


def parse_steps(text: str) -> tuple[int, ...]:
    """Numbers of steps written as "10" or "1,2,4", rising and without doubles. UsageError for others."""
    try:
        steps = sorted({int(part) for part in text.split(",")})
    except ValueError:
        steps = [0]
    if steps[0] < 1:
        raise UsageError(f"steps are whole numbers from 1 on, such as 10 or 1,2,4; not {text!r}")
    return tuple(steps)
