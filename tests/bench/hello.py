"""The smallest FastAPI app, in the variants that `make bench` compares. Served by bench_hook.py."""

from __future__ import annotations

import cProfile
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

TRIGGER = b"x-tailrace"


def hello() -> FastAPI:
    """One async route that does nothing."""
    app = FastAPI()

    @app.get("/")
    async def root() -> dict[str, str]:
        return {"message": "Hello World"}

    return app


def wanted(scope: Scope) -> bool:
    """Does this request carry the trigger header? (The same test for every variant.)"""
    return scope["type"] == "http" and any(name == TRIGGER for name, _ in scope["headers"])


class Pyinstrument:
    """One pyinstrument session per triggered request, as its own guide shows, without rendering."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if not wanted(scope):
            return await self.app(scope, receive, send)
        from pyinstrument import Profiler

        with Profiler(async_mode="enabled"):
            await self.app(scope, receive, send)


class CProfile:
    """cProfile round each triggered request, without a dump."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if not wanted(scope):
            return await self.app(scope, receive, send)
        profile = cProfile.Profile()
        profile.enable()
        try:
            await self.app(scope, receive, send)
        finally:
            profile.disable()


def make() -> Any:
    """The app of the variant named in ``BENCH_VARIANT``."""
    variant = os.environ["BENCH_VARIANT"]
    app = hello()
    if variant == "none":
        return app
    if variant == "tailrace":
        import tailrace

        return tailrace.wrap(app)
    return {"pyinstrument": Pyinstrument, "cprofile": CProfile}[variant](app)
