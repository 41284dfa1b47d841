"""Proxying as it should be: methods, versions, headers both ways, keep-alive, pipelining."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import AppServer, Gateway, StubServer, raw_exchange
from proxy_tools import OK, Connection, always, ask, get, read_head, request_bytes, stored

GatewayFactory = Callable[..., Gateway]
AppFactory = Callable[..., AppServer]
StubFactory = Callable[..., StubServer]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def app(uvicorn_factory: AppFactory) -> AppServer:
    """Start the proxy tests' app on TCP."""
    return uvicorn_factory("proxy_app:app")


def _seen(answer_body: bytes) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in json.loads(answer_body)["headers"]:
        headers.setdefault(name, []).append(value)
    return headers


def test_get_and_post_over_one_connection(gateway_factory: GatewayFactory, app: AppServer) -> None:
    """Requests of one connection are answered in turn, each with a trace of its own."""
    gateway = gateway_factory([app.address])
    traces = set()
    with Connection(gateway.port) as client:
        for number in range(20):
            body = f"number {number}".encode()
            client.send(get(f"/a?n={number}"))
            answer = client.answer()
            seen = json.loads(answer.body)
            assert answer.status == 200 and seen["target"] == f"/a?n={number}"
            assert "connection" not in answer.headers and "keep-alive" not in answer.headers
            traces.add(answer.trace_id)
            client.send(request_bytes("POST", "/b", body=body))
            answer = client.answer()
            seen = json.loads(answer.body)
            assert seen["method"] == "POST" and seen["body"].encode() == body
            traces.add(answer.trace_id)
    assert len(traces) == 40


def test_unix_socket_upstream(gateway_factory: GatewayFactory, uvicorn_factory: AppFactory) -> None:
    """A server may be a Unix socket."""
    app = uvicorn_factory("proxy_app:app", uds=True)
    gateway = gateway_factory([app.address])
    answer = ask(gateway.port, request_bytes("PUT", "/x", body=b"abc"))
    assert answer.status == 200 and json.loads(answer.body)["body"] == "abc"


def test_headers_towards_the_app(gateway_factory: GatewayFactory, app: AppServer) -> None:
    """Ours are set once and inbound copies, hop-by-hop and nominated fields do not arrive."""
    gateway = gateway_factory([app.address])
    before_us = time.time_ns() // 1000
    answer = ask(
        gateway.port,
        get(
            "/",
            f"traceparent: {PARENT}",
            "tracestate: foreign=1",
            "X-Tailrace: 1;forged",
            "X-Trace-Id: forged",
            "X-Tailrace-Deep: forged",
            "x_tailrace: forged",
            "X-Request-Start: t=1",
            "X-Forwarded-For: 6.6.6.6",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: forged",
            "X-Forwarded-Port: 1",
            "Forwarded: for=6.6.6.6",
            "X-Real-IP: 6.6.6.6",
            "Connection: keep-alive, X-Named",
            "X-Named: secret",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: secret",
            "TE: trailers",
            "X-Kept: yes",
            "X-Kept: twice",
        ),
    )
    seen = _seen(answer.body)
    (parent,) = seen["traceparent"]
    version, trace, span, flags = parent.split("-")
    assert (version, trace, flags) == ("00", answer.trace_id, "03") and trace != TRACE
    assert seen["x-tailrace"] == [f"1;{trace}-{span}"]
    (start,) = seen["x-request-start"]
    assert start.startswith("t=") and before_us - 1e6 <= int(start[2:]) <= before_us + 10e6
    assert seen["x-forwarded-for"] == ["127.0.0.1"]
    assert seen["x-forwarded-proto"] == ["http"]
    assert seen["x-forwarded-host"] == ["test.example"]
    assert seen["host"] == ["test.example"]
    assert seen["x-kept"] == ["yes", "twice"]
    gone = {"connection", "keep-alive", "te", "x-named", "proxy-connection", "proxy-authorization"}
    gone |= {"tracestate", "x-trace-id", "x-tailrace-deep", "x_tailrace", "x-forwarded-port"}
    gone |= {"forwarded", "x-real-ip"}
    assert not gone & set(seen)


