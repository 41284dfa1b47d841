"""Event loops the engine is put on, those where it cannot be, several at a time, and fork."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time

import anyio
import anyio.to_thread
import pytest
import trio
from hook_support import BUSY_NS, LOOPS, MS, hook, make_scope, new_loop, plain, request, run, take
from tailrace import _engine, middleware


@pytest.fixture
def steps_again(monkeypatch):
    """What was found of a loop is for its thread: forget it afterwards."""
    monkeypatch.setattr(middleware, "_totals_said", False)
    yield
    middleware._prepared_loop.loop = ...
    _engine.use("asyncio", "steps")


async def no_steps(loop):
    return middleware.DRIVE


def asgi(app, **more):
    """One call of an app outside asyncio, where request() makes no task; the key of its profile."""
    scope, key = make_scope(**more)

    async def send(message):
        pass

    return lambda: app(scope, None, send), key


if sys.version_info >= (3, 12):  # eager tasks came with it

    @pytest.mark.parametrize("loop", LOOPS)
    def test_eager_tasks_are_steps_of_their_own(loop):
        """Roots and children that begin inside create_task(); those that end there, too."""

        def eager(loop, coro, eager_start=None, **options):
            """Without what uvloop gives and CPython 3.13.0's own does not take."""
            return asyncio.eager_task_factory(loop, coro, **options)

        async def child(seconds):
            time.sleep(0.003)
            if seconds:
                await asyncio.sleep(seconds)

        async def handler():
            await asyncio.gather(child(0.02), child(0), child(0.01))
            await asyncio.create_task(child(0))

        async def main():
            asyncio.get_running_loop().set_task_factory(eager)
            app = hook(plain(handler))
            keys = [await request(app), await request(app)]
            asyncio.get_running_loop().set_task_factory(None)
            assert "create_task" not in vars(asyncio.get_running_loop())
            return [*keys, await request(app)]

        take()
        keys = run(loop, main)
        found = {p.key: p for p in take()[0]}
        for key in keys[1:]:
            p = found[key]
            # The path of the child that gather() waited for, which slept while the others had
            # their first steps, and of the last one, which never waited.
            assert p.unattributed_ns == 0 and p.lasted(p.sum("wait", "sleep", "child"), 20)
            assert 5.9 * MS <= p.sum("run") <= 11 * MS, p.shown()
        assert _engine.engine_name() == "steps"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_task_factory_that_is_not_eager(loop):
    """It is called through us and changes nothing."""

    def factory(here, coro, **options):
        return asyncio.Task(coro, loop=here, **options)

    async def child():
        await asyncio.sleep(0.02)

    async def main():
        asyncio.get_running_loop().set_task_factory(factory)
        app = hook(plain(lambda: asyncio.gather(child(), asyncio.sleep(0.001))))
        return await request(app)

    take()
    key = run(loop, main)
    p = {p.key: p for p in take()[0]}[key]
    assert p.lasted(p.sum("wait", "sleep", "child"), 18) and p.unattributed_ns == 0


def test_trio_is_driven(steps_again):
    async def nap():
        await trio.sleep(0.02)

    async def handler():
        await nap()
        time.sleep(0.003)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nap)
        await trio.to_thread.run_sync(time.sleep, 0.01)

    call, key = asgi(hook(plain(handler)))
    take()
    trio.run(call)
    trio.run(asgi(hook(plain(nap)))[0])  # another loop on the same thread
    assert (_engine.engine_name(), _engine.loop_name()) == ("drive", "trio")
    first, second = take()[0]
    assert first.key == key and first.ended == "response" and first.unattributed_ns < MS
    assert first.lasted(first.sum("wait", "sleep", "nap"), 36), "its own and its child's"
    assert first.sum("run", None, "handler") >= 3 * MS, first.shown()
    assert first.sum("wait", "task") == 0, first.shown()
    assert first.lasted(first.sum("thread_run", None, "handler"), 10)
    assert second.lasted(second.sum("wait", "sleep", "nap"), 16)


def test_cancelled_by_trio(steps_again):
    async def main():
        with trio.move_on_after(0.2):
            await asgi(hook(plain(lambda: trio.sleep(5))))[0]()

    take()
    trio.run(main)
    (p,) = take()[0]
    assert p.ended == "cancelled" and 50 * MS <= p.sum("wait", "sleep") <= 200 * MS + BUSY_NS


@pytest.mark.parametrize("loop", LOOPS)
def test_driven_on_asyncio(loop, steps_again, monkeypatch):
    """Where the loop's steps cannot be seen: tasks and worker threads are followed."""
    monkeypatch.setattr(middleware, "_try_steps", no_steps)

    async def nap(seconds):
        await asyncio.sleep(seconds)

    def job():
        time.sleep(0.02)

    async def handler():
        await asyncio.gather(nap(0.03), nap(0.01))
        await asyncio.create_task(nap(0.015))
        await anyio.to_thread.run_sync(job)
        await asyncio.sleep(0)

    async def main():
        app = hook(plain(handler))
        return await asyncio.gather(*(request(app) for _ in range(3)))

    take()
    keys = run(loop, main)
    found = {p.key: p for p in take()[0]}
    for key in keys:
        p = found[key]
        assert p.unattributed_ns == 0
        assert p.lasted(p.sum("wait", "sleep", "nap"), 43), p.shown()
        assert p.sum("thread_run", None, "job") >= 19 * MS, p.shown()
        assert p.sum("wait", "task") == 0, p.shown()
    assert _engine.engine_name() == "drive"


