"""PROXY protocol on a listener: both versions, in pieces, refusals, and whose address counts."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import Gateway, StubServer
from proxy_tools import OK, Connection, always, get, read_head, stored
from tls_tools import Authority, TLSConnection, listen, raw_connection, wait_reason

GatewayFactory = Callable[..., Gateway]
StubFactory = Callable[..., StubServer]
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v1(source: str, port: int, family: str = "TCP4") -> bytes:
    """Return a header of version 1."""
    destination = "10.0.0.1" if family == "TCP4" else "fe80::1"
    return f"PROXY {family} {source} {destination} {port} 443\r\n".encode()


def v2(source: str, port: int, *, command: int = 0x21, tlvs: bytes = b"") -> bytes:
    """Return a header of version 2 for either family."""
    six = ":" in source
    family = socket.AF_INET6 if six else socket.AF_INET
    other = "fe80::1" if six else "10.0.0.1"
    data = socket.inet_pton(family, source) + socket.inet_pton(family, other)
    data += struct.pack(">HH", port, 443) + tlvs
    return SIGNATURE + struct.pack(">BBH", command, 0x21 if six else 0x11, len(data)) + data


@pytest.fixture
def heads() -> list[bytes]:
    """Return what the app was sent, in order."""
    return []


@pytest.fixture
def start(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, heads: list[bytes]
) -> Callable[..., Gateway]:
    """Return a starter of gateways whose listener wants the header."""

    def handler(conn: socket.socket, _index: int) -> None:
        while True:
            heads.append(read_head(conn))
            conn.sendall(OK)

    def make(**sections: Any) -> Gateway:
        listener = {"proxy_protocol": True, **sections.pop("listener", {})}
        return gateway_factory([stub_factory(handler).address], listener=listener, **sections)

    return make


@pytest.mark.parametrize(
    ("header", "source", "port"),
    [
        (v1("192.0.2.7", 50001), "192.0.2.7", 50001),
        (v1("2001:db8::7", 50002, "TCP6"), "2001:db8::7", 50002),
        (v2("192.0.2.8", 50003), "192.0.2.8", 50003),
        (v2("2001:db8::8", 50004, tlvs=b"\x04\x00\x02hi"), "2001:db8::8", 50004),
    ],
)
def test_source(
    start: Callable[..., Gateway], heads: list[bytes], header: bytes, source: str, port: int
) -> None:
    """The address told counts as the client's: to the app and in the record, for every request."""
    gateway = start()
    with Connection(gateway.port) as client:
        client.send(header + get())
        trace = client.answer().trace_id
        client.send(get())
        assert client.answer().status == 200
    for head in heads:
        assert f"\r\nX-Forwarded-For: {source}\r\n".encode() in head
    text = f"[{source}]" if ":" in source else source
    assert stored(gateway, trace)["connection"]["client"] == f"{text}:{port}"


@pytest.mark.parametrize(
    "header",
    [b"PROXY UNKNOWN\r\n", v2("192.0.2.9", 1, command=0x20), SIGNATURE + b"\x21\0\0\0"],
)
def test_own_connection(start: Callable[..., Gateway], heads: list[bytes], header: bytes) -> None:
    """LOCAL and UNKNOWN: the connection speaks for itself."""
    gateway = start()
    with Connection(gateway.port) as client:
        client.send(header + get())
        assert client.answer().status == 200
    assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in heads[0]


def test_split_at_every_byte(start: Callable[..., Gateway], heads: list[bytes]) -> None:
    """Wherever the header is split, what follows is the request."""
    gateway = start()
    headers = [v1("192.0.2.7", 1234), v2("192.0.2.7", 1234)]
    for header in headers:
        for at in range(1, len(header) + 1):
            with Connection(gateway.port) as client:
                client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.send(header[:at])
                time.sleep(0.002)
                client.send(header[at:] + get())
                assert client.answer().status == 200
    assert len(heads) == sum(len(header) for header in headers)
    assert all(b"\r\nX-Forwarded-For: 192.0.2.7\r\n" in head for head in heads)


def _closed(gateway: Gateway, data: bytes, fin: bool = False) -> None:
    # a peer that is not trusted is reset at once: any of these may be the call that hears of it
    with (
        contextlib.suppress(ConnectionResetError, BrokenPipeError),
        raw_connection(gateway.port) as raw,
    ):
        raw.sendall(data)
        if fin:
            raw.shutdown(socket.SHUT_WR)
        assert raw.recv(1000) == b""


