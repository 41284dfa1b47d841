"""Every refusal, of requests and of answers, by its status and its named reason."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable

import pytest
from harness import Gateway, StubServer
from proxy_tools import (
    OK,
    Connection,
    always,
    ask,
    error_code,
    get,
    last_cause,
    read_head,
    serving,
    stored,
)

GatewayFactory = Callable[..., Gateway]
StubFactory = Callable[..., StubServer]

HEAD = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n" + HEAD
POST = b"POST / HTTP/1.1\r\n" + HEAD
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REQUESTS = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400, "bad_request"),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request_line"),
    (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400, "bad_line_end"),
    (b"GET / HTTP/1.1\r\n\r\n", 400, "host_missing"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "host_repeated"),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "bad_host"),
    (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "host_mismatch"),
    (b"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 421, "misdirected"),
    (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target_userinfo"),
    (b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target_fragment"),
    (b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target_nul"),
    (b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", 400, "bad_header"),
    (GET + b"X: a\x01\r\n\r\n", 400, "bad_header_value"),
    (GET + b"X: a\r\n b\r\n\r\n", 400, "header_folded"),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "bad_version"),
    (b"GET /x\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 505, "bad_version"),
    (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501, "bad_method"),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405, "connect_refused"),
    (
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "length_and_encoding",
    ),
    (POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400, "length_repeated"),
    (POST + b"Content-Length: +4\r\n\r\nabcd", 400, "bad_length"),
    (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501, "bad_encoding"),
    (POST + b"Transfer-Encoding:\r\n\r\n", 400, "encoding_malformed"),
    (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "encoding_on_http10",
    ),
    (POST + b"Expect: x\r\nContent-Length: 1\r\n\r\nx", 417, "bad_expect"),
    (CHUNKED + b"xyz\r\n", 400, "bad_chunk"),
    (CHUNKED + b"1;" + b"a" * 300 + b"\r\nx\r\n0\r\n\r\n", 400, "chunk_extension_too_large"),
    (CHUNKED + b"0\r\nContent-Length: 1\r\n\r\n", 400, "bad_trailer"),
    (CHUNKED + b"0\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431, "trailers_too_large"),
    (GET + b"Connection: host\r\n\r\n", 400, "bad_nomination"),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HEAD, 414, "request_line_too_long"),
    (GET + b"X: " + b"a" * 33000 + b"\r\n", 431, "head_too_large"),
    (GET + b"X: a\r\n" * 101 + b"\r\n", 431, "too_many_headers"),
]


def _reasons(gateway: Gateway) -> dict[str, int]:
    text = gateway.api("/metrics")[2].decode()
    found = re.findall(r'^tailrace_closes_total\{reason="(\w+)"\} (\d+)$', text, re.M)
    return {name: int(count) for name, count in found}


def test_refused_requests(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """A clear answer, then the end, no byte to the app; counted by reason, recorded, logged."""
    stub = stub_factory(always(OK))
    gateway = gateway_factory([stub.address])
    traces = {}
    for text, status, code in REQUESTS:
        with Connection(gateway.port) as client:
            client.send(text)
            answer = client.answer()
            assert (answer.status, error_code(answer)) == (status, code), text
            assert answer.headers["connection"] == "close"
            with contextlib.suppress(ConnectionResetError):
                assert client.eof() == b""
            traces[answer.trace_id] = code
    assert stub.accepted == 0
    for trace_id, code in list(traces.items())[::5]:
        exchange = stored(gateway, trace_id)
        assert exchange["cause"] == code and exchange["died_in"] in ("head", "admit")
    expected: dict[str, int] = {}
    for _, _, code in REQUESTS:
        expected[code] = expected.get(code, 0) + 1
    counted = _reasons(gateway)
    assert {code: counted[code] for code in expected} == expected
    lines = [line for line in gateway.log().splitlines() if "request of 127.0.0.1 refused" in line]
    assert "bad_request_line" in lines[1] and 5 <= len(lines) <= 10  # a few in each ten seconds


ANSWERS = [
    (b"garbage\r\n\r\n", "bad_response"),
    (b"HTTP/2.0 200 OK\r\n\r\n", "bad_response_version"),
    (b"HTTP/1.1 600 High\r\n\r\n", "bad_response_status"),
    (b"HTTP/1.1 200 O\0K\r\nContent-Length: 1\r\n\r\nx", "bad_response_status"),
    (b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "response_upgrade"),
    (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "bad_response_length",
    ),
    (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
        "bad_response_length",
    ),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "bad_response_encoding"),
    (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "bad_response_header"),
    (b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", "bad_response_header"),
    (b"HTTP/1.1 103 Hints\r\n\r\n" * 17 + OK, "response_interims"),
    # the framing breaks in the read that brought the head: nothing has gone out yet
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "bad_response_chunk"),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n",
        "bad_response_chunk",
    ),
]


def test_refused_answers(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """502 with the reason; the connection to the app is not used again, the client's lives on."""

    def handler(conn: socket.socket, _index: int) -> None:
        path = read_head(conn).split(b" ")[1]
        conn.sendall(ANSWERS[int(path[1:])][0])
        conn.recv(100)

    stub = stub_factory(handler)
    gateway = gateway_factory([stub.address])
    for number, (text, code) in enumerate(ANSWERS):
        with Connection(gateway.port) as client:
            for _ in range(2):
                client.send(get(f"/{number}"))
                answer = client.answer()
                assert (answer.status, error_code(answer)) == (502, code), text
        assert stub.accepted == 2 * number + 2
    assert f"answer of {stub.address} refused: bad_response (" in gateway.log()


