"""What goes wrong at the app: FIN, RST and garbage at every stage, connecting, retries."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest
from harness import ONE_THREAD, AppServer, Gateway, StubServer, free_port, wait_for
from proxy_tools import (
    OK,
    PARTIAL_HEAD,
    Connection,
    always,
    ask,
    error_code,
    get,
    read_head,
    request_bytes,
    reset,
    serving,
    stored,
    timed,
)

GatewayFactory = Callable[..., Gateway]
AppFactory = Callable[..., AppServer]
StubFactory = Callable[..., StubServer]
Handler = Callable[[socket.socket, int], None]


# --- the app fails -----------------------------------------------------------


def _after(sent: bytes, *, by_reset: bool) -> Handler:
    """Return a handler that reads a request, sends these bytes and closes."""

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(sent)
        if by_reset:
            time.sleep(0.02)  # let the bytes be read before the reset
            reset(conn)

    return handler


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("by_reset", [False, True])
@pytest.mark.parametrize("sent", [b"", b"HTT", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_app_ends_before_its_head_is_whole(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, sent: bytes, by_reset: bool
) -> None:
    """502 with the reason, and the record tells the phase."""
    gateway = gateway_factory([stub_factory(_after(sent, by_reset=by_reset)).address])
    with Connection(gateway.port) as client:
        client.send(request_bytes("POST", "/", body=b"x"))
        answer = client.answer()
        assert answer.status == 502
        assert error_code(answer) == ("upstream_reset" if by_reset else "upstream_closed")
        client.send(get())  # the client's connection lives on
        assert client.answer().status == 502
    exchange = stored(gateway, answer.trace_id)
    assert exchange["died_in"] == ("reply_head" if sent else "wait")
    assert exchange["status"] == 502 and exchange["cause"] == error_code(answer)


@pytest.mark.parametrize("by_reset", [False, True])
@pytest.mark.parametrize(
    "sent", [PARTIAL_HEAD, PARTIAL_HEAD + b"part", CHUNKED + b"5\r\nhel", CHUNKED + b"1\r\nx\r\n"]
)
def test_truncated_answer_ends_by_reset(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, sent: bytes, by_reset: bool
) -> None:
    """A client can tell that its answer was cut: never by a clean end."""
    gateway = gateway_factory([stub_factory(_after(sent, by_reset=by_reset)).address])
    with Connection(gateway.port) as client:
        client.send(get())
        client.rest = client._until(b"\r\n\r\n") + b"\r\n\r\n"
        trace_id = client.rest.partition(b"X-Trace-Id: ")[2][:32].decode()
        with pytest.raises(ConnectionResetError):
            client.eof()
    exchange = stored(gateway, trace_id)
    assert exchange["cause"] == ("upstream_reset" if by_reset else "upstream_closed")
    assert exchange["died_in"] == "stream" and exchange["status"] == 200


def test_reset_of_a_body_that_ends_with_the_connection(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """Only a FIN ends such a body."""
    stub = stub_factory(_after(b"HTTP/1.0 200 OK\r\n\r\nsome", by_reset=True))
    gateway = gateway_factory([stub.address])
    with Connection(gateway.port) as client:
        client.send(get())
        with pytest.raises(ConnectionResetError):
            client.eof()


@pytest.mark.parametrize(("over", "status"), [(0, 200), (1, 502)])
def test_limit_of_a_response_head(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, over: int, status: int
) -> None:
    """limits.head_bytes holds for answers: at the maximum and one past it."""
    fixed = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: \r\n\r\n"
    pad = b"x" * (32768 - len(fixed) + over)
    answer = fixed.replace(b"X: ", b"X: " + pad) + b"ok"
    gateway = gateway_factory([stub_factory(always(answer)).address])
    got = ask(gateway.port, get())
    assert got.status == status
    assert (
        (got.headers["x"].encode() == pad)
        if status == 200
        else (error_code(got) == "response_head_too_large")
    )


def test_unsolicited_bytes_discard_the_connection(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """Bytes behind an answer, at once or later, are never taken for the next answer."""
    stub = stub_factory(serving(OK + b"HTTP/1.1 200 OK\r\n"))
    gateway = gateway_factory([stub.address])
    assert [ask(gateway.port, get()).body for _ in range(3)] == [b"ok"] * 3
    assert stub.accepted == 3

    def later(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(OK)
        time.sleep(0.05)
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        conn.recv(100)

    gateway = gateway_factory([stub_factory(later).address])
    for _ in range(3):
        assert ask(gateway.port, get()).body == b"ok"
        time.sleep(0.15)


# --- connecting --------------------------------------------------------------


def test_connect_refused(gateway_factory: GatewayFactory) -> None:
    """502; plain text where the client prefers it, nothing but the head for HEAD."""
    server = f"127.0.0.1:{free_port()}"
    gateway = gateway_factory([server])
    answer = ask(gateway.port, get())
    assert answer.status == 502 and error_code(answer) == "upstream_connect_failed"
    said = f"no answer of {server}: upstream_connect_failed (connection to the server refused"
    assert said in gateway.log(), "a terminal that shows nothing leaves one looking elsewhere"
    assert "left out" not in gateway.log()
    exchange = stored(gateway, answer.trace_id)
    assert exchange["died_in"] == "connect" and exchange["connection"]["attempts"] == 2
    answer = ask(gateway.port, get("/", "Accept: text/html"))
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.trace_id in answer.body.decode()
    answer = ask(gateway.port, request_bytes("HEAD", "/"), head_only=True)
    assert answer.status == 502 and int(answer.headers["content-length"]) > 0


def test_connect_timeout(gateway_factory: GatewayFactory) -> None:
    """504 after connect_timeout_ms; a full accept queue swallows connects."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        time.sleep(0.1)
        gateway = gateway_factory(
            [f"127.0.0.1:{address[1]}"], upstream={"connect_timeout_ms": 300, "retries": 0}
        )
        took, answer = timed(lambda: ask(gateway.port, get()))
        for filler in fillers:
            filler.close()
    assert answer.status == 504 and error_code(answer) == "upstream_connect_timeout"
    assert 0.29 < took < 8


