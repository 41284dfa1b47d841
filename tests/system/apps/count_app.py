"""Raw ASGI app that counts how often each POST reached it: GET /counts tells.

All else is answered after HELD_S, so that requests that come together are there together.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

HELD_S = 0.15
_seen: Counter[str] = Counter()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer; a POST is known by its query."""
    if scope["type"] != "http":
        return
    if scope["method"] == "POST":
        _seen[scope["query_string"].decode()] += 1
    body = b"ok"
    if scope["path"] == "/counts":
        body = json.dumps(_seen).encode()
    else:
        await asyncio.sleep(HELD_S)
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
