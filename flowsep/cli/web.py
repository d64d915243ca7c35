"""`flowsep web`: the page in the browser."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flowsep.cli.options import check_device
from flowsep.errors import UsageError
from flowsep.options import DTYPES, check_choice


def web(
    model: Annotated[str, typer.Option(help="Name, folder or hub id of a model.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help=f"{', '.join(DTYPES)}. [default: float32]")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is reached from elsewhere.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0 is any free one. [default: the first free from 7860 on]")
    ] = None,
    open_browser: Annotated[
        bool | None, typer.Option("--open/--no-browser", help="Open the page. [default: where there is a desktop]")
    ] = None,
    auth: Annotated[
        str | None, typer.Option(metavar="USER:PASSWORD", envvar="FLOWSEP_WEB_AUTH", help="Ask for these.")
    ] = None,
    max_minutes: Annotated[float, typer.Option(help="Longest recording.")] = 10.0,
    max_megabytes: Annotated[float, typer.Option(help="Largest file.")] = 100.0,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Recordings at a time; others wait.")] = 1,
) -> None:
    """Open a page in the browser on which sounds are described, heard, remixed and downloaded.

    It is served on this machine alone unless --host says otherwise, loads nothing from anywhere and reports nothing.
    Needs gradio: pip install 'flowsep-toolkit[web]'. Uploads and results are removed when their page is closed, and at
    the latest when this command ends (Ctrl-C).
    """
    check_device(device)
    check_choice("dtype", dtype, DTYPES)
    if not host.strip():
        raise UsageError("--host is empty; 127.0.0.1 is this machine alone")
    from flowsep.web.orders import Limits
    from flowsep.web.server import Where, need_gradio, serve

    where = Where(host, port, auth, Limits(max_minutes, max_megabytes), jobs)
    where.check()
    need_gradio()
    from flowsep.cli.batch import share_threads
    from flowsep.files import load_model

    loaded = load_model(model, device, dtype)
    share_threads(jobs)
    say(f"model {loaded.id} on {loaded.device}, {loaded.dtype}, loaded in {loaded.load_seconds:.1f} s")
    serve(loaded, where, open_browser, say)


def say(line: str) -> None:
    """To people, on stderr."""
    print(f"flowsep: {line}", file=sys.stderr, flush=True)