def test_trusted_proxy_and_trace(gateway_factory: GatewayFactory, app: AppServer) -> None:
    """From a trusted peer the chain is appended to and the trace goes on with spans of ours."""
    gateway = gateway_factory(
        [app.address],
        listener={"trusted_proxies": ["127.0.0.0/8"]},
        trace={"trust": "always", "server_timing": "always"},
    )
    request = get(
        "/",
        f"traceparent: {PARENT}",
        "tracestate: foreign=1,other=2",
        "X-Request-Start: t=1",
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-For: 7.7.7.7",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: public.example",
    )
    spans = set()
    for _ in range(3):
        answer = ask(gateway.port, request)
        seen = _seen(answer.body)
        assert answer.trace_id == TRACE
        (parent,) = seen["traceparent"]
        assert parent.startswith(f"00-{TRACE}-") and parent.endswith("-01")
        spans.add(parent.split("-")[2])
        assert seen["tracestate"] == ["foreign=1,other=2"]
        assert seen["x-request-start"] == ["t=1"]
        assert seen["x-forwarded-for"] == ["6.6.6.6, 7.7.7.7, 127.0.0.1"]
        assert seen["x-forwarded-proto"] == ["https"]
        assert seen["x-forwarded-host"] == ["public.example"]
        assert "wait;dur=" in answer.headers["server-timing"]
    assert len(spans) == 3 and "00f067aa0ba902b7" not in spans


def test_malformed_trusted_trace_is_replaced(
    gateway_factory: GatewayFactory, app: AppServer
) -> None:
    """A traceparent that is malformed or there twice begins a new trace; tracestate goes."""
    gateway = gateway_factory([app.address], trace={"trust": "always"})
    for lines in ([f"traceparent: {PARENT}x"], [f"traceparent: {PARENT}"] * 2):
        answer = ask(gateway.port, get("/", *lines, "tracestate: a=1"))
        assert answer.trace_id != TRACE and "tracestate" not in _seen(answer.body)


