"""Whose time it was: the path through tasks, and what each wait was for (design §6)."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import asynccontextmanager

import pytest
from hook_support import BUSY_NS, LOOPS, MS, hook, make_scope, plain, profile, request, run, take

pytestmark = pytest.mark.parametrize("loop", LOOPS)


async def nap(seconds):
    await asyncio.sleep(seconds)


def only_wait(p, cause, function, ms):
    """Asserts that one wait row decides the profile and that it is this one."""
    waits = [r for r in p.find("wait") if r.cause != "short"]
    assert len(waits) == 1, p.breakdown
    assert waits[0].cause == cause
    assert function in waits[0].stack
    assert p.lasted(waits[0].ns, ms - 1)
    assert waits[0].count == 1 and waits[0].exact == 1
    assert p.unattributed_ns == 0


def test_child_awaited_after_own_sleep(loop):
    """The child decides: its 300 ms are the path, the parent's 100 ms are not."""

    async def handler():
        child = asyncio.create_task(nap(0.3))
        await asyncio.sleep(0.1)
        await child

    only_wait(profile(loop, handler), "sleep", "nap", 300)


def test_gather_is_its_slowest(loop):
    async def handler():
        await asyncio.gather(nap(0.1), nap(0.3), nap(0.07))

    only_wait(profile(loop, handler), "sleep", "nap", 300)


def test_own_sleep_after_a_shorter_child(loop):
    async def handler():
        child = asyncio.create_task(nap(0.02))
        await asyncio.sleep(0.08)
        await child

    only_wait(profile(loop, handler), "sleep", "handler", 80)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup came with 3.11")
def test_task_group_is_its_slowest(loop):
    async def handler():
        async with asyncio.TaskGroup() as group:
            for seconds in (0.02, 0.12, 0.05):
                group.create_task(nap(seconds))

    only_wait(profile(loop, handler), "sleep", "nap", 120)


def test_wait_for_and_shield(loop):
    async def handler():
        await asyncio.wait_for(nap(0.03), 5)
        await asyncio.shield(nap(0.03))

    p = profile(loop, handler)
    assert p.lasted(p.sum("wait", "sleep", "nap"), 55)
    assert p.sum("wait", "task") == 0


def test_timeout_keeps_the_own_wait(loop):
    """A timer ends the wait: it is the lane's own, from suspension to deadline."""

    async def handler():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0.05)

    p = profile(loop, handler)
    assert p.lasted(p.sum("wait"), 45), p.shown()


def test_nested_awaits_name_the_line(loop):
    async def inner():
        await asyncio.sleep(0.02)

    async def middle():
        await inner()
        await asyncio.sleep(0.03)

    p = profile(loop, middle)
    one, two = [r for r in p.find("wait", "sleep") if r.ns > MS]
    assert one.stack[-3:] == ["middle", "inner", "sleep"] and p.lasted(one.ns, 15)
    assert two.stack[-2:] == ["middle", "sleep"] and p.lasted(two.ns, 25)
    first = inner.__code__.co_firstlineno
    assert one.lines[-2] == first + 1
    assert two.lines[-2] == middle.__code__.co_firstlineno + 2
    # Frames of libraries carry the first line of their function, so that stacks stay few.
    assert one.lines[-1] == asyncio.sleep.__code__.co_firstlineno


def test_async_generators_are_walked_through(loop):
    async def numbers():
        for i in range(3):
            await asyncio.sleep(0.01)
            yield i

    @asynccontextmanager
    async def resource():
        await asyncio.sleep(0.02)
        yield
        await asyncio.sleep(0.02)

    async def handler():
        async with resource():
            async for _ in numbers():
                pass

    p = profile(loop, handler)
    assert p.lasted(p.sum("wait", "sleep", "numbers"), 25)
    assert p.lasted(p.sum("wait", "sleep", "resource"), 35)
    assert p.find("wait", "sleep", "numbers")[0].count == 3


