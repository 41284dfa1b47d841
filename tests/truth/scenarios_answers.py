"""How a response is sent, frameworks and libraries. See truth_known.py."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from truth_known import LAST, MORE, START, Truth, now, scenario

with contextlib.suppress(ImportError):  # where it is not installed, its scenarios do not run
    from fastapi import Depends, FastAPI, Request

# --- the response -----------------------------------------------------------------------------


_made: dict[str, Any] = {}


def made(name: str, make: Any) -> Any:
    """An app, made once."""
    if name not in _made:
        _made[name] = make()
    return _made[name]


@scenario(asgi=True)
async def streamed_answer(t: Truth, scope: Any, receive: Any, send: Any) -> None:
    async def pieces() -> Any:
        for _ in range(3):
            await t.sleep("pieces", t.ms(8))
            yield b"x"

    async def before() -> None:
        await t.sleep("before", t.ms(10))

    await before()
    await send(START)
    t.where = "stream"
    async for _ in pieces():
        await send(MORE)
    await send(LAST)


@scenario(asgi=True)
async def background_work(t: Truth, scope: Any, receive: Any, send: Any) -> None:
    async def before() -> None:
        await t.sleep("before", t.ms(10))

    async def afterwards() -> None:
        await t.sleep("afterwards", 30, path=False)

    await before()
    await send(START)
    await send(LAST)
    await afterwards()


@scenario(asgi=True, needs=("starlette",))
async def sync_generator_streamed(t: Truth, scope: Any, receive: Any, send: Any) -> None:
    from starlette.responses import StreamingResponse

    def pieces() -> Any:
        for _ in range(3):
            t.block("pieces", 6, "thread_run")
            yield b"x"

    t.where = "stream"
    await StreamingResponse(pieces())(scope, receive, send)


@scenario(asgi=True, needs=("starlette",))
async def chain_of_middleware(t: Truth, scope: Any, receive: Any, send: Any) -> None:
    """Three BaseHTTPMiddleware, each of which runs the rest in a task of its own."""
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import PlainTextResponse

    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        await t.sleep("endpoint", t.ms(12))
        await PlainTextResponse("x")(scope, receive, send)

    async def dispatch(request: Any, call_next: Any) -> Any:
        await t.sleep("dispatch", 4)
        return await call_next(request)

    app: Any = endpoint
    for _ in range(3):
        app = BaseHTTPMiddleware(app, dispatch)
    await app(scope, receive, send)


@scenario(asgi=True, needs=("fastapi",), many=20, warm=True)
async def dependencies_with_yield(t: Truth, scope: Any, receive: Any, send: Any) -> None:
    def make() -> Any:
        async def dependency(request: Request) -> Any:
            await request.scope["t"].sleep("dependency", request.scope["t"].ms(8))
            yield 1

        def sync_dependency(request: Request) -> int:
            request.scope["t"].block("sync_dependency", 5, "thread_run")
            return 1

        app = FastAPI()
        inner = FastAPI()
        app.mount("/sub", inner)

        @inner.get("/x")
        async def endpoint(
            request: Request, a: int = Depends(dependency), b: int = Depends(sync_dependency)
        ) -> int:
            await request.scope["t"].sleep("endpoint", request.scope["t"].ms(8))
            return a + b

        return app

    app = made("dependencies_with_yield", make)
    await app({**scope, "t": t, "path": "/sub/x", "raw_path": b"/sub/x"}, receive, send)


@scenario(asgi=True, needs=("fastapi",), many=20, warm=True)
async def def_route(t: Truth, scope: Any, receive: Any, send: Any) -> None:
    def make() -> Any:
        app = FastAPI()

        @app.get("/x")
        def endpoint(request: Request) -> int:
            request.scope["t"].block("endpoint", 6, "thread_run")
            return 1

        return app

    app = made("def_route", make)
    await app({**scope, "t": t, "path": "/x", "raw_path": b"/x"}, receive, send)


# --- libraries --------------------------------------------------------------------------------


@scenario(needs=("aiosqlite",), many=8)
async def database_of_its_own_thread(t: Truth) -> None:
    import aiosqlite

    def nap(ms: float) -> int:
        time.sleep(ms / 1000)
        return 1

    async def asks() -> None:
        begin = now()
        async with aiosqlite.connect(":memory:") as db:
            await db.create_function("nap", 1, nap)
            await db.execute_fetchall("select nap(?)", (t.ms(15),))
        t.add("wait", "database", "asks", t.ms(15), now() - begin)

    await asks()
