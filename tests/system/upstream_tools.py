"""What the tests of upstreams share: their samples of /metrics, apps that count."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from handmade import metrics
from harness import Gateway
from proxy_tools import OK, read_head

Handler = Callable[[socket.socket, int], None]


def value(gateway: Gateway, name: str, labels: str = "") -> float:
    """Return one sample of the upstream `app`; `labels` follow the upstream's."""
    more = f",{labels}" if labels else ""
    return metrics(gateway)[f'tailrace_upstream_{name}{{upstream="app"{more}}}']


def counting(counts: list[int], index: int) -> Handler:
    """Return an app that counts its exchanges in counts[index]."""

    def handler(conn: socket.socket, _index: int) -> None:
        while True:
            read_head(conn)
            counts[index] += 1
            conn.sendall(OK)

    return handler


def serve_forever(listener: socket.socket, handler: Handler) -> None:
    def one(conn: socket.socket) -> None:
        with contextlib.suppress(OSError):
            handler(conn, 0)

    with contextlib.suppress(OSError):
        while True:
            conn, _ = listener.accept()
            threading.Thread(target=one, args=(conn,), daemon=True).start()