def test_response_headers(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """Hop-by-hop and nominated fields of the app end here; the rest arrives in order."""
    stub = stub_factory(
        always(
            b"HTTP/1.1 201 Made It\r\nSet-Cookie: a=1\r\nConnection: keep-alive, X-Named\r\n"
            b"X-Named: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nSet-Cookie: b=2\r\n"
            b"X-Trace-Id: forged\r\nServer-Timing: app;dur=1\r\nContent-Length: 2\r\n\r\nok"
        )
    )
    gateway = gateway_factory([stub.address])
    raw = b""
    with Connection(gateway.port) as client:
        client.send(get())
        while not raw.endswith(b"ok"):
            raw += client.sock.recv(65536)
    head = raw.decode().split("\r\n")
    assert head[0] == "HTTP/1.1 201 Made It"
    assert [line for line in head if line.startswith("Set-Cookie")] == [
        "Set-Cookie: a=1",
        "Set-Cookie: b=2",
    ]
    names = {line.split(":")[0].lower() for line in head[1:-2]}
    assert names == {"set-cookie", "content-length", "x-trace-id", "server-timing"}
    assert "forged" not in raw.decode() and "Server-Timing: app;dur=1" in head


def test_response_header_can_be_turned_off(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """trace.response_header applies to the app's answers."""
    gateway = gateway_factory([stub_factory(always(OK)).address], trace={"response_header": False})
    assert "x-trace-id" not in ask(gateway.port, get()).headers


def test_bodyless_answers(gateway_factory: GatewayFactory, app: AppServer) -> None:
    """HEAD, 204 and 304 have no body and leave the connection usable."""
    gateway = gateway_factory([app.address])
    with Connection(gateway.port) as client:
        client.send(request_bytes("HEAD", "/"))
        answer = client.answer(head_only=True)
        assert answer.status == 200 and int(answer.headers["content-length"]) > 0
        for path, status in (("/204", 204), ("/304", 304)):
            client.send(get(path))
            answer = client.answer()
            assert answer.status == status and answer.body == b""
            assert "transfer-encoding" not in answer.headers
        client.send(get("/last"))
        assert client.answer().status == 200


def test_bodyless_answers_with_a_length(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A 304 that has Content-Length has no body; a 204 loses it."""
    answers = [
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 500\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
    ]

    def handler(conn: Any, _index: int) -> None:
        for answer in answers:
            read_head(conn)
            conn.sendall(answer)
        read_head(conn)
        conn.sendall(OK)

    gateway = gateway_factory([stub_factory(handler).address])
    with Connection(gateway.port) as client:
        client.send(get())
        assert client.answer().headers["content-length"] == "500"
        client.send(get())
        assert "content-length" not in client.answer().headers
        client.send(request_bytes("HEAD", "/"))
        assert client.answer(head_only=True).headers["content-length"] == "500"
        client.send(get())
        assert client.answer().body == b"ok"


def test_http_1_0_clients(gateway_factory: GatewayFactory, app: AppServer) -> None:
    """1.0 closes by default, stays on request, never gets chunks, needs no Host."""
    gateway = gateway_factory([app.address])
    raw = raw_exchange(gateway.port, b"GET /x HTTP/1.0\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n") and b"Connection: close\r\n" in raw
    with Connection(gateway.port) as client:
        for _ in range(3):
            client.send(get("/", "Connection: keep-alive", version="1.0"))
            assert client.answer().headers["connection"] == "keep-alive"
    raw = raw_exchange(gateway.port, get("/stream", "Connection: keep-alive", version="1.0"))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"Connection: close" in head and b"chunked" not in head
    assert body == b"one two three"


def test_http_1_0_app(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """A body that ends with the app's connection is chunked for 1.1 and the client stays."""

    def handler(conn: Any, _index: int) -> None:
        read_head(conn)
        conn.sendall(b"HTTP/1.0 200 OK\r\n\r\nuntil ")
        time.sleep(0.05)
        conn.sendall(b"the end")

    gateway = gateway_factory([stub_factory(handler).address])
    with Connection(gateway.port) as client:
        for _ in range(2):
            client.send(get())
            answer = client.answer()
            assert answer.headers["transfer-encoding"] == "chunked"
            assert answer.body == b"until the end" and answer.version == "HTTP/1.1"
    raw = raw_exchange(gateway.port, get(version="1.0"))
    assert raw.endswith(b"until the end") and b"Connection: close" in raw
    exchange = stored(gateway, raw.partition(b"X-Trace-Id: ")[2][:32].decode())
    assert exchange["died_in"] is None and 0.045 < exchange["total_ns"] / 1e9 < 8


def test_streamed_answer_arrives_in_pieces(gateway_factory: GatewayFactory, app: AppServer) -> None:
    """Parts go on when they come, not at the end."""
    gateway = gateway_factory([app.address])
    with Connection(gateway.port) as client:
        client.send(get("/stream"))
        got = b""
        while b"one " not in got:
            got += client.sock.recv(65536)
        assert b"three" not in got
        client.rest = got
        assert client.answer().body == b"one two three"


def test_connection_close_is_kept(gateway_factory: GatewayFactory, app: AppServer) -> None:
    """A client that asks to close is told so and is closed cleanly."""
    gateway = gateway_factory([app.address])
    raw = raw_exchange(gateway.port, get("/", "Connection: close"))
    assert b"\r\nConnection: close\r\n" in raw and raw.endswith(b"}")


def test_pipelined_requests(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """They are answered in order; the app gets one at a time."""

    def handler(conn: Any, _index: int) -> None:
        while True:
            data = read_head(conn)
            assert data.count(b" HTTP/1.1\r\n") == 1, "pipelined towards the app"
            path = data.split(b" ")[1]
            time.sleep(0.002)
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    gateway = gateway_factory([stub_factory(handler).address])
    paths = [f"/{number}" for number in range(200)]
    with Connection(gateway.port) as client:
        client.send(b"\r\n".join(get(path) for path in paths))  # empty lines between them
        assert [client.answer().body.decode() for _ in paths] == paths
        client.send(request_bytes("POST", "/p", body=b"hello") + get("/after"))
        assert client.answer().body == b"/p"
        assert client.answer().body == b"/after"


def test_more_pipelined_than_buffers_hold(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """Requests that pile up behind a slow one, far beyond a buffer, keep their order."""

    def handler(conn: Any, _index: int) -> None:
        while True:
            path = read_head(conn).split(b" ")[1]
            if path in (b"/0", b"/700", b"/701"):
                time.sleep(0.2)
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    gateway = gateway_factory([stub_factory(handler).address])
    paths = [f"/{number}" for number in range(3000)]
    with Connection(gateway.port) as client:
        sender = threading.Thread(target=lambda: [client.send(get(path)) for path in paths])
        sender.start()
        assert [client.answer().body.decode() for _ in paths] == paths
        sender.join()


def test_pipelined_refusals(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """Local replies keep the connection where the request was read whole."""
    gateway = gateway_factory(
        [stub_factory(always(OK)).address],
        routes=[{"path_prefix": "/in", "upstream": "app"}],
    )
    with Connection(gateway.port) as client:
        client.send(get("/out") * 50 + get("/in") + get("/out"))
        statuses = [client.answer().status for _ in range(52)]
    assert statuses == [404] * 50 + [200, 404]


def test_routes_choose_the_upstream(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """First match by host, prefix and method; none is 404."""
    one = stub_factory(always(OK.replace(b"ok", b"1!")))
    two = stub_factory(always(OK.replace(b"ok", b"2!")))
    gateway = gateway_factory(
        [one.address],
        upstreams={"app": {"servers": [one.address]}, "two": {"servers": [two.address]}},
        routes=[
            {"host": "two.example", "path_prefix": "/", "upstream": "two"},
            {"path_prefix": "/only/get", "methods": ["GET"], "upstream": "two"},
            {"path_prefix": "/only", "upstream": "app"},
        ],
    )
    assert ask(gateway.port, b"GET / HTTP/1.1\r\nHost: TWO.example:81\r\n\r\n").body == b"2!"
    assert ask(gateway.port, get("/only/get")).body == b"2!"
    assert ask(gateway.port, request_bytes("POST", "/only/get", body=b"x")).body == b"1!"
    answer = ask(gateway.port, get("/other"))
    assert answer.status == 404 and json.loads(answer.body)["error"]["code"] == "no_route"


def test_absolute_form(gateway_factory: GatewayFactory, app: AppServer) -> None:
    """A proxy-style target reaches the app in origin form."""
    gateway = gateway_factory([app.address])
    answer = ask(
        gateway.port, b"GET http://test.example/a?b HTTP/1.1\r\nHost: test.example\r\n\r\n"
    )
    assert json.loads(answer.body)["target"] == "/a?b"
    assert _seen(answer.body)["host"] == ["test.example"]


def test_expect_continue(gateway_factory: GatewayFactory, app: AppServer) -> None:
    """The app's 100 comes through, the body follows, the answer is one."""
    gateway = gateway_factory([app.address])
    with Connection(gateway.port) as client:
        client.send(
            b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        )
        while b"\r\n\r\n" not in client.rest:
            client.rest += client.sock.recv(100)
        assert client.rest == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"body")
        answer = client.answer()
    assert answer.interims == [100] and json.loads(answer.body)["body"] == "body"


def test_interim_answers(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """103 goes on to 1.1 clients with its fields, never to 1.0 ones."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n"
    gateway = gateway_factory([stub_factory(always(hints + hints + OK)).address])
    answer = ask(gateway.port, get())
    assert answer.interims == [103, 103] and answer.body == b"ok"
    raw = raw_exchange(gateway.port, get("/", version="1.0"))
    assert raw.startswith(b"HTTP/1.1 200 ") and raw.count(b"HTTP/1.1") == 1, raw
    assert raw.endswith(b"ok")


def test_connect_is_refused(gateway_factory: GatewayFactory, app: AppServer) -> None:
    """Never proxied; an offer of h2c is ignored, as it may be."""
    gateway = gateway_factory([app.address])
    answer = ask(gateway.port, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
    assert answer.status == 405 and answer.trace_id
    offer = get("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA")
    answer = ask(gateway.port, offer)
    assert answer.status == 200 and "http2-settings" not in _seen(answer.body)


def test_requests_per_connection(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """The last allowed request is answered with Connection: close."""
    stub = stub_factory(always(OK))
    gateway = gateway_factory([stub.address], limits={"requests_per_connection": 3})
    with Connection(gateway.port) as client:
        kept = []
        for _ in range(3):
            client.send(get())
            kept.append("connection" not in client.answer().headers)
        assert kept == [True, True, False] and client.eof() == b""


def test_idle_loop_has_no_lag(
    gateway_factory: Callable[..., Gateway], stub_factory: Callable[..., StubServer]
) -> None:
    """Waiting for events is not lag, not even the first wait."""
    gateway = gateway_factory([stub_factory(lambda conn, index: conn.close()).address])
    time.sleep(1.5)  # past the first heartbeat
    text = gateway.api("/metrics")[2].decode()
    found = re.search(r"^tailrace_loop_lag_max_seconds (\S+)$", text, re.M)
    assert found and float(found[1]) < 0.5
