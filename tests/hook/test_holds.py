"""Who held the loop where that was no task: protocols' callbacks, apps that go on after their
answer; and what is kept, given up and said."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
import time
import weakref

import pytest
from hook_support import LOOPS, MS, hook, plain, request, run, take
from tailrace import _engine, middleware, sender

pytestmark = pytest.mark.parametrize("loop", LOOPS)


class Blocks(asyncio.Protocol):
    """A protocol whose data_received() holds the loop: no task, no call_soon()."""

    def __init__(self, how):
        self.how = how

    def data_received(self, data):
        self.how()


def sleeps():
    time.sleep(0.12)


def computes():
    end = time.thread_time() + 0.12
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize("how", [sleeps, computes])
def test_a_protocols_callback_is_an_io_callback(loop, how):
    """Seen by the watchdog only, so an estimate; timers due meanwhile were ready, not waiting."""

    async def naps():
        for _ in range(30):
            await asyncio.sleep(0.01)

    async def main():
        here = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        transport, _ = await here.create_connection(lambda: Blocks(how), sock=ours)
        app = hook(plain(naps))
        await request(hook(plain(lambda: asyncio.sleep(0))))
        task = asyncio.create_task(request(app))
        await asyncio.sleep(0.1)
        theirs.send(b"x")
        key = await task
        transport.close()
        theirs.close()
        return key

    take()
    key = run(loop, main)
    p = {p.key: p for p in take()[0]}[key]
    stalls = [s for s in p.stalls if s[2] == "io_callback"]
    assert len(stalls) == 1, p.stalls
    trace, route, _, state, ns, exact, stack = stalls[0]
    assert (trace, route, exact) == (None, None, 0)
    assert state == ("blocked" if how is sleeps else "busy")
    assert ns >= 60 * MS and stack >= 0
    names = {n: [c.co_name for c, _ in frames] for n, frames in _engine.stacks()}
    assert names[stack][-2:] == ["data_received", how.__name__]
    assert p.sum("ready") >= 60 * MS, p.shown()


def test_who_held_the_loop_before_the_call(loop):
    """Also where nobody was in the app when it ended; not what was over long before."""

    async def blocks():
        time.sleep(0.06)
        await asyncio.sleep(0)  # its own step does not count: it began with the call

    async def main():
        app, victim = hook(plain(blocks)), hook(plain(lambda: asyncio.sleep(0)))
        early = await request(app)
        await asyncio.sleep(0.05)
        culprit = asyncio.create_task(request(app))
        waiting = asyncio.create_task(request(victim))
        return early, await culprit, await waiting

    take()
    early, culprit, waiting = run(loop, main)
    found = {p.key: p for p in take()[0]}
    assert not found[early].holds and not found[culprit].holds
    ((trace, route, kind, _, ns, exact, stack, begin_ns),) = found[waiting].holds
    assert (trace, kind, exact) == (culprit[:32], "step", 1) and stack >= 0
    assert route is None  # this app names none
    assert 60 * MS <= ns <= found[waiting].enter_ns - begin_ns
    assert 0 <= found[culprit].enter_ns - begin_ns <= 5 * MS


def test_the_rest_of_an_app_is_still_named(loop):
    """A lock that is held, or a loop that is held, after the answer was sent."""
    lock = asyncio.Lock()

    async def holder(scope, receive, send):
        await lock.acquire()
        await plain(lambda: asyncio.sleep(0))(scope, receive, send)
        await asyncio.sleep(0.05)
        time.sleep(0.02)
        lock.release()

    async def waiter():
        await asyncio.sleep(0.01)
        async with lock:
            pass

    async def main():
        apps = [hook(holder), hook(plain(waiter))]
        return await asyncio.gather(*(request(app) for app in apps))

    take()
    held, waited = run(loop, main)
    p = {p.key: p for p in take()[0]}[waited]
    (row,) = p.find("wait", "lock")
    assert row.by_trace == held[:32] and row.ns >= 30 * MS, p.shown()


def test_a_handle_that_is_kept_keeps_no_request(loop):
    refs, handles = [], []

    class Mark:
        pass

    async def app(scope, receive, send):
        here = asyncio.get_running_loop()
        mark = scope["mark"] = Mark()
        refs.append(weakref.ref(mark))
        handles.append(here.call_soon(len, ""))
        handles.append(here.call_later(0.001, len, ""))
        await asyncio.sleep(0.005)
        await plain(lambda: asyncio.sleep(0))(scope, receive, send)

    async def main():
        await request(hook(app))
        await asyncio.sleep(0.005)
        gc.collect()
        return refs[0]()

    assert run(loop, main) is None
    assert len(handles) == 2


def test_task_of_a_library_names_who_made_it(loop):
    """to_thread(sleep) inside gather(): no frame of the app but its maker's."""

    async def makes():
        await asyncio.gather(asyncio.to_thread(time.sleep, 0.03), asyncio.sleep(0.001))

    async def handler():
        await makes()

    take()
    key = run(loop, lambda: request(hook(plain(handler))))
    p = {p.key: p for p in take()[0]}[key]
    rows = p.find("thread_run")
    assert sum(r.ns for r in rows) >= 29 * MS
    for row in rows:
        assert row.stack[:3][-2:] == ["handler", "makes"] or "makes" in row.stack, p.shown()
        assert row.stack.index("makes") < row.stack.index("to_thread")


