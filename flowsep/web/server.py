"""The page served on this machine: no analytics, no link to the outside, and nothing left when it ends."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowsep.errors import ModelError, UsageError
from flowsep.web.orders import Limits

if TYPE_CHECKING:
    import gradio

    from flowsep.files import LoadedModel
    from flowsep.web.sessions import Sessions

FIRST_PORT, PORTS = 7860, 100


@dataclass(frozen=True)
class Where:
    """Where the page is served, and to whom."""

    host: str = "127.0.0.1"
    port: int | None = None  # None: the first free one from 7860 on; 0: any
    auth: str | None = None  # user:password
    limits: Limits = field(default_factory=Limits)
    jobs: int = 1  # recordings at a time

    def check(self) -> None:
        """UsageError for what cannot be."""
        self.limits.check()
        self.login()

    def login(self) -> tuple[str, str] | None:
        """User and password."""
        if self.auth is None:
            return None
        user, sign, password = self.auth.partition(":")
        if not (user and sign and password):
            raise UsageError("--auth takes a name and a password joined by a colon, as anna:secret")
        return user, password

    def is_private(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    def warning(self) -> str | None:
        """What is to be said of an open page."""
        if self.is_private() or self.auth is not None:
            return None
        return (
            f"everybody who reaches {self.host} can use this page, and their recordings come to this machine; "
            "add --auth user:password"
        )


def need_gradio() -> None:
    """ModelError that names the extra where gradio is not installed."""
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ModelError("the page needs the package gradio; pip install 'flowsep-toolkit[web]'") from error


def free_port(where: Where) -> int:
    """A port that nobody listens on; UsageError where the one asked for is taken, or the host is of another machine."""
    wanted = range(FIRST_PORT, FIRST_PORT + PORTS) if where.port is None else [where.port]
    host = where.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    problem: Exception | None = None
    for port in wanted:
        with socket.socket(family) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind((host, port))
                return one.getsockname()[1]
            except OSError as error:
                problem = error
    reason = getattr(problem, "strerror", None) or problem
    raise UsageError(f"cannot listen on {host}, port {wanted[0]}: {reason}; choose another --port or --host")


def without_proxy(host: str) -> None:
    """Have requests of this process to itself not go by way of a proxy: gradio asks its own page whether it is up."""
    for name in ("no_proxy", "NO_PROXY"):
        known = [entry for entry in os.environ.get(name, "").split(",") if entry]
        os.environ[name] = ",".join([*known, *({"127.0.0.1", "localhost", host} - set(known))])


@dataclass(frozen=True)
class Served:
    """A page that runs; `close` ends it and removes its files."""

    url: str
    sessions: Sessions
    blocks: gradio.Blocks

    def close(self) -> None:
        """End all runs, the server, and the temporary files."""
        for session in list(self.sessions.open.values()):
            session.stop.set()
        self.blocks.close(verbose=False)
        self.sessions.close_all()


def start(model: LoadedModel, where: Where) -> Served:
    """Serve the page from a thread of its own; returns when it answers. One page per process: gradio has one folder."""
    from flowsep.web.sessions import Sessions

    need_gradio()
    port = free_port(where)
    sessions = Sessions(where.jobs)
    try:
        os.environ["GRADIO_TEMP_DIR"] = str(sessions.uploads)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        without_proxy(where.host)
        from flowsep.web.examples import render_examples
        from flowsep.web.page import Page, build

        page = Page(model, sessions, where.limits, render_examples(sessions.root / "examples"))
        blocks = build(page)
        launch(blocks, where, port, str(sessions.root))
    except BaseException:
        sessions.close_all()
        raise
    return Served(blocks.local_url, sessions, blocks)


def launch(blocks: gradio.Blocks, where: Where, port: int, folder: str) -> None:
    """Start gradio's server with everything switched off that would leave this machine."""
    from starlette.middleware import Middleware

    from flowsep.web.local import StaysHere
    from flowsep.web.page import asset

    host = f"[{where.host}]" if ":" in where.host and not where.host.startswith("[") else where.host
    blocks.launch(
        server_name=host,
        server_port=port,
        auth=where.login(),
        auth_message="This page asks for a name and a password.",
        max_file_size=where.limits.bytes,
        allowed_paths=[folder],
        prevent_thread_lock=True,
        quiet=True,
        inbrowser=False,
        inline=False,
        share=False,
        show_error=True,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        ssr_mode=False,
        num_workers=0,
        app_kwargs={"middleware": [Middleware(StaysHere)]},
        theme=theme(),
        css=asset("page.css"),
        js=asset("page.js"),
    )


def theme() -> gradio.themes.Base:
    """The fonts of the reader's own system, and grey text that is dark enough to be read."""
    import gradio

    plain = gradio.themes.Default(
        primary_hue="blue", font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
    )
    return plain.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
    )


def serve(model: LoadedModel, where: Where, open_browser: bool | None, say: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C or SIGTERM, either of which is a clean end."""
    served = start(model, where)
    try:
        say(f"the page is at {served.url} (Ctrl-C ends it)")
        if (warning := where.warning()) is not None:
            say(f"warning: {warning}")
        if has_desktop() if open_browser is None else open_browser:
            threading.Thread(target=webbrowser.open, args=(served.url,), daemon=True).start()
        wait_for_the_end()
    finally:
        served.close()
    say("the page has ended, its temporary files are removed")


def wait_for_the_end() -> None:
    """Return on Ctrl-C and on SIGTERM."""
    ended = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end(*_: Any) -> None:
        ended.set()

    try:
        for number in before:
            signal.signal(number, end)
        while not ended.wait(0.5):  # in slices, so that the signal is seen on every system
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def has_desktop() -> bool:
    """Whether a browser can be opened in front of somebody."""
    return not sys.platform.startswith("linux") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))
