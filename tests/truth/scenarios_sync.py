"""Locks, queues, events, futures of one request and of two; anyio's. See truth_known.py."""

from __future__ import annotations

import asyncio

from truth_known import MS, Truth, now, scenario

# --- locks, queues, events --------------------------------------------------------------------


@scenario()
async def event_of_a_child(t: Truth) -> None:
    event = asyncio.Event()

    async def sets() -> None:
        await t.sleep("sets", t.ms(20))
        event.set()
        await asyncio.sleep(5)

    task = asyncio.create_task(sets())
    await event.wait()
    task.cancel()


@scenario(quick=True)
async def event_of_a_timer(t: Truth) -> None:
    event = asyncio.Event()

    async def waits(ms: int) -> None:
        asyncio.get_running_loop().call_later(ms / 1000, event.set)
        await t.awaits("wait", "event", "waits", ms, event.wait())

    await waits(t.ms(20))


@scenario()
async def lock_between_children(t: Truth) -> None:
    lock = asyncio.Lock()

    async def holds() -> None:
        async with lock:
            await t.sleep("holds", t.ms(10))

    await asyncio.gather(holds(), holds(), holds())


async def lock_holder(t: Truth) -> None:
    t.shared["lock"] = asyncio.Lock()
    async with t.shared["lock"]:
        await asyncio.sleep(t.ms(30) / 1000)
        t.shared["released"] = now()


@scenario(quick=True, companion=lock_holder)
async def lock_of_another_request(t: Truth) -> None:
    async def wants() -> None:
        begin = now()
        async with t.shared["lock"]:
            end = now()
        t.add("wait", "lock", "wants", (t.shared["released"] - begin) / MS, end - begin, by=True)

    await wants()


@scenario()
async def semaphore_of_two(t: Truth) -> None:
    """Four children, two at a time: three short ones are done before the long one."""
    semaphore = asyncio.Semaphore(2)

    async def enters() -> None:
        async with semaphore:
            await t.sleep("enters", t.ms(80))

    async def beside() -> None:
        async with semaphore:
            await t.sleep("beside", 4, path=False)

    await asyncio.gather(enters(), beside(), beside(), beside())


@scenario()
async def queue_of_a_producer(t: Truth) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def produces() -> None:
        for i in range(3):
            await t.sleep("produces", t.ms(8))
            queue.put_nowait(i)

    task = asyncio.create_task(produces())
    for _ in range(3):
        await queue.get()
    await task


@scenario()
async def queue_that_is_full(t: Truth) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def consumes() -> None:
        while True:
            await queue.get()
            await t.sleep("consumes", t.ms(8))
            queue.task_done()

    task = asyncio.create_task(consumes())
    for i in range(4):
        await queue.put(i)
    await queue.join()
    task.cancel()


@scenario()
async def condition(t: Truth) -> None:
    woken = asyncio.Condition()

    async def notifies() -> None:
        await t.sleep("notifies", t.ms(20))
        async with woken:
            woken.notify_all()

    task = asyncio.create_task(notifies())
    async with woken:
        await woken.wait()
    await task


async def future_setter(t: Truth) -> None:
    t.shared["future"] = asyncio.get_running_loop().create_future()
    await asyncio.sleep(t.ms(25) / 1000)
    t.shared["future"].set_result(None)
    t.shared["set"] = now()


@scenario(companion=future_setter)
async def future_of_another_request(t: Truth) -> None:
    """A cache stampede: the answer another request fetches."""

    async def waits() -> None:
        begin = now()
        await t.shared["future"]
        end = now()
        t.add("wait", "unknown", "waits", (t.shared["set"] - begin) / MS, end - begin, by=True)

    await waits()


@scenario()
async def future_through_plain_callbacks(t: Truth) -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    async def sets() -> None:
        await t.sleep("sets", t.ms(20))
        loop.call_soon(loop.call_soon, future.set_result, None)

    task = asyncio.create_task(sets())
    await future
    await task


# --- anyio ------------------------------------------------------------------------------------


@scenario(needs=("anyio",))
async def anyio_task_group(t: Truth) -> None:
    import anyio

    async def long() -> None:
        await t.sleep("long", t.ms(30), anyio=anyio)

    async def short() -> None:
        await t.sleep("short", 5, path=False, anyio=anyio)

    async with anyio.create_task_group() as group:
        group.start_soon(short)
        group.start_soon(long)


@scenario(needs=("anyio",))
async def anyio_memory_stream(t: Truth) -> None:
    import anyio

    send, receive = anyio.create_memory_object_stream(0)

    async def produces() -> None:
        async with send:
            for i in range(3):
                await t.sleep("produces", t.ms(8), anyio=anyio)
                await send.send(i)

    async with anyio.create_task_group() as group:
        group.start_soon(produces)
        async with receive:
            async for _ in receive:
                pass


@scenario(needs=("anyio",))
async def anyio_move_on_after(t: Truth) -> None:
    import anyio

    async def waits(ms: int) -> None:
        begin = now()
        with anyio.move_on_after(ms / 1000):
            await anyio.sleep(5)
        t.add("wait", "sleep", "waits", ms, now() - begin)

    await waits(t.ms(20))
