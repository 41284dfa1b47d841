"""TLS towards clients: versions, names, certificates, sessions, refusals, limits."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import ONE_THREAD, Gateway, StubServer, free_port, wait_for
from proxy_tools import OK, always, ask, get, read_head, request_bytes, stored
from tls_tools import (
    HTTP,
    TLS12,
    TLS13,
    Authority,
    TLSConnection,
    counter,
    days_from_now,
    handshakes,
    listen,
    raw_connection,
    server_context,
    wait_reason,
)

GatewayFactory = Callable[..., Gateway]
StubFactory = Callable[..., StubServer]
Served = tuple[Gateway, Authority]
VERSIONS = [pytest.param(TLS12, id="1.2"), pytest.param(TLS13, id="1.3")]
MIB = 1 << 20


@pytest.mark.parametrize("version", VERSIONS)
def test_exchanges(served: Served, version: ssl.TLSVersion) -> None:
    """Exchanges by both versions over one connection, and what the record says of the handshake."""
    gateway, authority = served
    with TLSConnection(gateway.port, authority.client_context(version, protocols=HTTP)) as client:
        assert client.sock.selected_alpn_protocol() == "http/1.1"
        assert client.sock.compression() is None
        traces = []
        for _ in range(3):
            client.send(get())
            answer = client.answer()
            assert (answer.status, answer.body) == (200, b"ok")
            traces.append(answer.trace_id)
        name = client.sock.version()
    assert name == {TLS12: "TLSv1.2", TLS13: "TLSv1.3"}[version]
    first, second = stored(gateway, traces[0]), stored(gateway, traces[1])
    assert 0 < first["overlays"]["tls_handshake_ns"] < 5e9
    assert second["overlays"]["tls_handshake_ns"] == 0
    assert handshakes(gateway, "1.2" if version is TLS12 else "1.3", "no") == 1


def test_app_sees_https(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """The app is told that the client came by TLS."""
    heads: list[bytes] = []

    def handler(conn: socket.socket, _index: int) -> None:
        heads.append(read_head(conn))
        conn.sendall(OK)

    gateway = gateway_factory(
        [stub_factory(handler).address], listener=listen(authority.issue("app.example"))
    )
    with TLSConnection(gateway.port, authority.client_context()) as client:
        client.send(get("/", "X-Forwarded-Proto: http"))
        assert client.answer().status == 200
    assert b"\r\nX-Forwarded-Proto: https\r\n" in heads[0]
    assert heads[0].count(b"X-Forwarded-Proto") == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_resumption(
    gateway_factory: GatewayFactory,
    stub_factory: StubFactory,
    authority: Authority,
    version: ssl.TLSVersion,
) -> None:
    """A session goes on with tickets, also with the worker that follows one that was killed."""
    gateway = gateway_factory(
        [stub_factory(always(OK)).address], listener=listen(authority.issue("app.example"))
    )
    context = authority.client_context(version)
    number = "1.2" if version is TLS12 else "1.3"

    def visit(session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession | None]:
        with TLSConnection(gateway.port, context, session=session) as client:
            client.send(get())
            assert client.answer().status == 200
            return client.sock.session_reused, client.sock.session

    reused, session = visit(None)
    assert not reused
    for _ in range(3):
        before = session
        reused, session = visit(session)
        assert reused and before is not None and session is not None
        # A client of TLS 1.3 uses a ticket once, and is given another each time.
        assert (session.id == before.id) == (version is TLS12)
    assert (handshakes(gateway, number, "no"), handshakes(gateway, number, "yes")) == (1, 3)
    (worker,) = gateway.worker_pids()
    os.kill(worker, signal.SIGKILL)
    wait_for(
        lambda: gateway.worker_pids() not in ([], [worker]) and gateway.log().count("ready") >= 1,
        10,
        "another worker",
    )

    def again() -> tuple[bool | None, ssl.SSLSession | None] | None:
        try:
            return visit(session)
        except OSError:
            return None

    assert wait_for(again, 10, "served again")[0]


def test_names(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """The certificate goes by the name asked for: exact, wildcard, else the first; RSA or ECDSA."""
    gateway = gateway_factory(
        [stub_factory(always(OK)).address],
        listener=listen(
            authority.issue("first.example"),
            authority.issue("*.wild.example"),
            authority.issue("one.wild.example"),
            authority.issue("both.example", rsa=True),
            authority.issue("both.example"),
        ),
    )
    context = authority.client_context()
    context.check_hostname = False

    def names(asked: str, ciphers: str | None = None) -> tuple[list[str], str]:
        own = authority.client_context(TLS12 if ciphers else None)
        own.check_hostname = False
        if ciphers:
            own.set_ciphers(ciphers)
        with TLSConnection(gateway.port, own, asked) as client:
            client.send(get())
            assert client.answer().status == 200
            found: Any = client.sock.getpeercert()
            cipher = client.sock.cipher()
            assert cipher is not None
            return [value for _, value in found["subjectAltName"]], cipher[0]

    assert names("first.example")[0] == ["first.example"]
    assert names("two.wild.example")[0] == ["*.wild.example"]
    assert names("one.wild.example")[0] == ["one.wild.example"]
    assert names("ONE.Wild.Example")[0] == ["one.wild.example"]
    assert names("a.b.wild.example")[0] == ["first.example"]
    assert names("wild.example")[0] == ["first.example"]
    assert names("unknown.example")[0] == ["first.example"]
    assert names("both.example", "ECDHE-RSA-AES128-GCM-SHA256")[1].startswith("ECDHE-RSA")
    assert names("both.example", "ECDHE-ECDSA-AES128-GCM-SHA256")[1].startswith("ECDHE-ECDSA")


def _refused(gateway: Gateway, context: ssl.SSLContext) -> str:
    """Return how the handshake or the first answer fails (TLS 1.3 tells a client only then)."""
    try:
        with TLSConnection(gateway.port, context) as client:
            client.send(get())
            client.answer()
    except (ssl.SSLError, EOFError, ConnectionError) as error:
        return str(error)
    raise AssertionError("accepted")


@pytest.mark.parametrize("version", VERSIONS)
def test_client_certificates(
    gateway_factory: GatewayFactory,
    stub_factory: StubFactory,
    tmp_path: Path,
    authority: Authority,
    version: ssl.TLSVersion,
) -> None:
    """Only a good certificate of the authority gets in; each refusal has its reason."""
    clients = Authority(tmp_path / "clients", "clients")
    gateway = gateway_factory(
        [stub_factory(always(OK)).address],
        listener=listen(authority.issue("app.example"), client_ca_file=str(clients.ca_file)),
    )

    def context(certificate: dict[str, str] | None) -> ssl.SSLContext:
        return authority.client_context(version, certificate=certificate)

    good = context(clients.issue("someone@example.org"))
    session = None
    for _ in range(2):
        with TLSConnection(gateway.port, good, session=session) as client:
            client.send(get())
            assert client.answer().status == 200
            session = client.sock.session
    _refused(gateway, context(None))
    wait_reason(gateway, "tls_certificate_missing")
    assert "unknown" in _refused(gateway, context(authority.issue("someone@example.org")))
    old = clients.issue("a@example.org", not_before=days_from_now(-9), not_after=days_from_now(-1))
    assert "expired" in _refused(gateway, context(old))
    wait_reason(gateway, "tls_certificate_refused", 2)


def test_session_does_not_carry_over(
    gateway_factory: GatewayFactory,
    stub_factory: StubFactory,
    tmp_path: Path,
    authority: Authority,
) -> None:
    """A session got without a certificate opens nothing where certificates are demanded."""
    clients = Authority(tmp_path / "clients", "clients")
    certificate = authority.issue("app.example")
    ports = [free_port(), free_port()]
    strict = listen(certificate, client_ca_file=str(clients.ca_file))
    gateway = gateway_factory(
        [stub_factory(always(OK)).address],
        listeners=[
            {"address": f"127.0.0.1:{ports[0]}", **listen(certificate)},
            {"address": f"127.0.0.1:{ports[1]}", **strict},
        ],
    )
    context = authority.client_context(TLS12)
    with TLSConnection(ports[0], context) as client:
        session = client.sock.session
    with TLSConnection(ports[0], context, session=session) as client:
        assert client.sock.session_reused
    with pytest.raises((ssl.SSLError, OSError, EOFError)):
        with TLSConnection(ports[1], context, session=session) as client:
            client.send(get())
            client.answer()
    wait_reason(gateway, "tls_certificate_missing")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_no_old_versions(served: Served) -> None:
    """TLS 1.1 is refused by name."""
    gateway, authority = served
    context = authority.client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    _refused(gateway, context)
    wait_reason(gateway, "tls_version")


def test_nothing_shared(served: Served) -> None:
    """A client that knows only ciphers without forward secrecy is refused by name."""
    gateway, authority = served
    context = authority.client_context(TLS12)
    context.set_ciphers("AES128-SHA")
    _refused(gateway, context)
    wait_reason(gateway, "tls_nothing_shared")


def test_other_protocols(served: Served) -> None:
    """A client that speaks only HTTP/2 is told so; one that also speaks 1.1 is served."""
    gateway, authority = served
    assert "protocol" in _refused(gateway, authority.client_context(protocols=["h2"])).lower()
    wait_reason(gateway, "tls_protocol")
    context = authority.client_context(protocols=["h2", "http/1.1"])
    with TLSConnection(gateway.port, context) as client:
        client.send(get())
        assert client.answer().status == 200


def test_untrusting_client(served: Served, tmp_path: Path) -> None:
    """A client that does not trust our certificate breaks off, and that is what is counted."""
    gateway, _ = served
    stranger = Authority(tmp_path / "stranger", "stranger")
    with pytest.raises(ssl.SSLCertVerificationError):
        TLSConnection(gateway.port, stranger.client_context())
    wait_reason(gateway, "tls_alert")


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "CONNECT", "PATCH"])
def test_plain_http(served: Served, method: str) -> None:
    """A request in clear is answered in clear: use https."""
    gateway, _ = served
    answer = ask(gateway.port, request_bytes(method, "/"))
    assert answer.status == 400
    assert json.loads(answer.body)["error"]["code"] == "tls_plain_http"
    wait_reason(gateway, "tls_plain_http")


def test_rubbish(served: Served) -> None:
    """What is neither TLS nor HTTP is closed and counted."""
    gateway, _ = served
    with raw_connection(gateway.port) as raw:
        raw.sendall(b"\x00\x01\x02\x03" * 16)
        while raw.recv(4096):
            pass

    def found() -> int:
        text = gateway.api("/metrics")[2].decode()
        names = ("tls_version", "tls_failed")
        return sum(counter(text, f'tailrace_closes_total{{reason="{name}"}}') for name in names)

    wait_for(lambda: found() > 0, 5, "the close counted")
    assert found() == 1


def test_slow_handshake(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """A handshake has limits.head_timeout_ms, be it silent or stopped in the middle."""
    gateway = gateway_factory(
        [stub_factory(always(OK)).address],
        listener=listen(authority.issue("app.example")),
        limits={"head_timeout_ms": 400},
    )
    hello = _client_hello(authority)
    for sent in (b"", hello[:40], hello):
        with raw_connection(gateway.port) as raw:
            start = time.monotonic()
            if sent:
                raw.sendall(sent)
            while raw.recv(65536):
                pass
            assert 0.35 < time.monotonic() - start < 3
    wait_reason(gateway, "tls_timeout", 3)


def _client_hello(authority: Authority) -> bytes:
    read, write = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = authority.client_context().wrap_bio(read, write, server_hostname="app.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return write.read()


def test_cut_handshake(served: Served) -> None:
    """A client that goes within the handshake, at every tenth byte of its hello, is counted so."""
    gateway, authority = served
    hello = _client_hello(authority)
    cuts = range(1, len(hello), 10)
    for length in cuts:
        with raw_connection(gateway.port) as raw:
            raw.sendall(hello[:length])
    wait_reason(gateway, "tls_cut", len(cuts))
    with TLSConnection(gateway.port, authority.client_context()) as client:
        client.send(get())
        assert client.answer().status == 200


def test_handshake_limit(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """At the limit a new handshake is refused, but one that dawdles for a second makes room."""
    gateway = gateway_factory(
        [stub_factory(always(OK)).address],
        listener=listen(authority.issue("app.example")),
        limits={"tls_handshakes": 4},
        worker=ONE_THREAD,  # they share the limit out
    )
    context = authority.client_context()
    silent = [raw_connection(gateway.port) for _ in range(4)]

    def under_way() -> int:
        text = gateway.api("/metrics")[2].decode()
        return counter(text, "tailrace_tls_handshakes_in_flight")

    wait_for(lambda: under_way() == 4, 5, "four handshakes")
    with pytest.raises((ssl.SSLError, OSError)):
        TLSConnection(gateway.port, context)
    wait_reason(gateway, "tls_limit", 1)
    time.sleep(1.1)
    with TLSConnection(gateway.port, context) as client:
        client.send(get())
        assert client.answer().status == 200
    assert silent[0].recv(1) == b""
    wait_reason(gateway, "tls_limit", 2)
    for sock in silent:
        sock.close()
    wait_for(lambda: under_way() == 0, 5, "no handshake left")


def test_threads(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """Contexts, tickets and sessions serve several threads at a time, on both sides."""
    context = server_context(authority.issue("127.0.0.1"))

    def handler(conn: socket.socket, _index: int) -> None:
        with contextlib.suppress(OSError):
            tls = context.wrap_socket(conn, server_side=True)
            read_head(tls)
            tls.sendall(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            tls.unwrap()

    gateway = gateway_factory(
        [stub_factory(handler).address],
        listener=listen(authority.issue("app.example"), authority.issue("other.example")),
        upstream={"tls": {"ca_file": str(authority.ca_file)}},
        worker={"threads": 3},
    )
    failed: list[BaseException] = []

    def visit(name: str) -> None:
        try:
            own = authority.client_context()
            session = None
            for _ in range(15):
                with TLSConnection(gateway.port, own, name, session=session) as client:
                    client.send(get())
                    assert client.answer().status == 200
                    assert client.sock.session_reused is (session is not None)
                    session = client.sock.session
        except BaseException as error:
            failed.append(error)

    names = ["app.example", "other.example"] * 4
    visitors = [threading.Thread(target=visit, args=(name,)) for name in names]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(60)
    assert not failed, failed
    assert handshakes(gateway, "1.3", "no") == len(names)
    assert handshakes(gateway, "1.3", "yes") == 14 * len(names)