@pytest.mark.parametrize("loop", LOOPS)
def test_driven_exceptions_and_cancellation(loop, steps_again, monkeypatch):
    monkeypatch.setattr(middleware, "_try_steps", no_steps)

    async def fails():
        await asyncio.sleep(0.01)
        raise ValueError("mine")

    async def main():
        with pytest.raises(ValueError, match="mine") as caught:
            await request(hook(plain(fails)))
        assert [entry.name for entry in caught.traceback][-2:] == ["app", "fails"]
        task = asyncio.create_task(request(hook(plain(lambda: asyncio.sleep(5)))))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    take()
    run(loop, main)
    failed, cancelled = take()[0]
    assert failed.ended == "exception" and failed.lasted(failed.sum("wait", "sleep", "fails"), 9)
    assert cancelled.ended == "cancelled" and cancelled.lasted(cancelled.sum("wait"), 18)


def test_a_driven_chain_is_seen_by_others(steps_again, monkeypatch):
    """Who walks a task's coroutines (a debugger, another profiler) finds the app's."""
    monkeypatch.setattr(middleware, "_try_steps", no_steps)
    names = []

    async def handler():
        await asyncio.sleep(0.02)

    async def main():
        scope, _ = make_scope()

        async def send(message):
            pass

        task = asyncio.create_task(hook(plain(handler))(scope, None, send))
        await asyncio.sleep(0.01)
        link = task.get_coro()
        while link is not None and hasattr(link, "cr_code"):
            names.append(link.cr_code.co_name)
            link = link.cr_await
        await task

    run("asyncio", main)
    assert names == ["__call__", "_drive", "app", "handler", "sleep"]
    take()


def test_a_loop_without_dict_is_driven(steps_again):
    class Bare:
        """Stands for a loop implemented in C: no attribute can be set on it."""

        __slots__ = ()

    with pytest.raises(AttributeError):
        _engine.install(Bare())

    class Loop(asyncio.SelectorEventLoop):
        def __setattr__(self, name, value):
            if name.startswith("_tailrace"):
                raise AttributeError(name)
            super().__setattr__(name, value)

    async def nap():
        await asyncio.sleep(0.02)

    loop = Loop()
    take()
    loop.run_until_complete(request(hook(plain(nap))))
    loop.close()
    (p,) = take()[0]
    assert _engine.engine_name() == "drive" and _engine.loop_name() == "Loop"
    assert p.lasted(p.sum("wait", "sleep", "nap"), 20) and p.unattributed_ns == 0


def test_neither_works(caplog, steps_again, monkeypatch):
    """Totals only, said once."""
    monkeypatch.setattr(middleware, "_running_loop", lambda: None)
    take()

    async def main():
        app = hook(plain(lambda: asyncio.sleep(0.02)))
        return [await request(app), await request(app)]

    with caplog.at_level(logging.WARNING, logger="tailrace"):
        run("asyncio", main)
    assert _engine.engine_name() == "totals"
    assert len([r for r in caplog.records if "only totals" in r.getMessage()]) == 1
    profiles, _ = take()
    assert len(profiles) == 2
    for p in profiles:
        assert p.breakdown == [] and p.unattributed_ns == p.app_ns >= 15 * MS
        assert p.ended == "response" and p.tail_ns is not None


@pytest.mark.parametrize("loop", LOOPS)
def test_installing_is_undone(loop):
    async def main():
        here = asyncio.get_running_loop()
        assert _engine.install(here) is True
        assert _engine.install(here) is False
        assert "call_soon" in vars(here)
        await asyncio.sleep(0.001)
        _engine.uninstall(here)
        assert not {"call_soon", "call_later", "call_at", "call_soon_threadsafe"} & set(vars(here))
        await asyncio.sleep(0.001)

    run(loop, main)


@pytest.mark.parametrize("loop", LOOPS)
def test_lifespan_prepares_the_loop(loop):
    async def app(scope, receive, send):
        assert "call_soon" in vars(asyncio.get_running_loop())

    async def main():
        await hook(app)({"type": "lifespan"}, None, None)

    run(loop, main)
    assert _engine.loop_name() == loop and _engine.engine_name() == "steps"


@pytest.mark.parametrize("loop", LOOPS)
def test_loops_come_and_go(loop):
    take()
    for _ in range(10):
        run(loop, lambda: request(hook(plain(lambda: asyncio.sleep(0.003)))))
    profiles, _ = take()
    assert len(profiles) == 10
    assert all(p.lasted(p.sum("wait", "sleep"), 2) for p in profiles)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_that_moves_to_another_thread(loop):
    app = hook(plain(lambda: asyncio.sleep(0.02)))
    here = new_loop(loop)
    take()
    here.run_until_complete(request(app))
    thread = threading.Thread(target=lambda: here.run_until_complete(request(app)))
    thread.start()
    thread.join()
    here.close()
    profiles, _ = take()
    assert [p.lasted(p.sum("wait", "sleep"), 15) for p in profiles] == [True, True]


