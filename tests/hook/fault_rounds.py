"""Requests one after the other, in the n-th of which the n-th fallible call fails."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from hook_support import hook, make_scope, new_loop, take
from tailrace import _engine, middleware

ROUNDS_MAX = 3000
CALM_ROUNDS = 3  # in a row without a fault: there are no more


class Lines(logging.Handler):
    """Counts what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


_names = 0


def fresh() -> Any:
    """A coroutine function that no one has seen before."""
    global _names
    _names += 1
    space: dict[str, Any] = {"asyncio": asyncio}
    source = f"async def fresh{_names}():\n    await asyncio.sleep(0.0003)\n"
    exec(compile(source, __file__, "exec"), space)
    return space[f"fresh{_names}"]


def job(value: int) -> int:
    return value + 1


async def child(value: int) -> int:
    await asyncio.sleep(0.0003)
    return value


async def pieces() -> Any:
    for i in range(2):
        await asyncio.sleep(0)
        yield i


async def app(scope: Any, receive: Any, send: Any) -> None:
    """All that the engine does for a request."""
    loop = asyncio.get_running_loop()
    scope["route"], scope["endpoint"] = type("Route", (), {"path_format": f"/{_names}"}), child
    await fresh()()
    assert await asyncio.gather(child(1), child(2), asyncio.to_thread(job, 2)) == [1, 2, 3]
    future = loop.create_future()
    loop.call_later(0.0003, future.set_result, 7)
    assert await future == 7
    loop.call_soon(len, "")
    loop.call_at(loop.time() + 60, len, "").cancel()
    assert await loop.run_in_executor(None, job, 1) == 2
    assert [i async for i in pieces()] == [0, 1]
    try:
        await asyncio.wait_for(asyncio.sleep(5), 0.0003)
        raise AssertionError("no timeout")
    except (asyncio.TimeoutError, TimeoutError):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a", "more_body": True})
    await asyncio.sleep(0.0003)
    await send({"type": "http.response.body", "body": b"b"})
    await asyncio.sleep(0)


async def one(hooked: Any) -> list[str]:
    """A request as a server makes it; what came out."""
    scope, _ = make_scope()
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"] + str(message.get("body", "")))

    await asyncio.get_running_loop().create_task(hooked(scope, None, send))
    return sent


async def rounds(said: Lines) -> dict[str, Any]:
    hooked = hook(app)
    await one(hooked)
    await one(hooked)
    good = await one(hooked)
    faults = switched_off = calm = 0
    wrong: list[str] = []
    for n in range(1, ROUNDS_MAX):
        said.lines.clear()
        _engine.fault_at(n)
        try:
            sent = await one(hooked)
        except BaseException as error:
            import traceback

            wrong.append(f"{n}: {error!r}" + traceback.format_exc()[-300:])
            sent = good
        off = _engine.is_disabled()
        made = _engine.fault_at(0)
        fired = made >= n
        calm = 0 if fired else calm + 1
        if sent != good:
            wrong.append(f"{n}: sent {sent}")
        if len(said.lines) != int(off):
            wrong.append(f"{n}: said {said.lines}, {off}")
        faults += fired
        switched_off += off
        take()
        if calm == CALM_ROUNDS:
            break
    for _ in range(3):
        take()
        await one(hooked)
        (profile,) = take()[0]
        if profile.unattributed_ns or profile.ended != "response":
            wrong.append(f"afterwards: {profile}")
    return {"faults": faults, "switched_off": switched_off, "wrong": wrong[:20]}


def main() -> None:
    said = Lines()
    logger = logging.getLogger("tailrace")
    logger.addHandler(said)
    logger.propagate = False
    loop = new_loop(sys.argv[1])
    if sys.argv[2] == "drive":
        middleware._try_steps = _no_steps  # type: ignore[assignment]
    print(json.dumps(loop.run_until_complete(rounds(said))))


async def _no_steps(loop: Any) -> str:
    return middleware.DRIVE


if __name__ == "__main__":
    main()
