"""Jobs in worker threads: queue, run, sampled stacks, the return of the result."""

from __future__ import annotations

import asyncio
import functools
import gc
import math
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from hook_support import BUSY_NS, LOOPS, MS, Jobs, WayBack, hook, plain, profile, request, run, take
from starlette.concurrency import run_in_threadpool
from tailrace import _engine, middleware

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def parent_function():
    for _ in range(10):
        time.sleep(0.01)


def child_function():
    for _ in range(10):
        time.sleep(0.01)


def job():
    parent_function()
    child_function()


class Ran:
    """A job that measures itself."""

    def __call__(self):
        begin = time.monotonic_ns()
        job()
        self.ns = time.monotonic_ns() - begin


@pytest.mark.parametrize("how", ["anyio", "to_thread", "executor", "starlette"])
def test_job_names_both_functions_and_sums_exactly(loop, how):
    ran = Ran()

    async def handler():
        if how == "anyio":
            await anyio.to_thread.run_sync(ran)
        elif how == "to_thread":
            await asyncio.to_thread(ran)
        elif how == "executor":
            await asyncio.get_running_loop().run_in_executor(None, functools.partial(ran))
        else:
            await run_in_threadpool(ran)

    p = profile(loop, handler)
    assert p.unattributed_ns == 0
    total = p.sum("thread_run")
    assert ran.ns <= total <= ran.ns + BUSY_NS
    parent = p.sum("thread_run", None, "parent_function")
    child = p.sum("thread_run", None, "child_function")
    assert min(parent, child) >= 50 * MS, p.shown()
    assert parent + child >= total * 0.95
    rows = p.find("thread_run")
    assert all(r.exact == 0 and r.samples > 0 for r in rows)
    assert all("handler" in r.stack for r in rows), "shown under the stack that awaited them"
    assert rows[0].stack.index("handler") < rows[0].stack.index("parent_function")
    assert p.sum("thread_queue", "executor") > 0
    assert p.sum("wait", "thread") == 0


def test_own_run_longer_than_the_job(loop):
    """The job was done before its lane came to wait for it: the lane's run decided."""

    async def handler():
        job = asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.01)
        time.sleep(0.06)
        await job

    p = profile(loop, handler)
    assert p.sum("run") >= 55 * MS, p.shown()
    assert p.sum("thread_run") == 0 and p.sum("ready") <= BUSY_NS, p.shown()


def test_short_job_is_exact(loop):
    took = []

    def quick():
        begin = time.monotonic_ns()
        time.sleep(0.003)
        took.append(time.monotonic_ns() - begin)

    async def handler():
        await anyio.to_thread.run_sync(quick)

    p = profile(loop, handler)
    (row,) = p.find("thread_run")
    assert row.stack[-1] == "quick" and took[0] <= row.ns <= took[0] + BUSY_NS
    if row.ns < 10 * MS:
        assert row.exact == 1 and row.samples == 0


def test_limiter_wait_is_thread_queue(loop):
    async def handler():
        limiter = anyio.CapacityLimiter(1)
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(
                    functools.partial(anyio.to_thread.run_sync, time.sleep, 0.05, limiter=limiter)
                )

    p = profile(loop, handler)
    # The second job decides; what it waited for is the first one, of the same request.
    assert p.lasted(p.sum("thread_run"), 95)
    assert p.unattributed_ns == 0


def test_limiter_held_by_another_request(loop):
    limiter = None

    async def handler():
        nonlocal limiter
        limiter = limiter or anyio.CapacityLimiter(1)
        await anyio.to_thread.run_sync(time.sleep, 0.05, limiter=limiter)

    async def main():
        app = hook(plain(handler))
        await request(app)
        return await asyncio.gather(request(app), request(app))

    take()
    first, second = run(loop, main)
    found = {p.key: p for p in take()[0]}
    (row,) = found[second].find("thread_queue", "limiter")
    assert found[second].lasted(row.ns, 35)
    assert row.by_trace == first[:32]
    assert "acquire_on_behalf_of" in row.stack


def test_executor_queue_is_measured(loop):
    async def handler():
        here = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            await asyncio.gather(
                here.run_in_executor(pool, time.sleep, 0.05),
                here.run_in_executor(pool, time.sleep, 0.05),
            )

    p = profile(loop, handler)
    assert p.lasted(p.sum("thread_queue", "executor"), 45)
    assert p.lasted(p.sum("thread_run"), 45)


def test_call_from_thread_back_into_the_loop(loop):
    """A job that runs a coroutine on the loop: the path goes thread, loop, thread."""

    async def back():
        await asyncio.sleep(0.05)

    def there():
        time.sleep(0.02)
        anyio.from_thread.run(back)
        time.sleep(0.02)

    async def handler():
        await anyio.to_thread.run_sync(there)

    p = profile(loop, handler)
    assert p.unattributed_ns == 0
    assert p.app_ns >= 85 * MS
    assert p.sum("thread_run") >= 38 * MS


