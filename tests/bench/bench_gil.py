"""How long the sender keeps the interpreter: gaps in a thread that does nothing but read clocks,
while profiles are posted to a gateway in another process, beside the same without a sender.

A gap is what the sender kept, what it took to wake up after it, and what the machine took away
meanwhile, which may be much more. What the sender's own CPU clock did in the gap is what it kept,
and what it did elsewhere (a system call without the interpreter): at least what is asked for.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
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


def spin(seconds: float, cpu: Callable[[], int]) -> tuple[list[float], list[float]]:
    """Gaps seen by a thread that only reads clocks, and what `cpu` did in each, in microseconds."""
    now, gaps, kept = time.perf_counter_ns, [], []
    at, used = now(), cpu()
    end = at + int(seconds * 1e9)
    while at < end:
        before, before_used = at, used
        at, used = now(), cpu()
        if at - before > GAP_NS:
            gaps.append((at - before) / 1e3)
            kept.append((used - before_used) / 1e3)
    return gaps, kept


def cpu_clock(thread: threading.Thread) -> Callable[[], int]:
    """Reads a thread's CPU clock, in nanoseconds."""
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    return lambda: time.clock_gettime_ns(clock)


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
    kept: list[float] = []
    loop = asyncio.new_event_loop()
    try:
        for _ in range(ROUNDS):
            for name in gaps:
                loop.run_until_complete(serve(app_of))
                if name == "sender":
                    posting = sender.Sender(_engine, parse_address(f"unix:{path}"))
                    posting.start()
                    found, held = spin(SPIN_S, cpu_clock(posting._thread))
                    kept += held
                    posting.close(2)
                else:
                    found, _ = spin(SPIN_S, cpu_clock(threading.current_thread()))
                gaps[name] += found
                while any(_engine.take(1 << 20)) or any(_engine.take_beside()):
                    pass
    finally:
        loop.close()
        gateway.terminate()
        gateway.wait(10)
    figures = {name: summary(found) for name, found in (gaps | {"kept": kept}).items()}
    say(str(figures))
    return figures


def summary(found: list[float]) -> dict[str, float]:
    """Count, quantiles, and how many are over the goal."""
    return {
        "gaps": len(found),
        "p50": quantile(found, 0.5),
        "p99": quantile(found, 0.99),
        "max": max(found, default=0.0),
        "over": sum(g > GOAL_US for g in found),
    }


def verdicts(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The bar is on what the sender's CPU clock did in a gap."""
    kept, beside, alone = figures["kept"], figures["sender"], figures["alone"]
    text = ", ".join(f"{k} {kept[k]:.0f} µs" for k in ("p50", "p99", "max"))
    text += f", {kept['over']} of {kept['gaps']} over {GOAL_US:.0f} µs"
    gaps = f"gaps beside it: p99 {beside['p99']:.0f}, max {beside['max']:.0f} µs"
    gaps += f"; alone: max {alone['max']:.0f} µs, {alone['over']} over {GOAL_US:.0f}"
    verdict = "holds" if kept["max"] <= GOAL_US else f"over {GOAL_US:.0f} µs"
    if alone["over"] > NOISE_MAX:  # who waits gets no turn, and the sender goes on in its gap
        verdict = "too noisy"
    return [("interpreter held by the sender, CPU", f"{text} ({gaps})", verdict)]
