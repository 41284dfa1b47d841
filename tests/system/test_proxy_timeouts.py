"""What takes too long on either side, and clients that leave."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable

import pytest
from harness import AppServer, Gateway, StubServer, raw_exchange, wait_for
from proxy_tools import (
    OK,
    PARTIAL_HEAD,
    Connection,
    always,
    ask,
    error_code,
    get,
    last_cause,
    phase,
    read_head,
    reset,
    stored,
    timed,
)

GatewayFactory = Callable[..., Gateway]
AppFactory = Callable[..., AppServer]
StubFactory = Callable[..., StubServer]
Handler = Callable[[socket.socket, int], None]


# --- timeouts ----------------------------------------------------------------


def test_response_timeout(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """504 before the first byte; a reset once the answer has begun."""

    def handler(conn: socket.socket, index: int) -> None:
        read_head(conn)
        if index == 1:
            conn.sendall(PARTIAL_HEAD + b"part")
        conn.recv(1)

    gateway = gateway_factory(
        [stub_factory(handler).address], upstream={"response_timeout_ms": 300}
    )
    took, answer = timed(lambda: ask(gateway.port, get()))
    assert answer.status == 504 and error_code(answer) == "upstream_response_timeout"
    assert 0.29 < took < 8
    exchange = stored(gateway, answer.trace_id)
    assert exchange["died_in"] == "wait" and 0.29 < phase(exchange, "wait") < 8
    with Connection(gateway.port) as client:
        client.send(get())
        with pytest.raises(ConnectionResetError):
            client.eof()


def test_app_that_takes_no_more_of_a_body(gateway_factory: GatewayFactory) -> None:
    """An app that shut down its reading side and does not answer is given up like any other."""

    def serve(listener: socket.socket) -> None:
        conn, _ = listener.accept()
        with conn:
            read_head(conn)
            conn.shutdown(socket.SHUT_RD)
            asked.set()
            ended.wait(10)

    asked, ended = threading.Event(), threading.Event()
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/app.sock")
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        gateway = gateway_factory(
            [f"unix:{folder}/app.sock"], upstream={"response_timeout_ms": 300}
        )
        with Connection(gateway.port) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
            assert asked.wait(5)
            client.send(b"x" * 1000)
            answer = client.answer()
        ended.set()
        thread.join(5)
    assert answer.status == 504 and error_code(answer) == "upstream_response_timeout"


def test_head_timeout_is_absolute(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A head that drips is cut at head_timeout_ms, however lively it is."""
    gateway = gateway_factory([stub_factory(always(OK)).address], limits={"head_timeout_ms": 500})
    start = time.monotonic()
    with Connection(gateway.port) as client:
        client.send(b"GET / HTTP/1.1\r\n")
        client.sock.settimeout(0.05)
        while time.monotonic() - start < 3:
            try:
                client.rest += client.sock.recv(65536)
                break
            except TimeoutError:
                client.send(b"X: y\r\n")
        client.sock.settimeout(5)
        answer = client.answer()
    assert answer.status == 408 and error_code(answer) == "head_timeout"
    assert 0.45 < time.monotonic() - start < 8
    exchange = stored(gateway, answer.trace_id)
    assert exchange["died_in"] == "head"


def test_body_timeout(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """A body that stops coming is answered 408 and the app is let go."""
    gone = threading.Event()

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        while conn.recv(100):
            pass
        gone.set()

    gateway = gateway_factory([stub_factory(handler).address], limits={"body_idle_timeout_ms": 300})
    with Connection(gateway.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        answer = client.answer()
        assert answer.status == 408 and error_code(answer) == "body_timeout"
        assert client.eof() == b""
    assert gone.wait(2)


def test_keepalive_timeout(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """An idle client connection is closed cleanly; so is one that never asks."""
    gateway = gateway_factory(
        [stub_factory(always(OK)).address],
        limits={"keepalive_timeout_ms": 300, "head_timeout_ms": 400},
    )
    with Connection(gateway.port) as client:
        client.send(get())
        client.answer()
        took, rest = timed(client.eof)
        assert rest == b"" and 0.25 < took < 8
    with Connection(gateway.port) as client:
        took, rest = timed(client.eof)
        assert rest == b"" and 0.35 < took < 8


def test_client_that_takes_nothing(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A client that stops reading its answer is reset after body_idle_timeout_ms."""
    ended = threading.Event()

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        try:
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n")
            while True:
                conn.sendall(b"x" * 65536)
        except ConnectionError:
            ended.set()

    gateway = gateway_factory([stub_factory(handler).address], limits={"body_idle_timeout_ms": 400})
    with Connection(gateway.port) as client:
        client.send(get())
        assert ended.wait(5)


# --- the client fails --------------------------------------------------------


@pytest.mark.parametrize("by_reset", [False, True])
def test_client_abort_reaches_the_app(
    gateway_factory: GatewayFactory, uvicorn_factory: AppFactory, by_reset: bool
) -> None:
    """The app hears of a client that left at once, through a real uvicorn."""
    gateway = gateway_factory([uvicorn_factory("proxy_app:app").address])
    client = Connection(gateway.port)
    client.send(get("/hold?one"))
    time.sleep(0.2)
    if by_reset:
        reset(client.sock)
    client.sock.close()

    def heard() -> bool:
        return json.loads(ask(gateway.port, get("/aborted")).body) == ["one"]

    wait_for(heard, 3, "the app hears of the abort")


def test_aborts_at_every_stage_are_named(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """client_abort with the phase it happened in; the server's slot is free again each time."""

    def handler(conn: socket.socket, _index: int) -> None:
        data = read_head(conn)
        if b"/streaming" in data:
            conn.sendall(PARTIAL_HEAD + b"part")
        conn.recv(65536)

    gateway = gateway_factory([stub_factory(handler).address], upstream={"max_connections": 1})
    stages = {
        "/upload": (b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", "send"),
        "/waiting": (get("/waiting"), "wait"),
        "/streaming": (get("/streaming"), "stream"),
    }
    for path, (request, died_in) in stages.items():
        with Connection(gateway.port) as client:
            client.send(request)
            time.sleep(0.2)
        assert last_cause(gateway, path) == ("client_abort", died_in)


def test_abort_while_the_upload_is_paused(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A client that leaves while the app does not read is noticed all the same."""
    ended = threading.Event()

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        time.sleep(1.5)
        conn.settimeout(5)
        try:
            while conn.recv(1 << 20):
                pass
        except ConnectionError:
            pass
        ended.set()

    gateway = gateway_factory([stub_factory(handler).address])
    with Connection(gateway.port) as client:
        client.send(b"POST /paused HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            while True:
                client.sock.send(b"x" * 65536)
        reset(client.sock)
    assert last_cause(gateway, "/paused")[0] == "client_abort"
    assert ended.wait(5)


def test_half_close(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """A FIN after the request is an abort, unless the listener allows it."""

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        time.sleep(0.2)
        conn.sendall(OK)

    stub = stub_factory(handler)
    strict = gateway_factory([stub.address])
    assert raw_exchange(strict.port, get("/strict"), half_close=True) == b""
    cause, died_in = last_cause(strict, "/strict")
    assert cause == "client_abort" and died_in in ("connect", "wait")
    lax = gateway_factory([stub.address], listener={"half_close": True})
    raw = raw_exchange(lax.port, get("/lax") + get("/next"), half_close=True)
    assert raw.count(b"HTTP/1.1 200 OK") == 2 and raw.endswith(b"ok")
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"
    assert raw_exchange(lax.port, head, half_close=True) == b""
