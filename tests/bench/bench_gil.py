"""How long the sender keeps the interpreter: gaps in a thread that does nothing but read the clock,
while profiles are posted to a gateway in another process, beside the same without a sender.

A gap holds what the sender kept and what it took to wake up after it; the control tells what the
machine itself takes away.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TAILRACE_CALLBACK", "unix:/nonexistent/tailrace-bench")

ROUNDS, REQUESTS, SPIN_S = 12, 400, 0.25
GAP_NS = 15_000  # shorter ones are no change of thread
GOAL_US = 100.0
NOISE_MAX = 10  # gaps over it in the control: then the machine was not ours
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


def spin(seconds: float) -> list[float]:
    """Gaps, in microseconds, seen by a thread that only reads the clock."""
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
    loop = asyncio.new_event_loop()
    try:
        for _ in range(ROUNDS):
            for name in gaps:
                loop.run_until_complete(serve(app_of))
                posting = None
                if name == "sender":
                    posting = sender.Sender(_engine, parse_address(f"unix:{path}"))
                    posting.start()
                gaps[name] += spin(SPIN_S)
                if posting is not None:
                    posting.close(2)
                while any(_engine.take(1 << 20)) or any(_engine.take_beside()):
                    pass
    finally:
        loop.close()
        gateway.terminate()
        gateway.wait(10)
    figures = {
        name: {
            "gaps": len(found),
            "p50": quantile(found, 0.5),
            "p99": quantile(found, 0.99),
            "max": max(found, default=0.0),
            "over": sum(g > GOAL_US for g in found),
        }
        for name, found in gaps.items()
    }
    say(str(figures))
    return figures


def verdicts(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The bar is on what the sender adds to the control: the share of long gaps."""
    beside, alone = figures["sender"], figures["alone"]
    text = ", ".join(f"{k} {beside[k]:.0f} µs" for k in ("p50", "p99", "max"))
    text += f", {beside['over']} of {beside['gaps']} over {GOAL_US:.0f} µs"
    control = f"alone: max {alone['max']:.0f} µs, {alone['over']} over"
    verdict = "ok" if beside["p99"] <= GOAL_US else f"over {GOAL_US:.0f} µs"
    if alone["over"] > NOISE_MAX:
        verdict = "too noisy"
    return [("interpreter held by the sender", f"{text} ({control})", verdict)]
