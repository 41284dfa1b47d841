"""The last body message: the request ends when the server's `send` is through with it."""

from __future__ import annotations

import asyncio

import pytest
from hook_support import LOOPS, MS, hook, make_scope, plain, request, run, take
from tailrace import _engine, middleware


class _Awaitable:
    """What some servers' send gives: an awaitable that is no coroutine."""

    def __await__(self):
        yield from asyncio.sleep(0.02).__await__()


@pytest.mark.parametrize("loop", LOOPS)
def test_last_send_ends_when_the_servers_send_does(loop):
    """Whatever the server's send gives, the request's end is when that was through."""

    async def slow(message):
        await asyncio.sleep(0.02 if message["type"] == "http.response.body" else 0)

    def not_a_coroutine(message):
        return _Awaitable() if message["type"] == "http.response.body" else asyncio.sleep(0)

    async def at_once(message):
        pass

    async def main(send):
        await asyncio.create_task(
            hook(plain(lambda: asyncio.sleep(0)))(make_scope()[0], None, send)
        )

    for send, least_ms in ((slow, 20), (not_a_coroutine, 20), (at_once, 0)):
        take()
        run(loop, lambda send=send: main(send))
        (p,) = take()[0]
        assert p.ended == "response"
        assert p.end_ns - p.start_ns >= least_ms * MS - MS


@pytest.mark.parametrize("loop", LOOPS)
def test_last_send_is_a_coroutine_like_any(loop):
    """It can be made a task of, told to stop, and thrown into."""
    told = []

    async def main():
        async def send(message):
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                told.append("cancelled")
                raise
            except ValueError:
                told.append("thrown")

        async def app(scope, receive, send):
            body = {"type": "http.response.body", "body": b""}
            await send({"type": "http.response.start", "status": 200, "headers": []})
            sending = send(body)
            assert asyncio.iscoroutine(sending)
            await asyncio.create_task(sending)
            if scope["path"] == "/":
                return
            other = send(body)
            other.send(None)
            other.close()

        for path in ("/", "/again"):
            await asyncio.create_task(hook(app)(make_scope(path)[0], None, send))

        async def thrown(scope, receive, send):
            sending = send({"type": "http.response.body", "body": b""})
            sending.send(None)
            with pytest.raises(StopIteration):
                sending.throw(ValueError("x"))

        async def cancelled(scope, receive, send):
            task = asyncio.create_task(send({"type": "http.response.body", "body": b""}))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        for app in (thrown, cancelled):
            await asyncio.create_task(hook(app)(make_scope()[0], None, send))

    take()
    run(loop, main)
    ended = [p.ended for p in take()[0]]
    assert ended == ["response", "response", "response", "disconnect"]
    assert told == ["thrown", "cancelled"]


def test_route_is_asked_for_once_per_method(monkeypatch):
    """The name is remembered by route and method; another method or root path is asked about."""
    asked = []

    def name_route(scope, root_path):
        asked.append((scope["method"], root_path))
        return middleware.name_route(scope, root_path)

    class Here:
        path_format = "/x/{id}"

    async def app(scope, receive, send):
        scope["route"] = Here
        await plain(lambda: asyncio.sleep(0))(scope, receive, send)

    async def main():
        wrapped = hook(app)
        await request(wrapped, "/x/0")
        _engine.bind(middleware._send_last, name_route, middleware._report)
        for more in ({}, {}, {"method": "POST"}, {"method": "GET"}, {"root_path": "/api"}):
            await request(wrapped, "/x/1", **more)

    take()
    try:
        run("asyncio", main)
    finally:
        _engine.bind(middleware._send_last, middleware.name_route, middleware._report)
    names = ["GET /x/{id}"] * 3 + ["POST /x/{id}"] + ["GET /x/{id}"] * 2
    assert [p.route for p in take()[0]] == names
    assert asked[:2] == [("GET", ""), ("POST", "")]
    assert len(asked) <= 3  # one place per route: the last method may have been put out
