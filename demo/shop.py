"""The headline's app: a shop whose version v42 asks for the prices of a cart one by one.

Run it under uvicorn behind the gateway (``make headline``). ``STOCK_PORT`` says where the stock
service listens, ``TAILRACE_APP_VERSION`` which version of the shop this is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from typing import Any

import tailrace
from fastapi import FastAPI

STOCK_PORT = int(os.environ["STOCK_PORT"])
LINKS = 16  # connections to the stock service
ONE_BY_ONE = os.environ.get("TAILRACE_APP_VERSION") == "v42"

free: list[Link] = []


@dataclass
class Link:
    """A connection to the stock service: a line there, a line back."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def ask(self, question: str) -> Awaitable[bytes]:
        """Sends a question; the answer is awaited by the caller."""
        self.writer.write(question.encode() + b"\n")
        return self.reader.readline()


@contextlib.contextmanager
def stock() -> Iterator[Link]:
    """A connection that nobody else uses meanwhile."""
    link = free.pop()
    try:
        yield link
    finally:
        free.append(link)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep the connections for the life of the app."""
    free.extend(
        [Link(*await asyncio.open_connection("127.0.0.1", STOCK_PORT)) for _ in range(LINKS)]
    )
    yield


api = FastAPI(title="shop", lifespan=lifespan)


async def load_cart(cart: int) -> list[str]:
    with stock() as link:
        return (await link.ask(f"cart {cart}")).decode().strip().split(",")


async def fetch_prices(items: list[str]) -> list[int]:
    prices: list[int] = []
    with stock() as link:
        for asked in items if ONE_BY_ONE else [",".join(items)]:
            answer = await link.ask(f"prices {asked}")
            prices += [int(price) for price in answer.split(b",")]
    return prices


@api.get("/checkout/{cart}")
async def checkout(cart: int) -> dict[str, Any]:
    """What a cart costs."""
    items = await load_cart(cart)
    return {"items": items, "total": sum(await fetch_prices(items))}


@api.get("/products")
async def products() -> dict[str, Any]:
    """A route that stays as it is."""
    return {"products": await load_cart(1)}


app = tailrace.wrap(api)
