"""Real database clients against servers of wire_servers.py: what a wait in them is for."""

from __future__ import annotations

import asyncio
import contextlib

import aiomysql
import asyncpg
import psycopg
import psycopg_pool
import pymongo
import pytest
from hook_support import LOOPS, MS, hook, plain, request, run, take
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from wire_servers import SLOW_S, serve_mongodb, serve_mysql, serve_postgresql

pytestmark = pytest.mark.parametrize("loop", LOOPS)
SLOW_NS = int(SLOW_S * 1e9)


@contextlib.asynccontextmanager
async def server(serve):
    async def quiet(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)

    made = await asyncio.start_server(quiet, "127.0.0.1", 0)
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()


def profiles(loop, serve, opened, work, count):
    """Profiles of so many requests at once that do work(client), after one that warms it up."""

    async def main():
        async with server(serve) as port, opened(port) as client:
            app = hook(plain(lambda: work(client)))
            await request(app)
            take()
            return await asyncio.gather(*(request(app) for _ in range(count)))

    keys = run(loop, main)
    found = {p.key: p for p in take()[0]}
    return [found[key] for key in keys]


def check_one(loop, serve, opened, work):
    (p,) = profiles(loop, serve, opened, work, 1)
    assert p.sum("wait", "database", "work") >= SLOW_NS - 3 * MS, p.shown()
    assert p.sum("wait", "unknown") + p.sum("wait", "socket") == 0, p.shown()


def check_pool(loop, serve, opened, work):
    """Of two requests with one connection one asks at once, the other waits for the pool first."""
    two = profiles(loop, serve, opened, work, 2)
    first, second = sorted(two, key=lambda p: p.sum("wait", "pool"))
    assert first.sum("wait", "database", "work") >= SLOW_NS - 3 * MS, first.shown()
    assert second.sum("wait", "database", "work") >= SLOW_NS - 3 * MS, second.shown()
    assert second.sum("wait", "pool", "work") >= SLOW_NS // 2, second.shown()
    by = {r.by_trace for r in second.find("wait", "pool", "work")}
    assert by <= {first.key[:32], None} and first.key[:32] in by, second.shown()


def url(kind, port):
    return f"{kind}://user:word@127.0.0.1:{port}/db"


@contextlib.asynccontextmanager
async def open_asyncpg(port):
    made = await asyncpg.connect(url("postgresql", port), ssl=False)
    yield made
    await made.close()


@pytest.mark.parametrize("method", ["execute", "fetch", "fetchval"])
def test_asyncpg(loop, method):
    async def work(connection):
        await getattr(connection, method)("select slow")

    check_one(loop, serve_postgresql, open_asyncpg, work)


def test_asyncpg_pool(loop):
    @contextlib.asynccontextmanager
    async def opened(port):
        async with asyncpg.create_pool(
            url("postgresql", port), ssl=False, min_size=1, max_size=1
        ) as pool:
            yield pool

    async def work(pool):
        async with pool.acquire() as connection:
            assert await connection.fetchval("select slow") == 7

    check_pool(loop, serve_postgresql, opened, work)


def test_psycopg(loop):
    @contextlib.asynccontextmanager
    async def opened(port):
        made = await psycopg.AsyncConnection.connect(
            url("postgresql", port) + "?sslmode=disable&gssencmode=disable", autocommit=True
        )
        yield made
        await made.close()

    async def work(connection):
        cursor = await connection.execute("select slow")
        assert await cursor.fetchone() == (7,)

    check_one(loop, serve_postgresql, opened, work)


def test_psycopg_pool(loop):
    @contextlib.asynccontextmanager
    async def opened(port):
        pool = psycopg_pool.AsyncConnectionPool(
            url("postgresql", port) + "?sslmode=disable&gssencmode=disable",
            min_size=1, max_size=1, open=False, kwargs={"autocommit": True},
        )  # fmt: skip
        await pool.open(wait=True, timeout=20)
        yield pool
        await pool.close()

    async def work(pool):
        async with pool.connection() as connection:
            await connection.execute("select slow")

    check_pool(loop, serve_postgresql, opened, work)


def test_sqlalchemy_over_asyncpg(loop):
    @contextlib.asynccontextmanager
    async def opened(port):
        engine = create_async_engine(
            url("postgresql+asyncpg", port) + "?ssl=disable",
            pool_size=1, max_overflow=0, isolation_level="AUTOCOMMIT", pool_reset_on_return=None,
        )  # fmt: skip
        engine.dialect.skip_autocommit_rollback = True
        yield engine
        await engine.dispose()

    async def work(engine):
        async with engine.connect() as connection:
            await connection.execute(text("select slow"))

    check_pool(loop, serve_postgresql, opened, work)


def test_aiomysql(loop):
    @contextlib.asynccontextmanager
    async def opened(port):
        made = await aiomysql.connect(host="127.0.0.1", port=port, user="user", password="")
        yield made
        made.close()

    async def work(connection):
        async with connection.cursor() as cursor:
            await cursor.execute("select slow")
            assert await cursor.fetchone() == (7,)

    check_one(loop, serve_mysql, opened, work)


def test_aiomysql_pool(loop):
    @contextlib.asynccontextmanager
    async def opened(port):
        pool = await aiomysql.create_pool(
            host="127.0.0.1", port=port, user="user", password="", minsize=1, maxsize=1
        )
        yield pool
        pool.terminate()

    async def work(pool):
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute("select slow")

    check_pool(loop, serve_mysql, opened, work)


def test_pymongo(loop):
    @contextlib.asynccontextmanager
    async def opened(port):
        client = pymongo.AsyncMongoClient(f"mongodb://127.0.0.1:{port}/?directConnection=true")
        yield client
        await client.close()

    async def work(client):
        assert (await client.db.c.find_one({"name": "slow"}))["number"] == 7

    check_one(loop, serve_mongodb, opened, work)


def test_pymongo_pool(loop):
    @contextlib.asynccontextmanager
    async def opened(port):
        client = pymongo.AsyncMongoClient(
            f"mongodb://127.0.0.1:{port}/?directConnection=true&maxPoolSize=1"
        )
        yield client
        await client.close()

    async def work(client):
        await client.db.c.find_one({"name": "slow"})

    check_pool(loop, serve_mongodb, opened, work)


def test_motor(loop):
    """Its calls run in threads: the job is named under the function that awaited it."""
    import motor.motor_asyncio

    @contextlib.asynccontextmanager
    async def opened(port):
        client = motor.motor_asyncio.AsyncIOMotorClient(
            f"mongodb://127.0.0.1:{port}/?directConnection=true"
        )
        yield client
        await asyncio.to_thread(client.close)  # it waits for its threads, they for our server

    async def work(client):
        assert (await client.db.c.find_one({"name": "slow"}))["number"] == 7

    (p,) = profiles(loop, serve_mongodb, opened, work, 1)
    rows = p.find("thread_run", None, "work")
    assert sum(r.ns for r in rows) >= SLOW_NS - 3 * MS, p.shown()
