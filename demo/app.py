"""The demo: a FastAPI app that waits in known places and tells what its own clock says of it.

Run it under uvicorn behind the gateway (``make demo``). Every answer carries ``slept_ns``: what
``time.perf_counter_ns()`` measured around the sleeps of each function, to compare with a profile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiosqlite
import tailrace
from fastapi import FastAPI, Request

D_S = 0.010  # one sleep
TIMES = 10  # sleeps of each function

Slept = dict[str, int]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep one database for the life of the app."""
    async with aiosqlite.connect(":memory:") as database:
        app.state.database = database
        yield


api = FastAPI(title="tailrace demo", lifespan=lifespan)


async def async_child_function(slept: Slept) -> None:
    for _ in range(TIMES):
        began = time.perf_counter_ns()
        await asyncio.sleep(D_S)
        slept["async_child_function"] += time.perf_counter_ns() - began


async def async_parent_function(slept: Slept) -> None:
    for _ in range(TIMES):
        began = time.perf_counter_ns()
        await asyncio.sleep(D_S)
        slept["async_parent_function"] += time.perf_counter_ns() - began
    await async_child_function(slept)


@api.get("/async")
async def async_root() -> dict[str, Any]:
    """Sleep in an async function, then in another one below it."""
    slept = {"async_parent_function": 0, "async_child_function": 0}
    await async_parent_function(slept)
    return {"slept_ns": slept}


def child_function(slept: Slept) -> None:
    for _ in range(TIMES):
        began = time.perf_counter_ns()
        time.sleep(D_S)
        slept["child_function"] += time.perf_counter_ns() - began


def parent_function(slept: Slept) -> None:
    for _ in range(TIMES):
        began = time.perf_counter_ns()
        time.sleep(D_S)
        slept["parent_function"] += time.perf_counter_ns() - began
    child_function(slept)


@api.get("/sync")
def sync_root() -> dict[str, Any]:
    """Do the same in a `def` route, which FastAPI runs in a thread."""
    slept = {"parent_function": 0, "child_function": 0}
    parent_function(slept)
    return {"slept_ns": slept}


async def gathered(name: str, seconds: float, slept: Slept) -> None:
    began = time.perf_counter_ns()
    await asyncio.sleep(seconds)
    slept[name] = time.perf_counter_ns() - began


async def first_child(slept: Slept) -> None:
    await gathered("first_child", 0.100, slept)


async def slowest_child(slept: Slept) -> None:
    await gathered("slowest_child", 0.300, slept)


async def third_child(slept: Slept) -> None:
    await gathered("third_child", 0.070, slept)


@api.get("/gather")
async def gather_root() -> dict[str, Any]:
    """Wait for three tasks at once: only the slowest one decides."""
    slept: Slept = {}
    await asyncio.gather(first_child(slept), slowest_child(slept), third_child(slept))
    return {"slept_ns": slept}


def blocking_function(slept: Slept) -> None:
    began = time.perf_counter_ns()
    time.sleep(0.100)
    slept["blocking_function"] = time.perf_counter_ns() - began


@api.get("/block")
async def block_root() -> dict[str, Any]:
    """Hold the event loop: every other request waits for this one."""
    slept: Slept = {}
    blocking_function(slept)
    return {"slept_ns": slept}


COUNT = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 200000)
SELECT count(*) FROM numbers
"""


@api.get("/db")
async def db_root(request: Request) -> dict[str, Any]:
    """Ask a database, which aiosqlite does in a thread of its own."""
    began = time.perf_counter_ns()
    async with request.app.state.database.execute(COUNT) as cursor:
        row = await cursor.fetchone()
    return {"rows": row[0], "slept_ns": {"db_root": time.perf_counter_ns() - began}}


app = tailrace.wrap(api)
