"""Event loops the engine is put on, those where it cannot be, several at a time, and fork."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading

import pytest
import trio
from hook_support import BUSY_NS, LOOPS, MS, hook, make_scope, new_loop, plain, request, run, take
from tailrace import _engine, middleware


@pytest.fixture
def steps_again(monkeypatch):
    """Totals are for the process: put the engine back afterwards."""
    monkeypatch.setattr(middleware, "_totals_said", False)
    yield
    _engine.use("asyncio", False)


def totals_of(caplog, main):
    """Runs main() and returns its one profile, which must have totals only, said once."""
    take()
    with caplog.at_level(logging.WARNING, logger="tailrace"):
        main()
    assert _engine.engine_name() == "totals"
    assert len([r for r in caplog.records if "only totals" in r.getMessage()]) == 1
    profiles, _ = take()
    for p in profiles:
        assert p.breakdown == [] and p.unattributed_ns == p.app_ns >= 15 * MS
        assert p.ended == "response" and p.tail_ns is not None
    return profiles


if sys.version_info >= (3, 12):  # eager tasks came with it

    def test_eager_task_factory_gets_totals(caplog, steps_again):
        async def twice():
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            app = hook(plain(lambda: asyncio.sleep(0.02)))
            await request(app)
            await request(app)

        assert len(totals_of(caplog, lambda: run("asyncio", twice))) == 2


def test_trio_gets_totals(caplog, steps_again):
    app = hook(plain(lambda: trio.sleep(0.02)))

    async def main():
        scope, _ = make_scope()

        async def send(message):
            pass

        await app(scope, None, send)

    assert len(totals_of(caplog, lambda: trio.run(main))) == 1
    assert _engine.loop_name() == "trio"


def test_loop_without_dict_gets_totals(caplog, steps_again):
    class Bare:
        """Stands for a loop implemented in C: no attribute can be set on it."""

        __slots__ = ()

    with caplog.at_level(logging.WARNING, logger="tailrace"):
        with pytest.raises(AttributeError):
            _engine.install(Bare())


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
