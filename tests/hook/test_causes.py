"""What a wait was for, told by the library that waits: real ones against small servers, others by
the names of their functions."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import httpx
import pytest
import redis.asyncio as redis
from hook_support import LOOPS, MS, hook, plain, request, run, take
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from tailrace import _engine, middleware

pytestmark = pytest.mark.parametrize("loop", LOOPS)

SLOW_S = 0.04


async def serve_http(reader, writer):
    """Answers each request after SLOW_S."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(SLOW_S)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


async def serve_redis(reader, writer):
    """Knows as much of RESP as a client's GET needs; answers GET after SLOW_S."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
        while True:
            count = int((await reader.readuntil(b"\r\n"))[1:])
            parts = []
            for _ in range(count):
                size = int((await reader.readuntil(b"\r\n"))[1:])
                parts.append((await reader.readexactly(size + 2))[:-2].upper())
            if parts[0] == b"GET":
                await asyncio.sleep(SLOW_S)
                writer.write(b"$2\r\nok\r\n")
            elif parts[0] == b"HELLO":
                writer.write(b"-ERR unknown command\r\n")
            else:
                writer.write(b"+OK\r\n")


@contextlib.asynccontextmanager
async def server(handler):
    """The port of a server on loopback."""
    made = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()


def two_requests(loop, opened, work):
    """The profiles of two requests at once that do work(client) with one client between them."""

    async def main():
        async with opened() as client:
            app = hook(plain(lambda: work(client)))
            await request(app)  # imports, connections
            take()
            return await asyncio.gather(request(app), request(app))

    keys = run(loop, main)
    found = {p.key: p for p in take()[0]}
    return [found[key] for key in keys]


def check(profiles, cause):
    """One of the two asked at once, the other had to wait for the pool's only connection first."""
    first, second = sorted(profiles, key=lambda p: p.sum("wait", "pool"))
    assert first.sum("wait", cause, "work") >= SLOW_S * 1e9 - 5 * MS, first.shown()
    assert second.sum("wait", cause, "work") >= SLOW_S * 1e9 - 5 * MS, second.shown()
    pool = second.find("wait", "pool", "work")
    assert sum(r.ns for r in pool) >= SLOW_S * 5e8, second.shown()
    assert first.key[:32] in {r.by_trace for r in pool}, second.shown()


def test_httpx(loop):
    @contextlib.asynccontextmanager
    async def opened():
        async with server(serve_http) as port:
            limits = httpx.Limits(max_connections=1)
            async with httpx.AsyncClient(limits=limits, timeout=20, trust_env=False) as client:
                client.port = port
                yield client

    async def work(client):
        assert (await client.get(f"http://127.0.0.1:{client.port}/")).text == "ok"

    check(two_requests(loop, opened, work), "http")


def test_aiohttp(loop):
    @contextlib.asynccontextmanager
    async def opened():
        async with server(serve_http) as port:
            connector = aiohttp.TCPConnector(limit=1)
            async with aiohttp.ClientSession(connector=connector) as client:
                yield client, port

    async def work(opened):
        client, port = opened
        async with client.get(f"http://127.0.0.1:{port}/") as response:
            assert await response.text() == "ok"

    check(two_requests(loop, opened, work), "http")


def test_redis(loop):
    @contextlib.asynccontextmanager
    async def opened():
        async with server(serve_redis) as port:
            pool = redis.BlockingConnectionPool(
                host="127.0.0.1", port=port, max_connections=1, timeout=20, protocol=2
            )
            client = redis.Redis(connection_pool=pool)
            yield client
            await client.aclose()
            await pool.disconnect()

    async def work(client):
        assert await client.get("key") == b"ok"

    check(two_requests(loop, opened, work), "cache")


def test_sqlalchemy(loop, tmp_path):
    slow = "with recursive n(i) as (select 1 union all select i + 1 from n limit 400000)"

    @contextlib.asynccontextmanager
    async def opened():
        url = f"sqlite+aiosqlite:///{tmp_path}/db"
        engine = create_async_engine(url, pool_size=1, max_overflow=0)
        yield engine
        await engine.dispose()

    async def work(engine):
        async with engine.connect() as connection:
            await connection.execute(text(f"{slow} select max(i) from n"))

    first, second = sorted(two_requests(loop, opened, work), key=lambda p: p.sum("wait", "pool"))
    assert first.sum("wait", "database", "work") >= 5 * MS, first.shown()
    pool = second.find("wait", "pool", "work")
    assert sum(r.ns for r in pool) >= first.sum("wait", "database", "work") // 2, second.shown()
    assert first.key[:32] in {r.by_trace for r in pool}


#: Functions of libraries that need a server, outermost first, and what a wait in them is for.
NAMED = [
    (["asyncpg/connection.py:fetch", "asyncpg/protocol/protocol.py:query"], "database"),
    (["asyncpg/pool.py:_acquire", "asyncio/queues.py:get"], "pool"),
    (["asyncpg/pool.py:_acquire", "asyncpg/connection.py:connect"], "database"),
    (["psycopg/connection_async.py:wait", "psycopg/waiting.py:wait_async"], "database"),
    (["psycopg_pool/pool_async.py:getconn", "psycopg_pool/pool_async.py:wait"], "pool"),
    (["motor/metaprogramming.py:find_one"], "database"),
    (["pymongo/asynchronous/collection.py:find_one"], "database"),
    (["aiomysql/pool.py:_acquire", "asyncio/locks.py:wait"], "pool"),
    (["aiomysql/cursors.py:execute"], "database"),
    (["redis/asyncio/client.py:execute_command", "asyncio/streams.py:read"], "cache"),
    (["redis/asyncio/connection.py:get_connection", "asyncio/locks.py:wait"], "pool"),
    (
        ["redis/asyncio/connection.py:get_connection", "redis/asyncio/connection.py:connect"],
        "cache",
    ),
    (["elasticsearch/_async/client/__init__.py:search"], "database"),
    (["mylib/client.py:call"], "unknown"),
    (["mylib/client.py:call", "asyncio/streams.py:read"], "socket"),
    (["tenacity/asyncio.py:call", "asyncio/tasks.py:wait_for"], "task"),
]
LIBRARY = "/opt/venv/lib/site-packages/"


def library_function(path, inner):
    """A coroutine function with this file and name, that awaits inner()."""
    file, name = path.split(":")
    space = {"inner": inner}
    exec(compile(f"async def {name}():\n    await inner()\n", LIBRARY + file, "exec"), space)
    return space[name]


@pytest.mark.parametrize(("chain", "cause"), NAMED, ids=[f"{c[-1]}-{w}" for c, w in NAMED])
def test_named_functions(loop, chain, cause):
    future = None

    inner = library_function("mylib/leaf.py:leaf", lambda: future)
    for path in reversed(chain):
        inner = library_function(path, inner)

    async def handler():
        nonlocal future
        here = asyncio.get_running_loop()
        future = here.create_future()
        here.call_later(0.01, future.set_result, None)
        await inner()

    app = hook(plain(handler))
    prefixes = [*middleware._library_prefixes(), LIBRARY]
    _engine.configure(in_app=[], library_prefixes=prefixes)
    take()
    try:
        run(loop, lambda: request(app))
    finally:
        _engine.configure(in_app=[], library_prefixes=middleware._library_prefixes())
    (p,) = take()[0]
    assert p.sum("wait", cause, "handler") >= 5 * MS, p.shown()
