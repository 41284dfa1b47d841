"""An app with switches: each route gets slower in a way of its own, by POST /switch/{name}/{on}."""

from __future__ import annotations

import asyncio
import os
import time

import tailrace
from fastapi import FastAPI, Response

routes = FastAPI()
switched: set[str] = set()


@routes.post("/switch/{name}/{on}")
async def switch(name: str, on: int) -> dict[str, list[str]]:
    """Turn one of the slownesses on or off."""
    switched.add(name) if on else switched.discard(name)
    return {"on": sorted(switched)}


async def fetch_user() -> None:
    """An await that gets longer."""
    await asyncio.sleep(0.06 if "await" in switched else 0.02)


async def query() -> None:
    """A query that is made more often."""
    await asyncio.sleep(0.01)


def burn(ms: float) -> None:
    """Compute for so long."""
    end = time.thread_time() + ms / 1000
    while time.thread_time() < end:
        pass


def read_file() -> None:
    """A call that blocks the loop."""
    time.sleep(0.04)


@routes.get("/await")
async def slower_await() -> dict[str, int]:
    await fetch_user()
    return {}


@routes.get("/loop")
async def more_queries() -> dict[str, int]:
    for _ in range(6 if "loop" in switched else 2):
        await query()
    return {}


@routes.get("/blip")
async def blip() -> dict[str, int]:
    await asyncio.sleep(0.06 if "blip" in switched else 0.02)
    return {}


@routes.get("/cpu")
async def cpu() -> dict[str, int]:
    await asyncio.sleep(0.01)
    burn(30 if "cpu" in switched else 1)
    return {}


@routes.get("/block")
async def block() -> dict[str, int]:
    await asyncio.sleep(0.01)
    if "block" in switched:
        read_file()
    return {}


def use_thread() -> None:
    """A job of a thread pool."""
    time.sleep(0.02)


@routes.get("/thread")
def thread() -> dict[str, int]:
    use_thread()
    return {}


def hold_thread() -> None:
    """What takes the pool's threads from the others."""
    time.sleep(1.0)


@routes.get("/hog")
def hog() -> dict[str, int]:
    hold_thread()
    return {}


BIG = b"x" * 6_000_000  # more than all buffers on the way


@routes.get("/big")
async def big() -> Response:
    await asyncio.sleep(0.02)
    return Response(BIG)


@routes.get("/work")
async def work() -> dict[str, int]:
    """Takes the loop for a while: enough requests at a time have to wait."""
    burn(float(os.environ.get("WORK_MS", "8")))
    return {}


app = tailrace.wrap(routes)
