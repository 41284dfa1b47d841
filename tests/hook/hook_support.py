"""Drives ASGI apps through the hook in this process and decodes what the engine says of them."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

os.environ.setdefault("TAILRACE_CALLBACK", "unix:/nonexistent/tailrace-tests")

from tailrace import _engine, middleware, sender

MS = 1_000_000
BUSY_NS = 500 * MS  # what a thread may wait for a processor on a busy machine
LOOPS = ["asyncio", "uvloop"]

_stacks: dict[int, list[str]] = {}
_lines: dict[int, list[int]] = {}
_jobs: dict[tuple[str, int], dict[str | None, Jobs]] = {}


class Jobs(NamedTuple):
    """What the thread jobs of one function took."""

    count: int = 0
    queue_ns: int = 0
    run_ns: int = 0
    cpu_ns: int = 0
    return_ns: int = 0


@dataclass
class Row:
    """One breakdown row; stack holds qualified function names, outermost first."""

    kind: str
    cause: str | None
    stack: list[str]
    ns: int
    count: int
    exact: int
    samples: int
    by_trace: str | None
    by_route: str | None
    lines: list[int] = field(default_factory=list)


@dataclass
class Profile:
    """One row of docs/protocol.md §2."""

    key: str
    part: int
    final: int
    route: str | None
    task_queue_ns: int | None
    enter_ns: int
    start_ns: int | None
    end_ns: int
    tail_ns: int | None
    ended: str
    truncated: int
    breakdown: list[Row]
    unattributed_ns: int
    stream: list[Row]
    stream_unattributed_ns: int
    stalls: list[Any]
    cpu_ns: int | None
    threads: dict[str | None, Jobs] = field(default_factory=dict)  # by function
    holds: list[Any] = field(default_factory=list)  # of the loop, before its call

    @property
    def app_ns(self) -> int:
        """From the ASGI call to the start of the response."""
        return (self.end_ns if self.start_ns is None else self.start_ns) - self.enter_ns

    def sum(self, kind: str, cause: str | None = None, function: str | None = None) -> int:
        """What rows of this kind, cause and with this function in their stack add up to."""
        return sum(r.ns for r in self.find(kind, cause, function))

    def find(self, kind: str, cause: str | None = None, function: str | None = None) -> list[Row]:
        """The rows of this kind, cause and with this function in their stack."""
        return [
            r
            for r in self.breakdown
            if r.kind == kind
            and (cause is None or r.cause == cause)
            and (function is None or function in r.stack)
        ]

    def lasted(self, ns: int, ms: int) -> bool:
        """Whether ns is what a wait of ms may have become: later by BUSY_NS at most; shorter only
        by what the request itself lost the processor for: seen as run, ready or unattributed."""
        rows = self.breakdown + self.stream
        # uvloop's timers count whole milliseconds of a clock cut to them: up to one early.
        own = MS + sum(r.ns for r in rows if r.kind in ("run", "ready")) + self.unattributed_ns
        return max(ms * MS - own, ms * MS // 5) <= ns <= ms * MS + BUSY_NS

    def shown(self) -> str:
        """The breakdown for eyes."""
        return "\n".join(
            f"{r.kind} {r.cause} {r.ns / 1e6:.3f} ms x{r.count} exact={r.exact} "
            f"samples={r.samples} {'>'.join(r.stack)} {r.by_trace}"
            for r in self.breakdown
        )

    def check(self) -> Profile:
        """The sums that must hold exactly, whatever happened."""
        assert self.unattributed_ns >= 0 and self.stream_unattributed_ns >= 0
        if self.part == 0:
            stream_ns = 0 if self.start_ns is None else self.end_ns - self.start_ns
            assert sum(r.ns for r in self.breakdown) + self.unattributed_ns == self.app_ns
            assert sum(r.ns for r in self.stream) + self.stream_unattributed_ns == stream_ns
        else:  # only the stream since the part before
            assert self.breakdown == [] and self.unattributed_ns == 0
        assert all(r.ns > 0 and r.count > 0 for r in self.breakdown + self.stream)
        return self


class WayBack:
    """A job that ends while its loop is held: what its result waits, by clocks of its own."""

    def job(self) -> None:
        self.began_ns = time.monotonic_ns()
        time.sleep(0.02)
        self.ended_ns = time.monotonic_ns()

    def hold(self) -> None:
        time.sleep(0.06)
        self.free_ns = time.monotonic_ns()

    def resume(self) -> None:
        self.resumed_ns = time.monotonic_ns()

    def check(self, p: Profile) -> None:
        """The profile says so, but for what the job took beside what it measured."""
        jobs = p.threads["job"]
        own_ns = jobs.run_ns - (self.ended_ns - self.began_ns)
        assert self.free_ns - self.ended_ns - own_ns <= jobs.return_ns, p.shown()
        assert jobs.return_ns <= self.resumed_ns - self.ended_ns, p.shown()
        assert jobs.return_ns <= p.sum("ready") + MS, p.shown()


def learn(stacks: list[Any]) -> None:
    """Keeps the names of stacks the engine has handed out."""
    for number, frames in stacks:
        _stacks[number] = [getattr(c, "co_qualname", c.co_name).split(".")[-1] for c, _ in frames]
        _lines[number] = [line for _, line in frames]


def take() -> tuple[list[Profile], dict[str, int]]:
    """All finished profiles, checked, and the tails sent later."""
    profiles: list[Profile] = []
    tails: dict[str, int] = {}
    while True:
        rows, ends, stacks = _engine.take(1 << 18)
        learn(stacks)
        if not (rows or ends or stacks):
            return profiles, tails
        for raw in json.loads(b"[" + rows + b"]"):
            raw[11] = [_row(r) for r in raw[11]]
            raw[13] = [_row(r) for r in raw[13]]
            profiles.append(Profile(*raw).check())
        threads, returns, held = (json.loads(b"[" + rows + b"]") for rows in _engine.take_beside())
        lags = {(key, part): lags for key, part, lags in returns}
        for key, part, jobs in threads:
            _jobs[key, part] = {
                _function(s): Jobs(*row, lag)
                for (s, *row), lag in zip(jobs, lags[key, part], strict=True)
            }
        holds = dict(held)
        for p in profiles:  # jobs of profiles that a test took aside stay behind
            p.threads = _jobs.pop((p.key, p.part), p.threads)
            p.holds = holds.get(p.key, p.holds)
        tails.update(json.loads(b"[" + ends + b"]"))


def _function(stack: int) -> str | None:
    if stack >= 0 and stack not in _stacks:  # a test took it aside
        learn(_engine.stacks())
    return _stacks[stack][-1] if stack >= 0 else None


def _row(raw: list[Any]) -> Row:
    kind, cause, stack, *rest = raw
    if stack >= 0 and stack not in _stacks:  # a test took it aside
        learn(_engine.stacks())
    return Row(
        kind,
        cause,
        _stacks[stack] if stack >= 0 else [],
        *rest,
        lines=_lines[stack] if stack >= 0 else [],
    )


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """A fresh loop of this kind."""
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def hook(app: Any) -> middleware.Hook:
    """The hook round an app, its sender quiet: the test takes the rows."""
    sender.ensure_started = lambda: None  # type: ignore[assignment]
    return middleware.Hook(app)


_count = 0


def make_scope(path: str = "/", header: bool = True, **more: Any) -> tuple[dict[str, Any], str]:
    """An HTTP scope and the key of the profile it will make."""
    global _count
    _count += 1
    key = f"{_count:032x}-{_count:016x}"
    headers = [(b"host", b"test")]
    if header:
        headers.append((b"x-tailrace", b"1;" + key.encode()))
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "scheme": "http", "headers": headers, "client": ("127.0.0.1", 1), "server": ("test", 80),
        **more,
    }  # fmt: skip
    return scope, key


async def request(
    app: Any,
    path: str = "/",
    header: bool = True,
    body: bytes = b"",
    sent: list[Any] | None = None,
    **more: Any,
) -> str:
    """One request in a task of its own, as a server makes it. Returns its key."""
    scope, key = make_scope(path, header, **more)
    parts = [{"type": "http.request", "body": body, "more_body": False}]
    messages = [] if sent is None else sent

    async def receive() -> Any:
        if parts:
            return parts.pop()
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        messages.append(message)

    await asyncio.get_running_loop().create_task(app(scope, receive, send))
    return key


def run(loop_name: str, main: Callable[[], Awaitable[Any]]) -> Any:
    """Runs main() on a fresh loop of this kind."""
    loop = new_loop(loop_name)
    try:
        return loop.run_until_complete(main())
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def profile(loop_name: str, handler: Callable[[], Awaitable[Any]]) -> Profile:
    """The profile of one request whose app awaits handler() and then answers."""
    take()
    app = hook(plain(handler))
    key = run(loop_name, lambda: request(app))
    found = {p.key: p for p in take()[0]}
    return found[key]


def plain(handler: Callable[[], Awaitable[Any]]) -> Any:
    """An ASGI app that awaits handler() and answers 200."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await handler()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


def profiles_of(loop: str, app: Any, *paths: str, raises: Any = ()) -> Any:
    """The profiles of requests made one after the other, and the tails sent later."""
    wrapped = hook(app)

    async def main():
        keys = []
        for path in paths:
            try:
                keys.append(await request(wrapped, path))
            except raises:
                keys.append(None)
        await asyncio.sleep(0)
        return keys

    take()
    keys = run(loop, main)
    profiles, tails = take()
    found = {p.key: p for p in profiles}
    return [found.get(k) for k in keys], tails, profiles