def test_event_queue_and_lock_of_the_same_request(loop):
    """Woken by a lane of the same request, the path goes through that lane."""

    async def handler():
        event, queue, lock = asyncio.Event(), asyncio.Queue(), asyncio.Lock()

        async def work():
            await asyncio.sleep(0.03)
            event.set()
            await asyncio.sleep(0.03)
            queue.put_nowait(1)
            async with lock:
                await asyncio.sleep(0.03)

        task = asyncio.create_task(work())
        await event.wait()
        await queue.get()
        await asyncio.sleep(0)
        async with lock:
            pass
        await task

    p = profile(loop, handler)
    assert p.lasted(p.sum("wait", "sleep", "work"), 85)
    assert p.sum("wait", "event") + p.sum("wait", "queue") + p.sum("wait", "lock") == 0


def test_lock_held_by_another_request_names_it(loop):
    lock = asyncio.Lock() if sys.version_info >= (3, 10) else None

    async def holder():
        async with lock:
            await asyncio.sleep(0.06)

    async def waiter():
        await asyncio.sleep(0.01)
        async with lock:
            pass

    class Route:
        path_format = "/holder"

    async def app(scope, receive, send):
        if scope["path"] == "/holder":
            scope["route"] = Route
        await plain(holder if scope["path"] == "/holder" else waiter)(scope, receive, send)

    async def main():
        wrapped = hook(app)
        return await asyncio.gather(request(wrapped, "/holder"), request(wrapped, "/waiter"))

    take()
    held, waited = run(loop, main)
    found = {p.key: p for p in take()[0]}
    (row,) = found[waited].find("wait", "lock")
    assert row.by_trace == held[:32]
    assert row.by_route == "GET /holder"
    assert found[waited].lasted(row.ns, 35)
    assert all(r.by_trace is None for r in found[held].breakdown)


def test_gathered_futures_woken_by_plain_callbacks(loop):
    """call_soon callbacks hand on the path of the lane that scheduled them."""

    async def handler():
        here = asyncio.get_running_loop()
        future = here.create_future()

        async def work():
            await asyncio.sleep(0.05)
            here.call_soon(here.call_soon, future.set_result, None)

        task = asyncio.create_task(work())
        await future
        await task

    p = profile(loop, handler)
    assert p.lasted(p.sum("wait", "sleep", "work"), 45)
    assert len([r for r in p.find("wait") if r.cause != "short"]) == 1


def test_short_waits_are_counted_together(loop):
    async def handler():
        here = asyncio.get_running_loop()
        for _ in range(20):
            future = here.create_future()
            # A detached task would be foreign too; a timer due at once stays under 100 µs.
            here.call_later(0.00001, future.set_result, None)
            await future
            await asyncio.sleep(0)

    p = profile(loop, handler)
    short = p.find("wait", "short")
    assert len(short) <= 1 and all(r.stack == [] for r in short)


def test_busy_loop_is_ready_not_wait(loop):
    """20 ms of sleep beside a 100 ms block: the sleep keeps its 20 ms, the rest is `ready`."""

    async def sleeper():
        await asyncio.sleep(0.02)

    async def blocker():
        await asyncio.sleep(0.005)
        time.sleep(0.1)

    class Route:
        path_format = "/block"

    async def app(scope, receive, send):
        if scope["path"] == "/block":
            scope["route"] = Route
        await plain(blocker if scope["path"] == "/block" else sleeper)(scope, receive, send)

    async def main():
        wrapped = hook(app)
        await request(wrapped)
        return await asyncio.gather(request(wrapped, "/sleep"), request(wrapped, "/block"))

    take()
    slept, blocked = run(loop, main)
    found = {p.key: p for p in take()[0]}
    victim, culprit = found[slept], found[blocked]
    slept_ns, ready_ns = victim.sum("wait", "sleep"), victim.sum("ready")
    block_ns = sum(r.ns for r in culprit.find("run", None, "blocker"))
    assert slept_ns <= 20 * MS + BUSY_NS and slept_ns + ready_ns >= 100 * MS, victim.shown()
    # The block began within the sleep: at most 20 ms of it are the sleep's.
    assert block_ns - 22 * MS <= ready_ns <= block_ns + BUSY_NS, victim.shown()
    assert slept_ns < ready_ns
    (stall,) = [s for s in victim.stalls if s[4] > 50 * MS]
    assert stall[0] == blocked[:32] and stall[1] == "GET /block" and stall[2] == "step"
    assert stall[3] == "blocked" and stall[5] == 1 and stall[6] >= 0
    assert sum(r.ns for r in culprit.find("run", None, "blocker")) >= 95 * MS
    assert any(r.exact == 0 and r.samples > 0 for r in culprit.find("run", None, "blocker"))


