"""trio's tasks are followed: nurseries, channels, locks, what wakes whom."""

from __future__ import annotations

import threading
import time

import pytest
import tailrace
import trio
import trio.from_thread
import trio.to_thread
from hook_support import BUSY_NS, MS, WayBack, hook, make_scope, plain, take
from tailrace import _engine, middleware
from trio.to_thread import run_sync


@pytest.fixture(autouse=True)
def steps_again():
    """What the process's other tests expect of the engine afterwards."""
    name, loop = _engine.engine_name(), _engine.loop_name()
    yield
    _engine.use(loop, name)
    middleware._prepared_loop.loop = ...


async def request(app):
    """One request in the running task; its key."""
    scope, key = make_scope()

    async def receive():
        await trio.sleep_forever()

    async def send(message):
        pass

    await app(scope, receive, send)
    return key


def profiles(*handlers, pause_s=0.005):
    """The profiles of requests that begin one pause after the other, in order."""
    keys = [None] * len(handlers)

    async def one(number, handler):
        keys[number] = await request(hook(plain(handler)))

    async def main():
        async with trio.open_nursery() as nursery:
            for number, handler in enumerate(handlers):
                nursery.start_soon(one, number, handler)
                await trio.sleep(pause_s)

    take()
    trio.run(main)
    found = {p.key: p for p in take()[0]}
    assert _engine.engine_name() == "drive"
    for p in found.values():
        assert p.unattributed_ns == 0 and not p.truncated, p.shown()
    return [found[key] for key in keys]


#: Trace -> the child that ended last: where the loop comes late to several, it need not be the one
#: that slept longest, for trio wakes them in any order.
last = {}


async def first(ms):
    await trio.sleep(ms / 1000)
    last[tailrace.trace_id()] = "first"


async def second(ms):
    await trio.sleep(ms / 1000)
    last[tailrace.trace_id()] = "second"


def test_a_nursery_is_its_longest_child():
    async def handler():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first, 20)
            nursery.start_soon(second, 60)
            nursery.start_soon(first, 15)

    (p,) = profiles(handler)
    assert p.lasted(p.sum("wait", "sleep", last[p.key[:32]]), 60), p.shown()
    assert len(p.find("wait", "sleep")) == 1 and p.sum("wait", "task") == 0, p.shown()
    assert p.app_ns <= 60 * MS + BUSY_NS


def test_children_of_children():
    async def outer():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first, 20)
        await second(15)

    async def handler():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outer)
            nursery.start_soon(first, 5)

    (p,) = profiles(handler)
    assert p.lasted(p.sum("wait", "sleep", "first"), 20), p.shown()
    assert p.lasted(p.sum("wait", "sleep", "second"), 15), p.shown()


def test_started_child():
    """nursery.start(): the path leads through the child up to started()."""

    async def service(task_status=trio.TASK_STATUS_IGNORED):
        await first(20)
        task_status.started()
        await second(500)

    async def handler():
        async with trio.open_nursery() as nursery:
            await nursery.start(service)
            nursery.cancel_scope.cancel()

    (p,) = profiles(handler)
    assert p.lasted(p.sum("wait", "sleep", "first"), 20), p.shown()
    assert p.sum("wait", "sleep", "second") <= 5 * MS, p.shown()


def test_channel():
    async def produce(send):
        await first(25)
        await send.send(1)
        await second(300)

    async def handler():
        send, receive = trio.open_memory_channel(0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce, send)
            assert await receive.receive() == 1
            nursery.cancel_scope.cancel()

    (p,) = profiles(handler)
    assert p.lasted(p.sum("wait", "sleep", "first"), 25), p.shown()
    assert p.sum("wait", "sleep", "second") <= 5 * MS


def test_lock_of_another_request():
    lock = trio.Lock()

    async def hold():
        async with lock:
            await first(60)

    async def want():
        async with lock:
            pass

    holder, waiter = profiles(hold, want)
    (row,) = waiter.find("wait", None, "want")
    assert row.by_trace == holder.key[:32] and row.ns >= 30 * MS, waiter.shown()


def test_work_of_a_child_in_its_step():
    def burn(ms):
        end = time.thread_time_ns() + ms * MS
        while time.thread_time_ns() < end:
            pass

    async def busy():
        burn(20)

    async def handler():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(busy)

    (p,) = profiles(handler)
    assert 19 * MS <= p.sum("run", None, "busy") <= 20 * MS + BUSY_NS, p.shown()


def test_held_loop_is_ready_time():
    """A sleeper of 20 ms beside a task that holds the loop for 80: it was ready, as an estimate."""

    async def hold():
        time.sleep(0.08)

    async def handler():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first, 20)

    sleeper, _ = profiles(handler, hold, pause_s=0.005)
    assert sleeper.sum("wait", "sleep") <= 60 * MS, sleeper.shown()
    assert sleeper.sum("ready") >= 30 * MS, sleeper.shown()


