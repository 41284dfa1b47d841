"""ASGI app that kills its own process at the place that the path names."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _answer(place: str, send: Send) -> None:
    length = [(b"content-length", b"30")] if place in ("end", "fine") else []
    await send({"type": "http.response.start", "status": 200, "headers": length})
    if place == "start":
        # uvicorn writes the head with the first part of the body, or when it must
        await send({"type": "http.response.body", "body": b"", "more_body": True})
    for part in ("first", "between", "end"):
        if place == "start":
            break
        more = part != "end"
        await send({"type": "http.response.body", "body": b"y" * 10, "more_body": more})
        if place == part:
            await asyncio.sleep(0.05)
            _die()
    if place == "start":
        await asyncio.sleep(0.05)
        _die()


async def app(scope: Any, receive: Receive, send: Send) -> None:
    """Serve one scope, up to its place."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(0.05)
        _die()
    place = scope["path"][1:]
    if place == "head":
        _die()
    got = 0
    while True:
        message = await receive()
        got += len(message.get("body", b""))
        if place == "body" and got >= 50_000:
            _die()
        if not message.get("more_body", False):
            break
    if place == "body-end":
        _die()
    await _answer(place, send)
