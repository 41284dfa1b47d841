"""What a deep profile costs its request, beside cProfile, and what it costs the others.

In one process, interleaved: a route that makes 20 000 calls at once; and short requests, one after
the other, beside one that makes its 20 000 calls in 100 steps, deep or not. (Beside calls that hold
the loop the others wait for as long as those take: that is the first figure.)
"""

from __future__ import annotations

import asyncio
import cProfile
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TAILRACE_CALLBACK", "unix:/nonexistent/tailrace-bench")

CALLS = 20_000
STEPS = 100
ROUNDS = 30
WINDOWS = 40  # of each kind; 30 to 60 short requests in each
OTHERS_GOAL = 1.3
KEY = b"k" * 32


def leaf(x: int) -> int:
    return x + 1


def burn(calls: int) -> int:
    x = 0
    for _ in range(calls):
        x = leaf(x)
    return x


async def app(scope: Any, receive: Any, send: Any) -> None:
    """/cpu makes the calls at once, /steps a few at a time; all else waits shortly."""
    if scope["path"] == "/cpu":
        if scope["profiler"] is not None:
            scope["profiler"].enable()
        burn(CALLS)
        if scope["profiler"] is not None:
            scope["profiler"].disable()
    elif scope["path"] == "/steps":
        for _ in range(STEPS):
            burn(CALLS // STEPS)
            await asyncio.sleep(0.0002)
    else:
        await asyncio.sleep(0.0005)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def one(hook: Any, path: str, deep: bool, number: int, profiler: Any = None) -> float:
    """Milliseconds of one request; deep: asked as the gateway asks."""
    from tailrace import deep as asking

    key = f"{number:032x}-{number:016x}"
    value = f"1;{key}" + (f";deep;{asking.make_mac(KEY, key)}" if deep else "")
    scope = {
        "type": "http", "method": "GET", "path": path, "root_path": "", "profiler": profiler,
        "headers": [(b"x-tailrace", value.encode())],
    }  # fmt: skip

    async def send(message: Any) -> None:
        pass

    began = time.perf_counter_ns()
    await asyncio.get_running_loop().create_task(hook(scope, None, send))
    return (time.perf_counter_ns() - began) / 1e6


async def measure() -> dict[str, Any]:
    """Medians of /cpu by tool, and the others' p99 beside each."""
    from tailrace import _engine, middleware, sender

    sender.ensure_started = lambda: None  # type: ignore[assignment]
    hook = middleware.Hook(app)
    assert sender.process is not None
    sender.process.deep_key = KEY
    await middleware.prepare_loop()
    took: dict[str, list[float]] = {"none": [], "cprofile": [], "deep": []}
    number = 1
    for _ in range(ROUNDS):
        for name in took:
            profiler = cProfile.Profile() if name == "cprofile" else None
            took[name].append(await one(hook, "/cpu", name == "deep", number, profiler))
            number += 1
            await asyncio.sleep(0.25)  # 5 % of the time is what deep profiles may take
            _engine.take(1 << 20)
    others: dict[str, list[float]] = {"alone": [], "deep": []}
    for name in ["alone", "deep", "deep", "alone"] * (WINDOWS // 2):
        await asyncio.sleep(0.25)
        window = asyncio.create_task(one(hook, "/steps", name == "deep", number))
        number += 1
        while not window.done():
            others[name].append(await one(hook, "/short", False, number))
            number += 1
        await window
        _engine.take(1 << 20)
    p99 = {name: statistics.quantiles(times, n=100)[98] for name, times in others.items()}
    return {"ms": {k: statistics.median(v) for k, v in took.items()}, "others_p99_ms": p99}


def run(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """On asyncio; uvloop differs in the loop's own part only."""
    del folder
    result = asyncio.run(measure())
    say(str(result))
    return result


def verdicts(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (what, figure, verdict) for the table."""
    ms, p99 = result["ms"], result["others_p99_ms"]
    ratio = ms["deep"] / ms["cprofile"]
    beside = p99["deep"] / p99["alone"]
    return [
        ("20 000 calls, not profiled", f"{ms['none']:.2f} ms", ""),
        ("20 000 calls, cProfile", f"{ms['cprofile']:.2f} ms", ""),
        (
            "20 000 calls, deep profile",
            f"{ms['deep']:.2f} ms",
            f"{ratio:.2f} x cProfile, {'met' if ratio <= 1.0 else 'missed'}",
        ),
        (
            "p99 of the others beside a deep profile",
            f"{p99['deep']:.2f} ms",
            f"{beside:.2f} x alone, {'met' if beside <= OTHERS_GOAL else 'missed'}",
        ),
    ]