def test_thread_in_a_child():
    def job():
        time.sleep(0.03)

    async def work():
        import anyio.to_thread

        await anyio.to_thread.run_sync(job)

    async def handler():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)

    (p,) = profiles(handler)
    assert p.lasted(p.sum("thread_run", None, "job"), 30), p.shown()
    assert p.threads["job"][0] == 1


def job():
    time.sleep(0.03)
    return threading.get_ident()


async def by_attribute(function, **options):
    return await trio.to_thread.run_sync(function, **options)


async def by_name(function, **options):
    return await run_sync(function, **options)


@pytest.mark.parametrize("call", [by_attribute, by_name])
def test_threads_of_trios_own(call):
    async def handler():
        assert await call(job) != threading.get_ident()

    (p,) = profiles(handler)
    assert p.lasted(p.sum("thread_run", None, "job"), 30), p.shown()
    assert call.__name__ in p.find("thread_run")[0].stack, "under the stack that awaited it"
    assert p.sum("wait", "thread") <= MS, p.shown()
    count, queue_ns, run_ns, cpu_ns, return_ns = p.threads["job"]
    assert count == 1 and run_ns >= 30 * MS and cpu_ns <= 20 * MS
    assert 0 < queue_ns < BUSY_NS and 0 < return_ns < BUSY_NS


def test_threads_of_trio_wait_for_a_place():
    """Two jobs and one place: the second one's wait is the limiter's."""

    async def hold():
        await trio.to_thread.run_sync(job, limiter=limiter)

    limiter = trio.CapacityLimiter(1)
    holder, waiter = profiles(hold, hold)
    (row,) = waiter.find("thread_queue", "limiter")
    assert row.ns >= 15 * MS and "hold" in row.stack, waiter.shown()
    assert row.by_trace in (holder.key[:32], None)
    assert waiter.lasted(waiter.sum("thread_run", None, "job"), 30), waiter.shown()


def test_way_back_from_a_thread_of_trio():
    """The job ends while the loop is held by another task."""
    way = WayBack()

    async def hold():
        await trio.sleep(0.01)
        way.hold()

    async def work():
        await trio.to_thread.run_sync(way.job)
        way.resume()

    async def handler():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            nursery.start_soon(work)

    (p,) = profiles(handler)
    way.check(p)


def test_threads_of_trio_that_fail_or_are_left():
    def fails():
        raise LookupError("in the thread")

    async def handler():
        with pytest.raises(LookupError, match="in the thread"):
            await trio.to_thread.run_sync(fails)
        with trio.move_on_after(0.01):
            await trio.to_thread.run_sync(time.sleep, 0.2, abandon_on_cancel=True)
        with pytest.raises(TypeError, match="expected a sync function"):
            await trio.to_thread.run_sync(by_name, fails)
        assert await trio.to_thread.run_sync(trio.from_thread.run, first, 10) is None

    (p,) = profiles(handler)
    assert p.app_ns < 190 * MS + BUSY_NS and p.threads["fails"].count == 1, p.shown()


def test_errors_and_cancellation_pass():
    seen = []

    async def fails():
        await first(10)
        raise LookupError("of the child")

    async def cancelled():
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            seen.append("cancelled")
            raise

    async def handler():
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancelled)
                nursery.start_soon(fails)
        except BaseException as group:
            seen.append([type(e) for e in group.exceptions])

    (p,) = profiles(handler)
    assert seen == ["cancelled", [LookupError]]
    assert p.ended == "response" and p.lasted(p.sum("wait", "sleep", "first"), 10), p.shown()


def test_a_child_that_outlives_its_request():
    done = []

    async def late():
        await trio.sleep(0.03)
        done.append(threading.get_ident())

    async def main():
        async with trio.open_nursery() as outer:

            async def handler():
                outer.start_soon(late)
                await first(5)

            await request(hook(plain(handler)))
        assert done

    take()
    trio.run(main)
    (p,) = take()[0]
    assert p.lasted(p.sum("wait", "sleep", "first") + p.sum("ready"), 5), p.shown()
    assert not middleware.trio_tasks._roots


def test_many_at_once_keep_apart():
    async def handler():
        async with trio.open_nursery() as nursery:
            for ms in (5, 30, 10):
                nursery.start_soon(first if ms != 30 else second, ms)

    for p in profiles(*[handler] * 50, pause_s=0):
        asleep = p.sum("wait", "sleep", last[p.key[:32]])
        assert p.lasted(asleep + p.sum("ready"), 30), p.shown()
        assert p.sum("wait", "sleep") == asleep, p.shown()
