"""Refusals, every limit at its maximum and one past it, and how the worker stops."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest
from harness import ONE_THREAD, AppServer, Gateway, StubServer
from proxy_tools import (
    OK,
    Answer,
    Connection,
    always,
    ask,
    get,
    read_head,
    request_bytes,
    timed,
)

GatewayFactory = Callable[..., Gateway]
AppFactory = Callable[..., AppServer]
StubFactory = Callable[..., StubServer]


def _code(answer: Answer) -> str:
    code: str = json.loads(answer.body)["error"]["code"]
    assert json.loads(answer.body)["error"]["trace_id"] == answer.trace_id
    return code


# --- refusals and limits -----------------------------------------------------


@pytest.mark.parametrize("over", [0, 1])
def test_limits_of_a_request_head(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, over: int
) -> None:
    """Line, head and field count: at the maximum served, one past it 414 or 431."""
    limits = {"request_line_bytes": 500, "head_bytes": 20000, "headers": 10}
    gateway = gateway_factory([stub_factory(always(OK)).address], limits=limits)
    line = b"GET /%b HTTP/1.1" % (b"a" * (500 - len("GET / HTTP/1.1") + over))
    answer = ask(gateway.port, line + b"\r\nHost: a\r\n\r\n")
    assert answer.status == (414 if over else 200)
    fixed = b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
    head = fixed.replace(b"X: ", b"X: " + b"x" * (20000 - len(fixed) + over))
    answer = ask(gateway.port, head)
    assert answer.status == (431 if over else 200)
    fields = b"".join(b"X-%d: y\r\n" % number for number in range(9 + over))
    answer = ask(gateway.port, b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
    assert answer.status == (431 if over else 200)


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("chunked", [False, True])
def test_limit_of_a_body(
    gateway_factory: GatewayFactory, uvicorn_factory: AppFactory, chunked: bool, over: int
) -> None:
    """limits.body_bytes: at the maximum served, one past it 413, however it is framed."""
    gateway = gateway_factory(
        [uvicorn_factory("proxy_app:app").address], limits={"body_bytes": 50000}
    )
    body = b"x" * (50000 + over)
    with Connection(gateway.port) as client:
        if chunked:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(body), 10000):
                part = body[at : at + 10000]
                client.send(b"%x\r\n%b\r\n" % (len(part), part))
            client.send(b"0\r\n\r\n")
        else:
            client.send(request_bytes("POST", "/", body=body))
        answer = client.answer()
    if over:
        assert answer.status == 413 and _code(answer) == "body_too_large"
    else:
        assert answer.status == 200 and len(json.loads(answer.body)["body"]) == 50000


def test_refused_upload_is_lingered_over(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A 413 arrives although the client goes on sending up to 1 MiB; then the end is clean."""
    gateway = gateway_factory([stub_factory(always(OK)).address], limits={"body_bytes": 10})
    with Connection(gateway.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n")
        client.send(b"x" * 900000)
        time.sleep(0.1)
        assert client.answer().status == 413 and client.eof() == b""


def test_connection_limit(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """At limits.connections accepting pauses; the next one is served when one goes."""
    gateway = gateway_factory([stub_factory(always(OK)).address], limits={"connections": 3})
    clients = [Connection(gateway.port) for _ in range(3)]
    for client in clients:
        client.send(get())
        assert client.answer().status == 200
    with Connection(gateway.port) as late:
        late.send(get())
        late.sock.settimeout(0.4)
        with pytest.raises(TimeoutError):
            late.answer()
        clients.pop().sock.close()
        late.sock.settimeout(5)
        assert late.answer().status == 200
    for client in clients:
        client.sock.close()


def test_out_of_descriptors(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """At the limit of open files accepting pauses and goes on; nobody is dropped for good."""
    gateway = gateway_factory([stub_factory(always(OK)).address], worker=ONE_THREAD)
    (worker,) = gateway.worker_pids()
    used = len(os.listdir(f"/proc/{worker}/fd"))
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + 4, used + 4))
    clients = [Connection(gateway.port) for _ in range(5)]
    time.sleep(0.3)
    clients[4].send(get())  # is not accepted: the other four have all there are
    clients[4].sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        clients[4].answer()
    clients[0].sock.close()  # one for it,
    clients[1].sock.close()  # and one for the app
    clients[4].sock.settimeout(5)
    assert clients[4].answer().status == 200
    for client in clients[2:4]:
        client.send(get())
        assert client.answer().status == 200
    for client in clients[2:]:
        client.sock.close()
    assert "accept: Too many open files" in gateway.log()
    assert gateway.worker_pids() == [worker]


# --- stopping ----------------------------------------------------------------


def test_drain_lets_exchanges_end(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """TERM: what is under way is answered with Connection: close; an idle client may ask once."""
    arrived = threading.Event()

    def handler(conn: socket.socket, _index: int) -> None:
        while True:
            if b"/slow" in read_head(conn):
                arrived.set()
                time.sleep(1.7)
            conn.sendall(OK)

    gateway = gateway_factory([stub_factory(handler).address])
    with Connection(gateway.port) as slow, Connection(gateway.port) as idle:
        idle.send(get())
        assert "connection" not in idle.answer().headers
        slow.send(get("/slow"))
        assert arrived.wait(5)
        gateway.process.send_signal(signal.SIGTERM)
        time.sleep(1.3)
        idle.send(get())
        answer = idle.answer()
        assert answer.status == 200 and answer.headers["connection"] == "close"
        answer = slow.answer()
        assert answer.status == 200 and answer.headers["connection"] == "close"
        assert slow.eof() == b"" and idle.eof() == b""
    assert gateway.process.wait(10) == 0


def test_idle_clients_do_not_hold_up_the_end(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A second before shutdown_timeout_ms is over idle connections are shut down."""
    gateway = gateway_factory([stub_factory(always(OK)).address])
    with Connection(gateway.port) as client:
        client.send(get())
        client.answer()
        gateway.process.send_signal(signal.SIGTERM)
        took, rest = timed(client.eof)
        assert rest == b"" and 1.8 < took < 5
    assert gateway.process.wait(10) == 0


def test_shutdown_timeout_ends_what_hangs(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """An exchange still open after shutdown_timeout_ms is answered 503."""

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.recv(100)

    gateway = gateway_factory([stub_factory(handler).address], worker={"shutdown_timeout_ms": 600})
    with Connection(gateway.port) as client:
        client.send(get())
        time.sleep(0.2)
        gateway.process.send_signal(signal.SIGTERM)
        answer = client.answer()
        assert answer.status == 503 and _code(answer) == "shutdown"
    assert gateway.process.wait(10) == 0
