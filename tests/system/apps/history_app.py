"""An app that gets slower at a switch: one of two functions it awaits takes longer."""

from __future__ import annotations

import asyncio
from typing import Any

import tailrace
from fastapi import FastAPI

api = FastAPI()
orders_s = 0.005


async def load_user() -> None:
    """What stays as it is."""
    await asyncio.sleep(0.010)


async def load_orders() -> None:
    """What gets slower."""
    await asyncio.sleep(orders_s)


@api.get("/work/{item}")
async def work(item: int) -> dict[str, Any]:
    """Load both."""
    await load_user()
    await load_orders()
    return {"item": item}


@api.post("/switch/{ms}")
async def switch(ms: int) -> dict[str, Any]:
    """From now on load_orders() takes `ms`."""
    global orders_s
    orders_s = ms / 1000
    return {"ms": ms}


app = tailrace.wrap(api)
