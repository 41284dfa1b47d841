"""With the hook an app behaves as without it: each case runs both ways and must tell the same."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import traceback
from contextlib import aclosing, asynccontextmanager

import anyio
import pytest
from hook_support import LOOPS, hook, request, run

pytestmark = pytest.mark.parametrize("loop", LOOPS)

variable = contextvars.ContextVar("variable", default=0)


async def timeout_case(log):
    try:
        await asyncio.wait_for(asyncio.sleep(10), 0.01)
    except asyncio.TimeoutError:
        log.append("timeout")
    log.append(await asyncio.wait_for(asyncio.sleep(0, "value"), 1))


async def shield_case(log):
    async def inner():
        await asyncio.sleep(0.01)
        log.append("inner done")

    task = asyncio.create_task(inner())
    outer = asyncio.ensure_future(asyncio.shield(task))
    await asyncio.sleep(0)
    outer.cancel()
    try:
        await outer
    except asyncio.CancelledError:
        log.append("outer cancelled")
    await task


async def group_case(log):
    async def fails():
        await asyncio.sleep(0.01)
        raise ValueError("one")

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(fails)
            group.start_soon(anyio.sleep, 10)
    except BaseException as error:
        log.append([type(e).__name__ for e in error.exceptions])


async def gather_case(log):
    async def fails(text):
        await asyncio.sleep(0)
        raise ValueError(text)

    results = await asyncio.gather(fails("a"), asyncio.sleep(0, 2), return_exceptions=True)
    log.append([repr(r) for r in results])
    try:
        await asyncio.gather(fails("b"), asyncio.sleep(0.001))
    except ValueError as error:
        log.append(str(error))


async def scope_case(log):
    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep(10)
    log.append(scope.cancelled_caught)


async def generator_case(log):
    async def numbers():
        try:
            for i in range(3):
                yield i
                await asyncio.sleep(0)
        finally:
            log.append("closed")

    async with aclosing(numbers()) as source:
        async for i in source:
            log.append(i)
            if i == 1:
                break


async def self_cancel_case(log):
    async def victim():
        asyncio.current_task().cancel("because")
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError as error:
            log.append(error.args if sys.version_info >= (3, 11) else ())
            raise

    try:
        await asyncio.create_task(victim())
    except asyncio.CancelledError:
        log.append("cancelled")


async def context_case(log):
    async def child():
        log.append(variable.get())
        variable.set(2)
        await asyncio.sleep(0)
        log.append(variable.get())

    token = variable.set(1)
    await asyncio.create_task(child())
    asyncio.get_running_loop().call_soon(
        lambda: log.append(variable.get()), context=contextvars.Context()
    )
    await asyncio.sleep(0.001)
    log.append(variable.get())
    variable.reset(token)
    log.append(variable.get())


async def awaitable_case(log):
    class Yields:
        def __await__(self):
            yield
            return "custom"

    class Iterates:
        def __await__(self):
            return iter([None, None])

    log.append(await Yields())
    log.append(await Iterates())


async def traceback_case(log):
    async def deep():
        await asyncio.sleep(0)
        raise LookupError("deep")

    try:
        await asyncio.create_task(deep())
    except LookupError as error:
        frames = traceback.extract_tb(error.__traceback__)
        log.append([f.name for f in frames])


async def handles_case(log):
    here = asyncio.get_running_loop()

    def named(*args):
        log.append(args)

    log.append("named" in repr(here.call_soon(named, 1)))
    here.call_later(0.03, named, 2)
    here.call_at(here.time() + 0.06, named, 3)
    cancelled = here.call_soon(named, 4)
    cancelled.cancel()
    log.append(cancelled.cancelled())
    late = here.call_later(0.001, named, 5)
    log.append(late.when() > 0)
    late.cancel()
    here.call_soon_threadsafe(named, 6)
    await asyncio.sleep(0.1)


async def wrong_use_case(log):
    here = asyncio.get_running_loop()
    for call in (
        lambda: here.call_soon(),
        lambda: here.call_later("soon", print),
        lambda: here.call_at(None, print),
        lambda: here.call_soon(print, context="no context"),
        lambda: here.call_later(1),
    ):
        try:
            handle = call()
        except Exception as error:
            log.append(type(error).__name__)
        else:
            handle.cancel()
            log.append("accepted")


async def handler_case(log):
    """What a callback raises reaches the loop's exception handler, as it was."""
    here = asyncio.get_running_loop()
    here.set_exception_handler(lambda _, context: log.append(repr(context["exception"])))

    def fails():
        raise KeyError("in a callback")

    here.call_soon(fails)
    here.call_later(0.001, fails)
    await asyncio.sleep(0.01)
    here.set_exception_handler(None)


async def dependency_case(log):
    @asynccontextmanager
    async def resource():
        log.append("open")
        try:
            yield 5
        except ValueError:
            log.append("seen")
            raise
        finally:
            await asyncio.sleep(0)
            log.append("close")

    try:
        async with resource() as value:
            log.append(value)
            raise ValueError
    except ValueError:
        log.append("out")


CASES = [value for name, value in sorted(globals().items()) if name.endswith("_case")]


def observe(loop, case, header):
    """What the case logs, and what the client is sent."""
    log, sent = [], []

    async def app(scope, receive, send):
        await case(log)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async def main():
        await request(hook(app), header=header, sent=sent)

    run(loop, main)
    return log, sent


@pytest.mark.parametrize("case", CASES, ids=[c.__name__ for c in CASES])
def test_same_with_and_without(loop, case):
    with_hook = observe(loop, case, True)
    assert with_hook == observe(loop, case, False)
    assert with_hook[0], "the case has told something"
    assert len(with_hook[1]) == 3


def test_cases_are_enough(loop):
    assert len(CASES) >= 13


def test_error_of_the_app_passes_untouched(loop):
    async def app(scope, receive, send):
        await asyncio.sleep(0.001)
        raise ValueError("mine")

    async def main():
        with pytest.raises(ValueError, match="mine") as caught:
            await request(hook(app))
        return [entry.name for entry in caught.traceback]

    assert run(loop, main)[-2:] == ["__call__", "app"]


def test_cancelling_the_request(loop):
    seen = []

    async def app(scope, receive, send):
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main():
        wrapped = hook(app)
        task = asyncio.create_task(request(wrapped))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(loop, main)
    assert seen == ["cancelled"]


def test_debug_mode(loop, caplog):
    """asyncio's debug mode checks callbacks and shows slow ones by name."""

    async def app(scope, receive, send):
        here = asyncio.get_running_loop()

        def slow_callback():
            import time

            time.sleep(0.15)

        async def coroutine():
            pass

        if loop == "asyncio":  # uvloop checks nothing
            with pytest.raises(TypeError):
                here.call_soon(coroutine)
            with pytest.raises(TypeError):
                here.call_soon(3)
        here.call_soon(slow_callback)
        await asyncio.sleep(0.2)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main():
        asyncio.get_running_loop().set_debug(True)
        await request(hook(app))

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        run(loop, main)
    if loop == "asyncio":
        assert any("slow_callback" in r.getMessage() for r in caplog.records)
