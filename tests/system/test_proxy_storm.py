"""Random clients against random apps: the worker lives, leaks no slot, stays small."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable

from harness import Gateway, StubServer, wait_for
from proxy_tools import OK, Connection, ask, get, read_head, request_bytes, reset, resident_kib

GatewayFactory = Callable[..., Gateway]
StubFactory = Callable[..., StubServer]

SEED = int(os.environ.get("PROXY_STORM_SEED", "1"))
SECONDS = float(os.environ.get("PROXY_STORM_S", "5"))
CLIENTS = 12
SLOTS = 4  # fewer than clients, so that refusals are part of it
BODY = os.urandom(300000)

ANSWERS = [
    OK,
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + BODY,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n20000\r\n"
    + BODY[:0x20000]
    + b"\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY[:70000],
    b"HTTP/1.0 200 OK\r\n\r\nold",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokUNSOLICITED",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 101 No\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"",
]

REQUESTS = [
    get(),
    get() * 5,
    get("/", version="1.0"),
    get("/", "Connection: close"),
    request_bytes("HEAD", "/"),
    request_bytes("POST", "/", body=BODY),
    request_bytes("PUT", "/", body=b"small"),
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n20000\r\n"
    + BODY[:0x20000]
    + b"\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + BODY,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nbad\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"\r\n\r\nGET / HTT",
    b"BREW / HTTP/1.1\r\n\r\n",
    get("/", "X: " + "x" * 40000),
]


def _send_somehow(rng: random.Random, sock: socket.socket, data: bytes) -> None:
    """Send all or a part, at once or in pieces with pauses."""
    if rng.random() < 0.2:
        data = data[: rng.randrange(len(data) + 1)]
    while data:
        size = len(data) if rng.random() < 0.6 else rng.randrange(1, len(data) + 1)
        sock.sendall(data[:size])
        data = data[size:]
        if rng.random() < 0.1:
            time.sleep(rng.random() * 0.01)


def _end_somehow(rng: random.Random, sock: socket.socket) -> None:
    if rng.random() < 0.4:
        reset(sock)
    elif rng.random() < 0.5:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
    sock.close()


def _app(wild: threading.Event) -> Callable[[socket.socket, int], None]:
    def handler(conn: socket.socket, index: int) -> None:
        rng = random.Random(SEED * 1000003 + index)
        conn.settimeout(5)
        while True:
            if wild.is_set() and rng.random() < 0.05:
                return
            data = read_head(conn)
            if not wild.is_set():
                conn.sendall(OK)
                continue
            if rng.random() < 0.3:
                time.sleep(rng.random() * 0.02)
            while b"POST" in data and rng.random() < 0.7:
                conn.settimeout(0.05)
                try:
                    if not conn.recv(1 << 18):
                        return
                except TimeoutError:
                    break
            conn.settimeout(5)
            _send_somehow(rng, conn, rng.choice(ANSWERS))
            if rng.random() < 0.2:
                _end_somehow(rng, conn)
                return

    return handler


def _client(port: int, number: int, end: float) -> int:
    rng = random.Random(SEED * 7919 + number)
    done = 0
    while time.monotonic() < end:
        try:
            with Connection(port, timeout_s=0.5) as client:
                for _ in range(rng.randrange(1, 6)):
                    _send_somehow(rng, client.sock, rng.choice(REQUESTS))
                    if rng.random() < 0.7:
                        client.answer()
                        done += 1
                    elif rng.random() < 0.5:
                        client.sock.recv(1000)
                _end_somehow(rng, client.sock)
        except (OSError, EOFError, ValueError):
            continue
    return done


def test_storm(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """After seconds of chaos every slot is free, the same worker serves, and it has not grown."""
    wild = threading.Event()
    stub = stub_factory(_app(wild))
    gateway = gateway_factory(
        [stub.address],
        upstream={"max_connections": SLOTS, "response_timeout_ms": 500},
        limits={"body_idle_timeout_ms": 500, "head_timeout_ms": 700, "keepalive_timeout_ms": 900},
    )
    workers = gateway.worker_pids()
    wild.set()
    end = time.monotonic() + SECONDS
    answered = [0] * CLIENTS

    def run(number: int) -> None:
        answered[number] = _client(gateway.port, number, end)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wild.clear()
    assert sum(answered) > 50, "the storm was no storm"
    time.sleep(3)  # lingering and every timeout above are over
    assert gateway.worker_pids() == workers, gateway.log()
    wait_for(lambda: ask(gateway.port, get()).status == 200, 5, "the gateway serves again")

    clients = [Connection(gateway.port) for _ in range(SLOTS)]
    for _ in range(5):
        for client in clients:
            client.send(get())
        assert [client.answer().status for client in clients] == [200] * SLOTS, "a slot is lost"
    for client in clients:
        client.sock.close()
    assert resident_kib(workers[0]) < 64 << 10 or "asan" in os.environ.get("TAILRACE_BIN", "")
