"""TLS towards servers: verification, names, sessions, ends, and what the record says of it."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import AppServer, Gateway, StubServer, wait_for
from proxy_tools import (
    OK,
    Connection,
    always,
    ask,
    error_code,
    get,
    read_head,
    request_bytes,
    stored,
)
from proxy_tools import phase as phase_s
from tls_tools import (
    TLS12,
    TLS13,
    Authority,
    TLSConnection,
    days_from_now,
    handshakes,
    listen,
    server_context,
    upstream_tls,
    uvicorn_args,
    wait_reason,
)

GatewayFactory = Callable[..., Gateway]
StubFactory = Callable[..., StubServer]
Handler = Callable[[Any, int], None]
VERSIONS = [pytest.param(TLS12, id="1.2"), pytest.param(TLS13, id="1.3")]
MIB = 1 << 20


def by_tls(context: ssl.SSLContext, handler: Handler) -> Handler:
    """Return a stub handler that shakes hands and hands the encrypted socket to `handler`."""

    def secured(conn: socket.socket, index: int) -> None:
        with contextlib.suppress(ssl.SSLError, OSError):
            # of a copy: the stub ends its own, and with it this one, at the end of a test
            with context.wrap_socket(conn.dup(), server_side=True) as tls:
                handler(tls, index)

    return secured


@pytest.mark.parametrize("version", VERSIONS)
def test_exchange(
    gateway_factory: GatewayFactory,
    stub_factory: StubFactory,
    authority: Authority,
    version: ssl.TLSVersion,
) -> None:
    """The connection is verified by address, kept alive; connecting is split into TCP and TLS."""
    context = server_context(authority.issue("127.0.0.1"), version)
    stub = stub_factory(by_tls(context, always(OK)))
    gateway = gateway_factory([stub.address], upstream=upstream_tls(authority))
    traces = []
    with Connection(gateway.port) as client:
        for _ in range(3):
            client.send(get())
            answer = client.answer()
            assert (answer.status, answer.body) == (200, b"ok")
            traces.append(answer.trace_id)
    first, second = stored(gateway, traces[0]), stored(gateway, traces[1])
    tcp_ns, tls_ns = (first["overlays"][f"connect_{part}_ns"] for part in ("tcp", "tls"))
    assert tcp_ns > 0 and tls_ns > 0
    assert tcp_ns + tls_ns <= phase_s(first, "connect") * 1e9 + 1
    assert second["overlays"]["connect_tcp_ns"] == second["overlays"]["connect_tls_ns"] == 0
    assert second["connection"]["server_reused"]
    assert stub.accepted == 1
    number = "1.2" if version is TLS12 else "1.3"
    assert handshakes(gateway, number, "no", "upstream") == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_are_resumed(
    gateway_factory: GatewayFactory,
    stub_factory: StubFactory,
    authority: Authority,
    version: ssl.TLSVersion,
) -> None:
    """Each further connection goes on with the session of one before it."""
    resumed: list[bool | None] = []

    def handler(conn: ssl.SSLSocket, _index: int) -> None:
        resumed.append(conn.session_reused)
        read_head(conn)
        conn.sendall(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        conn.unwrap()

    context = server_context(authority.issue("127.0.0.1"), version)
    gateway = gateway_factory(
        [stub_factory(by_tls(context, handler)).address], upstream=upstream_tls(authority)
    )
    for _ in range(5):
        assert ask(gateway.port, get()).status == 200
    assert resumed == [False, True, True, True, True]
    number = "1.2" if version is TLS12 else "1.3"
    assert handshakes(gateway, number, "yes", "upstream") == 4


def test_name_asked_for(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """The server is asked for the configured name, or for that of its address; never for an IP."""
    asked: list[str | None] = []
    context = server_context(authority.issue("app.example", "localhost", "127.0.0.1"))
    context.sni_callback = lambda _sock, name, _ctx: asked.append(name)
    stub = stub_factory(by_tls(context, always(OK)))
    for servers, keys in (
        ([stub.address], {"name": "app.example"}),
        ([f"localhost:{stub.port}"], {}),
        ([{"address": stub.address, "tls_name": "app.example"}], {"name": "other.example"}),
        ([stub.address], {}),
    ):
        gateway = gateway_factory(servers, upstream=upstream_tls(authority, **keys))
        assert ask(gateway.port, get()).status == 200
    assert asked == ["app.example", "localhost", "app.example", None]


@pytest.mark.parametrize("fault", ["authority", "name", "address", "expired", "self"])
def test_not_verified(
    gateway_factory: GatewayFactory,
    stub_factory: StubFactory,
    authority: Authority,
    tmp_path: Path,
    fault: str,
) -> None:
    """A certificate that does not hold: 502, named, asked once, and not a byte of the request."""
    stranger = Authority(tmp_path / "stranger", "stranger")
    certificate = {
        "authority": lambda: stranger.issue("app.example"),
        "name": lambda: authority.issue("other.example"),
        "address": lambda: authority.issue("127.0.0.2"),
        "expired": lambda: authority.issue(
            "app.example", not_before=days_from_now(-9), not_after=days_from_now(-1)
        ),
        "self": lambda: stranger.issue("app.example"),
    }[fault]()
    seen: list[bytes] = []

    def handler(conn: ssl.SSLSocket, _index: int) -> None:
        seen.append(conn.recv(10))

    stub = stub_factory(by_tls(server_context(certificate), handler))
    keys = {} if fault == "address" else {"name": "app.example"}
    trusted = None if fault == "self" else authority
    gateway = gateway_factory([stub.address], upstream=upstream_tls(trusted, **keys))
    answer = ask(gateway.port, get())
    assert (answer.status, error_code(answer)) == (502, "upstream_certificate")
    assert stub.accepted == 1
    assert not any(seen)
    wait_reason(gateway, "upstream_certificate")
    exchange = stored(gateway, answer.trace_id)
    assert (exchange["cause"], exchange["died_in"]) == ("upstream_certificate", "connect")


def test_verification_off(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, tmp_path: Path
) -> None:
    """Nothing is checked where verify is false."""
    stranger = Authority(tmp_path / "stranger", "stranger")
    stub = stub_factory(by_tls(server_context(stranger.issue("other.example")), always(OK)))
    gateway = gateway_factory([stub.address], upstream=upstream_tls(None, verify=False))
    assert ask(gateway.port, get()).status == 200


def test_server_in_clear(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """A server that speaks no TLS: 502, named."""

    def handler(conn: socket.socket, _index: int) -> None:
        conn.recv(10)
        conn.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    gateway = gateway_factory([stub_factory(handler).address], upstream=upstream_tls(authority))
    answer = ask(gateway.port, get())
    assert (answer.status, error_code(answer)) == (502, "upstream_tls_failed")


def test_handshake_timeout(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """A server that is silent within the handshake has connect_timeout_ms: 504, named."""

    def handler(conn: socket.socket, _index: int) -> None:
        while conn.recv(65536):
            pass

    keys = {**upstream_tls(authority), "connect_timeout_ms": 300, "retries": 0}
    gateway = gateway_factory([stub_factory(handler).address], upstream=keys)
    start = time.monotonic()
    answer = ask(gateway.port, get())
    assert (answer.status, error_code(answer)) == (504, "upstream_tls_timeout")
    assert 0.25 < time.monotonic() - start < 3


def test_failed_handshake_is_tried_again(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """A connection that breaks within the handshake took nothing of the request: the next does."""
    context = server_context(authority.issue("127.0.0.1"))

    def handler(conn: socket.socket, index: int) -> None:
        if index == 0:
            conn.recv(10)
            return
        by_tls(context, always(OK))(conn, index)

    stub = stub_factory(handler)
    gateway = gateway_factory([stub.address], upstream=upstream_tls(authority))
    assert ask(gateway.port, request_bytes("POST", "/", body=b"once")).status == 200
    assert stub.accepted == 2


BODY = b"x" * 50_000
UNTIL_END = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("clean", [True, False])
def test_end_of_an_answer(
    gateway_factory: GatewayFactory,
    stub_factory: StubFactory,
    authority: Authority,
    version: ssl.TLSVersion,
    clean: bool,
) -> None:
    """A body that only the end delimits is whole with close_notify; with a bare FIN it is cut."""

    def handler(conn: ssl.SSLSocket, _index: int) -> None:
        read_head(conn)
        conn.sendall(UNTIL_END)
        if clean:
            conn.unwrap()
        else:
            # the socket below is closed without a word
            os.close(conn.detach())

    context = server_context(authority.issue("127.0.0.1"), version)
    gateway = gateway_factory(
        [stub_factory(by_tls(context, handler)).address], upstream=upstream_tls(authority)
    )
    if clean:
        assert ask(gateway.port, get()).body == BODY
        return
    with pytest.raises((EOFError, ConnectionResetError)):
        ask(gateway.port, get())
    wait_reason(gateway, "upstream_truncated")


def test_answer_damaged_on_the_way(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """A record that does not verify cuts the answer and is named."""
    context = server_context(authority.issue("127.0.0.1"))

    def handler(conn: ssl.SSLSocket, _index: int) -> None:
        read_head(conn)
        fd = conn.detach()
        os.write(fd, b"\x17\x03\x03" + struct.pack(">H", 64) + os.urandom(64))
        time.sleep(0.2)
        os.close(fd)

    gateway = gateway_factory(
        [stub_factory(by_tls(context, handler)).address], upstream=upstream_tls(authority)
    )
    answer = ask(gateway.port, get())
    assert (answer.status, error_code(answer)) == (502, "upstream_tls_fault")


def test_idle_connection_is_left_on_close_notify(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """A server's close_notify on an idle connection ends it before the next request needs it."""
    context = server_context(authority.issue("127.0.0.1"))

    def handler(conn: ssl.SSLSocket, _index: int) -> None:
        read_head(conn)
        conn.sendall(OK)
        time.sleep(0.1)
        conn.unwrap()

    stub = stub_factory(by_tls(context, handler))
    gateway = gateway_factory([stub.address], upstream=upstream_tls(authority))
    with Connection(gateway.port) as client:
        for expected in (1, 2):
            client.send(request_bytes("POST", "/", body=b"x"))
            assert client.answer().status == 200
            assert stub.accepted == expected
            time.sleep(0.3)


