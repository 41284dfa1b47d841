"""HTTP to the gateway's control listener: one kept-alive connection, over a Unix socket or TCP."""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
import zlib
from typing import Any, NamedTuple

ANSWER_BYTES_MAX = 1 << 20
TIMEOUT_S = 5.0

# What a kept-alive connection that the gateway closed in the meantime looks like.
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class Address(NamedTuple):
    """Where the control listener is. `path` is set for Unix sockets, else `host` and `port`."""

    text: str
    path: str | None
    host: str
    port: int

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
    """Reads ``unix:/path``, ``host:port`` or ``[v6]:port``. Raises ValueError with the reason."""
    if text.startswith("unix:"):
        path = text[5:]
        if not path or "\0" in path:
            raise ValueError(f"{text!r}: no path after unix:")
        return Address(text, path, "", 0)
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r}: neither unix:/path nor host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address goes into brackets")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: the port must be 1 to 65535")
    return Address(text, None, host, int(port))


class UnixHTTPConnection(http.client.HTTPConnection):
    """An HTTP connection over the Unix socket at `path`."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connects; called by the base class when a request is to go out."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


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
    """Posts batches. Used by one thread at a time; every failure is an OSError or HTTPException."""

    def __init__(self, address: Address, token: str | None) -> None:
        self._address = address
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = "Bearer " + token
        self._deflate = not address.is_local
        self._http: http.client.HTTPConnection | None = None

    def post(self, body: bytes, timeout_s: float = TIMEOUT_S) -> Answer:
        """Sends one batch and reads the answer; a connection found stale is tried anew once."""
        headers = self._headers
        if self._deflate:
            body = zlib.compress(body, 1)
            headers = {**headers, "Content-Encoding": "deflate"}
        reused = self._http is not None
        try:
            return self._exchange(body, headers, timeout_s)
        except _STALE:
            if not reused:
                raise
            return self._exchange(body, headers, timeout_s)

    def close(self) -> None:
        """Closes the connection, if there is one. In a forked child the parent's stays open."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def _open(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._http is None:
            address = self._address
            if address.path is not None:
                self._http = UnixHTTPConnection(address.path, timeout_s)
            else:
                self._http = http.client.HTTPConnection(
                    address.host, address.port, timeout=timeout_s
                )
        elif self._http.sock is not None:
            self._http.sock.settimeout(timeout_s)
        return self._http

    def _exchange(self, body: bytes, headers: dict[str, str], timeout_s: float) -> Answer:
        connection = self._open(timeout_s)
        try:
            connection.request("POST", "/v1/profiles", body, headers)
            response = connection.getresponse()
            data = response.read(ANSWER_BYTES_MAX)
            if response.will_close or not response.isclosed():
                self.close()
            return Answer(response.status, _object(data), _seconds(response))
        except BaseException:
            self.close()
            raise


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(response: http.client.HTTPResponse) -> float | None:
    text = response.getheader("Retry-After") or ""
    return float(text) if text.isascii() and text.isdigit() else None
