"""Raw ASGI app of the proxy tests: says what it received, echoes bodies while they arrive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_aborted: list[str] = []


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


async def _echo(receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
        await send(
            {"type": "http.response.body", "body": message.get("body", b""), "more_body": more}
        )
        if not more:
            return


async def _hold(scope: Any, receive: Receive) -> None:
    """Wait for the client to go and note that it did."""
    while (await receive())["type"] != "http.disconnect":
        pass
    _aborted.append(scope["query_string"].decode())


async def app(scope: Any, receive: Receive, send: Send) -> None:
    """Serve one request; the path says what to do."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    path = scope["path"]
    if path == "/echo":
        await _echo(receive, send)
    elif path == "/hold":
        await _hold(scope, receive)
    elif path == "/aborted":
        await _answer(send, 200, json.dumps(_aborted).encode())
    elif path == "/early413":
        await _answer(send, 413, b"too much", (b"x-early", b"yes"))
    elif path == "/early200":
        await _answer(send, 200, b"enough", (b"x-early", b"yes"))
    elif path == "/204":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    elif path == "/304":
        tag = (b"etag", b'"a"')
        await send({"type": "http.response.start", "status": 304, "headers": [tag]})
        await send({"type": "http.response.body", "body": b""})
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one ", b"two ", b"three"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b""})
    else:
        seen = {
            "method": scope["method"],
            "target": (scope["raw_path"] + b"?" + scope["query_string"]).decode(),
            "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
            "body": (await _body(receive)).decode(),
        }
        await _answer(send, 200, json.dumps(seen).encode(), (b"keep-alive", b"timeout=9"))
