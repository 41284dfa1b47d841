"""TLS pieces of the tests: an authority and its certificates, connections, scripted servers."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme
from harness import Gateway, wait_for
from proxy_tools import Connection

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
HTTP = ["http/1.1"]


def days_from_now(days: float) -> datetime.datetime:
    """Return the time so many days from now, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)


class Authority:
    """A certificate authority of its own in a folder, and what it issues, as PEM files."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        """Make the authority; its certificate is `ca_file`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._ca = trustme.CA(organization_name=name)
        self._folder = folder
        self._count = 0
        self.ca_file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)

    def issue(
        self,
        *names: str,
        rsa: bool = False,
        not_before: datetime.datetime | None = None,
        not_after: datetime.datetime | None = None,
    ) -> dict[str, str]:
        """Return the config's entry of a new certificate for `names` (ECDSA unless `rsa`)."""
        kind = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
        issued = self._ca.issue_cert(
            *names,
            key_type=kind,
            not_before=not_before,
            not_after=not_after or days_from_now(90),
        )
        self._count += 1
        path = self._folder / f"{self.ca_file.stem}-{self._count}.pem"
        key = path.with_suffix(".key")
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(path, append=number > 0)
        issued.private_key_pem.write_to_path(key)
        return {"certificate_file": str(path), "key_file": str(key)}

    def client_context(
        self,
        version: ssl.TLSVersion | None = None,
        *,
        certificate: dict[str, str] | None = None,
        protocols: list[str] | None = None,
    ) -> ssl.SSLContext:
        """Return a client's context that trusts this authority only."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if certificate is not None:
            context.load_cert_chain(certificate["certificate_file"], certificate["key_file"])
        if protocols is not None:
            context.set_alpn_protocols(protocols)
        return context


def server_context(
    certificate: dict[str, str], version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """Return a scripted server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate["certificate_file"], certificate["key_file"])
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class TLSConnection(Connection):
    """A client connection by TLS; `sock` is the ssl.SSLSocket."""

    sock: ssl.SSLSocket

    def __init__(
        self,
        port: int,
        context: ssl.SSLContext,
        name: str = "app.example",
        *,
        before: bytes = b"",
        session: ssl.SSLSession | None = None,
        timeout_s: float = 10,
    ) -> None:
        """Connect, send `before` in clear, shake hands. Raises ssl.SSLError, OSError."""
        super().__init__(port, timeout_s)
        raw = self.sock
        if before:
            raw.sendall(before)
        try:
            self.sock = context.wrap_socket(raw, server_hostname=name, session=session)
        except BaseException:
            raw.close()
            raise


def raw_connection(port: int, timeout_s: float = 10) -> socket.socket:
    """Return a TCP connection to the port."""
    return socket.create_connection(("127.0.0.1", port), timeout_s)


class RecordClient:
    """A client whose records are made here and sent by hand, split as a test likes."""

    def __init__(self, port: int, context: ssl.SSLContext, name: str = "app.example") -> None:
        """Connect and shake hands."""
        self.raw = raw_connection(port)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=name)
        self._pump(self._tls.do_handshake)

    def _pump(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self.flush()
                chunk = self.raw.recv(65536)
                if chunk:
                    self._in.write(chunk)
                else:
                    self._in.write_eof()
                continue
            self.flush()
            return result

    def flush(self) -> None:
        """Send what waits."""
        if data := self._out.read():
            self.raw.sendall(data)

    def record(self, data: bytes) -> bytes:
        """Return the bytes on the wire of `data`, not sent yet."""
        self._tls.write(data)
        return self._out.read()

    def read(self, size: int = 65536) -> bytes:
        """Return what the peer sent next, b"" at its close_notify."""
        try:
            return bytes(self._pump(lambda: self._tls.read(size)))
        except ssl.SSLZeroReturnError:
            return b""

    def close(self) -> None:
        """Close the socket without close_notify."""
        self.raw.close()


def counter(metrics: str, sample: str) -> int:
    """Return the value of one sample of /metrics, 0 where it is not there."""
    for line in metrics.splitlines():
        name, _, value = line.rpartition(" ")
        if name == sample:
            return int(value)
    return 0


def listen(*certificates: dict[str, str], **more: Any) -> dict[str, Any]:
    """Return listener keys for these certificates."""
    return {"tls": {"certificates": list(certificates), **more}}


def reason(gateway: Gateway, name: str) -> int:
    """Return how often connections were closed for this reason."""
    text = gateway.api("/metrics")[2].decode()
    return counter(text, f'tailrace_closes_total{{reason="{name}"}}')


def wait_reason(gateway: Gateway, name: str, times: int = 1) -> None:
    """Return once the reason was counted so often."""
    wait_for(lambda: reason(gateway, name) >= times, 5, f"{times} closes for {name}")
    assert reason(gateway, name) == times


def handshakes(gateway: Gateway, version: str, resumed: str, side: str = "client") -> int:
    """Return the count of handshakes of one kind."""
    labels = f'side="{side}",version="{version}",resumed="{resumed}"'
    text = gateway.api("/metrics")[2].decode()
    return counter(text, f"tailrace_tls_handshakes_total{{{labels}}}")


def uvicorn_args(certificate: dict[str, str]) -> list[str]:
    """Return the arguments that make uvicorn speak TLS."""
    files = certificate["certificate_file"], certificate["key_file"]
    return ["--ssl-certfile", files[0], "--ssl-keyfile", files[1]]


def upstream_tls(authority: Authority | None, **keys: Any) -> dict[str, Any]:
    """Return upstream keys that trust an authority."""
    trusted = {} if authority is None else {"ca_file": str(authority.ca_file)}
    return {"tls": {**trusted, **keys}}
