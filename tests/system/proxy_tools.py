"""Small HTTP/1.1 pieces of the proxy tests: raw requests, parsed answers, scripted apps."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness import Gateway, wait_for

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEX = set("0123456789abcdef")


@dataclass
class Answer:
    """One parsed response; header names are lower-case, repeated ones joined by comma."""

    status: int
    headers: dict[str, str]
    body: bytes
    interims: list[int] = field(default_factory=list)
    version: str = "HTTP/1.1"

    @property
    def trace_id(self) -> str:
        """Return X-Trace-Id, which must be 32 lower-case hex digits."""
        value = self.headers["x-trace-id"]
        assert len(value) == 32 and set(value) <= HEX, value
        return value


#: The head of an answer whose 100 bytes do not all come.
PARTIAL_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


class Connection:
    """A client connection that reads exactly one response at a time."""

    def __init__(self, where: int | str, timeout_s: float = 10) -> None:
        """Connect to a port of loopback or to a Unix socket; an operation may take timeout_s."""
        if isinstance(where, int):
            self.sock = socket.create_connection(("127.0.0.1", where), timeout_s)
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout_s)
            self.sock.connect(where)
        self.rest = b""

    def __enter__(self) -> Connection:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def _fill(self) -> None:
        chunk = self.sock.recv(65536)
        if not chunk:
            raise EOFError(self.rest)
        self.rest += chunk

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.rest:
            self._fill()
        line, _, self.rest = self.rest.partition(mark)
        return line

    def _exactly(self, length: int) -> bytes:
        while len(self.rest) < length:
            self._fill()
        data, self.rest = self.rest[:length], self.rest[length:]
        return data

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n"), 16):
            body += self._exactly(size)
            assert self._exactly(2) == b"\r\n"
        assert self._until(b"\r\n") == b""
        return body

    def eof(self) -> bytes:
        """Return what comes until the end of the connection. ConnectionResetError on RST."""
        while chunk := self.sock.recv(65536):
            self.rest += chunk
        data, self.rest = self.rest, b""
        return data

    def answer(self, head_only: bool = False) -> Answer:
        """Read one final response. EOFError where the connection ends before it is whole."""
        interims: list[int] = []
        while True:
            lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            version, status = lines[0].split(" ")[:2]
            headers: dict[str, str] = {}
            for line in lines[1:]:
                name, _, value = line.partition(":")
                name, value = name.lower(), value.strip()
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
            if int(status) >= 200:
                break
            interims.append(int(status))
        if head_only or int(status) in (204, 304):
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = self._chunks()
        elif "content-length" in headers:
            body = self._exactly(int(headers["content-length"]))
        else:
            body = self.eof()
        return Answer(int(status), headers, body, interims, version)


def ask(port: int, request: bytes, timeout_s: float = 10, head_only: bool = False) -> Answer:
    """Send one request on a new connection and return its answer."""
    with Connection(port, timeout_s) as connection:
        connection.send(request)
        return connection.answer(head_only)


def get(path: str = "/", *lines: str, version: str = "1.1") -> bytes:
    """Return a GET request."""
    return request_bytes("GET", path, *lines, version=version)


def request_bytes(
    method: str, path: str, *lines: str, body: bytes = b"", version: str = "1.1"
) -> bytes:
    """Return a request with Host, the given header lines and, where there is one, a body."""
    head = [f"{method} {path} HTTP/{version}", "Host: test.example", *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def read_head(conn: socket.socket) -> bytes:
    """Return the bytes of a request until its head is complete (and what came with it)."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = conn.recv(65536)
        if not chunk:
            raise ConnectionError("closed before the head was complete")
        data += chunk
    return data


def serving(*answers: bytes) -> Callable[[socket.socket, int], None]:
    """Return a stub handler that gives these answers, one per request, on each connection."""

    def handler(conn: socket.socket, _index: int) -> None:
        for answer in answers:
            read_head(conn)
            conn.sendall(answer)
        with contextlib.suppress(OSError):
            conn.recv(65536)

    return handler


def always(answer: bytes) -> Callable[[socket.socket, int], None]:
    """Return a stub handler that gives the same answer to every request."""

    def handler(conn: socket.socket, _index: int) -> None:
        while True:
            read_head(conn)
            conn.sendall(answer)

    return handler


def reset(conn: socket.socket) -> None:
    """Close a connection by RST."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    conn.close()


def stored(gateway: Gateway, trace_id: str, timeout_s: float = 15) -> dict[str, Any]:
    """Return the exchange of a trace from the API once it is kept."""

    def look() -> dict[str, Any] | None:
        status, _, body = gateway.api(f"/api/v1/requests/{trace_id}")
        if status != 200:
            return None
        exchange: dict[str, Any] = json.loads(body)
        return exchange

    exchange = wait_for(look, timeout_s, f"exchange {trace_id}", every_s=0.1)
    assert sum(phase["ns"] for phase in exchange["phases"]) == exchange["total_ns"]
    return exchange


def phase(exchange: dict[str, Any], name: str) -> float:
    """Return a phase of a stored exchange in seconds."""
    (found,) = [item["ns"] for item in exchange["phases"] if item["name"] == name]
    return float(found) / 1e9


def resident_kib(pid: int) -> int:
    """Return VmRSS of a process in KiB."""
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    raise AssertionError("no VmRSS")


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call took, in seconds, and what it returned."""
    start = time.monotonic()
    value = what()
    return time.monotonic() - start, value


def error_code(answer: Answer) -> str:
    """Return the named reason of a local reply, which carries the trace ID too."""
    code: str = json.loads(answer.body)["error"]["code"]
    assert json.loads(answer.body)["error"]["trace_id"] == answer.trace_id
    return code


def last_cause(gateway: Gateway, path: str) -> tuple[str | None, str | None]:
    def look() -> tuple[str | None, str | None] | None:
        for item in gateway.json("/api/v1/requests?sort=latest&limit=50")["requests"]:
            exchange = gateway.json(f"/api/v1/requests/{item['trace_id']}")
            if exchange["path"] == path:
                return exchange["cause"], exchange["died_in"]
        return None

    return wait_for(look, 15, f"exchange of {path}", every_s=0.1)