def test_uvicorn(
    gateway_factory: GatewayFactory,
    uvicorn_factory: Callable[..., AppServer],
    authority: Authority,
) -> None:
    """The real uvicorn with a certificate: 1 MiB both ways, kept alive, streams, clean stop."""
    certificate = authority.issue("127.0.0.1")
    app = uvicorn_factory(
        "proxy_app:app",
        args=uvicorn_args(certificate),
    )
    gateway = gateway_factory([app.address], upstream=upstream_tls(authority))
    body = os.urandom(MIB)
    for _ in range(3):
        answer = ask(gateway.port, request_bytes("POST", "/echo", body=body))
        assert answer.body == body
    with Connection(gateway.port) as client:
        for _ in range(5):
            client.send(get("/"))
            assert client.answer().status == 200
    assert ask(gateway.port, get("/stream")).status == 200


def _exchange(sock: socket.socket, request: bytes, silent_s: float) -> bytes:
    """Send and read at a time, in one thread (an SSL object is not for two); read late if asked.

    Returns the payload of a chunked answer, read to the end of the connection.
    """
    sock.setblocking(False)
    data, start, rest = bytearray(), time.monotonic(), memoryview(request)
    while time.monotonic() - start < 30:
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            rest = rest[sock.send(rest[:65536]) :] if rest else rest
        if time.monotonic() - start < silent_s:
            continue
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            part = sock.recv(65536)
            data += part
            if not part:
                break
    body, chunks = b"", bytes(data).partition(b"\r\n\r\n")[2]
    while size := int(chunks.partition(b"\r\n")[0], 16):
        at = chunks.index(b"\r\n") + 2
        body, chunks = body + chunks[at : at + size], chunks[at + size + 2 :]
    return body


