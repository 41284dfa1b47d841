"""HTTP to the gateway's control listener: one kept-alive connection, over a Unix socket or TCP."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from tailrace.frames import Breather

ANSWER_BYTES_MAX = 1 << 20
HEAD_BYTES_MAX = 32 * 1024
READ_BYTES = 64 * 1024
TIMEOUT_S = 5.0


class Address(NamedTuple):
    """Where the control listener is. `path` is set for Unix sockets, else `host` and `port`."""

    text: str
    path: str | None
    host: str
    port: int
    tls: bool = False

    @property
    def is_local(self) -> bool:
        """True where the bytes never leave this machine."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """Reads ``unix:/path``, ``host:port`` or ``[v6]:port``, and ``https://`` before the last two.

    Raises ValueError with the reason.
    """
    if text.startswith("unix:"):
        path = text[5:]
        if not path or "\0" in path:
            raise ValueError(f"{text!r}: no path after unix:")
        return Address(text, path, "", 0)
    tls = text.startswith("https://")
    host, colon, port = text.removeprefix("https://").removesuffix("/").rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r}: neither unix:/path nor host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address goes into brackets")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: the port must be 1 to 65535")
    return Address(text, None, host, int(port), tls)


class Answer(NamedTuple):
    """An answer of docs/protocol.md §3. `body` is empty where it was no JSON object."""

    status: int
    body: dict[str, Any]
    retry_after_s: float | None

    @property
    def reason(self) -> str:
        """The error's code, message and pointer in one line, as far as there are any."""
        error = self.body.get("error")
        if not isinstance(error, dict):
            return f"status {self.status}"
        parts = [str(error[k]) for k in ("code", "message", "pointer") if error.get(k)]
        return f"status {self.status}: " + ", ".join(parts)


class Connection:
    """Posts batches. Used by one thread at a time; every failure is an OSError.

    It speaks just the HTTP/1.1 that this one question needs: the standard library's client spends
    a third of a millisecond on an answer, most of it parsing headers with the GIL held.
    """

    def __init__(self, address: Address, token: str | None, breather: Breather) -> None:
        self._address = address
        self._breather = breather
        self._deflate = not address.is_local
        self._socket: socket.socket | None = None
        host = "localhost" if address.path else address.text.removeprefix("https://")
        head = f"POST /v1/profiles HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        if self._deflate:
            head += "Content-Encoding: deflate\r\n"
        self._head = head.encode("utf-8") + b"Content-Length: %d\r\n\r\n"

    def post(self, body: Sequence[bytes], timeout_s: float = TIMEOUT_S) -> Answer:
        """Sends one batch, its parts in order, and reads the answer; a connection found
        stale is tried anew once."""
        if self._deflate:
            packer = zlib.compressobj(1)
            body = [*map(packer.compress, body), packer.flush()]
        reused = self._socket is not None
        try:
            return self._exchange(body, timeout_s)
        except (ConnectionResetError, BrokenPipeError):
            # A kept-alive connection that the gateway closed in the meantime looks like this.
            if not reused:
                raise
            return self._exchange(body, timeout_s)

    def close(self) -> None:
        """Closes the connection, if there is one. In a forked child the parent's stays open."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self, timeout_s: float) -> socket.socket:
        address = self._address
        if self._socket is not None:
            self._socket.settimeout(timeout_s)
        elif address.path is None:
            self._socket = socket.create_connection((address.host, address.port), timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.tls:
                self._socket = _secure(self._socket, address.host)
        else:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(timeout_s)
            self._socket.connect(address.path)
        return self._socket

    def _exchange(self, body: Sequence[bytes], timeout_s: float) -> Answer:
        try:
            sock = self._open(timeout_s)
            parts = [self._head % sum(map(len, body)), *body]
            if self._address.tls:  # has no sendmsg
                sock.sendall(b"".join(parts))
            else:
                _send(sock, parts)
            return self._answer(sock)
        except BaseException:
            self.close()
            raise

    def _answer(self, sock: socket.socket) -> Answer:
        data = b""
        while b"\r\n\r\n" not in data:
            part = sock.recv(READ_BYTES)
            if not part:
                raise ConnectionResetError("closed without an answer")
            self._breather.rested()
            data += part
            if len(data) > HEAD_BYTES_MAX:
                raise OSError("the head of the answer is too long")
        self._breather.tick()
        head, _, body = data.partition(b"\r\n\r\n")
        status, fields = _parse_head(head)
        length = fields.get("content-length", "")
        whole = int(length) if length.isascii() and length.isdigit() else None
        if whole is None and fields.get("transfer-encoding"):
            raise OSError("the answer has no length")
        if whole is not None and whole > ANSWER_BYTES_MAX:
            raise OSError("the answer is too long")
        self._breather.tick()
        body = _read_body(sock, body, whole)
        if whole is None or fields.get("connection", "").lower() == "close":
            self.close()
        answer = _object(body)
        self._breather.tick()
        return Answer(status, answer, _seconds(fields.get("retry-after", "")))


def _send(sock: socket.socket, parts: list[bytes]) -> None:
    """Sends all of `parts`, without copying them together while the GIL is held."""
    sent = sock.sendmsg(parts)
    for part in parts:
        if sent < len(part):
            sock.sendall(memoryview(part)[sent:])
        sent = max(0, sent - len(part))


def _secure(sock: socket.socket, host: str) -> socket.socket:
    """Shakes hands; the gateway must prove to be `host`. Raises OSError (ssl.SSLError is one)."""
    import ssl  # only who needs it pays for it

    try:
        context = ssl.create_default_context(cafile=os.environ.get("TAILRACE_CA") or None)
        return context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and fields (names in lower case). Raises OSError where it is no HTTP/1 answer."""
    line, *rest = head.decode("latin-1").split("\r\n")
    version, _, status = line.partition(" ")
    if not version.startswith("HTTP/1.") or not status[:3].isdigit():
        raise OSError("this is no HTTP/1 answer")
    fields = {}
    for field in rest:
        name, _, value = field.partition(":")
        fields[name.lower()] = value.strip()
    return int(status[:3]), fields


def _read_body(sock: socket.socket, body: bytes, whole: int | None) -> bytes:
    """Reads on until `whole` bytes are there, or to the end of the stream where it is None."""
    limit = ANSWER_BYTES_MAX if whole is None else whole
    while len(body) < limit:
        part = sock.recv(READ_BYTES)
        if not part:
            if whole is None:
                break
            raise OSError("the answer was cut off")
        body += part
    return body[:limit]


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() else None


def clock_identity() -> tuple[str | None, int | None]:
    """Boot ID and inode of the time namespace; None where /proc does not tell."""
    boot_id: str | None = None
    namespace: int | None = None
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot_id = file.read().strip()
        namespace = os.stat("/proc/self/ns/time").st_ino
    except (OSError, ValueError):
        pass
    return boot_id, namespace
