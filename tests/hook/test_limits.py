"""Every table at its maximum and one past it; long runs leave nothing behind."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import json
import resource
import sys
import threading
import time
import weakref

import pytest
from hook_support import LOOPS, MS, hook, make_scope, plain, profile, request, run, take
from tailrace import _engine

LANES_MAX = 256
SEGMENTS_MAX = 4096
STALLS_MAX = 32
RING_BYTES = 2 << 20


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("children", "truncated"), [(LANES_MAX - 1, 0), (LANES_MAX, 1)])
def test_lanes(loop, children, truncated):
    """The root and its children make 256 lanes; one more is not followed, and said."""

    async def handler():
        await asyncio.gather(*(asyncio.sleep(0.05) for _ in range(children)))

    p = profile(loop, handler)
    assert p.truncated == truncated
    assert p.lasted(p.sum("wait"), 45)


@pytest.mark.parametrize("loop", LOOPS)
def test_lanes_one_after_another(loop):
    """The maximum is of lanes at once: a long request may make children without end."""

    async def handler():
        here = asyncio.get_running_loop()
        for _ in range(LANES_MAX + 10):
            await here.create_task(asyncio.sleep(0))
        await here.create_task(asyncio.sleep(0.02))

    p = profile(loop, handler)
    assert p.truncated == 0
    assert p.lasted(p.sum("wait", "sleep"), 17)


@pytest.mark.parametrize("loop", LOOPS)
def test_segments(loop):
    """A path of more than 4096 segments: the rest is unattributed, and said."""

    async def handler():
        for _ in range(SEGMENTS_MAX):
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)

    p = profile(loop, handler)
    assert p.truncated == 1
    assert p.unattributed_ns >= 20 * MS
    assert sum(r.count for r in p.breakdown) == SEGMENTS_MAX


@pytest.mark.parametrize("loop", LOOPS)
def test_segments_below_the_maximum(loop):
    async def handler():
        for _ in range(SEGMENTS_MAX // 2 - 10):
            await asyncio.sleep(0)

    p = profile(loop, handler)
    assert p.truncated == 0 and p.unattributed_ns == 0


def make_functions(count):
    """Coroutine functions that are all different code."""
    space = {"asyncio": asyncio}
    source = "\n".join(
        f"async def nap{i}():\n    await asyncio.sleep(0.0002)\n" for i in range(count)
    )
    exec(compile(source, __file__, "exec"), space)
    return [space[f"nap{i}"] for i in range(count)]


@pytest.mark.parametrize(("count", "shown"), [(500, 501), (600, 512)])
def test_stacks_of_a_request(count, shown):
    """512 stacks a request; waits beyond have none but keep their time."""
    functions = make_functions(count)

    async def handler():
        for function in functions:
            await function()

    p = profile("asyncio", handler)
    stacks = {tuple(r.stack) for r in p.breakdown if r.stack}
    assert shown - 8 <= len(stacks) <= shown
    assert p.unattributed_ns == 0
    assert p.truncated == (count > shown)


def test_no_row_is_taken_before_its_stacks():
    """A take gives the interpreter away in between: rows that come meanwhile may name stacks that
    come meanwhile too, and wait."""
    functions = make_functions(600)
    known, rows, ended = {number for number, _ in _engine.stacks()}, [], threading.Event()

    def takes():
        taken = last = False
        while taken or not last:
            last = ended.wait(0.004)  # so that a take has some stacks, and a pause
            profiles, _, stacks = _engine.take(1 << 18)
            taken = bool(profiles or stacks)
            known.update(number for number, _ in stacks)
            rows.append(json.loads(b"[" + profiles + b"]"))
            assert {r[2] for row in rows[-1] for r in row[11]} <= known | {-1}

    async def main():
        for function in functions:
            await request(hook(plain(function)))

    take()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        taken = pool.submit(takes)
        run("asyncio", main)
        ended.set()
        taken.result(20)
    assert sum(map(len, rows)) == len(functions)


def test_deep_stacks_keep_both_ends():
    async def nest(depth):
        if depth == 0:
            await asyncio.sleep(0.01)
        else:
            await nest(depth - 1)

    for depth in (30, 70, 300):
        p = profile("asyncio", lambda d=depth: nest(d))
        (row,) = [r for r in p.find("wait") if r.ns > 5 * MS]
        assert len(row.stack) == min(depth + 4, 64)
        assert row.stack[0] == "__call__" and "nest" in row.stack
        assert row.stack[-1] == ("sleep" if depth < 200 else "nest")


def test_full_ring_drops_and_counts():
    async def main():
        app = hook(plain(lambda: asyncio.sleep(0)))
        for _ in range(200):
            await request(app)
        rows = _engine.take(1 << 18)[0]
        size = len(rows) // 200
        before = _engine.dropped()
        for _ in range(RING_BYTES // size + 200):
            await request(app)
        return before

    take()
    before = run("asyncio", main)
    assert _engine.dropped() - before > 0
    profiles, _ = take()
    assert 1000 < len(profiles) <= RING_BYTES // 200


def test_take_keeps_to_its_size():
    async def main():
        app = hook(plain(lambda: asyncio.sleep(0)))
        for _ in range(50):
            await request(app)

    take()
    run("asyncio", main)
    seen = []
    while True:
        rows, _, _ = _engine.take(1000)
        if not rows:
            break
        assert len(rows) <= 1000
        seen.append(len(json.loads(b"[" + rows + b"]")))
    assert sum(seen) == 50 and max(seen) > 1
    run("asyncio", main)
    for _ in range(50):  # a row that is larger than what is asked for goes alone
        [row] = json.loads(b"[" + _engine.take(10)[0] + b"]")
        assert len(json.dumps(row)) > 10
    assert _engine.take(10)[0] == b""
    run("asyncio", main)
    whole = _engine.take(1 << 20)[0]  # so much is copied without the GIL
    assert len(whole) > 4096 and len(json.loads(b"[" + whole + b"]")) == 50


def rss_kb():
    """Resident memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024


