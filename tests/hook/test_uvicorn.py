"""Behind real uvicorn: pipelined and kept connections, slow clients, uploads, aborts."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
import time

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from hook_support import BUSY_NS, LOOPS, MS, hook, make_scope, take

leaked = contextvars.ContextVar("leaked", default=None)


def make_app():
    api = FastAPI()
    lock = {}

    @api.get("/nap/{ms}")
    async def nap(ms: int):
        leaked.set(ms)

        async def child():
            await asyncio.sleep(ms / 1000)

        await asyncio.gather(child(), asyncio.sleep(0))
        return ms

    @api.get("/lock/{ms}")
    async def locked(ms: int):
        async with lock.setdefault("lock", asyncio.Lock()):
            await asyncio.sleep(ms / 1000)
        return ms

    @api.get("/sync/{ms}")
    def sync(ms: int):
        time.sleep(ms / 1000)
        return ms

    @api.post("/upload")
    async def upload(request: Request):
        return len(await request.body())

    @api.get("/big")
    async def big():
        async def chunks():
            for _ in range(64):
                yield b"x" * 262144

        return StreamingResponse(chunks())

    return api


SERVERS = [(loop, http) for loop in LOOPS for http in ("h11", "httptools")]


@pytest.fixture(scope="module", params=SERVERS, ids="-".join)
def port(request):
    """A uvicorn in a thread of this process; the address of its only listener."""
    loop, http = request.param
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        hook(make_app()), loop=loop, http=http, log_level="error", lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()
    listener.close()


def head(method, path, *more):
    """A request's bytes and the key of its profile."""
    _, key = make_scope()
    lines = [f"{method} {path} HTTP/1.1", "host: test", f"x-tailrace: 1;{key}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode(), key


def read_responses(connection, count):
    """Reads until so many responses have come; bodies are short and of known length."""
    data = b""
    while data.count(b"HTTP/1.1 ") < count or not data.endswith((b"}", b"\r\n\r\n")):
        more = connection.recv(65536)
        if not more:
            break
        data += more
        if data.count(b"HTTP/1.1 ") == count and b"\r\n\r\n" in data.split(b"HTTP/1.1 ")[-1]:
            break
    return data


def wait_for(*keys, timeout_s=10.0):
    """The profiles of these keys, as soon as all are there."""
    found, end = {}, time.monotonic() + timeout_s
    while not set(keys) <= set(found):
        assert time.monotonic() < end, f"missing {set(keys) - set(found)}"
        found.update({p.key: p for p in take()[0]})
        time.sleep(0.01)
    return [found[k] for k in keys]


def test_kept_connection(port):
    """Contexts leak from one request of a connection to the next; profiles do not."""
    keys = []
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        for ms in (30, 1, 20):
            data, key = head("GET", f"/nap/{ms}")
            connection.sendall(data)
            read_responses(connection, 1)
            keys.append(key)
    for p, ms in zip(wait_for(*keys), (30, 1, 20), strict=True):
        assert p.route == "GET /nap/{ms}"
        assert p.lasted(p.sum("wait", "sleep", "child"), ms - 2)
        assert p.unattributed_ns == 0 and p.task_queue_ns is not None


def test_pipelined_requests(port):
    """The server starts the next request inside the one before; each has its own time."""
    napped = (30, 5, 20, 10, 40)
    data, keys = zip(*(head("GET", f"/nap/{ms}") for ms in napped), strict=True)
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"".join(data))
        read_responses(connection, len(napped))
        for p, ms in zip(wait_for(*keys), napped, strict=True):
            assert p.lasted(p.sum("wait", "sleep", "child"), ms - 2)
            assert p.app_ns <= ms * MS + BUSY_NS and p.unattributed_ns == 0


def test_slow_upload_is_client_receive(port):
    data, key = head("POST", "/upload", "content-length: 10")
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(data + b"01234")
        time.sleep(0.1)
        connection.sendall(b"56789")
        read_responses(connection, 1)
    (p,) = wait_for(key)
    assert p.lasted(p.sum("wait", "client_receive"), 80)


def test_slow_reader_is_client_send(port):
    """16 MiB towards a client that does not read for a while."""
    data, key = head("GET", "/big")
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(data)
        time.sleep(0.15)
        connection.settimeout(10)
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            got = got[-8:] + connection.recv(1 << 20)
    (p,) = wait_for(key)
    waits = [r for r in p.stream if r.kind == "wait" and r.cause == "client_send"]
    assert sum(r.ns for r in waits) >= 80 * MS
    assert p.stream_unattributed_ns == 0


def test_client_that_goes_away(port):
    """The app is told and returns; the profile says so and its sums hold."""
    data, key = head("GET", "/big")
    connection = socket.create_connection(("127.0.0.1", port), 10)
    connection.sendall(data)
    time.sleep(0.05)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    (p,) = wait_for(key)
    assert p.ended in ("disconnect", "response", "cancelled", "exception")
    assert p.final == 1


def test_mixed_load_keeps_apart(port):
    """120 requests of three kinds over 12 connections: each profile is its own request's."""
    wanted, measured = {}, {}
    guard = threading.Lock()

    def client(index):
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            for i in range(10):
                ms = 5 + (index * 7 + i * 3) % 31
                kind = ("nap", "sync", "lock")[(index + i) % 3]
                data, key = head("GET", f"/{kind}/{ms if kind != 'lock' else 3}")
                begin = time.monotonic_ns()
                connection.sendall(data)
                read_responses(connection, 1)
                with guard:
                    wanted[key] = (kind, ms)
                    measured[key] = time.monotonic_ns() - begin

    threads = [threading.Thread(target=client, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wanted) == 120
    for p, (key, (kind, ms)) in zip(wait_for(*wanted), wanted.items(), strict=True):
        assert p.route == f"GET /{kind}/{{ms}}"
        assert p.unattributed_ns == 0
        assert p.app_ns <= measured[key]
        if kind == "nap":
            other = p.sum("ready") + p.sum("run")
            spent = p.sum("wait", "sleep", "child")
            assert (ms - 2) * MS - other <= spent, p.shown()
        elif kind == "sync":
            assert ms * MS <= p.sum("thread_run", None, "sync"), p.shown()
        else:
            assert p.sum("wait", "sleep", "locked") >= MS
            for row in p.find("wait", "lock"):
                assert row.by_trace is not None and row.by_route == "GET /lock/{ms}"