def test_stages_of_the_guard(loop):
    """Coarse: waits under 1 ms count as short. No stacks. Totals. And back."""

    async def handler():
        await asyncio.sleep(0.0006)
        await asyncio.sleep(0.02)

    async def main():
        app = hook(plain(handler))
        await request(app)
        take()
        keys = []
        for stage in range(4):
            _engine.set_stage(stage)
            keys.append(await request(app))
        _engine.set_stage(0)
        keys.append(await request(app))
        return keys

    try:
        keys = run(loop, main)
    finally:
        _engine.set_stage(0)
    found = {p.key: p for p in take()[0]}
    full, coarse, bare, totals, again = (found[key] for key in keys)
    for p in (full, coarse, again):
        assert p.lasted(p.sum("wait", "sleep", "handler"), 18), p.shown()
    assert bare.sum("wait", "sleep") == 0 and bare.lasted(bare.sum("wait", "unknown"), 18)
    assert totals.breakdown == [] and totals.unattributed_ns == totals.app_ns >= 18 * MS
    assert coarse.sum("wait", "sleep") <= full.sum("wait", "sleep") + 30 * MS


def test_what_the_guard_says(loop, caplog):
    with caplog.at_level(logging.WARNING, logger="tailrace"):
        middleware._say_stage("coarse", 12)
    assert "takes 12 % of the loop's time: waits under 1 ms" in caplog.text


def test_the_guard_measures_and_degrades(loop):
    """With a limit that any app exceeds it goes down stage by stage, and says each."""
    stages = []
    hooked = hook(plain(lambda: gives_way(stages)))
    _engine.bind_guard(lambda stage, percent: stages.append((stage, percent)))
    _engine.guard_limits(0, 0, 1, 50 * MS)
    try:
        run(loop, lambda: request(hooked))
    finally:
        _engine.guard_limits(10, 2, 3, 1000 * MS)
        _engine.set_stage(0)
        _engine.bind_guard(middleware._say_stage)
    take()
    assert [stage for stage, _ in stages] == ["coarse", "no_stacks", "totals"]
    assert all(0 <= percent < 100 for _, percent in stages)


async def gives_way(stages):
    end = time.monotonic() + 10
    while time.monotonic() < end and len(stages) < 3:
        await asyncio.sleep(0)


def test_limits_are_told(loop):
    """What the maxima cut is counted and goes to the gateway."""

    async def handler():
        await asyncio.gather(*(asyncio.sleep(0.01) for _ in range(300)))

    before = _engine.limits()
    run(loop, lambda: request(hook(plain(handler))))
    take()
    after = _engine.limits()
    assert after["lanes"] - before["lanes"] == 300 - 255
    assert set(after) == {"stage", "lanes", "segments", "rows", "codes", "stacks"}
    assert after["stage"] == "full"
    assert sender.Sender  # its `process` carries them: tests/sender


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None is immortal there")
def test_references_do_not_drift(loop):
    """Counts of what everything touches stay where they are."""

    async def handler():
        here = asyncio.get_running_loop()
        await asyncio.gather(asyncio.sleep(0), asyncio.to_thread(int))
        here.call_soon(int)
        await asyncio.sleep(0.0002)

    def counts():
        gc.collect()
        return [sys.getrefcount(x) for x in (None, True, False, (), "", int, asyncio.sleep)]

    async def main():
        app = hook(plain(handler))
        for _ in range(200):
            await request(app)
            _engine.take(1 << 20)
        before = counts()
        for _ in range(1500):
            await request(app)
            _engine.take(1 << 20)
        return [b - a for a, b in zip(before, counts(), strict=True)]

    assert max(map(abs, run(loop, main))) < 150
