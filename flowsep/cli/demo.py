"""`flowsep demo`: an example that works out of the box."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flowsep.demo import DemoReport


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", readable=False, help="Folder.")] = Path(
        "demo_out"
    ),
    seed: Annotated[int, typer.Option(min=0, max=499_999, help="Another seed, other sounds of the same kinds.")] = 0,
    model: Annotated[str, typer.Option(help="Name, folder or hub id of a model.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Build an example mixture, separate it by description, and show what comes out.

    The two sounds are synthesised by this project. Outputs of an earlier demo in the folder are replaced.
    """
    from flowsep.cli.batch import silence_libraries
    from flowsep.cli.options import check_device

    check_device(device)
    print("Mixing two sounds synthesised by this project (no recordings) and separating them ...", file=sys.stderr)
    from flowsep.demo import run_demo
    from flowsep.files import load_model

    silence_libraries(quiet=False)
    print_report(run_demo(output, lambda: load_model(model, device), seed), model)


def print_report(report: DemoReport, model: str) -> None:
    """The table, the paths and the command for one's own file, on stdout."""
    print("The example is a mixture of two sounds that this project synthesises, at 0 dB; no recording is used.")
    print(f"Model: {model}. SI-SDR in dB against the sound that went in, before and after:\n")
    width = max(len("query"), *(len(row.query) for row in report.rows))
    print(f"{'query':{width}}  {'before':>7}  {'after':>7}  {'seconds':>7}  {'NFE':>4}")
    for row in report.rows:
        print(f"{row.query:{width}}  {row.before:7.2f}  {row.after:7.2f}  {row.seconds:7.2f}  {row.nfe:4d}")
    for title, paths in (("Example", report.example), ("Separated", report.separated), ("Pictures", report.figures)):
        print(f"\n{title}:")
        for path in paths:
            print(f"  {path}")
    print(f'\nYour own file:\n  {own_command()} separate YOUR_FILE.wav --text "a dog barking" --residual')


def own_command() -> str:
    """How this user calls flowsep from here: by name if it is found, else by the path it was started from."""
    if shutil.which("flowsep"):
        return "flowsep"
    started = Path(sys.executable).with_name("flowsep")
    if not started.exists():
        return f"{sys.executable} -m flowsep"
    here = Path.cwd()
    return str(started.relative_to(here) if started.is_relative_to(here) else started)