def test_tls_on_both_sides(
    gateway_factory: GatewayFactory,
    uvicorn_factory: Callable[..., AppServer],
    authority: Authority,
) -> None:
    """1 MiB through TLS on both sides, while a slow reader makes it wait."""
    certificate = authority.issue("127.0.0.1", "app.example")
    app = uvicorn_factory(
        "proxy_app:app",
        args=uvicorn_args(certificate),
    )
    gateway = gateway_factory(
        [app.address], listener=listen(certificate), upstream=upstream_tls(authority)
    )
    body = os.urandom(4 * MIB)
    for slow in (False, True):
        with TLSConnection(gateway.port, authority.client_context()) as client:
            request = request_bytes("POST", "/echo", "Connection: close", body=body)
            assert _exchange(client.sock, request, 0.5 if slow else 0) == body


def test_health_checks(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority, tmp_path: Path
) -> None:
    """Health checks speak TLS too, and a certificate that does not hold is down."""
    asked: list[bytes] = []

    def handler(conn: ssl.SSLSocket, _index: int) -> None:
        asked.append(read_head(conn))
        conn.sendall(OK)
        conn.unwrap()

    stranger = Authority(tmp_path / "stranger", "stranger")
    good = stub_factory(by_tls(server_context(authority.issue("127.0.0.1")), handler))
    bad = stub_factory(by_tls(server_context(stranger.issue("127.0.0.1")), handler))
    health = {"path": "/up", "interval_ms": 100, "timeout_ms": 1000, "rise": 1, "fall": 2}
    gateway = gateway_factory(
        [good.address, bad.address], upstream={**upstream_tls(authority), "health": health}
    )
    wait_for(lambda: len([head for head in asked if b"GET /up " in head]) >= 3, 10, "checks")
    wait_for(lambda: f"server {bad.address} is down" in gateway.log(), 10, "the stranger down")
    assert f"server {good.address} is down" not in gateway.log()
    for _ in range(6):
        assert ask(gateway.port, get()).status == 200
