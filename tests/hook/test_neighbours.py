"""Other tools beside the hook: each does what it does alone, and the profile stays true."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
import time

import pytest
from fastapi import FastAPI
from hook_support import LOOPS, MS, hook, make_scope, request, run, take
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pyinstrument import Profiler

IN_FLIGHT = 20


def make_api():
    api = FastAPI()

    async def load(ms):
        await asyncio.sleep(ms / 1000)

    @api.get("/nap/{ms}")
    async def nap(ms: int):
        await asyncio.gather(load(ms), load(1))
        return ms

    @api.get("/sync/{ms}")
    def sync(ms: int):
        time.sleep(ms / 1000)
        return ms

    return api


def check(p, ms):
    """The profile of /nap/{ms} or /sync/{ms}: what took the time, and nobody else's."""
    if p.route == "GET /nap/{ms}":
        assert p.lasted(p.sum("wait", "sleep", "load"), ms), p.shown()
    else:
        assert p.route == "GET /sync/{ms}"
        assert p.sum("thread_run", None, "sync") >= ms * MS - MS, p.shown()
    assert p.unattributed_ns <= p.app_ns // 20


# --- OpenTelemetry -----------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("order", ["instrumented", "outside", "inside"])
def test_opentelemetry(loop, order):
    """Its spans are children of the gateway's and have their own durations; ours are as alone."""
    api, exporter = make_api(), InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    if order == "instrumented":
        FastAPIInstrumentor.instrument_app(api, tracer_provider=provider)
        app = hook(api)
    elif order == "outside":
        app = OpenTelemetryMiddleware(hook(api), tracer_provider=provider)
    else:
        app = hook(OpenTelemetryMiddleware(api, tracer_provider=provider))

    asked = [(i, f"/{'sync' if i % 3 == 0 else 'nap'}/{20 + i}") for i in range(IN_FLIGHT)]

    async def one(path):
        scope, key = make_scope(path)
        trace, span = key.split("-")
        scope["headers"].append((b"traceparent", f"00-{trace}-{span}-01".encode()))

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            pass

        await asyncio.get_running_loop().create_task(app(scope, receive, send))
        return key

    async def main():
        return await asyncio.gather(*(one(path) for _, path in asked))

    take()
    keys = run(loop, main)
    found = {p.key: p for p in take()[0]}
    for key, (i, _) in zip(keys, asked, strict=True):
        check(found[key], 20 + i)
    servers = {}
    for span in exporter.get_finished_spans():
        if span.kind.name == "SERVER":
            key = f"{span.context.trace_id:032x}-{span.parent.span_id:016x}"
            servers[key] = span.end_time - span.start_time
    assert set(servers) == set(keys), "each request one span, child of the gateway's"
    for key in keys:
        assert servers[key] >= found[key].sum("wait", "sleep", "load") - 2 * MS


# --- pyinstrument ------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_pyinstrument_inside_a_route(loop):
    """As its own guide does it: a middleware that profiles each request."""
    api, seen = make_api(), []

    async def spin():
        end = time.thread_time() + 0.06
        while time.thread_time() < end:
            pass
        await asyncio.sleep(0.03)

    @api.get("/spin")
    async def spin_route():
        await spin()
        return "ok"

    async def profiled(scope, receive, send):
        with Profiler(async_mode="enabled") as profiler:
            await api(scope, receive, send)
        seen.append(profiler.output_text(show_all=True))

    async def main():
        app = hook(profiled)
        return await request(app, "/spin"), await request(app, "/nap/25")

    take()
    first, second = run(loop, main)
    found = {p.key: p for p in take()[0]}
    p = found[first]
    assert p.route == "GET /spin" and p.sum("run", None, "spin") >= 50 * MS, p.shown()
    assert p.lasted(p.sum("wait", "sleep", "spin"), 30), p.shown()
    check(found[second], 25)
    assert "spin" in seen[0] and len(seen) == 2
    assert sys.getprofile() is None


# --- asyncio's debug mode ----------------------------------------------------------------------


def slow_log(loop_name, wrapped, caplog):
    """What debug mode says of a step that holds the loop, and the profile."""
    api = make_api()

    @api.get("/hold")
    async def hold():
        time.sleep(0.15)
        return "ok"

    async def main():
        here = asyncio.get_running_loop()
        here.set_debug(True)
        here.slow_callback_duration = 0.1
        app = hook(api) if wrapped else api
        key = await request(app, "/hold")
        return key, await request(app, "/nap/20"), await request(app, "/sync/15")

    caplog.clear()
    take()
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        keys = run(loop_name, main)
    found = {p.key: p for p in take()[0]}
    slow = [r.getMessage() for r in caplog.records if "Executing" in r.getMessage()]
    return slow, [found.get(key) for key in keys]


@pytest.mark.parametrize("loop", LOOPS)
def test_debug_mode(loop, caplog):
    """It names the task that held the loop, as it does without the hook; the profile too."""
    alone, _ = slow_log(loop, False, caplog)
    beside, (held, napped, ran) = slow_log(loop, True, caplog)
    assert held.sum("run", None, "hold") >= 145 * MS, held.shown()
    check(napped, 20)
    check(ran, 15)
    if loop == "asyncio":  # uvloop names the handle
        assert any("Task" in line and "coro=" in line for line in alone), alone
        assert any("Task" in line and "coro=" in line for line in beside), beside
    assert len(beside) >= len(alone) >= 1


def test_debug_mode_still_finds_foreign_threads():
    """call_soon() from another thread is an error in debug mode, beside the hook too."""

    async def main():
        here = asyncio.get_running_loop()
        here.set_debug(True)
        app = hook(make_api())
        await request(app, "/nap/1")

        def elsewhere():
            with pytest.raises(RuntimeError, match="Non-thread-safe"):
                here.call_soon(print)

        await asyncio.to_thread(elsewhere)

    run("asyncio", main)


# --- pytest-asyncio ----------------------------------------------------------------------------

SUITE = """
import asyncio

import httpx
import pytest
import pytest_asyncio
import tailrace
from fastapi import FastAPI
from hook_support import hook, take

api = FastAPI()

@api.get("/nap/{ms}")
async def nap(ms: int):
    await asyncio.sleep(ms / 1000)
    return tailrace.trace_id()

app = hook(api)

@pytest_asyncio.fixture
async def client():
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made

async def ask(client, number):
    key = f"{number:032x}-{number:016x}"
    answer = await client.get("/nap/20", headers={"x-tailrace": "1;" + key})
    assert answer.json() == key[:32]
    (p,) = [p for p in take()[0] if p.key == key]
    assert p.route == "GET /nap/{ms}" and p.lasted(p.sum("wait", "sleep", "nap"), 20), p.shown()

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(1, 6))
async def test_each_in_a_loop_of_its_own(client, number):
    await ask(client, number)

@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("number", range(11, 16))
async def test_all_in_one_loop(number):
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        await asyncio.gather(ask(made, number))

@pytest.mark.asyncio
async def test_without_the_gateway(client):
    assert (await client.get("/nap/1")).json() is None
"""


def test_pytest_asyncio(tmp_path):
    """A suite of a user's: a loop per test and per module, debug mode, warnings as errors."""
    (tmp_path / "test_suite.py").write_text(textwrap.dedent(SUITE))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    env = dict(os.environ, PYTHONPATH=os.path.dirname(__file__), PYTHONASYNCIODEBUG="1")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:anyio"]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 passed" in done.stdout
