"""Bodies: every framing both ways, both directions at once, flat memory, early answers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import ONE_THREAD, AppServer, Gateway, StubServer, wait_for
from proxy_tools import (
    OK,
    Answer,
    Connection,
    always,
    ask,
    get,
    read_head,
    resident_kib,
    stored,
)

GatewayFactory = Callable[..., Gateway]
AppFactory = Callable[..., AppServer]
StubFactory = Callable[..., StubServer]

# 1024 for the full tier: both directions at once, memory must not grow with it
BIG_MIB = int(os.environ.get("PROXY_BODY_MIB", "256"))
GROWTH_KIB = 4096  # buffers of a few connections, whatever the body's size
BLOCK = os.urandom(1 << 20)


@pytest.fixture
def app(uvicorn_factory: AppFactory) -> AppServer:
    """Start the proxy tests' app."""
    return uvicorn_factory("proxy_app:app")


def _send_chunks(sock: socket.socket, data: bytes, size: int) -> None:
    for at in range(0, len(data), size):
        part = data[at : at + size]
        sock.sendall(b"%x\r\n%b\r\n" % (len(part), part))
    sock.sendall(b"0\r\n\r\n")


class _Digest:
    """Reads a chunked or sized body of any length from a socket and hashes it."""

    def __init__(self) -> None:
        self.hash = hashlib.blake2b()
        self.length = 0

    def read(self, client: Connection) -> Answer:
        head = client._until(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        chunked = b"transfer-encoding: chunked" in head.lower()
        while chunked and (left := int(client._until(b"\r\n"), 16)):
            self._take(client, left)
            assert client._exactly(2) == b"\r\n"
        if chunked:
            assert client._until(b"\r\n") == b""
        return Answer(status, {}, b"")

    def _take(self, client: Connection, left: int) -> None:
        while left:
            if not client.rest:
                client._fill()
            part, client.rest = client.rest[:left], client.rest[left:]
            left -= len(part)
            self.length += len(part)
            self.hash.update(part)


@pytest.mark.parametrize("chunked", [False, True])
def test_big_echo_stays_flat(
    gateway_factory: GatewayFactory, app: AppServer, chunked: bool
) -> None:
    """A big body streamed in both directions at once arrives whole and memory stays flat."""
    gateway = gateway_factory([app.address])
    (worker,) = gateway.worker_pids()
    ask(gateway.port, get("/"))
    before = resident_kib(worker)
    peak = before
    sent = hashlib.blake2b()
    size = BIG_MIB << 20

    def upload(sock: socket.socket) -> None:
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing)
        for _ in range(BIG_MIB):
            sent.update(BLOCK)
            sock.sendall(b"%x\r\n" % len(BLOCK) if chunked else b"")
            sock.sendall(BLOCK)
            sock.sendall(b"\r\n" if chunked else b"")
        sock.sendall(b"0\r\n\r\n" if chunked else b"")

    with Connection(gateway.port, timeout_s=60) as client:
        sender = threading.Thread(target=upload, args=(client.sock,))
        sender.start()
        digest = _Digest()
        watcher_stop = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not watcher_stop.wait(0.05):
                peak = max(peak, resident_kib(worker))

        watcher = threading.Thread(target=watch)
        watcher.start()
        answer = digest.read(client)
        watcher_stop.set()
        watcher.join()
        sender.join()
    assert answer.status == 200 and digest.length == size
    assert digest.hash.digest() == sent.digest()
    assert peak - before < GROWTH_KIB, f"{before} KiB before, {peak} KiB at most"


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 16335, 16336, 16337, 70000, 300000])
def test_sizes_around_the_buffers(
    gateway_factory: GatewayFactory, app: AppServer, size: int
) -> None:
    """Bodies of every awkward size, sized and in chunks of odd lengths, come back the same."""
    gateway = gateway_factory([app.address])
    data = (BLOCK * 2)[:size]
    with Connection(gateway.port) as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + data)
        assert client.answer().body == data
    for chunk in (1 + size // 3, 1000, 20000):
        with Connection(gateway.port) as client:
            client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            sender = threading.Thread(target=_send_chunks, args=(client.sock, data, chunk))
            sender.start()
            assert client.answer().body == data
            sender.join()


def test_tiny_chunks(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """Chunks of one byte, in one piece and piecemeal, with extensions and trailers, both ways."""
    chunks = b"".join(b"1;e=f\r\n%c\r\n" % byte for byte in b"0123456789" * 200)
    tail = b"0\r\nX-Trailer: dropped\r\n\r\n"
    seen: list[bytes] = []

    def handler(conn: socket.socket, _index: int) -> None:
        data = read_head(conn)
        while not data.endswith(b"0\r\n\r\n"):
            data += conn.recv(65536)
        seen.append(data)
        conn.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + tail)

    gateway = gateway_factory([stub_factory(handler).address])
    with Connection(gateway.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(chunks + tail)
        raw = b""
        while not raw.endswith(b"0\r\n\r\n"):
            raw += client.sock.recv(65536)
        client.rest = raw
        assert client.answer().body == b"0123456789" * 200
    assert b"e=f" not in seen[0] + raw and b"dropped" not in seen[0] + raw


def test_request_in_single_bytes(gateway_factory: GatewayFactory, app: AppServer) -> None:
    """A request that comes byte by byte is one request."""
    gateway = gateway_factory([app.address])
    data = (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    )
    with Connection(gateway.port) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            client.send(bytes([byte]))
        assert client.answer().body == b"hello!"


def test_answer_in_single_bytes(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """An answer that comes byte by byte is one answer, interim head included."""
    answer = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )

    def handler(conn: socket.socket, _index: int) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            read_head(conn)
            for byte in answer:
                conn.sendall(bytes([byte]))

    gateway = gateway_factory([stub_factory(handler).address])
    with Connection(gateway.port) as client:
        for _ in range(3):
            client.send(get())
            got = client.answer()
            assert got.body == b"abcde" and got.interims == [103]


@pytest.mark.parametrize(("path", "status"), [("/early413", 413), ("/early200", 200)])
def test_early_answer_arrives_whole(
    gateway_factory: GatewayFactory, app: AppServer, path: str, status: int
) -> None:
    """An app that answers without reading the upload is heard, and the upload ends there."""
    gateway = gateway_factory([app.address])
    for _ in range(5):
        with Connection(gateway.port) as client:
            client.send(b"POST %b HTTP/1.1\r\nHost: a\r\n" % path.encode())
            client.send(b"Content-Length: 900000\r\n\r\n" + BLOCK[:300000])
            time.sleep(0.02)
            answer = client.answer()
            assert answer.status == status and answer.headers["x-early"] == "yes"
            assert answer.body in (b"too much", b"enough")
            assert answer.headers["connection"] == "close"
            client.send(BLOCK[:600000])  # still taken and discarded
            assert client.eof() == b""
    assert ask(gateway.port, get("/after")).status == 200


def test_early_answer_and_reset(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """An app that answers during the upload and then resets is still heard."""

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(b"HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nstop")
        # closing with unread bytes makes the kernel send a reset

    gateway = gateway_factory([stub_factory(handler).address])
    for _ in range(10):
        with Connection(gateway.port) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
            client.send(BLOCK[:500000])
            answer = client.answer()
            assert answer.status == 413 and answer.body == b"stop"


def test_answer_complete_while_the_client_still_uploads(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """The app is done, its answer waits for a slow client that sends on: it arrives whole.

    Whether the last bytes wait in the gateway depends on socket buffers: those of a Unix socket
    are small and fixed, and one of many sizes hits it.
    """
    sizes = [(1 << 20) + number * 20000 for number in range(30)]

    def handler(conn: socket.socket, index: int) -> None:
        read_head(conn)
        body = (BLOCK * 4)[: sizes[index]]
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        while conn.recv(1 << 20):
            pass

    def trickle(client: Connection, done: threading.Event) -> None:
        while not done.wait(0.0005):
            client.send(b"x" * 100)

    path = f"{tempfile.mkdtemp(prefix='tailrace-')}/in.sock"
    gateway_factory([stub_factory(handler).address], listener={"address": f"unix:{path}"})
    for size in sizes:
        with Connection(path) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99000000\r\n\r\n")
            done = threading.Event()
            sender = threading.Thread(target=trickle, args=(client, done))
            sender.start()
            time.sleep(0.03)
            parts = [client.sock.recv(1000)]
            while sum(map(len, parts)) < size:
                parts.append(client.sock.recv(1 << 15))
                time.sleep(0.001)
            done.set()
            sender.join()
            client.rest = b"".join(parts)
            assert client.answer().body == (BLOCK * 4)[:size]
    shutil.rmtree(Path(path).parent)


def test_slow_client_pauses_the_app(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """An app that writes without end is stopped by a client that does not read."""
    sent = [0]
    stop = threading.Event()

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.settimeout(0.2)
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        while not stop.is_set():
            try:
                sent[0] += conn.send(BLOCK)
            except TimeoutError:
                continue

    gateway = gateway_factory([stub_factory(handler).address])
    (worker,) = gateway.worker_pids()
    with Connection(gateway.port) as client:
        client.send(get())
        time.sleep(1)
        early = sent[0]
        before = resident_kib(worker)
        time.sleep(1)
        assert sent[0] - early < 2 << 20, "the app was not stopped"
        got = 0
        while got < early + (20 << 20):  # and goes on when the client reads
            got += len(client.sock.recv(1 << 20))
        assert resident_kib(worker) - before < GROWTH_KIB
    stop.set()


def test_slow_app_pauses_the_client(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A client that uploads without end is stopped by an app that does not read."""
    release = threading.Event()

    def handler(conn: socket.socket, _index: int) -> None:
        data = read_head(conn)
        got = len(data.partition(b"\r\n\r\n")[2])
        release.wait(20)
        while got < 40 << 20:
            got += len(conn.recv(1 << 20))
        conn.sendall(OK)

    gateway = gateway_factory([stub_factory(handler).address])
    (worker,) = gateway.worker_pids()
    with Connection(gateway.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (40 << 20))
        client.sock.settimeout(1)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 40 << 20:
                sent += client.sock.send(BLOCK)
        assert sent < 30 << 20 and resident_kib(worker) < 64 << 10
        release.set()
        client.sock.settimeout(20)
        while sent < 40 << 20:
            sent += client.sock.send(BLOCK[: (40 << 20) - sent])
        assert client.answer().body == b"ok"


def test_upload_longer_than_the_response_timeout(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """An app that waits for a slow body is not late."""

    def handler(conn: socket.socket, _index: int) -> None:
        data = read_head(conn)
        while not data.endswith(b"end"):
            data += conn.recv(65536)
        conn.sendall(OK)

    gateway = gateway_factory(
        [stub_factory(handler).address], upstream={"response_timeout_ms": 300}
    )
    with Connection(gateway.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        for part in (b"abc", b"def", b"end"):
            time.sleep(0.4)
            client.send(part)
        assert client.answer().body == b"ok"


def test_many_at_once(gateway_factory: GatewayFactory, app: AppServer) -> None:
    """Fifty uploads at a time over kept-alive connections stay apart."""
    gateway = gateway_factory([app.address])
    errors: list[Any] = []

    def run(number: int) -> None:
        try:
            with Connection(gateway.port, timeout_s=30) as client:
                for turn in range(4):
                    data = bytes([number]) * (1000 * (turn + 1) * (number + 1))
                    client.send(
                        b"POST /seen HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data)
                    )
                    client.send(data)
                    if json.loads(client.answer().body)["body"].encode() != data:
                        errors.append(number)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_pool_is_used(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """Connections to the app are kept: a hundred requests one after the other need one."""
    stub = stub_factory(always(OK))
    gateway = gateway_factory([stub.address], worker=ONE_THREAD)
    for _ in range(100):
        assert ask(gateway.port, get()).status == 200
    assert stub.accepted == 1


def test_long_stream_is_reported_while_it_runs(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """Ten seconds after its answer began an open exchange is known already; its end replaces it."""
    finish = threading.Event()

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        finish.wait(20)
        conn.sendall(b"3\r\ntwo\r\n0\r\n\r\n")

    gateway = gateway_factory([stub_factory(handler).address])
    with Connection(gateway.port, timeout_s=20) as client:
        client.send(get("/stream"))
        while b"one" not in client.rest:
            client.rest += client.sock.recv(65536)
        trace_id = client.rest.partition(b"X-Trace-Id: ")[2][:32].decode()
        early = stored(gateway, trace_id, timeout_s=25)
        assert early["provisional"] and 9.9e9 < early["total_ns"] < 13e9
        time.sleep(0.5)
        finish.set()
        assert client.answer().body == b"onetwo"

    def ended() -> bool:
        return not stored(gateway, trace_id)["provisional"]

    wait_for(ended, 15, "the final record", every_s=0.2)
    final = stored(gateway, trace_id)
    assert final["total_ns"] > early["total_ns"] and final["died_in"] is None
