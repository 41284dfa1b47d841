"""How long the sender keeps the interpreter, posting profiles to a gateway in another process.

A hold is what the sender's own CPU clock does between getting the interpreter and giving it away.
It gives it away in known calls only (waiting, sleeping, the system calls of its socket): these are
wrapped, so that what the kernel does in them is not counted, nor what the machine takes away.

Beside it what another thread sees, one that does nothing but read clocks: its gaps are the holds,
what it took to wake up after them, and the machine's own, which the same without a sender tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TAILRACE_CALLBACK", "unix:/nonexistent/tailrace-bench")

ROUNDS, REQUESTS, SPIN_S = 12, 400, 0.25
GAP_NS = 15_000  # shorter ones are no change of thread
GOAL_US = 100.0
ANSWERS = """
import socketserver, sys
class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        while True:
            length = 0
            while (line := self.rfile.readline()) not in (b"\\r\\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if not line:
                return
            self.rfile.read(length)
            body = b'{"accepted":1,"refused":0,"want":[],"keep":{},"stacks":"ok"}'
            head = b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body)
            self.wfile.write(head + body)
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
server = Server(sys.argv[1], Answer)
print("ready", flush=True)
server.serve_forever()
"""


def make_handlers() -> list[Callable[[], Any]]:
    """Endpoints whose stacks no one has seen: names are resolved in every round."""
    made = []
    for i in range(100):
        space: dict[str, Any] = {"asyncio": asyncio}
        source = f"async def inner{i}():\n    await asyncio.sleep(0.0002)\n"
        source += f"async def handler{i}():\n    await inner{i}()\n"
        exec(compile(source, f"/app/part{i}.py", "exec"), space)
        made.append(space[f"handler{i}"])
    return made


class Holds:
    """What the sender's CPU clock did between getting the interpreter and giving it away, in
    microseconds. Calls of the engine that gave it away in between count as holds of the longest
    that the engine tells, at their beginning and at their end: never less than it was. A garbage
    collection comes to the thread that allocates when one is due, as it would to any other: what
    they took is told apart."""

    def __init__(self) -> None:
        self.us: list[float] = []
        self.collections_us: list[float] = []
        self._since_ns = 0
        self._collecting_ns = 0

    def collects(self, phase: str, _: dict[str, int]) -> None:
        """For gc.callbacks: moves the hold's beginning by what a collection in it took."""
        now_ns = time.thread_time_ns()
        if threading.current_thread().name != "tailrace-sender" or not self._since_ns:
            return
        if phase == "start":
            self._collecting_ns = now_ns
        else:
            self._since_ns += now_ns - self._collecting_ns
            self.collections_us.append((now_ns - self._collecting_ns) / 1e3)

    def giving(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call` gives the interpreter away: a hold ends before it, one begins after it."""

        @functools.wraps(call)
        def wrapped(*args: Any, **named: Any) -> Any:
            if self._since_ns:
                self.us.append((time.thread_time_ns() - self._since_ns) / 1e3)
            try:
                return call(*args, **named)
            finally:
                self._since_ns = time.thread_time_ns()

        return wrapped

    def breathing(self, engine: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call` of the engine gives the interpreter away now and then, or not."""

        def wrapped(*args: Any) -> Any:
            engine.longest_held_ns()
            before_ns = time.thread_time_ns()
            result = call(*args)
            longest_ns = engine.longest_held_ns()
            if longest_ns > 0:
                self.us.append((before_ns - self._since_ns + longest_ns) / 1e3)
                self._since_ns = time.thread_time_ns() - longest_ns
            return result

        return wrapped

    def watch(self, posting: Any) -> None:
        """Wraps all by which this sender gives the interpreter away."""
        self._since_ns = 0
        engine = posting.engine
        named = {name: getattr(engine, name) for name in dir(engine) if name[0] != "_"}
        for name in ("take", "stacks", "detail"):
            named[name] = self.breathing(engine, named[name])
        posting.engine = types.SimpleNamespace(**named)
        posting._wake.wait = self.giving(posting._wake.wait)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """The same for what is not a sender's own: sleeping and sockets."""
        from tailrace import frames, transport

        calls = ("connect", "sendmsg", "sendall", "recv")
        giving = {name: self.giving(getattr(socket.socket, name)) for name in calls}
        shims = {
            frames: ("time", vars(time) | {"sleep": self.giving(time.sleep)}),
            transport: ("socket", vars(socket) | {"socket": type("S", (socket.socket,), giving)}),
        }
        before = {module: getattr(module, name) for module, (name, _) in shims.items()}
        gc.callbacks.append(self.collects)
        for module, (name, content) in shims.items():
            setattr(module, name, types.SimpleNamespace(**content))
        try:
            yield
        finally:
            gc.callbacks.remove(self.collects)
            for module, (name, _) in shims.items():
                setattr(module, name, before[module])


def spin(seconds: float) -> list[float]:
    """Gaps seen by a thread that only reads clocks, in microseconds."""
    now, gaps = time.perf_counter_ns, []
    at = now()
    end = at + int(seconds * 1e9)
    while at < end:
        before, at = at, now()
        if at - before > GAP_NS:
            gaps.append((at - before) / 1e3)
    return gaps


async def serve(app_of: Callable[[Any], Any]) -> None:
    """Requests over all endpoints, as fast as they come."""
    for number, handler in enumerate(make_handlers() * (REQUESTS // 100)):
        key = f"{time.monotonic_ns():032x}-{number + 1:016x}"
        headers = [(b"x-tailrace", f"1;{key}".encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": headers}

        async def send(message: Any) -> None:
            pass

        await asyncio.get_running_loop().create_task(app_of(handler)(scope, None, send))


def quantile(values: list[float], share: float) -> float:
    """0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def run(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Rounds with and without a sender, in turn."""
    from tailrace import _engine, middleware, sender
    from tailrace.transport import parse_address

    def app_of(handler: Callable[[], Any]) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await handler()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

        return hook(app)

    sender.ensure_started = lambda: None
    hook = middleware.Hook
    path = folder / "gil.sock"
    path.unlink(missing_ok=True)
    gateway = subprocess.Popen(
        [sys.executable, "-c", ANSWERS, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert gateway.stdout is not None
    gateway.stdout.readline()
    gaps: dict[str, list[float]] = {"sender": [], "alone": []}
    holds = Holds()
    loop = asyncio.new_event_loop()
    try:
        for _ in range(ROUNDS):
            for name in gaps:
                loop.run_until_complete(serve(app_of))
                if name == "sender":
                    with holds.installed():
                        posting = sender.Sender(_engine, parse_address(f"unix:{path}"))
                        holds.watch(posting)
                        posting.start()
                        gaps[name] += spin(SPIN_S)
                        posting.close(2)
                else:
                    gaps[name] += spin(SPIN_S)
                while any(_engine.take(1 << 20)) or any(_engine.take_beside()):
                    pass
    finally:
        loop.close()
        gateway.terminate()
        gateway.wait(10)
    figures = {
        name: summary(found)
        for name, found in {**gaps, "holds": holds.us, "collections": holds.collections_us}.items()
    }
    say(str(figures))
    return figures


def summary(found: list[float]) -> dict[str, float]:
    """Count, quantiles, and how many are over the goal."""
    return {
        "count": len(found),
        "p50": quantile(found, 0.5),
        "p99": quantile(found, 0.99),
        "max": max(found, default=0.0),
        "over": sum(us > GOAL_US for us in found),
    }


def verdicts(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The bar is on the holds; the gaps tell what another thread saw."""
    holds, beside, alone = figures["holds"], figures["sender"], figures["alone"]
    text = ", ".join(f"{k} {holds[k]:.0f} µs" for k in ("p50", "p99", "max"))
    text += f", {holds['over']} of {holds['count']} over {GOAL_US:.0f} µs"
    gaps = f"gaps p99 {beside['p99']:.0f}, max {beside['max']:.0f} µs"
    gaps += (
        f", {beside['over']} over; without a sender max {alone['max']:.0f}, {alone['over']} over"
    )
    gaps += (
        f"; {figures['collections']['count']} collections, {figures['collections']['max']:.0f} µs"
    )
    verdict = "holds" if holds["max"] <= GOAL_US else f"over {GOAL_US:.0f} µs"
    return [("interpreter held by the sender, CPU", f"{text} ({gaps})", verdict)]
