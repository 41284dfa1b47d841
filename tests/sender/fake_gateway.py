"""A control listener that answers by script, and an engine that hands out what a test put in."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import socketserver
import threading
import time
import zlib
from collections.abc import Sequence
from types import CodeType
from typing import Any

Answer = tuple[int, dict[str, str], Any]
OK: Answer = (200, {}, {"accepted": 1, "refused": 0, "want": [], "keep": {}, "stacks": "ok"})
RESEND: Answer = (200, {}, {"accepted": 0, "refused": 0, "stacks": "resend"})


def error(status: int, code: str, headers: dict[str, str] | None = None) -> Answer:
    body = {"error": {"code": code, "message": f"about {code}", "pointer": "/profiles/0"}}
    return status, headers or {}, body


class Post:
    """One request as it came."""

    def __init__(self, connection: int, headers: dict[str, str], raw: bytes) -> None:
        self.at = time.monotonic()
        self.connection = connection
        self.headers = headers
        self.raw = raw
        deflated = headers.get("content-encoding") == "deflate"
        self.body = json.loads(zlib.decompress(raw) if deflated else raw)

    @property
    def keys(self) -> list[str]:
        return [row[0] for row in self.body["profiles"]]

    @property
    def stack_ids(self) -> list[int]:
        return [row[0] for row in self.body["stacks"]]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gateway: FakeGateway

    def setup(self) -> None:
        super().setup()
        with self.gateway.lock:
            self.gateway.connections += 1
            self.number = self.gateway.connections
            self.gateway.open.append(self.connection)

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        assert self.path == "/v1/profiles"
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        post = Post(self.number, {k.lower(): v for k, v in self.headers.items()}, raw)
        status, headers, body = self.gateway.answer(post)
        data = json.dumps(body).encode() if not isinstance(body, bytes) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        if headers.get("Connection") == "close" or self.gateway.close_after_each:
            self.close_connection = True


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class _TcpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True


class FakeGateway:
    """Records every post. `script` answers come first, each once; then it behaves like a real
    gateway: it remembers stacks per instance and asks for them again where a row names another."""

    def __init__(self, path: str | None = None, script: Sequence[Answer] = ()) -> None:
        self.lock = threading.Lock()
        self.posts: list[Post] = []
        self.taken: list[str] = []  # keys of profiles that were answered with 200 and not resend
        self.script = list(script)
        self.connections = 0
        self.open: list[socket.socket] = []
        self.close_after_each = False
        self.known: dict[str, set[int]] = {}
        handler = type("Handler", (_Handler,), {"gateway": self})
        self.server: socketserver.BaseServer
        if path is None:
            server = _TcpServer(("127.0.0.1", 0), handler)
            self.address = f"127.0.0.1:{server.server_address[1]}"
            self.server = server
        else:
            if os.path.exists(path):
                os.unlink(path)
            self.server = _UnixServer(path, handler)
            self.address = "unix:" + path
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, post: Post) -> Answer:
        with self.lock:
            self.posts.append(post)
            if self.script:
                answer = self.script.pop(0)
            else:
                known = self.known.setdefault(post.body["process"]["instance"], set())
                known.update(post.stack_ids)
                named = {
                    row[2] for p in post.body["profiles"] for row in p[11] + p[13] if row[2] >= 0
                }
                answer = OK if named <= known else RESEND
            if answer[0] == 200 and answer[2].get("stacks") != "resend":
                self.taken += post.keys
            return answer

    def wait(self, keys: Sequence[str], timeout_s: float = 10) -> list[str]:
        """Waits until all of `keys` are taken. Returns what was taken, in order."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            with self.lock:
                if set(keys) <= set(self.taken):
                    return list(self.taken)
            time.sleep(0.005)
        raise AssertionError(f"not taken: {sorted(set(keys) - set(self.taken))}")

    def wait_posts(self, count: int, timeout_s: float = 10) -> list[Post]:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            with self.lock:
                if len(self.posts) >= count:
                    return list(self.posts)
            time.sleep(0.005)
        raise AssertionError(f"{len(self.posts)} posts, expected {count}")

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def key(number: int) -> str:
    return f"{number:032x}-{number:016x}"


def row(number: int, stack: int = -1, pad: str = "") -> bytes:
    """A profile row whose breakdown names `stack`."""
    breakdown = [["wait", "sleep", stack, 1000, 1, 1, 0, None, None]]
    profile = [key(number), 0, 1, "GET /" + pad, 0, 1000, 2000, 2100, 5, "response", 0]
    return json.dumps([*profile, breakdown, 0, [], 100, [], None], separators=(",", ":")).encode()


class FakeEngine:
    """Hands out rows and stacks as tailrace._engine does."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rows: list[bytes] = []
        self.tails: list[bytes] = []
        self.new: list[tuple[int, tuple[tuple[CodeType, int], ...]]] = []
        self.all: list[tuple[int, tuple[tuple[CodeType, int], ...]]] = []
        self.due: list[str] = []
        self.details: dict[str, bytes] = {}
        self.kept: list[tuple[str, int, float]] = []
        self.set_thresholds: tuple[int, int] | None = None
        self.lost = 0
        self.forks = 0
        self.fail = 0

    def put(self, *rows: bytes) -> None:
        with self.lock:
            self.rows += rows

    def add_stack(self, number: int, *frames: tuple[CodeType, int]) -> None:
        with self.lock:
            self.new.append((number, frames))
            self.all.append((number, frames))

    def take(self, max_bytes: int, /) -> tuple[bytes, bytes, list[Any]]:
        with self.lock:
            if self.fail:
                self.fail -= 1
                raise RuntimeError("engine fails")
            taken: list[bytes] = []
            while self.rows and sum(map(len, taken)) + len(self.rows[0]) <= max_bytes:
                taken.append(self.rows.pop(0))
            tails, self.tails = self.tails, []
            new, self.new = self.new, []
            return b",".join(taken), b",".join(tails), new

    def take_beside(self) -> tuple[bytes, bytes, bytes]:
        return b"", b"", b""

    def stacks(self) -> list[Any]:
        with self.lock:
            return list(self.all)

    def frame_in_app(self, code: CodeType, /) -> bool:
        return "tests" in code.co_filename

    def details_due(self) -> list[str]:
        with self.lock:
            due, self.due = self.due, []
            return due

    def detail(self, key: str, /) -> bytes | None:
        with self.lock:
            return self.details.pop(key, None)

    def keep(self, route: str, over_ns: int, rate: float, /) -> None:
        self.kept.append((route, over_ns, rate))

    def thresholds(self, wait_ns: int, stall_ns: int, /) -> None:
        self.set_thresholds = (wait_ns, stall_ns)

    def dropped(self) -> int:
        return self.lost

    def limits(self) -> dict[str, Any]:
        return {}

    def engine_name(self) -> str:
        return "steps"

    def loop_name(self) -> str:
        return "uvloop"

    def after_fork(self) -> None:
        self.forks += 1
        self.rows, self.tails, self.new, self.all = [], [], [], []