def test_bad_chunk_behind_what_was_sent(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """Framing that breaks when bytes have gone out cuts the answer off."""
    went_out = threading.Event()

    def broken(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        went_out.wait(5)
        conn.sendall(b"zz\r\n")

    gateway = gateway_factory([stub_factory(broken).address])
    with Connection(gateway.port) as client:
        client.send(get("/broken"))
        client._until(b"2\r\nok\r\n")
        went_out.set()
        with pytest.raises(ConnectionResetError):
            client.eof()
    assert last_cause(gateway, "/broken") == ("bad_response_chunk", "stream")


def test_options_for_the_server_as_a_whole(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """RFC 9112 3.2.4: without path and query the last proxy sends `*`; a query gets its slash."""
    seen: list[bytes] = []

    def handler(conn: socket.socket, _index: int) -> None:
        while True:
            seen.append(read_head(conn).split(b"\r\n")[0])
            conn.sendall(OK)

    gateway = gateway_factory([stub_factory(handler).address])
    for line in ("OPTIONS http://a", "OPTIONS http://a/", "OPTIONS *", "GET http://a?b=c"):
        assert ask(gateway.port, f"{line} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).status == 200
    assert seen == [
        b"OPTIONS * HTTP/1.1",
        b"OPTIONS / HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET /?b=c HTTP/1.1",
    ]


def test_routes_see_through_spellings(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """Routing looks at the normal path; the app gets the bytes the client sent."""
    seen: list[bytes] = []

    def handler(conn: socket.socket, _index: int) -> None:
        while True:
            seen.append(read_head(conn).split(b" ")[1])
            conn.sendall(OK)

    gateway = gateway_factory(
        [stub_factory(handler).address],
        routes=[{"name": "admin", "path_prefix": "/admin", "body_bytes": 5}],
    )
    for path in ("/admin", "/%61dmin", "/x/../admin", "/x/%2e%2e/admin", "/./admin?a"):
        assert ask(gateway.port, get(path)).status == 200, path
    for path in ("/x", "/admin/../x", "//admin"):
        assert ask(gateway.port, get(path)).status == 404, path
    assert seen == [b"/admin", b"/%61dmin", b"/x/../admin", b"/x/%2e%2e/admin", b"/./admin?a"]


def test_https_target_behind_a_trusted_proxy(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """Whoever ended TLS in front of us may say https."""
    gateway = gateway_factory(
        [stub_factory(serving(OK)).address], listener={"trusted_proxies": ["127.0.0.1"]}
    )
    assert ask(gateway.port, b"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
