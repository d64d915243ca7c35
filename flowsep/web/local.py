"""What keeps the page on this machine: the browser asks nobody else for anything, nor can it have the server do so."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import gradio as gr

# Scripts of gradio are inline in part, and compile templates; what matters is that nothing has another origin.
POLICY = b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'self'; base-uri 'self'"
ELSEWHERE = re.compile(r"/(file|proxy)=\s*[a-z]+:/", re.IGNORECASE)  # gradio would fetch it


class StaysHere:
    """ASGI middleware: a content security policy on every answer, and no fetching of addresses that a client names."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if ELSEWHERE.search(scope["path"]):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"only files of this page"})
            return

        async def with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await self.app(scope, receive, with_policy)


def keep_local(blocks: gr.Blocks) -> None:
    """Have no component take an address for an upload, which gradio would download."""
    for block in blocks.blocks.values():
        if isinstance(block, gr.components.Component):
            block.async_move_resource_to_block_cache = partial(only_files, block.async_move_resource_to_block_cache)


async def only_files(move: Callable[[Any], Awaitable[str | None]], place: Any) -> str | None:
    """`move` a file into gradio's cache; an error on the page for anything with a scheme, such as https."""
    if isinstance(place, str) and re.match(r"\s*[a-z][a-z0-9+.-]+:/", place, re.IGNORECASE):
        raise gr.Error("only uploaded files can be used")
    return await move(place)
