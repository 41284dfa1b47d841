"""FastAPI with tailrace: ``uvicorn main:app``."""

from __future__ import annotations

import asyncio
import time

import tailrace
from fastapi import FastAPI

api = FastAPI()


async def load(number: int, seconds: float = 0.02) -> int:
    await asyncio.sleep(seconds)
    return number


def render(number: int) -> str:
    time.sleep(0.03)
    return f"report {number}"


@api.get("/items/{number}")
async def item(number: int) -> dict[str, int]:
    return {"item": await load(number)}


@api.get("/report/{number}")
def report(number: int) -> dict[str, str]:
    return {"report": render(number)}


@api.get("/together")
async def together() -> dict[str, list[int]]:
    return {"items": await asyncio.gather(load(1, 0.01), load(2, 0.03))}


app = tailrace.wrap(api)
