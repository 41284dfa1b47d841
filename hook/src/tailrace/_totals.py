"""The engine where the C extension is not built: totals of each request, nothing more."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

WITHOUT_EXTENSION = True
ROWS_BYTES_MAX = 2 << 20

_rows: deque[bytes] = deque()
_tails: deque[bytes] = deque()
_lock = threading.Lock()
_bytes = 0
_dropped = 0
_loop = "asyncio"
_name_route: Callable[..., Any] | None = None
_current: ContextVar[str | None] = ContextVar("tailrace_trace", default=None)


class Request:
    """One ASGI call; callable: it is the `send` the app gets."""

    def __init__(self, scope: Any, send: Any, key: str) -> None:
        self._scope, self._send, self._key = scope, send, key
        self._root_path = scope.get("root_path")
        self._enter_ns = time.monotonic_ns()
        self._start_ns: int | None = None
        self._end_ns: int | None = None
        self._route: str | None = None
        self._emitted = False

    async def __call__(self, message: Any) -> None:
        """Sends a message of the app."""
        if message["type"] == "http.response.start" and self._start_ns is None:
            self._learn_route()
            self._start_ns = time.monotonic_ns()
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._end("response")

    def leave(self) -> None:
        """The app has returned."""
        self._leave("disconnect")

    def fail(self, cancelled: bool, /) -> None:
        """The app has raised."""
        if self._start_ns is None and self._end_ns is None:
            self._start_ns = time.monotonic_ns()
        self._leave("cancelled" if cancelled else "exception")

    def _learn_route(self) -> None:
        if self._route is None and _name_route is not None:
            try:
                self._route = _name_route(self._scope, self._root_path)
            except Exception:
                self._route = None

    def _end(self, ended: str) -> None:
        global _bytes, _dropped
        if self._emitted:
            return
        self._emitted = True
        self._learn_route()
        end_ns = self._end_ns = time.monotonic_ns()
        app_ns = (end_ns if self._start_ns is None else self._start_ns) - self._enter_ns
        stream_ns = 0 if self._start_ns is None else end_ns - self._start_ns
        row = [
            self._key, 0, 1, self._route, None, self._enter_ns, self._start_ns, end_ns, None, ended,
            0, [], app_ns, [], stream_ns, [], None,
        ]  # fmt: skip
        data = json.dumps(row, separators=(",", ":")).encode()
        with _lock:
            if _bytes + len(data) > ROWS_BYTES_MAX:
                _dropped += 1
                return
            _rows.append(data)
            _bytes += len(data)

    def _leave(self, ended: str) -> None:
        if not self._emitted:
            self._end(ended)
        if self._end_ns is not None and len(_tails) < 4096:
            tail_ns = time.monotonic_ns() - self._end_ns
            _tails.append(json.dumps([self._key, tail_ns], separators=(",", ":")).encode())


def _is_hex(text: str) -> bool:
    return not set(text) - set("0123456789abcdef")


def begin(scope: Any, send: Any, anyway: bool, /) -> Request | None:
    """The request, where the gateway asks for its profile."""
    for name, value in scope.get("headers") or ():
        if name != b"x-tailrace":
            continue
        text = value.decode("latin-1")
        key = text[2:51]
        good = text.startswith("1;") and len(key) == 49 and key[32] == "-"
        if not (good and _is_hex(key[:32] + key[33:]) and text[51:52] in ("", ";")):
            return None
        _current.set(key[:32])
        return Request(scope, send, key)
    return None


def trace_id() -> str | None:
    """The trace of the request that runs here."""
    return _current.get()


class Span:
    """Without the extension a name changes nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def take_beside() -> tuple[bytes, bytes, bytes]:
    """Neither threads nor the loop are seen without the extension."""
    return b"", b"", b""


def take(max_bytes: int, /) -> tuple[bytes, bytes, list[Any]]:
    """Finished rows, as the extension gives them."""
    global _bytes
    rows: list[bytes] = []
    size = 0
    with _lock:
        while _rows and size + len(_rows[0]) + 1 <= max_bytes:
            rows.append(_rows.popleft())
            size += len(rows[-1]) + 1
            _bytes -= len(rows[-1])
        tails = [_tails.popleft() for _ in range(min(len(_tails), 1024))]
    return b",".join(rows), b",".join(tails), []


def bind(send_last: Any, name_route: Any, report: Any, allow_deep: Any = None, /) -> None:
    """Takes what names routes."""
    global _name_route
    _name_route = name_route


def use(loop_name: str, engine: str, /) -> None:
    """What loop it is."""
    global _loop
    _loop = loop_name


def after_fork() -> None:
    """Forgets what is the parent's."""
    global _lock, _bytes, _dropped
    _lock = threading.Lock()
    _rows.clear()
    _tails.clear()
    _bytes = _dropped = 0


def engine_name() -> str:
    return "totals"


def loop_name() -> str:
    return _loop


def dropped() -> int:
    return _dropped


def tails_dropped() -> int:
    return 0


def limits() -> dict[str, Any]:
    return {}


def stacks() -> list[Any]:
    return []


def details_due() -> list[str]:
    return []


def detail(key: str, /) -> bytes | None:
    return None


def frame_in_app(code: Any, /) -> bool:
    return False


def _nothing(*args: Any, **named: Any) -> None:
    """What there is nothing to do for."""


keep = thresholds = configure = bind_guard = stop = _nothing