@pytest.mark.parametrize("loop", LOOPS)
def test_loops_in_several_threads(loop):
    """Each thread's requests keep to themselves."""
    wanted = {}

    def worker(index):
        async def main():
            nap = 0.01 * (index + 1)
            app = hook(plain(lambda: asyncio.sleep(nap)))
            for _ in range(3):
                for key in await asyncio.gather(*(request(app) for _ in range(5))):
                    wanted[key] = nap

        run(loop, main)

    take()
    threads = [threading.Thread(target=worker, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {p.key: p for p in take()[0]}
    assert len(found) == 60
    for key, nap in wanted.items():
        other = found[key].sum("ready") + found[key].sum("run")
        spent = found[key].sum("wait", "sleep")
        assert nap * 1e9 - 2 * MS - other <= spent <= nap * 1e9 + BUSY_NS


def in_child(main):
    """Runs main() in a forked child; asserts that it succeeded."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            main()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_fork_forgets_what_is_the_parents(loop):
    run(loop, lambda: request(hook(plain(lambda: asyncio.sleep(0.003)))))
    assert _engine.stacks()

    def child():
        _engine.after_fork()
        assert take() == ([], {}) and _engine.dropped() == 0
        run(loop, lambda: request(hook(plain(lambda: asyncio.sleep(0.01)))))
        (p,) = take()[0]
        assert p.lasted(p.sum("wait", "sleep"), 7)

    in_child(child)
    assert len(take()[0]) == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_fork_inside_a_request(loop):
    """The child's copy of an open request is nobody's; the parent's goes on."""

    async def handler():
        await asyncio.sleep(0.01)

        def child():
            _engine.after_fork()

        in_child(child)
        await asyncio.sleep(0.01)

    take()
    run(loop, lambda: request(hook(plain(handler))))
    (p,) = take()[0]
    assert p.lasted(p.sum("wait", "sleep"), 18)


FORK_BESIDE_A_STEP = """
import asyncio, os, threading
from hook_support import hook, plain, request, run

inside, go_on = threading.Event(), threading.Event()

async def block():
    inside.set()
    go_on.wait(20)

thread = threading.Thread(target=lambda: run("asyncio", lambda: request(hook(plain(block)))))
thread.start()
assert inside.wait(10)
pid = os.fork()
if pid == 0:
    run("asyncio", lambda: request(hook(plain(lambda: asyncio.sleep(0.1)))))
    os._exit(0)
status = os.waitpid(pid, 0)[1]
go_on.set()
thread.join()
assert status == 0, status
"""


def test_fork_while_another_threads_loop_runs():
    """The child's sampler looks at no step of a thread it has not: that thread's state is freed,
    which the debug allocator fills with bytes that are no address."""
    path = os.path.dirname(os.path.abspath(__file__))
    path = os.pathsep.join(p for p in (os.environ.get("PYTHONPATH"), path) if p)
    done = subprocess.run(
        [sys.executable, "-c", FORK_BESIDE_A_STEP],
        env={**os.environ, "PYTHONPATH": path, "PYTHONMALLOC": "debug"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_an_error_of_ours_disables_the_hook_and_nothing_else():
    """In a process of its own: the engine stays off for the rest of it."""

    def child():
        failures = []
        app = hook(plain(lambda: asyncio.sleep(0.001)))
        logging.getLogger("tailrace").addHandler(logging.Handler())
        middleware.log.error = lambda *args: failures.append(args)

        def broken(scope, root_path):
            raise RuntimeError("ours")

        _engine.bind(middleware._send_last, broken, middleware._report)
        sent = []
        run("asyncio", lambda: request(app, sent=sent))
        run("asyncio", lambda: request(app, sent=sent))
        assert len(sent) == 4 and len(failures) == 1 and _engine.is_disabled()

    in_child(child)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("when", ["start", "end"])
def test_what_interrupts_the_naming_of_a_route_is_the_apps(kind, when):
    """Ctrl-C while our Python code runs is no error of ours: it passes, and the hook stays on."""
    naming = []

    def interrupted(scope, root_path):
        naming.append(1)
        raise kind

    async def silent(scope, receive, send):
        await asyncio.sleep(0.001)  # no response: its route is named when it ends

    async def main():
        scope, _ = make_scope()

        async def send(message):
            pass

        app = hook(plain(lambda: asyncio.sleep(0.001)) if when == "start" else silent)
        await middleware.prepare_loop()
        await asyncio.sleep(0)
        _engine.bind(middleware._send_last, interrupted, middleware._report)
        with pytest.raises(kind):
            await app(scope, None, send)
        assert not _engine.is_disabled()

    take()
    try:
        run("asyncio", main)
    finally:
        _engine.bind(middleware._send_last, middleware.name_route, middleware._report)
    assert naming
    (p,) = take()[0]
    assert p.ended == ("exception" if when == "start" else "disconnect")
    assert p.final == 1
