"""What the hook costs the loop's thread, in one process without sockets; used by bench_engine.py.

python engine_cost.py costs          one JSON object, CPU microseconds and more
python engine_cost.py requests N 0|1 only answers N hello-worlds, with the header or without
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import os
import resource
import sys
import time
from typing import Any

os.environ.setdefault("TAILRACE_CALLBACK", "unix:/nonexistent/tailrace-bench")

import tailrace
from fastapi import FastAPI
from stats import Estimate, estimate, median
from tailrace import _engine, sender

AWAITS, REAL_AWAITS, REAL_S = 20, 4, 0.02
ROUNDS = 16
TAKE_BYTES = 1 << 20


def make_app() -> Any:
    """Three routes: nothing, short awaits, real waits."""
    api = FastAPI()

    @api.get("/hello")
    async def hello() -> int:
        return 1

    @api.get("/short")
    async def short() -> int:
        for _ in range(AWAITS):
            await asyncio.sleep(0)
        return 1

    @api.get("/real")
    async def real() -> int:
        for _ in range(REAL_AWAITS):
            await asyncio.sleep(REAL_S)
        return 1

    return tailrace.wrap(api)


async def request(app: Any, path: str, triggered: bool, number: int) -> float:
    """One request in a task of its own; seconds it took."""
    name = b"x-tailrace" if triggered else b"x-tailrac0"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "scheme": "http", "headers": [(name, b"1;%032x-%016x" % (number + 1, number + 1))],
        "client": ("127.0.0.1", 1), "server": ("test", 80),
    }  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    begin = time.perf_counter()
    await asyncio.get_running_loop().create_task(app(scope, receive, send))
    return time.perf_counter() - begin


async def block(
    app: Any, path: str, triggered: bool, count: int, flight: int
) -> tuple[float, float]:
    """(CPU microseconds per request, median seconds) of count requests, flight at a time.

    Without garbage collections: a large one falls into one block of several, and is its cost.
    """
    gc.collect()
    gc.disable()
    begin, took = time.thread_time_ns(), []
    for first in range(0, count, flight):
        wave = (request(app, path, triggered, first + i) for i in range(flight))
        took += await asyncio.gather(*wave)
    cost = (time.thread_time_ns() - begin) / count / 1e3
    gc.enable()
    while _engine.take(TAKE_BYTES)[0]:  # what the sender would take, outside the measure
        pass
    return cost, median(took)


async def added(app: Any, path: str, count: int, flight: int) -> dict[str, Any]:
    """The difference of blocks with and without the header, in ABBA order; the control is between
    the two blocks without."""
    costs, ratios, base, control = [], [], [], []
    for _ in range(ROUNDS):
        off, on = [], []
        for triggered in (False, True, True, False):
            (on if triggered else off).append(await block(app, path, triggered, count, flight))
        costs.append(sum(cost for cost, _ in on) / 2 - sum(cost for cost, _ in off) / 2)
        base += [cost for cost, _ in off]
        ratios.append(sum(slow for _, slow in on) / sum(slow for _, slow in off))
        control.append(off[0][1] / off[1][1])
    return {
        "us": estimate(costs), "base_us": median(base), "p50_ratio": estimate(ratios),
        "control": estimate(control),
    }  # fmt: skip


def rss_bytes() -> int:
    """Resident now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def memory(app: Any, flight: int) -> int:
    """Bytes more with `flight` profiled requests open than with as many others."""
    sizes = []
    for triggered in (False, True):
        await block(app, "/real", triggered, flight, flight)
        wave = [asyncio.ensure_future(request(app, "/real", triggered, i)) for i in range(flight)]
        await asyncio.sleep(REAL_S * 2.5)
        sizes.append(rss_bytes())
        await asyncio.gather(*wave)
    return sizes[1] - sizes[0]


def per_await(route: dict[str, Any], hello: dict[str, Any], awaits: int) -> Estimate:
    """What one of a route's awaits adds: beyond what a request without any does."""
    us, less = route["us"], hello["us"].median
    values = ((value - less) / awaits for value in (us.median, us.low, us.high))
    return Estimate(*values, us.count)


async def costs() -> dict[str, Any]:
    """All of it."""
    app = make_app()
    await request(app, "/hello", True, 1)
    result: dict[str, Any] = {"memory_400": await memory(app, 400)}
    result["hello"] = await added(app, "/hello", 400, 1)
    result["short"] = await added(app, "/short", 200, 1)
    result["real_200"] = await added(app, "/real", 200, 200)
    result["real_400"] = await added(app, "/real", 400, 400)
    result["per_short_await_us"] = per_await(result["short"], result["hello"], AWAITS)
    result["per_real_wait_us"] = per_await(result["real_200"], result["hello"], REAL_AWAITS)
    return result


async def requests(count: int, triggered: bool) -> None:
    """For an instruction counter round this process."""
    app = make_app()
    _engine.set_stage(2)  # a counter slows all down: steps would get stacks for being long
    for i in range(count):
        await request(app, "/hello", triggered, i)
        if i % 50 == 0:
            _engine.take(TAKE_BYTES)


def main() -> None:
    """See above."""
    import uvloop

    sender.ensure_started = lambda: None  # type: ignore[assignment]
    loop = uvloop.new_event_loop()
    if sys.argv[1] == "requests":
        loop.run_until_complete(requests(int(sys.argv[2]), sys.argv[3] == "1"))
    else:
        print(json.dumps(loop.run_until_complete(costs()), default=dataclasses.asdict))


if __name__ == "__main__":
    main()
