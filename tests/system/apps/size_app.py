"""Raw ASGI app that costs next to nothing: ``/N`` answers N bytes, whatever body came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]


async def app(
    scope: Any,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Take the whole body, then answer as many bytes as the path says (none where it says none)."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        pass
    size = scope["path"].removeprefix("/") or "0"
    headers = [(b"content-length", size.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * int(size)})
