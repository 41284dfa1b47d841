"""What a request knows of its own times, by construction and by its own clock.

This folder counts as a library for the hook (scenario_runner.py says so): its frames are nobody's,
so that times belong to the scenario's functions. A scenario is one request; what it tells to `t` is
what its profile must say. Its functions are nested in it, so that a frame of another one is seen as
a stranger by its line.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

MS = 1_000_000
now = time.monotonic_ns

START = {"type": "http.response.start", "status": 200, "headers": []}
LAST = {"type": "http.response.body", "body": b"x"}
MORE = {"type": "http.response.body", "body": b"x", "more_body": True}


@dataclass
class Known:
    """Time that must be told: of this kind and cause, innermost in this function of the app."""

    kind: str
    cause: str | None
    function: str
    least_ns: int
    most_ns: int
    count: int = 1
    where: str = "breakdown"
    sampled: bool = False
    by: bool = False  # the row must name the companion's request
    begin_ns: int = 0  # by the own clock

    @property
    def key(self) -> tuple[Any, ...]:
        """Rows of one key are added up."""
        return (self.where, self.kind, self.cause, self.function)


@dataclass
class Truth:
    """One request's. `extra_ms` tells it from others in flight."""

    extra_ms: int = 0
    known: list[Known] = field(default_factory=list)
    never: list[str] = field(default_factory=list)  # functions whose time is not on the path
    where: str = "breakdown"
    shared: dict[str, Any] = field(default_factory=dict)  # with its companion
    mode: str = "alone"

    def add(
        self,
        kind: str,
        cause: str | None,
        function: str,
        least_ms: float,
        most_ns: int,
        **more: Any,
    ) -> None:
        """Something took least_ms by construction, most_ns by the own clock."""
        least = min(int(least_ms * MS), most_ns)
        more.setdefault("where", self.where)
        more.setdefault("begin_ns", now() - most_ns)
        self.known.append(Known(kind, cause, function, least, most_ns, **more))

    def ms(self, base: int) -> int:
        """A duration of this request's own."""
        return base + self.extra_ms

    async def sleep(self, function: str, ms: float, path: bool = True, anyio: Any = None) -> None:
        """Sleep in a function of the scenario; path: it is what the answer waits for."""
        begin = now()
        if anyio is not None:
            await anyio.sleep(ms / 1000)
        else:
            await asyncio.sleep(ms / 1000)
        if path:
            self.add("wait", "sleep", function, ms, now() - begin)
        else:
            self.never.append(function)

    async def awaits(
        self,
        kind: str,
        cause: str,
        function: str,
        ms: float,
        awaitable: Awaitable[Any],
        **more: Any,
    ) -> Any:
        """Await something that takes ms by construction."""
        begin = now()
        result = await awaitable
        self.add(kind, cause, function, ms, now() - begin, **more)
        return result

    def spin(self, function: str, ms: float, kind: str = "run", path: bool = True) -> None:
        """Compute for ms of this thread's CPU."""
        begin, until = now(), time.thread_time_ns() + int(ms * MS)
        while time.thread_time_ns() < until:
            pass
        self.held(function, ms, now() - begin, kind, path)

    def block(self, function: str, ms: float, kind: str = "run", path: bool = True) -> None:
        """Block this thread for ms."""
        begin = now()
        time.sleep(ms / 1000)
        self.held(function, ms, now() - begin, kind, path)

    def held(self, function: str, ms: float, took_ns: int, kind: str, path: bool) -> None:
        """What spin() and block() know. Long ones are split by samples."""
        if path:
            self.add(kind, None, function, ms, took_ns, sampled=took_ns >= 8 * MS)
        else:
            self.never.append(function)


Scenario = Callable[..., Awaitable[Any]]


@dataclass
class Entry:
    """A scenario and what it needs."""

    name: str
    run: Scenario
    needs: tuple[str, ...] = ()
    python: tuple[int, int] = (3, 10)
    quick: bool = False  # one of those that run on every Python in `make test`
    asgi: bool = False  # it is the whole app: run(truth, scope, receive, send)
    companion: Scenario | None = None  # another request, beside it
    loops: tuple[str, ...] = ("asyncio", "uvloop")
    many: int = 50  # how many in flight
    warm: bool = False  # its first request makes what the others find: it is not judged
    switch_s: float = 0.005  # after which a thread hands over the interpreter


ENTRIES: list[Entry] = []


def scenario(**options: Any) -> Callable[[Scenario], Scenario]:
    """Register a scenario; options are Entry's."""

    def register(run: Scenario) -> Scenario:
        ENTRIES.append(Entry(run.__name__, run, **options))
        return run

    return register
