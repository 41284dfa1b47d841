"""Expect, trailers, Forwarded, error pages, rates and limits of addresses and routes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Gateway, StubServer, wait_for
from proxy_tools import (
    OK,
    Connection,
    always,
    ask,
    error_code,
    get,
    last_cause,
    read_head,
    request_bytes,
    stored,
    timed,
)

GatewayFactory = Callable[..., Gateway]
StubFactory = Callable[..., StubServer]

EXPECT = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def _ns(exchange: dict[str, Any], name: str) -> float:
    return float(exchange["overlays"][f"{name}_ns"]) / 1e9


# --- Expect: 100-continue ----------------------------------------------------


def test_continue_and_its_overlays(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """The app says when; who waited for whom is told apart."""

    def handler(conn: socket.socket, _index: int) -> None:
        data = read_head(conn)
        assert b"Expect: 100-continue" in data
        time.sleep(0.3)
        conn.sendall(CONTINUE)
        assert conn.recv(100) == b"hello"
        conn.sendall(OK)

    gateway = gateway_factory([stub_factory(handler).address])
    with Connection(gateway.port) as client:
        client.send(EXPECT)
        assert client._until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        time.sleep(0.2)
        client.send(b"hello")
        answer = client.answer()
    assert answer.status == 200
    exchange = stored(gateway, answer.trace_id)
    assert 0.29 < _ns(exchange, "continue_wait") < 3
    assert 0.19 < _ns(exchange, "client_body") < 3


def test_final_answer_instead_of_100(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """The body is never asked for; the client's connection ends with that answer."""
    rest: list[bytes] = []

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        rest.append(conn.recv(100))

    stub = stub_factory(handler)
    gateway = gateway_factory([stub.address])
    with Connection(gateway.port) as client:
        client.send(EXPECT)
        answer = client.answer()
        assert answer.status == 401 and answer.interims == []
        assert answer.headers["connection"] == "close" and client.eof() == b""
    wait_for(lambda: rest == [b""], 5, "the app's connection is closed, no body byte sent")


