"""One request's row: header, route, how it ended, what came after the response."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import aiosqlite
import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from hook_support import (
    BUSY_NS,
    LOOPS,
    MS,
    hook,
    make_scope,
    plain,
    profile,
    profiles_of,
    request,
    run,
    take,
)
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from tailrace import _engine, middleware

pytestmark = pytest.mark.parametrize("loop", LOOPS)


# --- the header ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"1",
        b"2;" + b"a" * 32 + b"-" + b"b" * 16,
        b"1;" + b"a" * 31 + b"-" + b"b" * 16,
        b"1;" + b"A" * 32 + b"-" + b"b" * 16,
        b"1;" + b"a" * 32 + b"_" + b"b" * 16,
        b"1;" + b"a" * 32 + b"-" + b"b" * 17,
        b"1;" + b"a" * 32 + b"-" + b"g" * 16,
    ],
)
def test_without_a_good_header_nothing(loop, value):
    async def app(scope, receive, send):
        assert not isinstance(send, _engine.Request)
        await plain(lambda: asyncio.sleep(0.001))(scope, receive, send)

    async def main():
        scope, _ = make_scope(header=False)
        if value is not None:
            scope["headers"].append((b"x-tailrace", value))

        async def send(message):
            pass

        await asyncio.get_running_loop().create_task(hook(app)(scope, None, send))

    take()
    run(loop, main)
    assert take() == ([], {})


def test_more_fields_of_the_header_are_ignored(loop):
    async def main():
        scope, _ = make_scope(header=False)
        scope["headers"].append((b"x-tailrace", b"1;" + b"a" * 32 + b"-" + b"b" * 16 + b";deep;0"))

        async def send(message):
            pass

        await asyncio.get_running_loop().create_task(
            hook(plain(lambda: asyncio.sleep(0)))(scope, None, send)
        )

    take()
    run(loop, main)
    (p,) = take()[0]
    assert p.key == "a" * 32 + "-" + "b" * 16


def test_two_hooks_round_one_app_count_once(loop):
    async def main():
        await request(hook(hook(plain(lambda: asyncio.sleep(0.01)))))

    take()
    run(loop, main)
    (p,) = take()[0]
    assert p.lasted(p.sum("wait", "sleep"), 7)


def test_other_scopes_pass(loop):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    async def main():
        wrapped = hook(app)
        await wrapped({"type": "lifespan"}, None, None)
        await wrapped({"type": "other", "headers": []}, None, None)

    take()
    run(loop, main)
    assert seen == ["lifespan", "other"] and take() == ([], {})


async def echo(websocket):
    await asyncio.sleep(0.02)
    await websocket.accept()
    for _ in range(3):
        await websocket.send_text(await websocket.receive_text())
        await asyncio.sleep(0.02)


async def refuse(websocket):
    await asyncio.sleep(0.02)
    await websocket.close()


@pytest.mark.parametrize("path", ["/echo", "/refuse"])
def test_handshake_of_a_websocket(loop, path):
    """The handshake is the request; what goes through the socket afterwards is its tail."""
    app = Starlette(routes=[WebSocketRoute("/echo", echo), WebSocketRoute("/refuse", refuse)])
    sent = []
    scope, key = make_scope(path, type="websocket", subprotocols=[])
    del scope["method"]
    texts = [{"type": "websocket.connect"}, *({"type": "websocket.receive", "text": "a"},) * 3]
    texts.append({"type": "websocket.disconnect", "code": 1000})

    async def receive():
        return texts.pop(0)

    async def send(message):
        sent.append(message["type"])

    async def main():
        await asyncio.get_running_loop().create_task(hook(app)(scope, receive, send))

    take()
    run(loop, main)
    profiles, tails = take()
    (p,) = profiles
    assert p.key == key and p.ended == "response" and p.lasted(p.sum("wait", "sleep"), 20)
    assert p.app_ns < 55 * MS + BUSY_NS and p.final == 1
    if path == "/echo":
        assert sent == ["websocket.accept"] + ["websocket.send"] * 3
        assert tails[key] >= 55 * MS
    else:
        assert sent == ["websocket.close"]


# --- how it ended ----------------------------------------------------------------------------


def test_order_of_times_and_tail_in_the_row(loop):
    p = profile(loop, lambda: asyncio.sleep(0.01))
    assert p.enter_ns < p.start_ns <= p.end_ns
    assert p.tail_ns is not None and 0 <= p.tail_ns < BUSY_NS
    assert (p.part, p.final, p.ended, p.truncated, p.cpu_ns) == (0, 1, "response", 0, None)
    assert p.task_queue_ns is not None and p.task_queue_ns < BUSY_NS
    assert abs(p.end_ns - time.monotonic_ns()) < 10_000 * MS, "the clock is time.monotonic_ns"


def test_background_task_is_tail_not_latency(loop):
    app = Starlette(
        routes=[
            Route(
                "/",
                lambda r: JSONResponse({}, background=BackgroundTask(asyncio.sleep, 0.6)),
            )
        ]
    )
    (p,), tails, _ = profiles_of(loop, app, "/")
    assert p.tail_ns is None and p.app_ns < BUSY_NS
    assert 595 * MS <= tails[p.key] <= 600 * MS + BUSY_NS


def test_exception_counts_as_start(loop):
    async def app(scope, receive, send):
        await asyncio.sleep(0.02)
        raise ValueError("mine")

    _, _, (p,) = profiles_of(loop, app, "/", raises=ValueError)
    assert p.ended == "exception" and p.start_ns == p.end_ns and p.tail_ns == 0
    assert p.lasted(p.sum("wait", "sleep", "app"), 15)


def test_exception_while_streaming(loop):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(0.02)
        raise ValueError("mine")

    _, _, (p,) = profiles_of(loop, app, "/", raises=ValueError)
    assert p.ended == "exception" and p.end_ns - p.start_ns >= 15 * MS
    assert p.lasted(sum(r.ns for r in p.stream if r.kind == "wait"), 15)


def test_cancelled_request(loop):
    async def app(scope, receive, send):
        await asyncio.sleep(10)

    async def main():
        wrapped = hook(app)
        await request(hook(plain(lambda: asyncio.sleep(0))))
        task = asyncio.create_task(request(wrapped))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    take()
    run(loop, main)
    p = take()[0][-1]
    assert p.ended == "cancelled" and p.lasted(p.sum("wait", "sleep"), 15)


def test_app_that_returns_without_an_answer(loop):
    async def app(scope, receive, send):
        await asyncio.sleep(0.01)

    _, _, (p,) = profiles_of(loop, app, "/")
    assert p.ended == "disconnect" and p.start_ns is None
    assert p.lasted(p.sum("wait", "sleep"), 7)


def test_sending_after_the_end_still_reaches_the_server(loop):
    got = []

    async def app(scope, receive, send):
        await plain(lambda: asyncio.sleep(0))(scope, receive, send)
        await asyncio.sleep(0.001)
        await send({"type": "http.response.body", "body": b"too late"})

    async def main():
        await request(hook(app), sent=got)

    run(loop, main)
    assert len(got) == 3


# --- frameworks ------------------------------------------------------------------------------


async def dependency():
    await asyncio.sleep(0.02)
    yield 1


def sync_dependency():
    time.sleep(0.02)
    yield 1


DEPENDENCY = Depends(dependency)
SYNC_DEPENDENCY = Depends(sync_dependency)


def make_api():
    api = FastAPI()

    @api.get("/dependency")
    async def with_dependency(value=DEPENDENCY):
        await asyncio.sleep(0.03)
        return value

    @api.get("/stream")
    async def stream():
        async def chunks():
            for _ in range(3):
                await asyncio.sleep(0.02)
                yield b"x"

        return StreamingResponse(chunks())

    @api.get("/sync")
    def sync():
        time.sleep(0.03)
        return 1

    @api.get("/quick")
    def quick(value=SYNC_DEPENDENCY):
        time.sleep(0.002)
        return value

    @api.get("/lines")
    def lines():
        def blocking_chunks():
            for _ in range(3):
                time.sleep(0.005)
                yield b"x"

        return StreamingResponse(blocking_chunks())

    return api


def test_dependency_with_yield(loop):
    (p,), _, _ = profiles_of(loop, make_api(), "/dependency")
    assert p.lasted(p.sum("wait", "sleep", "dependency"), 15)
    assert p.lasted(p.sum("wait", "sleep", "with_dependency"), 25)


def test_def_route(loop):
    (p,), _, _ = profiles_of(loop, make_api(), "/sync")
    assert p.lasted(p.sum("thread_run", None, "sync"), 25)


def test_jobs_of_the_framework_name_the_apps_functions(loop):
    """Short jobs are not sampled: what they run is known from what was handed over."""
    (quick, lines), _, _ = profiles_of(loop, make_api(), "/quick", "/lines")
    assert quick.sum("thread_run", None, "quick") >= 2 * MS
    assert quick.lasted(quick.sum("thread_run", None, "sync_dependency"), 20)
    there = [r for r in lines.stream if r.kind == "thread_run" and "blocking_chunks" in r.stack]
    assert lines.lasted(sum(r.ns for r in there), 15)


def test_streaming_response_goes_to_the_stream_rows(loop):
    (p,), _, _ = profiles_of(loop, make_api(), "/stream")
    waits = [r for r in p.stream if r.kind == "wait" and "chunks" in r.stack]
    assert p.lasted(sum(r.ns for r in waits), 55)
    assert not [r for r in p.breakdown if "chunks" in r.stack] and p.stream_unattributed_ns == 0


@pytest.mark.parametrize("path", ["/dependency", "/stream", "/sync"])
def test_base_http_middleware_hides_nothing(loop, path):
    """The middleware runs the app in a task of its own; the path goes through it."""
    api = make_api()

    async def dispatch(request, call_next):
        await asyncio.sleep(0.01)
        return await call_next(request)

    api.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    (p,), _, _ = profiles_of(loop, api, path)
    rows = p.breakdown + p.stream
    assert p.lasted(p.sum("wait", "sleep", "dispatch"), 7)
    names = {"/dependency": "with_dependency", "/stream": "chunks", "/sync": "sync"}
    there = [r for r in rows if names[path] in r.stack and r.kind in ("wait", "thread_run")]
    assert p.lasted(sum(r.ns for r in there), 25)
    assert not [r for r in rows if r.cause in ("queue", "event") and r.ns > 5 * MS]
    assert p.unattributed_ns == 0 and p.stream_unattributed_ns == 0


def test_many_at_once_keep_apart(loop):
    """Each of 200 requests sleeps a time of its own, and its profile says just that."""

    measured = {}

    async def app(scope, receive, send):
        async def child():
            begin = time.monotonic_ns()
            await asyncio.sleep(scope["nap"])
            measured[scope["nap"]] = time.monotonic_ns() - begin

        await asyncio.gather(child(), asyncio.sleep(0.001))
        await plain(lambda: asyncio.sleep(0))(scope, receive, send)

    async def main():
        wrapped = hook(app)
        naps = [0.02 + 0.001 * i for i in range(200)]
        keys = await asyncio.gather(*(request(wrapped, nap=nap) for nap in naps))
        return dict(zip(keys, naps, strict=True))

    take()
    wanted = run(loop, main)
    found = {p.key: p for p in take()[0]}
    for key, nap in wanted.items():
        p = found[key]
        spent = p.sum("wait", "sleep", "child")
        other = p.sum("ready") + p.sum("run")  # a step may lose the processor for a while
        assert nap * 1e9 - 2 * MS - other <= spent <= measured[nap], (nap, p.shown())
        assert spent + other >= measured[nap] - MS, (nap, p.shown())
        assert p.unattributed_ns == 0


def test_long_lived_task_is_let_go_at_the_end(loop):
    """A pool's reader started in one request wakes a later one: that is a foreign wakeup."""
    state = {}

    async def reader():
        while True:
            future = await state["queue"].get()
            await asyncio.sleep(0.02)
            future.set_result(None)

    async def handler():
        if not state:
            state["queue"] = asyncio.Queue()
            state["reader"] = asyncio.create_task(reader())
        future = asyncio.get_running_loop().create_future()
        state["queue"].put_nowait(future)
        await future

    async def main():
        app = hook(plain(handler))
        keys = [await request(app), await request(app)]
        state["reader"].cancel()
        return keys

    take()
    first, second = run(loop, main)
    found = {p.key: p for p in take()[0]}
    assert found[first].lasted(found[first].sum("wait", "sleep", "reader"), 15)
    own = found[second].find("wait", None, "handler")
    assert found[second].lasted(sum(r.ns for r in own), 15) and own[0].by_trace is None
    assert found[second].sum("wait", None, "reader") == 0


