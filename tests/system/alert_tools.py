"""Receivers of alerts under a test's control, and gateways that come back where they were."""

from __future__ import annotations

import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from handmade import HandApp, Seen
from harness import Gateway, clean_env, wait_for

STALL_S = 3.0


@dataclass
class Post:
    """One request that a sink got."""

    key: str
    headers: dict[str, str]
    body: Any
    answer: str  # how it was treated: ok, 500, 400, stall, cut


class Sink:
    """A webhook that does what `script` says, one word per request, and `after` then."""

    def __init__(
        self, *script: str, after: str = "ok", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        """Listen. Words: ok, cut (the connection, after the request), stall, or a status."""
        self.script = list(script)
        self.after = after
        self.posts: list[Post] = []
        self._lock = threading.Lock()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                sink._serve(self)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._lock:
            word = self.script.pop(0) if self.script else self.after
            headers = {name.lower(): value for name, value in handler.headers.items()}
            key = headers.get("idempotency-key", "")
            self.posts.append(Post(key, headers, json.loads(body), word))
        if word == "stall":
            time.sleep(STALL_S)
        if word in ("cut", "stall"):
            handler.close_connection = True
            handler.connection.close()
            return
        handler.send_response(200 if word == "ok" else int(word))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def taken(self) -> list[Post]:
        """What was answered 200."""
        return [post for post in self.posts if post.answer == "ok"]

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


class Traffic:
    """Requests to a gateway, about `rate` a second, until stop()."""

    def __init__(self, gateway: Gateway, path: str = "/x", rate: float = 20, threads: int = 1):
        """Start asking."""
        self.gateway, self.path, self.rate = gateway, path, rate
        self.sent = 0
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        self._pause_s = threads / rate
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._pause_s):
            try:
                with urllib.request.urlopen(self.gateway.base + self.path, timeout=10) as answer:
                    answer.read()
            except (urllib.error.URLError, OSError):
                continue
            finally:
                self.sent += 1

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(15)


def restart(gateway: Gateway) -> Gateway:
    """Stop a gateway, and start it again with the same configuration, store and ports."""
    assert gateway.stop() == 0
    return start_again(gateway)


def start_again(gateway: Gateway) -> Gateway:
    """Start a gateway that ended, with the same configuration, store and ports.

    It is the same object afterwards, so that whoever stops the one stops the other, come what may.
    """
    sockets = Path(gateway.control).parent
    sockets.mkdir(mode=0o700, exist_ok=True)
    again = Gateway(gateway.config_path.parent, gateway.config, gateway.port, clean_env(), sockets)

    def ready() -> bool:
        try:
            return again.api("/readyz")[0] == 200
        except OSError:
            return False

    vars(gateway).update(vars(again))
    wait_for(ready, 20, "the gateway is back")
    return gateway


def incidents(gateway: Gateway, query: str = "") -> list[dict[str, Any]]:
    """The gateway's incidents, newest first."""
    found: list[dict[str, Any]] = gateway.json(f"/api/v1/incidents{query}")["incidents"]
    return found


def wait_incident(
    gateway: Gateway,
    timeout_s: float,
    fits: Callable[[dict[str, Any]], bool] = lambda _: True,
    what: str = "an incident",
) -> dict[str, Any]:
    """The first incident that fits."""

    def found() -> dict[str, Any] | None:
        return next((one for one in incidents(gateway) if fits(one)), None)

    return wait_for(found, timeout_s, what, every_s=0.2)


class Failing(HandApp):
    """An app that answers 500 while `fails`."""

    fails = True

    def start(self) -> HandApp:
        """Listen, and answer by hand."""
        self.answer = self._answer
        return super().start()

    def _answer(self, conn: Any, seen: Seen) -> None:
        status = b"500 No" if self.fails else b"200 OK"
        conn.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno")