def test_too_large_is_said_before_the_body(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """413 by Content-Length alone: nothing reaches the app, no body is sent for nothing."""
    stub = stub_factory(always(OK))
    gateway = gateway_factory([stub.address], limits={"body_bytes": 4})
    answer = ask(gateway.port, EXPECT)
    assert answer.status == 413 and error_code(answer) == "body_too_large"
    assert stub.accepted == 0


def test_app_that_never_says_100(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """While the client waits for the app, it is the app that is late: 504, not 408."""

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.recv(100)

    gateway = gateway_factory(
        [stub_factory(handler).address],
        upstream={"response_timeout_ms": 600},
        limits={"body_idle_timeout_ms": 200},
    )
    took, answer = timed(lambda: ask(gateway.port, EXPECT))
    assert answer.status == 504 and error_code(answer) == "upstream_response_timeout"
    assert 0.55 < took < 8


def test_client_that_waits_no_longer(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A client may send its body without the 100 it asked for."""

    def handler(conn: socket.socket, _index: int) -> None:
        data = read_head(conn)
        while not data.endswith(b"hello"):
            data += conn.recv(100)
        conn.sendall(OK)

    gateway = gateway_factory([stub_factory(handler).address])
    with Connection(gateway.port) as client:
        client.send(EXPECT)
        time.sleep(0.2)
        client.send(b"hello")
        assert client.answer().body == b"ok"


def test_expectation_without_a_body(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """Nothing to wait for: it does not go on."""
    seen: list[bytes] = []

    def handler(conn: socket.socket, _index: int) -> None:
        while True:
            seen.append(read_head(conn))
            conn.sendall(OK)

    gateway = gateway_factory([stub_factory(handler).address])
    assert ask(gateway.port, get("/", "Expect: 100-continue")).status == 200
    assert b"expect" not in seen[0].lower()


# --- trailers ----------------------------------------------------------------

ANSWER_WITH_TRAILERS = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Secret\r\n\r\n"
    b"2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Secret: 2\r\n\r\n"
)
REQUEST_WITH_TRAILERS = (
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: gzip, trailers\r\n"
    b"Trailer: X-Secret, x-sum\r\n\r\n2\r\nhi\r\n0\r\nX-Secret: 3\r\nx-sum: 4\r\n\r\n"
)


def _trailing(gateway: Gateway, request: bytes) -> bytes:
    with Connection(gateway.port) as client:
        client.send(request)
        client._until(b"\r\n\r\n")
        client._until(b"2\r\nok\r\n")
        return client._until(b"\r\n\r\n")


@pytest.mark.parametrize("allowed", [False, True])
def test_trailers(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, allowed: bool
) -> None:
    """Dropped unless limits.trailers names them; to clients only where TE says so."""
    seen: list[bytes] = []

    def handler(conn: socket.socket, _index: int) -> None:
        while True:
            data = read_head(conn)
            while data.startswith(b"POST") and b"\r\n0\r\n" not in data:
                data += conn.recv(1000)
            seen.append(data)
            conn.sendall(ANSWER_WITH_TRAILERS)

    limits = {"trailers": ["X-Sum", "x-other"]} if allowed else {}
    gateway = gateway_factory([stub_factory(handler).address], limits=limits)
    assert _trailing(gateway, REQUEST_WITH_TRAILERS) == (b"0\r\nX-Sum: 1" if allowed else b"0")
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    if allowed:
        assert body == b"2\r\nhi\r\n0\r\nx-sum: 4\r\n\r\n"
        assert b"trailer: x-sum" in lines and b"te: trailers" in lines
        assert b"connection: te" in lines
    else:
        assert body == b"2\r\nhi\r\n0\r\n\r\n"
        assert not [line for line in lines if line.startswith((b"te:", b"trailer:"))]
    assert _trailing(gateway, get()) == b"0"  # no TE


def test_trailers_behind_a_large_body(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """They come behind blocks that are not copied, too."""
    body = b"x" * 14000
    text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body)
    text += b"0\r\nX-Sum: 1\r\n\r\n"
    gateway = gateway_factory([stub_factory(always(text)).address], limits={"trailers": ["x-sum"]})
    with Connection(gateway.port) as client:
        for _ in range(3):
            client.send(get("/", "TE: trailers", "Connection: TE"))
            client._until(b"\r\n\r\n")
            got = b""
            while size := int(client._until(b"\r\n"), 16):
                got += client._exactly(size)
                client._until(b"\r\n")
            assert got == body and client._until(b"\r\n\r\n") == b"X-Sum: 1"


# --- Forwarded ---------------------------------------------------------------


def _forwarded(gateway: Gateway, seen: list[bytes], *lines: str) -> list[str]:
    seen.clear()
    assert ask(gateway.port, get("/", *lines)).status == 200
    return [
        line.partition(": ")[2]
        for line in seen[0].decode().split("\r\n")
        if line.lower().startswith("forwarded:")
    ]


def test_forwarded(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """A stranger's is dropped; a trusted proxy's gets our hop; the option writes it always."""
    seen: list[bytes] = []

    def handler(conn: socket.socket, _index: int) -> None:
        while True:
            seen.append(read_head(conn))
            conn.sendall(OK)

    stub = stub_factory(handler)
    own = 'for=127.0.0.1;proto=http;host="test.example"'
    gateway = gateway_factory([stub.address])
    assert _forwarded(gateway, seen, "Forwarded: for=1.2.3.4") == []
    gateway = gateway_factory([stub.address], listener={"forwarded": True})
    assert _forwarded(gateway, seen, "Forwarded: for=1.2.3.4") == [own]
    gateway = gateway_factory([stub.address], listener={"trusted_proxies": ["127.0.0.0/8"]})
    assert _forwarded(gateway, seen) == []
    assert _forwarded(gateway, seen, "Forwarded: for=1.2.3.4", "Forwarded: for=5.6.7.8") == [
        f"for=1.2.3.4, for=5.6.7.8, {own}"
    ]


# --- error pages -------------------------------------------------------------


def test_error_pages(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, tmp_path: Path
) -> None:
    """By status before class, unless the client asks for JSON; at the size limit served."""
    (tmp_path / "404.html").write_text("<h1>nothing here</h1>")
    (tmp_path / "4xx.txt").write_text("x" * 65536)
    (tmp_path / "5xx.json").write_text('{"oops": true}')
    gateway = gateway_factory(
        [stub_factory(always(b"no answer")).address],
        routes=[{"path_prefix": "/app"}],
        error_pages={
            "404": str(tmp_path / "404.html"),
            "4xx": {"file": str(tmp_path / "4xx.txt")},
            "5xx": str(tmp_path / "5xx.json"),
        },
    )
    for lines in ((), ("Accept: text/html, application/json",), ("Accept: */*",)):
        answer = ask(gateway.port, get("/", *lines))
        assert answer.status == 404 and answer.body == b"<h1>nothing here</h1>"
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.trace_id and "content-length" in answer.headers
    for accept in ("application/json", "application/problem+json;q=0.9, text/html"):
        assert error_code(ask(gateway.port, get("/", f"Accept: {accept}"))) == "no_route"
    answer = ask(gateway.port, b"GET / HTTP/1.1\r\n\r\n")
    assert answer.status == 400 and answer.body == b"x" * 65536
    answer = ask(gateway.port, get("/app", "Accept: application/json"))
    assert answer.status == 502 and json.loads(answer.body) == {"oops": True}
    answer = ask(gateway.port, request_bytes("HEAD", "/"), head_only=True)
    assert answer.status == 404 and answer.headers["content-length"] == "21"


@pytest.mark.parametrize(
    "rest", [b"GET /b", b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"]
)
def test_half_closed_with_an_unfinished_request(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, rest: bytes
) -> None:
    """With half_close, what a FIN cut off behind a whole request is given up at once."""
    stub = stub_factory(always(OK))
    gateway = gateway_factory([stub.address], listener={"half_close": True})
    with Connection(gateway.port) as client:
        client.send(get("/a") + rest)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.answer().status == 200
        took, _ = timed(client.eof)
        assert took < 5
    assert stub.accepted == 1
    wait_for(
        lambda: b"tailrace_requests_in_flight 0\n" in gateway.api("/metrics")[2], 5, "none left"
    )


# --- limits ------------------------------------------------------------------


def test_connections_per_address(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """At the maximum served; one past it 503 and the end; another address is not concerned."""
    gateway = gateway_factory(
        [stub_factory(always(OK)).address], limits={"connections_per_address": 3}
    )
    clients = [Connection(gateway.port) for _ in range(3)]
    for client in clients:
        client.send(get())
        assert client.answer().status == 200
    with Connection(gateway.port) as late:
        answer = late.answer()
        assert answer.status == 503 and answer.headers["retry-after"] == "1"
        assert b"too many connections" in answer.body and late.eof() == b""
    other = socket.create_connection(("127.0.0.1", gateway.port), 5, ("127.0.0.2", 0))
    other.sendall(get())
    assert other.recv(1000).startswith(b"HTTP/1.1 200")
    other.close()
    clients.pop().sock.close()

    def served() -> bool:
        with Connection(gateway.port) as client, contextlib.suppress(OSError, EOFError):
            client.send(get())
            return client.answer().status == 200
        return False

    wait_for(served, 5, "the place of the one that went")
    for client in clients:
        client.sock.close()
    assert 'reason="address_limit"} ' in gateway.api("/metrics")[2].decode()


def test_routes_override_limits(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """body_bytes and both timeouts of a route stand before those of limits and upstream."""

    def handler(conn: socket.socket, _index: int) -> None:
        while True:
            if b" /silent" in read_head(conn):
                conn.recv(100)
                return
            conn.sendall(OK)

    gateway = gateway_factory(
        [stub_factory(handler).address],
        limits={"body_bytes": 10},
        routes=[
            {"path_prefix": "/big", "body_bytes": 0},
            {
                "path_prefix": "/silent",
                "response_timeout_ms": 300,
                "body_idle_timeout_ms": 400,
                "body_bytes": 5,
            },
            {"path_prefix": "/"},
        ],
    )
    assert ask(gateway.port, request_bytes("POST", "/", body=b"x" * 10)).status == 200
    assert ask(gateway.port, request_bytes("POST", "/", body=b"x" * 11)).status == 413
    assert ask(gateway.port, request_bytes("POST", "/big", body=b"x" * 999)).status == 200
    assert ask(gateway.port, request_bytes("POST", "/silent", body=b"x" * 6)).status == 413
    took, answer = timed(lambda: ask(gateway.port, get("/silent")))
    assert answer.status == 504 and 0.25 < took < 8
    upload = b"POST /silent HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx"
    took, answer = timed(lambda: ask(gateway.port, upload))
    assert answer.status == 408 and error_code(answer) == "body_timeout" and 0.35 < took < 8


def test_least_rates(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """After ten seconds of waiting a body, or a reader, below the rate is given up; others not."""

    def handler(conn: socket.socket, _index: int) -> None:
        if b" /read" in read_head(conn):
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n")
            with contextlib.suppress(OSError):
                conn.sendall(b"x" * 40000000)
            return
        while chunk := conn.recv(65536):
            if chunk.endswith(b"end"):
                conn.sendall(OK)
                return

    gateway = gateway_factory(
        [stub_factory(handler).address],
        limits={"body_min_bytes_per_s": 1000, "body_idle_timeout_ms": 30000},
    )
    upload = b"POST /%b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    results: dict[str, Any] = {}

    def slow_body() -> None:
        with Connection(gateway.port, 30) as client:
            client.send(upload % (b"slow", 5000))
            stop = threading.Event()

            def drip() -> None:
                while not stop.wait(0.5):
                    with contextlib.suppress(OSError):
                        client.send(b"x" * 50)

            dripper = threading.Thread(target=drip)
            dripper.start()
            took, answer = timed(client.answer)
            stop.set()
            dripper.join()
            results["slow"] = (took, answer.status, error_code(answer))

    def fair_body() -> None:
        with Connection(gateway.port, 30) as client:
            client.send(upload % (b"fair", 24 * 600 + 3))
            for _ in range(24):
                client.send(b"x" * 600)
                time.sleep(0.5)
            client.send(b"end")
            results["fair"] = client.answer().status

    def slow_reader() -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", gateway.port))
        sock.settimeout(30)
        sock.sendall(get("/read"))

        def read() -> bool:
            try:
                return sock.recv(50) == b""
            except ConnectionResetError:
                return True

        started = time.monotonic()
        while time.monotonic() < started + 25 and not read():
            time.sleep(0.5)
        results["reader"] = time.monotonic() - started

    threads = [threading.Thread(target=what) for what in (slow_body, fair_body, slow_reader)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, status, code = results["slow"]
    assert (status, code) == (408, "body_too_slow") and 9.9 < took < 20
    assert results["fair"] == 200
    assert last_cause(gateway, "/read") == ("client_too_slow", "stream")