def test_inside_starlettes_error_middleware(loop):
    """app.add_middleware(tailrace.Hook): an exception leaving the hook is the response's start."""
    api = FastAPI()
    api.add_middleware(middleware.Hook)

    @api.get("/fails")
    async def fails():
        await asyncio.sleep(0.02)
        raise ValueError("mine")

    @api.get("/good")
    async def good():
        await asyncio.sleep(0.02)

    async def main():
        keys = [await request(api, "/good")]
        with pytest.raises(ValueError, match="mine"):
            await request(api, "/fails")
        return keys

    hook(api)  # quiets the sender
    take()
    run(loop, main)
    well, failed = take()[0]
    assert well.ended == "response" and well.route == "GET /good"
    assert failed.ended == "exception" and failed.route == "GET /fails"
    assert failed.start_ns == failed.end_ns and failed.lasted(
        failed.sum("wait", "sleep", "fails"), 16
    )


def test_long_streams_send_parts(loop):
    """A response that streams for long comes in numbered parts whose durations add up."""
    options = {"in_app": [], "library_prefixes": middleware._library_prefixes()}

    async def app(scope, receive, send):
        async def chunk():
            await asyncio.sleep(0.02)

        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(6):
            await chunk()
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    wrapped = hook(app)
    take()
    _engine.configure(**options, part_interval_ns=50 * MS)
    try:
        run(loop, lambda: request(wrapped))
    finally:
        _engine.configure(**options, part_interval_ns=10_000 * MS)
    parts = take()[0]
    assert len(parts) == 3
    assert [p.part for p in parts] == [0, 1, 2] and [p.final for p in parts] == [0, 0, 1]
    assert [p.ended for p in parts] == ["open", "open", "response"]
    assert len({(p.key, p.enter_ns, p.start_ns) for p in parts}) == 1
    assert [bool(p.breakdown) for p in parts] == [True, False, False]
    since = parts[0].start_ns
    for p in parts:
        assert p.unattributed_ns == 0
        assert sum(r.ns for r in p.stream) + p.stream_unattributed_ns == p.end_ns - since
        assert p.stream_unattributed_ns <= 20 * MS
        since = p.end_ns
    slept = sum(r.ns for p in parts for r in p.stream if r.cause == "sleep")
    own = sum(r.ns for p in parts for r in p.stream if r.kind in ("run", "ready"))
    assert 120 * MS - own - 6 * MS <= slept <= 120 * MS + BUSY_NS


