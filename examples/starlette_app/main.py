"""Starlette with tailrace: ``uvicorn main:app``."""

from __future__ import annotations

import asyncio
import time

import tailrace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def load(number: int, seconds: float = 0.02) -> int:
    await asyncio.sleep(seconds)
    return number


def render(number: int) -> str:
    time.sleep(0.03)
    return f"report {number}"


async def item(request: Request) -> JSONResponse:
    return JSONResponse({"item": await load(request.path_params["number"])})


def report(request: Request) -> JSONResponse:
    return JSONResponse({"report": render(request.path_params["number"])})


async def together(request: Request) -> JSONResponse:
    return JSONResponse({"items": await asyncio.gather(load(1, 0.01), load(2, 0.03))})


routes = [
    Route("/items/{number:int}", item),
    Route("/report/{number:int}", report),
    Route("/together", together),
]
app = tailrace.wrap(Starlette(routes=routes))
