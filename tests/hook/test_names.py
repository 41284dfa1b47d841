"""Explicit names: spans in rows, the trace ID, the logging filter; totals without a compiler."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from typing import Any

import pytest
import tailrace
from hook_support import LOOPS, MS, hook, plain, profile, request, run, take
from tailrace import _engine


@pytest.mark.parametrize("loop", LOOPS)
def test_a_span_names_waits_and_runs(loop: str) -> None:
    async def inner() -> None:
        await asyncio.sleep(0.02)

    async def handler() -> None:
        with tailrace.span("render"):
            await inner()
            with tailrace.span("pages"):
                time.sleep(0.012)
        await asyncio.sleep(0.01)

    found = profile(loop, handler)
    waits = {tuple(r.stack[-4:]): r for r in found.find("wait", "sleep")}
    assert any(s[-4:] == ("handler", "render", "inner", "sleep") for s in waits), list(waits)
    named = found.sum("wait", "sleep", "render")
    assert found.lasted(named, 20)
    assert found.lasted(found.sum("wait", "sleep") - named, 10)
    runs = [r for r in found.find("run") if r.stack[-2:] == ["render", "pages"]]
    assert sum(r.ns for r in runs) >= 11 * MS
    assert not [r for r in found.breakdown if "pages" in r.stack and r.kind == "wait"]


def test_short_runs_in_a_span_are_exact() -> None:
    async def handler() -> None:
        for _ in range(5):
            with tailrace.span("step"):
                began = time.perf_counter_ns()
                while time.perf_counter_ns() - began < MS // 2:
                    pass

    found = profile("asyncio", handler)
    rows = found.find("run", function="step")
    assert sum(r.ns for r in rows) >= 5 * MS // 2 and all(r.exact for r in rows)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_span_in_a_thread(loop: str) -> None:
    def job() -> None:
        with tailrace.span("in thread"):
            time.sleep(0.005)
        time.sleep(0.002)

    async def handler() -> None:
        await asyncio.to_thread(job)

    found = profile(loop, handler)
    rows = [r for r in found.find("thread_run") if "in thread" in r.stack]
    assert sum(r.ns for r in rows) >= 5 * MS
    assert sum(r.ns for r in found.find("thread_run")) >= 7 * MS


def test_spans_are_harmless_anywhere() -> None:
    with tailrace.span("outside"):
        pass
    span = tailrace.span("twice")
    with span, span:
        pass
    with pytest.raises(KeyError), tailrace.span("error"):
        raise KeyError
    with pytest.raises(TypeError):
        tailrace.span(3)  # type: ignore[arg-type]

    async def generator() -> Any:
        with tailrace.span("left open"):
            yield 1
            await asyncio.sleep(0)

    async def handler() -> None:
        for n in range(1100):
            with tailrace.span(f"name {n}"):
                pass
        async for _ in generator():
            break

    profile("asyncio", handler)


@pytest.mark.parametrize("loop", LOOPS)
def test_the_trace_id_in_tasks_and_threads(loop: str) -> None:
    seen: list[str | None] = []

    async def handler() -> None:
        seen.append(tailrace.trace_id())
        await asyncio.sleep(0.001)
        seen.append(await asyncio.to_thread(tailrace.trace_id))

        async def child() -> None:
            seen.append(tailrace.trace_id())

        await asyncio.gather(child(), child())

    async def main() -> str:
        return await request(hook(plain(handler)))

    take()
    key = run(loop, main)
    assert seen == [key[:32]] * 4
    assert tailrace.trace_id() is None


def test_log_records_have_it() -> None:
    records: list[Any] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger = logging.getLogger("tests.names")
    handler = Keep()
    handler.addFilter(tailrace.TraceFilter())
    logger.addHandler(handler)

    async def route() -> None:
        logger.error("inside")

    async def main() -> str:
        return await request(hook(plain(route)))

    take()
    key = run("asyncio", main)
    logger.error("outside")
    logger.removeHandler(handler)
    assert [r.trace_id for r in records] == [key[:32], "-"]


TOTALS = """
import sys, json, asyncio, os
sys.modules["tailrace._engine"] = None
os.environ["TAILRACE_CALLBACK"] = "unix:/nonexistent/x"
import logging; logging.basicConfig()
import tailrace
from tailrace import middleware, sender, _totals
sender.ensure_started = lambda: None
async def app(scope, receive, send):
    with tailrace.span("x"):
        await asyncio.sleep(0.01)
    app.trace = tailrace.trace_id()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": b"ok"})
    await asyncio.sleep(0.01)
async def fails(scope, receive, send):
    raise ValueError
async def main():
    async def send(message): pass
    key = "ab" * 16 + "-" + "cd" * 8
    scope = {"type": "http", "headers": [(b"x-tailrace", b"1;" + key.encode())], "method": "GET"}
    await middleware.prepare_loop()
    await tailrace.wrap(app)(scope, None, send)
    try: await tailrace.wrap(fails)(scope, None, send)
    except ValueError: pass
    await tailrace.wrap(app)({**scope, "headers": []}, None, send)
asyncio.run(main())
rows, tails, stacks = _totals.take(1 << 20)
print(json.dumps([json.loads(b"[" + rows + b"]"), json.loads(b"[" + tails + b"]"), app.trace]))
"""


def test_without_the_extension_there_are_totals_and_it_says_so() -> None:
    done = subprocess.run([sys.executable, "-c", TOTALS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "only totals" in done.stderr and "compiler" in done.stderr
    rows, tails, trace = json.loads(done.stdout)
    assert len(rows) == 2 and trace == "ab" * 16
    ok, failed = rows
    assert ok[9] == "response" and failed[9] == "exception"
    assert ok[12] == ok[6] - ok[5] >= 10 * MS and ok[14] == ok[7] - ok[6] >= 10 * MS
    assert tails[0][1] >= 10 * MS
    assert len(ok) == 17 and ok[11] == ok[13] == []


def test_the_engine_here_is_the_extension() -> None:
    assert _engine.__file__.endswith(".so")