@pytest.mark.parametrize("loop", LOOPS)
def test_20_000_requests_leave_nothing(loop):
    async def handler():
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0.00015))
        here = asyncio.get_running_loop()
        here.call_later(0.0001, int)
        here.call_later(60, int).cancel()

    async def main():
        app = hook(plain(handler))

        async def block(count):
            for _ in range(count // 20):
                await asyncio.gather(*(request(app) for _ in range(20)))
                _engine.take(1 << 20)
            gc.collect()
            return sys.getallocatedblocks(), rss_kb()

        await block(14000)  # until the 8 MiB of ended requests' detail are full
        blocks, kb = await block(2000)
        blocks_after, kb_after = await block(10000)
        return blocks_after - blocks, kb_after - kb

    blocks, kb = run(loop, main)
    assert blocks < 1500, "Python objects grew"
    assert kb < 1500, "memory grew"


@pytest.mark.parametrize("loop", LOOPS)
def test_threads_leave_nothing(loop):
    async def main():
        app = hook(plain(lambda: asyncio.to_thread(int)))

        async def block(count):
            for _ in range(count):
                await request(app)
                _engine.take(1 << 20)
            gc.collect()
            return sys.getallocatedblocks()

        await block(300)
        before = await block(200)
        return await block(2000) - before

    assert run(loop, main) < 300


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_keeps_the_scope_or_the_task(loop):
    """After the answer neither tasks nor what the app hung on the request stay alive."""

    class Mark:
        pass

    refs = []

    async def app(scope, receive, send):
        mark = scope["mark"] = Mark()
        mark.send, mark.scope = send, scope
        refs.append(weakref.ref(mark))
        child = asyncio.create_task(asyncio.sleep(0.001))
        refs.append(weakref.ref(child))
        refs.append(weakref.ref(asyncio.current_task()))
        await child
        await plain(lambda: asyncio.sleep(0))(scope, receive, send)

    async def main():
        wrapped = hook(app)
        for _ in range(3):
            await request(wrapped)
        await asyncio.sleep(0.01)
        gc.collect()
        return [r() for r in refs]

    assert run(loop, main) == [None] * 9


@pytest.mark.parametrize("loop", LOOPS)
def test_closed_loop_with_pending_handles_is_collected(loop):
    class Owner:
        def tick(self):
            pass

    refs = []

    async def handler():
        owner = Owner()
        owner.handle = asyncio.get_running_loop().call_later(60, owner.tick)
        refs.append(weakref.ref(owner))

    run(loop, lambda: request(hook(plain(handler))))
    gc.collect()
    gc.collect()
    assert refs[0]() is None
    take()


class Server:
    """What stands behind `send`, as uvicorn's cycle does, with the request's body."""

    def __init__(self):
        self.body = bytearray(1 << 16)

    async def send(self, message):
        pass


def serve(app, refs, path="/"):
    """A task of one request; refs gets a weak reference to its server's side."""
    server = Server()
    refs.append(weakref.ref(server))
    return asyncio.get_running_loop().create_task(app(make_scope(path)[0], None, server.send))


@pytest.mark.parametrize("loop", LOOPS)
def test_the_log_of_stalls_keeps_no_request(loop):
    """256 stalls are remembered while any request is open; those who made them are let go, and
    their victims still name them."""
    refs = []

    async def blocks():
        time.sleep(0.006)

    async def main():
        app = hook(plain(blocks))
        release = asyncio.Event()
        idle = asyncio.create_task(request(hook(plain(release.wait))))
        await asyncio.sleep(0.01)
        for _ in range(20):
            await serve(app, refs)
        blocked = []

        async def suffers():
            while not blocked:  # a timer of its is due within the block, whenever that comes
                await asyncio.sleep(0.001)

        victim = asyncio.create_task(request(hook(plain(suffers))))
        for _ in range(10):  # a busy machine may leave a gap after the block: then it is no stall
            await asyncio.sleep(0.002)
            await serve(app, refs)
        blocked.append(1)
        await victim
        gc.collect()
        alive = sum(r() is not None for r in refs)
        release.set()
        await idle
        return alive

    take()
    assert run(loop, main) == 0
    profiles = {p.key: p for p in take()[0]}
    assert len(profiles) == len(refs) + 2
    named = {s[0] for p in profiles.values() for s in p.stalls if s[0]}  # not the test's own
    assert named and named <= {key[:32] for key in profiles}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_path_keeps_no_foreign_request(loop):
    """A request woken by another one names it and does not keep it."""
    refs = []

    async def main():
        event, release = asyncio.Event(), asyncio.Event()

        async def waits():
            await event.wait()
            await release.wait()

        async def wakes():
            await asyncio.sleep(0.01)
            event.set()

        open_one = asyncio.create_task(request(hook(plain(waits))))
        await serve(hook(plain(wakes)), refs)
        await asyncio.sleep(0.01)
        gc.collect()
        alive = refs[0]()
        release.set()
        return alive, await open_one

    take()
    alive, key = run(loop, main)
    assert alive is None
    profiles = {p.key: p for p in take()[0]}
    (other,) = set(profiles) - {key}
    rows = [r for r in profiles[key].find("wait", "event") if r.by_trace is not None]
    assert [r.by_trace for r in rows] == [other[:32]]


class Heavy:
    """The route that takes most room: 512 bytes, nearly all of which are escaped to six."""

    path_format = "/" + "\1" * 507


def waits_for(counts):
    """Coroutine functions, all different code, that each await a future of their own."""
    space = {"counts": counts}
    source = "\n".join(
        f"async def wait{i}(here, futures):\n"
        "    future = here.create_future()\n"
        "    futures.append(future)\n"
        "    await future\n"
        for i in range(sum(counts))
    )
    exec(compile(source, __file__, "exec"), space)
    functions = [space[f"wait{i}"] for i in range(sum(counts))]
    return functions[: counts[0]], functions[counts[0] :]


def woken_by_heavy(counts, culprits):
    """The profile of a request with so many foreign wakeups before and after the start of its
    response, and so many stalls in it; every route is Heavy."""
    before, after = waits_for(counts)
    futures, blocked = [], []
    start = {"type": "http.response.start", "status": 200, "headers": []}
    end = {"type": "http.response.body", "body": b""}

    async def victim(scope, receive, send):
        here = asyncio.get_running_loop()
        for wait in before:
            await wait(here, futures)
        await send(start)
        for wait in after:
            await wait(here, futures)
        blocked.extend(here.create_task(request(app, "/culprit")) for _ in range(culprits))
        await asyncio.sleep(0.001)
        await send(end)

    async def wakes(scope, receive, send):
        await send(start)
        for _ in range(sum(counts)):
            while not futures:
                await asyncio.sleep(0)
            await asyncio.sleep(0.0002)
            futures.pop().set_result(None)
        await send(end)

    async def culprit(scope, receive, send):
        await send(start)
        time.sleep(0.006)
        await send(end)

    async def route(scope, receive, send):
        scope["route"] = Heavy
        apps = {"/victim": victim, "/wakes": wakes, "/culprit": culprit}
        await apps[scope["path"]](scope, receive, send)

    app = hook(route)

    async def main():
        waker = asyncio.create_task(request(app, "/wakes"))
        key = await request(app, "/victim")
        await asyncio.gather(waker, *blocked)
        return key

    take()
    lost = _engine.dropped()
    key = run("asyncio", main)
    profiles = {p.key: p for p in take()[0]}
    assert _engine.dropped() == lost
    return profiles[key]


def test_a_row_with_every_list_full_is_whole():
    """Lists of the longest rows there can be: what does not fit is cut between rows, and said."""
    p = woken_by_heavy((60, 60), 15)
    assert p.truncated == 1 and p.route == "GET " + Heavy.path_format
    for rows in (p.breakdown, p.stream):
        assert 25 <= len([r for r in rows if r.by_route == p.route]) < 60
    assert p.unattributed_ns > 0 and p.stream_unattributed_ns > 0
    assert 5 <= len(p.stalls) < 15 and {s[1] for s in p.stalls} == {p.route}


@pytest.mark.parametrize("count", [STALLS_MAX, STALLS_MAX + 2])
def test_the_costliest_stalls_are_kept(count):
    """32 stalls a request, those that cost it most first, however old; the rest is counted."""

    async def blocks(ms):
        time.sleep(ms / 1000)

    async def handler():
        held = [asyncio.ensure_future(blocks(ms)) for ms in [40] + [6] * (count - 1)]
        await asyncio.sleep(0.001)  # is due in the first of them and runs after all
        await asyncio.gather(*held)

    before = _engine.limits()["rows"]
    p = profile("asyncio", handler)
    costs = [stall[4] for stall in p.stalls]
    total = len(costs) + _engine.limits()["rows"] - before  # a busy machine may add some
    assert total >= count and len(costs) == STALLS_MAX
    assert p.truncated == (total > STALLS_MAX)
    assert costs == sorted(costs, reverse=True) and costs[0] >= 30 * MS


def test_rows_of_both_lists_together():
    """1024 rows a profile with its stalls, as the gateway takes them; the stream has its share."""
    functions = make_functions(1200)

    async def app(scope, receive, send):
        for function in functions[:600]:
            await function()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for function in functions[600:]:
            await function()
        await send({"type": "http.response.body", "body": b""})

    take()
    run("asyncio", lambda: request(hook(app)))
    (p,) = take()[0]
    assert p.truncated == 1
    assert len(p.breakdown) + len(p.stream) + len(p.stalls) <= 1024
    assert len(p.breakdown) >= 500 and len(p.stream) >= 250
    assert len(p.breakdown) + len(p.stream) >= 1024 - 32 - 8
