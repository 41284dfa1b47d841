"""Requests of every kind in a debug build of CPython, which counts all references there are.

    python3-dbg refcount_rounds.py asyncio

Prints, as JSON, by how many references each kind's requests drift apart, per 1000 requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import sys
import time
from typing import Any

from hook_support import hook, new_loop, plain, request
from tailrace import _engine

REQUESTS, ROUNDS = 300, 3


async def child() -> None:
    await asyncio.sleep(0)


async def real_wait() -> None:
    await asyncio.sleep(0.0002)


async def children() -> None:
    await asyncio.gather(child(), child(), real_wait())


async def threads() -> None:
    await asyncio.to_thread(time.sleep, 0)


async def fails() -> None:
    raise LookupError("as it should")


async def timeout() -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.sleep(1), 0.0002)


async def generator() -> None:
    async def pieces() -> Any:
        for _ in range(2):
            await asyncio.sleep(0)
            yield 1

    async for _ in pieces():
        pass


KINDS = [child, real_wait, children, threads, fails, timeout, generator]


async def one_round(handler: Any) -> int:
    app = hook(plain(handler))
    for _ in range(REQUESTS):
        with contextlib.suppress(LookupError):
            await request(app)
    while any(_engine.take(1 << 20)) or any(_engine.take_beside()):
        pass
    await asyncio.sleep(0.01)
    gc.collect()
    return sys.gettotalrefcount()  # type: ignore[attr-defined,no-any-return]


async def main() -> dict[str, float]:
    drift = {}
    for handler in KINDS:
        await one_round(handler)
        counts = [await one_round(handler) for _ in range(ROUNDS)]
        steps = sorted(b - a for a, b in itertools.pairwise(counts))
        drift[handler.__name__] = 1000 * steps[len(steps) // 2] / REQUESTS
    return drift


if __name__ == "__main__":
    print(json.dumps(new_loop(sys.argv[1]).run_until_complete(main())))
