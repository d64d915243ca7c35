"""The `flowsep` command. Only the command that is called is imported, so help and usage errors answer at once."""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Annotated, Any

import typer

from flowsep import __version__
from flowsep.errors import DeviceError, FlowSepError, InputError, is_out_of_memory

# Command name -> where it lives ("module:attribute", a function or a typer app) and its line in the help.
COMMANDS = {
    "separate": ("flowsep.cli.separate:separate", "Take described sounds out of recordings."),
    "remove": ("flowsep.cli.remove:remove", "Write recordings without described sounds."),
    "remix": ("flowsep.cli.remix:remix", "Turn described sounds up, down or away."),
    "edit": ("flowsep.cli.edit:edit", "Change recordings as an English sentence says."),
    "segments": ("flowsep.cli.segments:segments", "Say when a described sound is active."),
    "web": ("flowsep.cli.web:web", "Open a page in the browser that does all this."),
    "replay": ("flowsep.cli.replay:replay", "Make an output again from its JSON file, bit for bit."),
    "demo": ("flowsep.cli.demo:demo", "Build an example mixture, separate it, and show what comes out."),
    "doctor": ("flowsep.cli.doctor:doctor", "Say what is installed, what works and what is in the way."),
    "convert": ("flowsep.cli.convert:app", "Turn an official checkpoint into a model folder."),
    "train": ("flowsep.cli.train:app", "Train a model, stage by stage."),
    "evaluate": (
        "flowsep.cli.evaluate:evaluate",
        "Score models, or other tools, on benchmarks or your clips.",
    ),
    "retrieval": ("flowsep.cli.retrieval:retrieval", "Measure whether a text-audio encoder finds described clips."),
    "audit": ("flowsep.cli.audit:audit", "List clips not to be trusted: mute, clipped, copied, doubtful labels."),
    "recipe": ("flowsep.cli.recipe:recipe", "Draw a fixed list of mixtures for evaluate."),
    "card": ("flowsep.cli.card:card", "Tables and pictures of a report, for a model card."),
    "mix": ("flowsep.cli.mix:mix", "Write mixtures as files, for any other tool."),
    "calibrate": ("flowsep.cli.calibrate:calibrate", "Fit a model's probability that a described sound is there."),
    "models": ("flowsep.cli.models:models", "List every separator and what it needs."),
    "tune-steps": ("flowsep.cli.tune_steps:tune_steps", "Search the times of few steps on a list of mixtures."),
    "export": ("flowsep.cli.export:export", "Assemble a small float16 model folder from trained parts."),
    "benchmark": ("flowsep.cli.benchmark:app", "Measure latency, precision, and quality against steps."),
}
# torch's allocator asks Linux for pages of 2 MiB; with those of 4 KiB a quarter of the VAE's time went into asking.
HUGE_PAGES = ("THP_MEM_ALLOC_ENABLE", "1")
VERBOSE = ("-v", "--verbose")
FAIL_IF_ABSENT = "--fail-if-absent"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (those of the process if not given) and return its exit code.

    0 ok, 1 unexpected, 2 usage, 3 input, 4 model, 5 device or memory, 6 some items failed, 7 a sound judged absent, 130
    interrupted. An error is one line on stderr; -v anywhere before a `--` adds the traceback.
    """
    os.environ.setdefault(*HUGE_PAGES)
    arguments, verbose = take_verbose(list(sys.argv[1:] if arguments is None else arguments))
    arguments = with_threshold(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = partial(show_warning, verbose)
        try:
            app = build(arguments)
            # Commands that go on after an error find out about -v from their context's obj.
            code = app(arguments or ["--help"], prog_name="flowsep", standalone_mode=False, obj=verbose)
            code = code if isinstance(code, int) else 0
            if code == 130:  # typer turned Ctrl-C into an exit code
                raise KeyboardInterrupt
            return code
        except (KeyboardInterrupt, typer.Abort):
            print("flowsep: interrupted", file=sys.stderr)
            return 130
        except Exception as error:  # the last door: nothing leaves as a traceback unless asked for
            if verbose:
                traceback.print_exc()
            message, code = explain(error)
            print(f"flowsep: error: {message}", file=sys.stderr)
            return code


def take_verbose(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments without -v and --verbose (those after a `--` are kept), and whether one was there."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument not in VERBOSE]
    return kept + arguments[end:], len(kept) < end


def with_threshold(arguments: Sequence[str]) -> list[str]:
    """The arguments with the default value after a --fail-if-absent that has none; typer knows no optional values."""
    from flowsep.absence import THRESHOLD

    end = arguments.index("--") if "--" in arguments else len(arguments)
    arguments, others = arguments[:end], arguments[end:]
    result = []
    for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
        result.append(argument)
        if argument == FAIL_IF_ABSENT and not re.fullmatch(r"[+-]?[0-9]*\.?[0-9]+(e-?[0-9]+)?", following):
            result.append(str(THRESHOLD))
    return [*result, *others]


def build(arguments: Sequence[str]) -> typer.Typer:
    """The app with the one command that `arguments` name, or with the names of all where they name none."""
    app = typer.Typer(
        name="flowsep", help="Separate sounds by description.", add_completion=False, rich_markup_mode=None
    )
    app.callback()(top)
    named = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (place, line) in COMMANDS.items():
        if name != named:
            app.command(name, help=line)(placeholder)
            continue
        module, attribute = place.split(":")
        command: Any = getattr(import_module(module), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, help=line, rich_help_panel=None)
        else:
            app.command(name)(command)
    return app


def placeholder() -> None:
    """Stand for a command in the list of commands; `build` puts the real one in its place when it is called."""


def print_version(wanted: bool) -> None:
    """Print the installed version and end."""
    if wanted:
        print(f"flowsep {__version__}")
        raise typer.Exit


def top(
    show_version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show tracebacks and libraries' warnings.")] = False,
) -> None:
    """Separate sounds by description: a recording and a sentence in, the described sound and the rest out."""


def show_warning(verbose: bool, message: object, category: type[Warning], *where: object) -> None:
    """One line on stderr for the project's own warnings; those of libraries only with -v."""
    if verbose or category.__module__.startswith("flowsep"):
        print(f"flowsep: warning: {one_line(message)}", file=sys.stderr)


def explain(error: Exception) -> tuple[str, int]:
    """One line for the user, without the prefix, and the exit code."""
    if isinstance(error, FlowSepError):
        return one_line(error), error.exit_code
    if hasattr(error, "format_message"):  # typer's usage errors, whatever library it took them from
        return f"{one_line(error.format_message()).rstrip('.')}; --help shows the usage", error.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or type(error).__name__}; check the path", InputError.exit_code
    if is_out_of_memory(error):
        advice = "use smaller batches (--max-memory for recordings), --dtype bfloat16, or another --device"
        return f"out of memory; {advice}", DeviceError.exit_code
    return f"{type(error).__name__}: {one_line(error)} (run again with -v for the traceback)", 1


def one_line(error: object) -> str:
    """The text of an error on one line, or its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