def test_exceptions_and_results_pass(loop):
    seen = []

    def fails():
        raise LookupError("from the thread")

    async def handler():
        for call in (
            lambda: anyio.to_thread.run_sync(fails),
            lambda: asyncio.to_thread(fails),
            lambda: asyncio.get_running_loop().run_in_executor(None, fails),
        ):
            with pytest.raises(LookupError, match="from the thread") as caught:
                await call()
            seen.append(caught.traceback[-1].name)
        assert await anyio.to_thread.run_sync(lambda: 7) == 7
        assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()

    profile(loop, handler)
    assert seen == ["fails"] * 3


def test_process_pools_get_the_function_itself(loop):
    async def handler():
        with ProcessPoolExecutor(1) as pool:
            assert await asyncio.get_running_loop().run_in_executor(pool, abs, -3) == 3

    p = profile(loop, handler)
    assert p.sum("thread_run") == 0 and p.sum("wait") > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_process_pool_as_default(loop):
    """uvloop and CPython 3.10 take one; its jobs are pickled."""

    async def handler():
        here = asyncio.get_running_loop()
        with ProcessPoolExecutor(1) as pool:
            try:
                here.set_default_executor(pool)
            except TypeError:
                assert loop == "asyncio"
                return
            assert await here.run_in_executor(None, abs, -3) == 3

    p = profile(loop, handler)
    assert p.sum("thread_run") == 0


def test_abandoned_job_of_a_closed_request(loop):
    """The request ends before its job: nothing of the job is held against anyone."""
    done = threading.Event()

    def slow():
        time.sleep(0.8)
        done.set()

    async def handler():
        asyncio.get_running_loop().run_in_executor(None, slow)
        await asyncio.sleep(0.01)

    p = profile(loop, handler)
    assert done.wait(5)
    assert p.app_ns < BUSY_NS and p.sum("thread_run") == 0


def looks_max(ns):
    """How often what blocks so long may be looked at: every 4 ms until 40 ms of age, then at each
    tenth more."""
    return 9 + max(0.0, math.log(ns / (40 * MS)) / math.log(1.1)) + 1


@pytest.mark.parametrize("where", ["thread", "step"])
def test_what_blocks_for_long_is_looked_at_ever_less(loop, where):
    """A job or step of 0.8 s gets 40 samples, not 200, and its time is all there."""

    async def handler():
        if where == "thread":
            await asyncio.to_thread(time.sleep, 0.8)
        else:
            time.sleep(0.8)

    p = profile(loop, handler)
    rows = p.find("thread_run" if where == "thread" else "run", None, "handler")
    sampled = [r for r in rows if r.samples > 0]
    spent = sum(r.ns for r in sampled)
    assert spent >= 790 * MS, p.shown()
    assert 5 <= sum(r.samples for r in sampled) <= looks_max(spent), p.shown()


def test_samples_far_apart_share_the_time(loop):
    """A, B, A again: the rest after the last look is A's, whatever was seen first."""
    spent = {"first": 0, "second": 0}

    def first(seconds):
        begin = time.monotonic_ns()
        time.sleep(seconds)
        spent["first"] += time.monotonic_ns() - begin

    def second(seconds):
        begin = time.monotonic_ns()
        time.sleep(seconds)
        spent["second"] += time.monotonic_ns() - begin

    def job():
        first(0.15)
        second(0.15)
        first(0.6)

    p = profile(loop, lambda: asyncio.to_thread(job))
    total = p.sum("thread_run")
    for name, ns in spent.items():
        assert abs(p.sum("thread_run", None, name) - ns) <= 0.1 * total, p.shown()


def burn(ms):
    end = time.thread_time_ns() + ms * MS
    while time.thread_time_ns() < end:
        pass


def half_and_half():
    time.sleep(0.03)
    burn(20)


def only_burns():
    burn(10)


def test_cpu_of_threads(loop):
    """Per function: jobs, what they waited, ran and computed; those off the path count too."""

    async def handler():
        here = asyncio.get_running_loop()
        await asyncio.gather(
            asyncio.to_thread(half_and_half),
            anyio.to_thread.run_sync(half_and_half),
            here.run_in_executor(None, only_burns),
        )

    p = profile(loop, handler)
    assert set(p.threads) == {"half_and_half", "only_burns"}
    count, queue_ns, run_ns, cpu_ns, _ = p.threads["half_and_half"]
    assert count == 2 and queue_ns > 0
    assert 40 * MS <= cpu_ns <= 40 * MS + 5 * MS
    assert run_ns >= cpu_ns + 60 * MS
    count, queue_ns, run_ns, cpu_ns, _ = p.threads["only_burns"]
    assert count == 1 and 10 * MS <= cpu_ns <= 15 * MS and run_ns >= cpu_ns
    assert p.sum("thread_run", None, "half_and_half") <= run_ns + p.threads["half_and_half"][2]


