"""Routes that take known times in named functions, for the truth tests.

`/own/…` routes sleep as many milliseconds as their path says; each answers with what its own
clock measured round the sleep and with the trace the gateway gave it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import tailrace
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse

THREADS = 40


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    yield


api = FastAPI(lifespan=lifespan)


def told(request: Request, began: int) -> dict[str, Any]:
    measured = time.perf_counter_ns() - began
    return {"measured_ns": measured, "header": request.headers.get("x-tailrace")}


async def plain_wait(seconds: float) -> None:
    await asyncio.sleep(seconds)


@api.get("/own/plain/{ms}")
async def own_plain(request: Request, ms: int) -> dict[str, Any]:
    began = time.perf_counter_ns()
    await plain_wait(ms / 1000)
    return told(request, began)


async def nested_wait(seconds: float, depth: int) -> None:
    if depth > 0:
        await nested_wait(seconds, depth - 1)
    else:
        await asyncio.sleep(seconds)


@api.get("/own/nested/{ms}")
async def own_nested(request: Request, ms: int) -> dict[str, Any]:
    began = time.perf_counter_ns()
    await nested_wait(ms / 1000, 5)
    return told(request, began)


async def task_wait(seconds: float) -> None:
    await asyncio.sleep(seconds)


@api.get("/own/task/{ms}")
async def own_task(request: Request, ms: int) -> dict[str, Any]:
    began = time.perf_counter_ns()
    await asyncio.create_task(task_wait(ms / 1000))
    return told(request, began)


async def gather_wait(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def gather_short(seconds: float) -> None:
    await asyncio.sleep(seconds)


@api.get("/own/gather/{ms}")
async def own_gather(request: Request, ms: int) -> dict[str, Any]:
    began = time.perf_counter_ns()
    await asyncio.gather(gather_short(ms / 2000), gather_wait(ms / 1000), gather_short(ms / 3000))
    return told(request, began)


def thread_sleep(seconds: float) -> None:
    time.sleep(seconds)


@api.get("/own/def/{ms}")
def own_def(request: Request, ms: int) -> dict[str, Any]:
    began = time.perf_counter_ns()
    thread_sleep(ms / 1000)
    return told(request, began)


def to_thread_sleep(seconds: float) -> None:
    time.sleep(seconds)


@api.get("/own/to_thread/{ms}")
async def own_to_thread(request: Request, ms: int) -> dict[str, Any]:
    began = time.perf_counter_ns()
    await asyncio.to_thread(to_thread_sleep, ms / 1000)
    return told(request, began)


async def long_child() -> None:
    await asyncio.sleep(0.300)


@api.get("/path/child")
async def path_child() -> None:
    """A 300 ms child, awaited after 100 ms of own sleep."""
    child = asyncio.create_task(long_child())
    await asyncio.sleep(0.100)
    await child


async def gather_100() -> None:
    await asyncio.sleep(0.100)


async def gather_300() -> None:
    await asyncio.sleep(0.300)


async def gather_70() -> None:
    await asyncio.sleep(0.070)


@api.get("/path/gather")
async def path_gather() -> None:
    await asyncio.gather(gather_100(), gather_300(), gather_70())


@api.get("/path/group")
async def path_group() -> None:
    """What TaskGroup does on every version of Python: children awaited one after the other."""
    tasks = [asyncio.create_task(c()) for c in (gather_100, gather_300, gather_70)]
    for task in tasks:
        await task


lock = asyncio.Lock()


@api.get("/lock/{ms}")
async def lock_route(ms: int) -> None:
    async with lock:
        await asyncio.sleep(ms / 1000)


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(5):
        await asyncio.sleep(0.020)
        yield b"x" * 10


@api.get("/stream")
async def stream() -> StreamingResponse:
    await asyncio.sleep(0.030)
    return StreamingResponse(pieces())


async def afterwards() -> None:
    await asyncio.sleep(0.150)


@api.get("/background")
async def background() -> JSONResponse:
    await asyncio.sleep(0.020)
    return JSONResponse({}, background=BackgroundTask(afterwards))


async def middleware_wait() -> None:
    await asyncio.sleep(0.020)


@api.middleware("http")
async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
    """A BaseHTTPMiddleware: the rest of the app runs in a child task."""
    if request.url.path == "/path/middleware":
        await middleware_wait()
    return await call_next(request)


async def below_middleware() -> None:
    await asyncio.sleep(0.040)


@api.get("/path/middleware")
async def path_middleware() -> None:
    await below_middleware()


app = tailrace.wrap(api)
