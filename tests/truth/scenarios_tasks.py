"""Awaiting functions, generators and child tasks. See truth_known.py."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from truth_known import Truth, now, scenario

TimeoutErrors = (asyncio.TimeoutError, TimeoutError)


# --- awaiting ---------------------------------------------------------------------------------


@scenario(quick=True)
async def one_sleep(t: Truth) -> None:
    async def sleeps() -> None:
        await t.sleep("sleeps", t.ms(20))

    await sleeps()


@scenario()
async def two_sleeps_in_two_functions(t: Truth) -> None:
    async def inner() -> None:
        await t.sleep("inner", t.ms(10))

    async def middle() -> None:
        await inner()
        await t.sleep("middle", t.ms(15))

    await middle()


@scenario()
async def five_deep(t: Truth) -> None:
    async def deep(depth: int) -> None:
        if depth:
            await deep(depth - 1)
        else:
            await t.sleep("deep", t.ms(20))

    await deep(5)


@scenario()
async def twenty_short_sleeps(t: Truth) -> None:
    async def naps() -> None:
        for _ in range(20):
            await t.sleep("naps", 1)

    await naps()


@scenario()
async def sleep_zero(t: Truth) -> None:
    """Gives way 50 times: none of it is a wait."""

    async def gives_way() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    await gives_way()
    t.never.append("gives_way")
    await t.sleep("sleep_zero", t.ms(10))


@scenario()
async def hand_written_awaitable(t: Truth) -> None:
    class Waits:
        def __await__(self) -> Any:
            return asyncio.sleep(ms / 1000).__await__()

    ms = t.ms(15)

    async def waits() -> None:
        await Waits()

    # The coroutine behind __await__ is walked to; the method itself has returned.
    begin = now()
    await waits()
    t.add("wait", "sleep", "waits", ms, now() - begin)


@scenario()
async def async_generator(t: Truth) -> None:
    async def numbers() -> Any:
        for i in range(3):
            await t.sleep("numbers", t.ms(8))
            yield i

    async for _ in numbers():
        pass


@scenario()
async def async_generator_left_early(t: Truth) -> None:
    async def numbers() -> Any:
        try:
            for i in range(10):
                await t.sleep("numbers", t.ms(6))
                yield i
        finally:
            await t.sleep("numbers", t.ms(6))

    async with contextlib.aclosing(numbers()) as source:
        async for i in source:
            if i == 1:
                break


@scenario()
async def async_iterator(t: Truth) -> None:
    class Ticks:
        left = 3

        def __aiter__(self) -> Ticks:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            await t.sleep("__anext__", t.ms(7))
            return self.left

    async for _ in Ticks():
        pass


@scenario()
async def async_context_manager(t: Truth) -> None:
    @contextlib.asynccontextmanager
    async def resource() -> Any:
        await t.sleep("resource", t.ms(8))
        yield
        await t.sleep("resource", t.ms(8))

    async with resource():
        await t.sleep("async_context_manager", t.ms(5))


@scenario()
async def exception_after_a_wait(t: Truth) -> None:
    async def fails() -> None:
        await t.sleep("fails", t.ms(12))
        raise LookupError

    with contextlib.suppress(LookupError):
        await fails()
    await t.sleep("exception_after_a_wait", t.ms(6))


# --- children ---------------------------------------------------------------------------------


@scenario(quick=True)
async def gather_of_three(t: Truth) -> None:
    async def long() -> None:
        await t.sleep("long", t.ms(40))

    async def short(ms: int) -> None:
        await t.sleep("short", ms, path=False)

    await asyncio.gather(short(10), long(), short(5))


@scenario()
async def gather_in_gather(t: Truth) -> None:
    async def leaf() -> None:
        await t.sleep("leaf", t.ms(30))

    async def other() -> None:
        await t.sleep("other", 5, path=False)

    async def branch() -> None:
        await asyncio.gather(leaf(), other())

    await asyncio.gather(branch(), other())


@scenario()
async def gather_with_a_failure(t: Truth) -> None:
    async def fails() -> None:
        await t.sleep("fails", 5, path=False)
        raise ValueError

    async def works() -> None:
        await t.sleep("works", t.ms(25))

    await asyncio.gather(fails(), works(), return_exceptions=True)


@scenario(quick=True)
async def child_after_own_sleep(t: Truth) -> None:
    async def child() -> None:
        await t.sleep("child", t.ms(40))

    task = asyncio.create_task(child())
    await t.sleep("own", 10, path=False)
    await task


@scenario()
async def own_sleep_after_child(t: Truth) -> None:
    async def child() -> None:
        await t.sleep("child", 5, path=False)

    async def own() -> None:
        await t.sleep("own", t.ms(30))

    task = asyncio.create_task(child())
    await own()
    await task


@scenario()
async def wait_first_completed(t: Truth) -> None:
    async def first() -> None:
        await t.sleep("first", t.ms(15))

    async def last() -> None:
        await asyncio.sleep(5)

    tasks = [asyncio.create_task(last()), asyncio.create_task(first())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    t.never.append("last")
    tasks[0].cancel()


@scenario()
async def as_completed(t: Truth) -> None:
    async def child(ms: int, path: bool) -> None:
        await t.sleep("child" if path else "other", ms, path=path)

    async def other(ms: int) -> None:
        await t.sleep("other", ms, path=False)

    for done in asyncio.as_completed([other(5), child(t.ms(80), True), other(10)]):
        await done


@scenario()
async def wait_for_that_is_in_time(t: Truth) -> None:
    async def child() -> None:
        await t.sleep("child", t.ms(20))

    await asyncio.wait_for(child(), 5)


@scenario(quick=True)
async def wait_for_that_times_out(t: Truth) -> None:
    async def waits(ms: int) -> None:
        begin = now()
        with contextlib.suppress(*TimeoutErrors):
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), ms / 1000)
        t.add("wait", None, "waits", ms, now() - begin)

    await waits(t.ms(20))


@scenario(python=(3, 11))
async def timeout_block(t: Truth) -> None:
    async def waits(ms: int) -> None:
        begin = now()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ms / 1000):
                await asyncio.sleep(5)
        t.add("wait", "sleep", "waits", ms, now() - begin)

    await waits(t.ms(20))


@scenario()
async def shield_with_an_outer_cancel(t: Truth) -> None:
    async def inner() -> None:
        await t.sleep("inner", t.ms(25))

    task = asyncio.create_task(inner())
    outer = asyncio.ensure_future(asyncio.shield(task))
    await asyncio.sleep(0)
    outer.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await outer
    await task


@scenario(python=(3, 11))
async def task_group(t: Truth) -> None:
    async def long() -> None:
        await t.sleep("long", t.ms(30))

    async def short() -> None:
        await t.sleep("short", 6, path=False)

    async with asyncio.TaskGroup() as group:
        for make in (short, long, short):
            group.create_task(make())


@scenario(python=(3, 11))
async def task_group_with_a_failure(t: Truth) -> None:
    """The failing child decides when the group ends; the other one is cancelled."""

    async def fails() -> None:
        await t.sleep("fails", t.ms(15))
        raise ValueError

    async def other() -> None:
        await asyncio.sleep(5)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(other())
    except BaseException as error:
        assert [type(e) for e in error.exceptions] == [ValueError]  # type: ignore[attr-defined]
    t.never.append("other")


@scenario()
async def cancelled_child(t: Truth) -> None:
    async def child() -> None:
        await asyncio.sleep(5)

    async def own() -> None:
        await t.sleep("own", t.ms(15))

    task = asyncio.create_task(child())
    await own()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    t.never.append("child")


@scenario(python=(3, 12), quick=True, many=1)
async def eager_tasks(t: Truth) -> None:
    """A task factory that runs a task's first step inside create_task()."""

    async def spins_first() -> None:
        t.spin("spins_first", 3)
        await t.sleep("spins_first", t.ms(25))

    async def never_waits() -> None:
        t.spin("never_waits", 2)

    def factory(loop: Any, coro: Any, **options: Any) -> Any:
        options.pop("eager_start", None)  # uvloop's, which CPython 3.13.0's own does not take
        return asyncio.eager_task_factory(loop, coro, **options)  # type: ignore[attr-defined]

    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(factory)
    try:
        await asyncio.gather(never_waits(), spins_first())
    finally:
        loop.set_task_factory(before)