def test_waiting_for_a_thread_is_its_queue(loop):
    """Between what the app's own clocks say of it, strictly."""
    before, after, began, ended = [], [], [], []

    def job():
        began.append(time.monotonic_ns())
        time.sleep(0.03)
        ended.append(time.monotonic_ns())

    async def handler():
        here = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            jobs = []
            for _ in range(3):
                before.append(time.monotonic_ns())
                jobs.append(here.run_in_executor(pool, job))
                after.append(time.monotonic_ns())
            await asyncio.gather(*jobs)

    p = profile(loop, handler)
    count, queue_ns, run_ns, cpu_ns, _ = p.threads["job"]
    assert count == 3 and run_ns >= 90 * MS and cpu_ns <= 20 * MS
    behind = sum(max(0, e - a) for e, a in zip(ended, after[1:], strict=False))
    assert behind <= queue_ns <= sum(b - s for b, s in zip(began, before, strict=True))
    assert queue_ns > 0


HOW = {
    "anyio": anyio.to_thread.run_sync,
    "to_thread": asyncio.to_thread,
    "executor": lambda f: asyncio.get_running_loop().run_in_executor(None, f),
}


@pytest.mark.parametrize("how", HOW)
def test_way_back_to_a_busy_loop(loop, how):
    """The job ends while the loop is held: from then on its result waits, by the app's clocks."""
    way = WayBack()

    def unawaited():
        time.sleep(0.001)

    async def handler():
        here = asyncio.get_running_loop()
        here.run_in_executor(None, unawaited)
        here.call_later(0.01, way.hold)
        await HOW[how](way.job)
        way.resume()

    p = profile(loop, handler)
    way.check(p)
    assert p.threads["unawaited"].return_ns == 0


def test_no_way_back_before_its_lane_waits(loop):
    """What the lane itself did after the job's end is its run: only the rest is the way back."""

    def job():
        time.sleep(0.005)

    async def handler():
        waiting = asyncio.get_running_loop().run_in_executor(None, job)
        time.sleep(0.05)
        await waiting

    p = profile(loop, handler)
    assert p.sum("run") >= 45 * MS, p.shown()
    assert p.threads["job"].return_ns <= p.app_ns - p.sum("run") + MS


@pytest.mark.parametrize("functions", [32, 33, 60])
def test_functions_of_threads_are_bounded(loop, functions):
    jobs = []
    for i in range(functions):
        space = {}
        exec(f"def job{i}():\n    pass\n", space)
        jobs.append(space[f"job{i}"])

    async def handler():
        for job in jobs:
            await asyncio.to_thread(job)

    p = profile(loop, handler)
    assert len(p.threads) == 32
    assert sum(row[0] for row in p.threads.values()) == functions
    assert (None in p.threads) == (functions > 32)


def test_jobs_of_a_part(loop):
    """A long response tells with each part what has ended since the one before."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await asyncio.to_thread(only_burns)
            await asyncio.sleep(0.06)
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def main():
        return await request(hook(app))

    take()
    _engine.configure(
        in_app=[], library_prefixes=middleware._library_prefixes(), part_interval_ns=50 * MS
    )
    try:
        key = run(loop, main)
    finally:
        _engine.configure(
            in_app=[], library_prefixes=middleware._library_prefixes(), part_interval_ns=10_000 * MS
        )
    parts = [p for p in take()[0] if p.key == key]
    assert len(parts) >= 3
    assert sum(p.threads.get("only_burns", Jobs()).count for p in parts) == 3
    assert max(p.threads.get("only_burns", Jobs()).count for p in parts) == 1


def test_a_job_that_outlives_its_request_is_not_in_it(loop):
    async def main():
        app = hook(plain(leaves))
        key = await request(app)
        await asyncio.sleep(0.06)
        return key

    async def leaves():
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.04)
        await asyncio.sleep(0.005)

    take()
    run(loop, main)
    assert all(p.threads == {} for p in take()[0])


def test_frames_of_another_thread_outlive_a_collection(loop):
    """The watchdog makes frame objects of the loop's thread; a collection among them would run
    finalizers that hand over the GIL, and the frames would be gone. Deep stacks, much garbage."""

    here = threading.get_ident()
    elsewhere = []

    class Hands:
        def __del__(self):
            if threading.get_ident() != here:
                elsewhere.append(self)
                time.sleep(0.002)

    def deep(levels):
        if levels:
            garbage = [Hands()]
            garbage.append(garbage)
            return deep(levels - 1)
        time.sleep(0.0002)

    async def handler():
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            deep(40)

    before = gc.get_threshold()
    gc.set_threshold(20)
    try:
        p = profile(loop, handler)
    finally:
        gc.set_threshold(*before)
    assert p.sum("run", None, "deep") >= 300 * MS, p.shown()
    assert gc.isenabled()
    assert not elsewhere, "none was collected by the watchdog"
