"""Worker threads, a loop that is held, sockets. See truth_known.py."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from truth_known import MS, Truth, now, scenario

# --- threads ----------------------------------------------------------------------------------


@scenario(quick=True)
async def to_thread_that_sleeps(t: Truth) -> None:
    def job() -> None:
        t.block("job", t.ms(6), "thread_run")

    await asyncio.to_thread(job)


@scenario(many=10, switch_s=0.0005)
async def to_thread_that_computes(t: Truth) -> None:
    def job() -> None:
        t.spin("job", 6, "thread_run")

    await asyncio.to_thread(job)


@scenario()
async def long_job_in_two_functions(t: Truth) -> None:
    """Split by samples: an estimate, whose sum is exact."""

    def first() -> None:
        t.block("first", 60, "thread_run")

    def second() -> None:
        t.block("second", 40, "thread_run")

    def job() -> None:
        first()
        second()

    await asyncio.to_thread(job)
    for known in t.known:
        known.sampled = True


@scenario()
async def gather_of_threads(t: Truth) -> None:
    def longest() -> None:
        t.block("longest", t.ms(25), "thread_run")

    def shorter() -> None:
        t.block("shorter", 5, "thread_run", path=False)

    await asyncio.gather(
        asyncio.to_thread(shorter), asyncio.to_thread(longest), asyncio.to_thread(shorter)
    )


@scenario()
async def gather_of_libraries_threads(t: Truth) -> None:
    """No frame of the app runs in the thread: who made the task is named."""

    async def makes(ms: int) -> None:
        begin = now()
        await asyncio.gather(asyncio.to_thread(time.sleep, ms / 1000))
        t.add("thread_run", None, "makes", ms, now() - begin, sampled=True)

    await makes(t.ms(15))


@scenario(many=8)
async def executor_of_one_thread(t: Truth) -> None:
    loop = asyncio.get_running_loop()

    def first() -> None:
        t.block("first", t.ms(15), "thread_run", path=False)

    def second() -> None:
        began.append(now())
        t.block("second", 5, "thread_run")

    began: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        submitted = now()
        await asyncio.gather(loop.run_in_executor(pool, first), loop.run_in_executor(pool, second))
    t.add("thread_queue", "executor", "executor_of_one_thread", t.ms(15), began[0] - submitted)


@scenario(needs=("anyio",))
async def worker_thread_of_anyio(t: Truth) -> None:
    import anyio.to_thread

    def job() -> None:
        t.block("job", t.ms(6), "thread_run")

    await anyio.to_thread.run_sync(job, limiter=anyio.CapacityLimiter(1))


@scenario(needs=("anyio",))
async def limiter_between_children(t: Truth) -> None:
    import anyio
    import anyio.to_thread

    limiter = anyio.CapacityLimiter(1)

    def job() -> None:
        t.block("job", 7, "thread_run")

    async with anyio.create_task_group() as group:
        for _ in range(3):

            async def child() -> None:
                await anyio.to_thread.run_sync(job, limiter=limiter)

            group.start_soon(child)


@scenario(needs=("anyio",))
async def thread_back_into_the_loop(t: Truth) -> None:
    """The thread waits for the loop: that is the thread's time, whatever the loop does for it."""

    import anyio.from_thread
    import anyio.to_thread

    async def back() -> None:
        await t.sleep("back", t.ms(15), path=False, anyio=anyio)

    def job() -> None:
        begin = now()
        time.sleep(0.004)
        anyio.from_thread.run(back)
        time.sleep(0.004)
        t.add("thread_run", None, "job", t.ms(15) + 8, now() - begin, sampled=True)

    await anyio.to_thread.run_sync(job, limiter=anyio.CapacityLimiter(1))


@scenario(quick=True, many=4)
async def return_to_a_loop_that_is_held(t: Truth) -> None:
    """The job ends meanwhile: what its result waits is told beside the path."""
    ended: list[int] = []
    free: list[int] = []

    def job() -> None:
        t.block("job", t.ms(10), "thread_run")
        ended.append(now())

    def holds() -> None:
        time.sleep(0.040)
        free.append(now())

    asyncio.get_running_loop().call_later(0.005, holds)
    await asyncio.to_thread(job)
    least_ns = max(0, free[0] - ended[0])
    t.add("return", None, "job", least_ns / MS, now() - ended[0], where="jobs")


@scenario()
async def future_of_a_strange_thread(t: Truth) -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    async def waits(ms: int) -> None:
        def sets() -> None:
            time.sleep(ms / 1000)
            loop.call_soon_threadsafe(future.set_result, None)

        thread = threading.Thread(target=sets)
        begin = now()
        thread.start()
        started = now()
        await future
        t.add("wait", "unknown", "waits", ms - (started - begin) / MS, now() - started)
        t.add("run", None, "waits", 0, started - begin)
        thread.join()

    await waits(t.ms(20))


# --- the loop is held -------------------------------------------------------------------------


@scenario(quick=True, many=10)
async def computes_between_waits(t: Truth) -> None:
    async def handler() -> None:
        t.spin("handler", 3)
        await t.sleep("handler", t.ms(10))
        t.spin("handler", 2)

    await handler()


@scenario(many=5)
async def blocks_the_loop(t: Truth) -> None:
    async def handler() -> None:
        await t.sleep("handler", t.ms(5))
        t.block("handler", 30)

    await handler()


@scenario(many=3)
async def computes_in_two_functions(t: Truth) -> None:
    def first() -> None:
        t.spin("first", 60)

    def second() -> None:
        t.spin("second", 40)

    async def handler() -> None:
        first()
        second()

    await handler()


@scenario(many=5)
async def child_that_computes(t: Truth) -> None:
    """What a child's run costs is the path's where the answer waits for it."""

    async def child() -> None:
        t.spin("child", 4)
        await t.sleep("child", t.ms(10))

    await asyncio.gather(child())


# --- sockets ----------------------------------------------------------------------------------


@scenario()
async def socket_that_gets_data(t: Truth) -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def reads(ms: int) -> None:
        loop.call_later(ms / 1000, theirs.send, b"x")
        await t.awaits("wait", None, "reads", ms, loop.sock_recv(ours, 1))

    try:
        await reads(t.ms(15))
    finally:
        ours.close()
        theirs.close()


@scenario(many=20)
async def stream_of_a_server(t: Truth) -> None:
    ms = t.ms(15)

    async def serve(reader: Any, writer: Any) -> None:
        await asyncio.sleep(ms / 1000)
        writer.write(b"x")
        await writer.drain()
        writer.close()

    async def reads() -> None:
        await t.awaits("wait", "socket", "reads", ms, reader.read(1))

    async def connects() -> tuple[Any, Any, Any]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        return server, *await asyncio.open_connection("127.0.0.1", port)

    server, reader, writer = await t.awaits("wait", "socket", "connects", 0, connects())
    await reads()
    writer.close()
    server.close()
