"""Litestar with tailrace: ``uvicorn main:app``."""

import asyncio
import time

import tailrace
from litestar import Litestar, get
from litestar.params import FromPath


async def load(number: int, seconds: float = 0.02) -> int:
    await asyncio.sleep(seconds)
    return number


def render(number: int) -> str:
    time.sleep(0.03)
    return f"report {number}"


@get("/items/{number:int}")
async def item(number: FromPath[int]) -> dict[str, int]:
    return {"item": await load(number)}


@get("/report/{number:int}", sync_to_thread=True)
def report(number: FromPath[int]) -> dict[str, str]:
    return {"report": render(number)}


@get("/together")
async def together() -> dict[str, list[int]]:
    return {"items": await asyncio.gather(load(1, 0.01), load(2, 0.03))}


app = tailrace.wrap(Litestar([item, report, together]))