def test_refusals(start: Callable[..., Gateway], heads: list[bytes]) -> None:
    """No header, or a bad, too large or cut one: nothing is answered and all is counted."""
    gateway = start(limits={"head_timeout_ms": 400})
    bad = [
        get(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n" + get(),
        SIGNATURE + b"\x21\x12\x00\x0c" + b"\0" * 12 + get(),
        b"\x16\x03\x01\x00\x05hello",
    ]
    for data in bad:
        _closed(gateway, data)
    wait_reason(gateway, "proxy_header_bad", len(bad))
    _closed(gateway, b"PROXY UNKNOWN " + b"x" * 200)
    _closed(gateway, SIGNATURE + b"\x21\x11\xff\xff")
    wait_reason(gateway, "proxy_header_too_large", 2)
    _closed(gateway, v2("192.0.2.7", 1)[:-1], fin=True)
    wait_reason(gateway, "proxy_header_cut")
    _closed(gateway, b"PROXY TCP4 1.2.3")  # and then nothing
    _closed(gateway, b"")
    wait_reason(gateway, "proxy_header_timeout", 2)
    _closed(gateway, b"", fin=True)
    wait_reason(gateway, "client_closed")
    assert heads == []


def test_trusted_only(start: Callable[..., Gateway], heads: list[bytes]) -> None:
    """With trusted_proxies only its peers may connect, and forwarding headers go by the source."""
    gateway = start(listener={"trusted_proxies": ["10.0.0.0/8"]})
    _closed(gateway, v1("192.0.2.7", 1) + get())
    wait_reason(gateway, "proxy_header_untrusted")
    assert heads == []
    gateway = start(listener={"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]})
    for source, kept in (("192.0.2.7", False), ("10.1.2.3", True)):
        with Connection(gateway.port) as client:
            client.send(v1(source, 1) + get("/", "X-Forwarded-For: 198.51.100.1"))
            assert client.answer().status == 200
        assert (b"198.51.100.1" in heads[-1]) is kept
        assert source.encode() in heads[-1]


@pytest.mark.parametrize("together", [True, False])
def test_before_tls(
    start: Callable[..., Gateway], heads: list[bytes], authority: Authority, together: bool
) -> None:
    """The header comes before TLS, be it in one segment with the client's hello or not."""
    gateway = start(listener=listen(authority.issue("app.example")))
    context = authority.client_context()
    header = v2("192.0.2.7", 1)
    if together:
        from tls_tools import RecordClient

        class Prefixed(RecordClient):
            def flush(self) -> None:
                data, self.before = self._out.read(), getattr(self, "before", header)
                self.raw.sendall(self.before + data)
                self.before = b""

        client = Prefixed(gateway.port, context)
        client.raw.sendall(client.record(get()))
        assert b"\r\n\r\nok" in client.read()
        client.close()
    else:
        with TLSConnection(gateway.port, context, before=header) as secure:
            secure.send(get())
            assert secure.answer().status == 200
    assert b"\r\nX-Forwarded-For: 192.0.2.7\r\n" in heads[0]
    assert b"\r\nX-Forwarded-Proto: https\r\n" in heads[0]


def test_pipelined_behind(start: Callable[..., Gateway], heads: list[bytes]) -> None:
    """Several requests in the header's segment are all answered."""
    gateway = start()
    with Connection(gateway.port) as client:
        client.send(v2("192.0.2.7", 1) + get() * 5)
        for _ in range(5):
            assert client.answer().status == 200
    assert len(heads) == 5


def test_not_wanted(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """To a listener without proxy_protocol the header is a request with an unknown method."""
    gateway = gateway_factory([stub_factory(always(OK)).address])
    with Connection(gateway.port) as client:
        client.send(v1("192.0.2.7", 1) + get())
        assert client.answer().status == 501


def test_limit_by_source(start: Callable[..., Gateway]) -> None:
    """limits.connections_per_address goes by the address told, not by the balancer's."""
    gateway = start(limits={"connections_per_address": 2})
    kept = []
    for source in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"):
        client = Connection(gateway.port)
        client.send(v2(source, 1) + get())
        assert client.answer().status == 200
        kept.append(client)
    with Connection(gateway.port) as client:
        client.send(v2("192.0.2.1", 2) + get())
        with contextlib.suppress(EOFError, ConnectionResetError):
            assert client.answer().status in (429, 503)
    wait_reason(gateway, "address_limit")
    kept.pop(0).sock.close()
    time.sleep(0.3)
    with Connection(gateway.port) as client:
        client.send(v2("192.0.2.1", 3) + get())
        assert client.answer().status == 200
    for client in kept:
        client.sock.close()