def test_second_server_takes_over(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A refused connect is retried at the next server, even for POST: nothing was sent."""
    stub = stub_factory(always(OK))
    gateway = gateway_factory([f"127.0.0.1:{free_port()}", stub.address])
    for _ in range(6):
        assert ask(gateway.port, request_bytes("POST", "/", body=b"x")).status == 200


def test_retry_goes_to_another_server(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A server that refuses has nothing in flight; its retries go to the busy one all the same."""
    release = threading.Event()

    def handler(conn: socket.socket, _index: int) -> None:
        while True:
            if b" /hold " in read_head(conn):
                release.wait(10)
            conn.sendall(OK)

    stub = stub_factory(handler)
    gateway = gateway_factory([f"127.0.0.1:{free_port()}", stub.address])
    holding = [Connection(gateway.port) for _ in range(3)]
    for client in holding:
        client.send(get("/hold"))
    wait_for(lambda: stub.accepted == 3, 5, "three exchanges at the server that lives")
    answers = [ask(gateway.port, get()).status for _ in range(10)]
    release.set()
    assert [client.answer().status for client in holding] == [200] * 3
    assert answers == [200] * 10


def test_all_servers_full(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """max_connections per server: at the maximum served, one past it refused."""
    release = threading.Event()
    arrived = threading.Semaphore(0)

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        arrived.release()
        release.wait(10)
        conn.sendall(OK)

    one, two = stub_factory(handler), stub_factory(handler)
    gateway = gateway_factory(
        [one.address, two.address], upstream={"max_connections": 2, "queue_max": 0}
    )
    clients = [Connection(gateway.port) for _ in range(4)]
    for client in clients:
        client.send(get())
        assert arrived.acquire(timeout=5)
    assert (one.accepted, two.accepted) == (2, 2)
    answer = ask(gateway.port, get())
    assert answer.status == 503 and error_code(answer) == "upstream_full"
    assert answer.headers["retry-after"] == "1"
    release.set()
    for client in clients:
        assert client.answer().status == 200
        client.sock.close()
    assert ask(gateway.port, get()).status == 200  # the slots are free again


# --- retries -----------------------------------------------------------------


def _stale(seen: list[bytes]) -> Handler:
    """Return a handler whose first connection answers once and dies at its second request."""

    def handler(conn: socket.socket, index: int) -> None:
        while True:
            data = read_head(conn)
            seen.append(data.split(b" ")[1])
            if index == 0 and len(seen) == 2:
                return
            conn.sendall(OK)

    return handler


def test_get_on_a_stale_connection_is_retried(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """An idempotent request on a reused connection that died unheard goes out again."""
    seen: list[bytes] = []
    gateway = gateway_factory([stub_factory(_stale(seen)).address], worker=ONE_THREAD)
    assert ask(gateway.port, get("/1")).status == 200
    answer = ask(gateway.port, get("/2"))
    assert answer.status == 200 and seen == [b"/1", b"/2", b"/2"]
    exchange = stored(gateway, answer.trace_id)
    assert exchange["connection"]["attempts"] == 2 and exchange["died_in"] is None


def test_post_is_never_delivered_twice(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A POST whose bytes have gone out is answered 502 instead."""
    seen: list[bytes] = []
    gateway = gateway_factory([stub_factory(_stale(seen)).address], worker=ONE_THREAD)
    assert ask(gateway.port, get("/1")).status == 200
    answer = ask(gateway.port, request_bytes("POST", "/2", body=b"once"))
    assert answer.status == 502 and error_code(answer) == "upstream_closed_idle"
    assert seen == [b"/1", b"/2"]


def test_put_with_its_body_at_hand_is_retried_whole(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A body that came with the head is sent again byte for byte; one that was read on is not."""
    bodies: list[bytes] = []

    def handler(conn: socket.socket, index: int) -> None:
        while True:
            data = read_head(conn)
            while data.startswith(b"PUT") and not data.endswith(b"end"):
                data += conn.recv(65536)
            if data.startswith(b"PUT"):
                bodies.append(data.partition(b"\r\n\r\n")[2])
                if index == 0:
                    return
            conn.sendall(OK)

    gateway = gateway_factory([stub_factory(handler).address], worker=ONE_THREAD)
    assert ask(gateway.port, get()).status == 200
    answer = ask(gateway.port, request_bytes("PUT", "/", body=b"x" * 5000 + b"end"))
    assert answer.status == 200 and bodies == [b"x" * 5000 + b"end"] * 2

    bodies.clear()
    gateway = gateway_factory([stub_factory(handler).address], worker=ONE_THREAD)
    assert ask(gateway.port, get()).status == 200
    with Connection(gateway.port) as client:
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        time.sleep(0.1)
        client.send(b"end")
        assert client.answer().status == 502
    assert bodies == [b"abcend"]


def test_no_retry_beyond_the_limit(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """retries 0 means one attempt."""
    seen: list[bytes] = []
    gateway = gateway_factory(
        [stub_factory(_stale(seen)).address], upstream={"retries": 0}, worker=ONE_THREAD
    )
    assert ask(gateway.port, get("/1")).status == 200
    answer = ask(gateway.port, get("/2"))
    assert answer.status == 502 and seen == [b"/1", b"/2"]


def test_closed_idle_connection_is_evicted(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A FIN on an idle connection is seen at once, so even a POST never meets it."""

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(OK)
        time.sleep(0.05)

    gateway = gateway_factory([stub_factory(handler).address])
    for _ in range(5):
        assert ask(gateway.port, request_bytes("POST", "/", body=b"x")).status == 200
        time.sleep(0.1)


def test_idle_timeout_of_the_app_side(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """An idle connection is closed by us before the app does it."""
    closed = threading.Event()

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(OK)
        assert conn.recv(1) == b""
        closed.set()

    gateway = gateway_factory([stub_factory(handler).address], upstream={"idle_timeout_ms": 300})
    assert ask(gateway.port, get()).status == 200
    took, _ = timed(lambda: closed.wait(5))
    assert closed.is_set() and 0.2 < took < 8