def test_cpu_in_a_step_is_run_and_split_by_samples(loop):
    def spin(seconds):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    def first():
        spin(0.05)

    def second():
        spin(0.05)

    async def handler():
        first()
        second()

    p = profile(loop, handler)
    assert p.sum("run") >= 95 * MS
    parts = [p.sum("run", None, name) for name in ("first", "second")]
    assert min(parts) >= 10 * MS and sum(parts) >= 0.9 * p.sum("run"), p.shown()
    assert p.sum("wait") == 0


def test_cancelled_child(loop):
    async def handler():
        task = asyncio.create_task(nap(10))
        await asyncio.sleep(0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    p = profile(loop, handler)
    assert p.lasted(p.sum("wait", "sleep", "handler"), 25)
    assert p.sum("wait", None, "nap") == 0


def test_path_let_go_runs_the_apps_code(loop):
    """The end of a request that woke another one runs the app's code, which schedules."""
    ended = []

    class Send:
        async def __call__(self, message):
            pass

        def __del__(self):
            ended.append(1)
            for _ in range(5):
                asyncio.get_running_loop().call_soon(int)

    async def once():
        here, event = asyncio.get_running_loop(), asyncio.Event()

        async def waits():
            child = here.create_task(asyncio.sleep(0.004))
            await event.wait()
            await child  # its path takes the place of the one the other request is in
            await asyncio.sleep(0.001)

        async def wakes():
            await asyncio.sleep(0.002)
            event.set()

        apps = [hook(plain(waits)), hook(plain(wakes))]
        await asyncio.gather(*(app(make_scope()[0], None, Send()) for app in apps))

    async def main():
        for _ in range(30):
            await once()

    take()
    run(loop, main)
    assert len(ended) >= 30
    profiles, _ = take()
    assert len(profiles) == 60 and all(p.app_ns < 2000 * MS for p in profiles)


def test_late_by_a_block_though_another_thread_has_the_gil(loop):
    """Behind a block the loop waits for the GIL, not for the timer: that is no idle time."""
    done = threading.Event()

    def spin():
        while not done.is_set():
            sum(range(1000))

    async def app(scope, receive, send):
        async def sleeper():
            await asyncio.sleep(0.02)

        async def blocker():
            await asyncio.sleep(0.005)
            time.sleep(0.1)

        await plain(blocker if scope["path"] == "/block" else sleeper)(scope, receive, send)

    async def main():
        wrapped = hook(app)
        await request(wrapped)
        threads = [threading.Thread(target=spin) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            return await asyncio.gather(request(wrapped, "/sleep"), request(wrapped, "/block"))
        finally:
            done.set()
            for thread in threads:
                thread.join()

    take()
    slept, blocked = run(loop, main)
    found = {p.key: p for p in take()[0]}
    block_ns = sum(r.ns for r in found[blocked].find("run", None, "blocker"))
    assert block_ns >= 95 * MS, found[blocked].shown()
    victim = found[slept]
    # The block may begin late, never after the sleep's end: what is due in it is ready.
    assert victim.sum("ready") >= block_ns - 25 * MS, victim.shown()