def test_database_thread_of_its_own(loop, tmp_path):
    """aiosqlite answers from its own thread: the wait is the request's, for the database."""

    async def handler():
        async with aiosqlite.connect(tmp_path / "db") as db:
            slow = "with recursive n(i) as (select 1 union all select i + 1 from n limit 200000)"
            await (await db.execute(f"{slow} select max(i) from n")).fetchall()

    p = profile(loop, handler)
    assert p.sum("wait", "database", "handler") >= 5 * MS
    assert p.unattributed_ns == 0


def test_socket_that_was_ready_while_the_loop_was_held(loop):
    """Data came while another request blocked: that time is `ready`, as an estimate."""

    blocked = []

    async def reads(scope):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        timer = threading.Timer(0.03, theirs.send, (b"x",))
        timer.start()
        await asyncio.get_running_loop().sock_recv(ours, 1)
        timer.join()
        ours.close()
        theirs.close()

    async def blocks(scope):
        await asyncio.sleep(0.005)
        begin = time.monotonic_ns()
        time.sleep(0.12)
        blocked.append(time.monotonic_ns() - begin)

    async def app(scope, receive, send):
        await (blocks if scope["path"] == "/block" else reads)(scope)
        await plain(lambda: asyncio.sleep(0))(scope, receive, send)

    async def main():
        wrapped = hook(app)
        await request(wrapped)
        return await asyncio.gather(request(wrapped), request(wrapped, "/block"))

    take()
    reader, _ = run(loop, main)
    p = {p.key: p for p in take()[0]}[reader]
    guessed = [r for r in p.find("ready") if r.exact == 0]
    # All of the block, less what the reader had left of it to wait before its step began.
    assert len(guessed) == 1, p.shown()
    assert 100 * MS <= guessed[0].ns <= blocked[0] + BUSY_NS, p.shown()
    assert p.sum("wait") < guessed[0].ns
    assert any(s[4] >= 90 * MS for s in p.stalls)


def test_in_app_is_what_is_not_installed(loop):
    """Libraries named in `in_app` count as the app's own code."""
    code = asyncio.sleep.__code__
    options = {"library_prefixes": middleware._library_prefixes()}
    assert not _engine.frame_in_app(code)
    assert _engine.frame_in_app(make_api.__code__)
    assert not _engine.frame_in_app(FastAPI.__call__.__code__)
    _engine.configure(in_app=["asyncio.tasks", "fastapi"], **options)
    try:
        assert _engine.frame_in_app(code)
        assert _engine.frame_in_app(FastAPI.__call__.__code__)
        assert not _engine.frame_in_app(asyncio.Lock.acquire.__code__)
    finally:
        _engine.configure(in_app=[], **options)
