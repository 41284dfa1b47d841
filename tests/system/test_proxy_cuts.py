"""Apps that end too soon: scripted ones at every byte of their answer, a real one at ten places."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import pytest
from harness import AppServer, Gateway, StubServer, free_port, wait_for
from proxy_tools import OK, Connection, ask, get, read_head, request_bytes, reset

GatewayFactory = Callable[..., Gateway]
AppFactory = Callable[..., AppServer]
StubFactory = Callable[..., StubServer]

HEAD = b"HTTP/1.1 200 OK\r\nX-A: b\r\n"
ANSWERS = {
    "length": HEAD + b"Content-Length: 12\r\n\r\nhello, world",
    "chunked": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n",
    "until-eof": HEAD + b"Connection: close\r\n\r\nhello, world",
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
}


def _outcome(port: int, path: str) -> str:
    """Return how a client sees it: `whole`, `502`, `reset`, or `clean` for a clean cut."""
    with Connection(port) as client:
        client.send(get(path, "Connection: close"))
        try:
            answer = client.answer()
        except EOFError:
            return "clean"
        except ConnectionResetError:
            return "reset"
        if answer.status == 502:
            return "502"
        assert answer.status == 200
        return f"whole {answer.body.decode()}"


@pytest.mark.parametrize("by_reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("kind", ANSWERS)
def test_answer_cut_at_every_byte(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, kind: str, by_reset: bool
) -> None:
    """Never a clean end for a truncated body: 502 while nothing is out, then a reset."""
    text = ANSWERS[kind]
    head_end = text.rindex(b"\r\n\r\n", 0, text.index(b"ok") if kind == "interim" else None) + 4
    if kind == "chunked":
        head_end = text.index(b"\r\n\r\n") + 4

    def handler(conn: socket.socket, _index: int) -> None:
        cut = int(read_head(conn).split(b" ")[1][1:])
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn.sendall(text[:cut])
        if by_reset:
            threading.Event().wait(0.005)  # the bytes are read before the reset takes them away
            reset(conn)

    gateway = gateway_factory(
        [stub_factory(handler).address], upstream={"retries": 0, "max_connections": 1}
    )
    whole = "whole ok" if kind == "interim" else "whole hello, world"
    for cut in range(len(text) + 1):
        got = _outcome(gateway.port, f"/{cut}")
        if cut < head_end:
            assert got == "502", (cut, got)
        elif kind == "until-eof" and not by_reset:
            assert got == f"whole {text[head_end:cut].decode()}", (cut, got)
        elif kind == "until-eof":
            assert got in ("reset", "502"), (cut, got)
        elif cut == len(text):
            assert got == whole, (cut, got)
        else:
            assert got in ("reset", "502"), (cut, got)
    metrics = gateway.api("/metrics")[2].decode()
    assert "tailrace_requests_in_flight 0\n" in metrics


PLACES = [
    "before",  # it is not there
    "head",  # the request's head was read
    "body",  # half of the request's body was read
    "body-end",  # all of it
    "start",  # the answer's head was sent
    "first",  # and a part of its body
    "between",  # two parts
    "end",  # the whole body, Content-Length known
    "idle",  # the connection is kept alive
    "upgraded",  # a WebSocket is open
]


@pytest.mark.parametrize("place", PLACES)
def test_uvicorn_killed(
    gateway_factory: GatewayFactory, uvicorn_factory: AppFactory, place: str
) -> None:
    """Each client gets a whole answer, a 502 or a cut one it can tell; the gateway lives on."""
    app = uvicorn_factory("dying_app:app") if place != "before" else None
    address = app.address if app else f"127.0.0.1:{free_port()}"
    gateway = gateway_factory([address])
    (worker,) = gateway.worker_pids()
    with Connection(gateway.port) as client:
        if place == "upgraded":
            key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
            client.send(
                get(
                    "/",
                    "Connection: Upgrade",
                    "Upgrade: websocket",
                    key,
                    "Sec-WebSocket-Version: 13",
                )
            )
            assert client._until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
            with contextlib.suppress(ConnectionResetError):
                client.eof()
        elif place == "idle":
            client.send(get("/fine"))
            assert client.answer().status == 200
            assert app is not None
            app.kill()
            client.send(request_bytes("POST", "/fine", body=b"x"))
            assert client.answer().status == 502
        else:
            client.send(request_bytes("POST", f"/{place}", body=b"x" * 100_000))
            if place in ("before", "head", "body", "body-end"):
                assert client.answer().status == 502
            elif place == "end":
                assert client.answer().body == b"y" * 30
            else:
                with pytest.raises((EOFError, ConnectionResetError)):
                    client.answer()
    wait_for(lambda: ask(gateway.port, get()).status == 502, 5, "the app's death", every_s=0.1)
    assert gateway.worker_pids() == [worker]
    wait_for(
        lambda: b"tailrace_requests_in_flight 0\n" in gateway.api("/metrics")[2],
        5,
        "none in flight",
    )
