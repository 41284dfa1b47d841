"""WebSocket: the upgrade, the tunnel behind it, its limits, its record and its end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import AppServer, Gateway, StubServer, wait_for
from proxy_tools import (
    OK,
    Answer,
    Connection,
    always,
    error_code,
    get,
    read_head,
    reset,
    resident_kib,
    serving,
    stored,
)
from tls_tools import TLS12, TLS13, Authority, listen, upstream_tls, uvicorn_args
from upstream_tools import value
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

GatewayFactory = Callable[..., Gateway]
AppFactory = Callable[..., AppServer]
StubFactory = Callable[..., StubServer]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def upgrade(path: str = "/", key: str = KEY, version: str = "13") -> bytes:
    """Return a request to leave HTTP."""
    lines = [f"Sec-WebSocket-Key: {key}", f"Sec-WebSocket-Version: {version}"]
    return get(path, "Connection: keep-alive, Upgrade", "Upgrade: websocket", *lines)


def _switched(client: Connection) -> Answer:
    head = client._until(b"\r\n\r\n").decode()
    assert head.startswith("HTTP/1.1 101 "), head
    fields = [line.partition(": ") for line in head.split("\r\n")[1:]]
    return Answer(101, {name.lower(): value for name, _, value in fields}, b"")


@contextlib.contextmanager
def tunnel(gateway: Gateway, path: str = "/") -> Any:
    """Open a tunnel; yields the connection and the answer."""
    with Connection(gateway.port) as client:
        client.send(upgrade(path))
        yield client, _switched(client)


def _echo(conn: socket.socket, _index: int) -> None:
    read_head(conn)
    conn.sendall(SWITCH)
    while data := conn.recv(65536):
        conn.sendall(data)


def pause_and_take_all(client: ClientConnection, worker: int, before_kib: int) -> None:
    """Read nothing of /push for a second: the worker's memory stays flat. Then read all of it."""
    time.sleep(1)
    assert resident_kib(worker) - before_kib < 4096
    got = 0
    with contextlib.suppress(ConnectionClosed):
        while True:
            got += len(client.recv(10))
    assert got == 400 * 65536


def _ended(gateway: Gateway, trace_id: str) -> dict[str, Any]:
    exchange: dict[str, Any] = {}

    def look() -> bool:
        exchange.update(stored(gateway, trace_id))
        return not exchange["provisional"]

    wait_for(look, 10, "the final record")
    return exchange


# --- a real app and a real client --------------------------------------------


def test_echo_and_record(gateway_factory: GatewayFactory, uvicorn_factory: AppFactory) -> None:
    """Messages go both ways; phases end with the 101, the tunnel is told apart."""
    gateway = gateway_factory([uvicorn_factory("ws_app:app").address])
    with connect(f"ws://127.0.0.1:{gateway.port}/ws", compression=None) as client:
        trace_id = client.response.headers["X-Trace-Id"]
        for message in ("hello", b"\0\xff", "x" * 100000):
            client.send(message)
            assert client.recv(5) == message
        time.sleep(0.5)
        client.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(5)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4000
    exchange = _ended(gateway, trace_id)
    assert exchange["status"] == 101 and exchange["cause"] is None
    assert exchange["died_in"] is None
    found = {item["name"]: item["ns"] for item in exchange["phases"]}
    assert found["stream"] == found["drain"] == 0 and exchange["total_ns"] < 0.45e9
    told = exchange["tunnel"]
    assert told["ns"] >= 0.5e9 and told["cause"] is None
    assert 100000 < told["client_bytes"] < 101000
    assert 100000 < told["server_bytes"] < 101000
    metrics = gateway.api("/metrics")[2].decode()
    for state in ("begun", "ended"):
        assert f'tailrace_tunnels_total{{state="{state}"}} 1\n' in metrics
    counted = re.search(r'tunnel_bytes_total\{from="client"\} (\d+)', metrics)
    assert counted and int(counted[1]) == told["client_bytes"]


@pytest.mark.parametrize("sides", ["client", "server", "both"])
@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_tls(
    gateway_factory: GatewayFactory,
    uvicorn_factory: AppFactory,
    authority: Authority,
    version: ssl.TLSVersion,
    sides: str,
) -> None:
    """wss:// towards the client, the app, or both: every message, the close code, the counters."""
    app_cert, own_cert = authority.issue("127.0.0.1"), authority.issue("app.example")
    to_app, to_client = sides in ("server", "both"), sides in ("client", "both")
    app = uvicorn_factory("ws_app:app", args=uvicorn_args(app_cert) if to_app else ())
    gateway = gateway_factory(
        [app.address],
        upstream=upstream_tls(authority) if to_app else {},
        listener=listen(own_cert) if to_client else {},
    )
    # named, so that nothing of this machine's proxies or names comes in between
    sock = socket.create_connection(("127.0.0.1", gateway.port), 10)
    secure = {"ssl": authority.client_context(version), "server_hostname": "app.example"}
    url = f"{'wss' if to_client else 'ws'}://app.example/ws"
    sizes = [0, 1, 125, 16384, 65536, 300_000]
    with connect(url, sock=sock, compression=None, **(secure if to_client else {})) as client:
        trace_id = client.response.headers["X-Trace-Id"]
        for message in (os.urandom(size) for size in sizes):
            client.send(message)
            assert client.recv(10) == message
        client.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(5)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4000
    told = _ended(gateway, trace_id)["tunnel"]
    assert told["cause"] is None
    for side in ("client", "server"):
        assert sum(sizes) < told[f"{side}_bytes"] < sum(sizes) + 500


def test_tls_back_pressure(
    gateway_factory: GatewayFactory, uvicorn_factory: AppFactory, authority: Authority
) -> None:
    """A wss:// reader that stops stops the app, and then gets all of it."""
    app = uvicorn_factory("ws_app:app")
    listener = listen(authority.issue("app.example"))
    gateway = gateway_factory([app.address], listener=listener)
    (worker,) = gateway.worker_pids()
    before = resident_kib(worker)
    sock = socket.create_connection(("127.0.0.1", gateway.port), 10)
    with connect(
        "wss://app.example/push",
        sock=sock,
        ssl=authority.client_context(),
        server_hostname="app.example",
        max_size=None,
        max_queue=2,
    ) as client:
        pause_and_take_all(client, worker, before)


def test_refused_upgrade_keeps_the_connection(
    gateway_factory: GatewayFactory, uvicorn_factory: AppFactory
) -> None:
    """Any other status is an ordinary answer, and what came behind is the next request."""
    gateway = gateway_factory([uvicorn_factory("ws_app:app").address])
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{gateway.port}/refuse").close()
    assert refused.value.response.status_code == 403
    with Connection(gateway.port) as client:
        client.send(upgrade("/refuse"))
        assert client.answer().status == 403


def test_pipelined_behind_a_refused_upgrade(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """Bytes behind the request belong to the tunnel only if there is one."""
    no = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    gateway = gateway_factory([stub_factory(serving(no, OK)).address])
    with Connection(gateway.port) as client:
        client.send(upgrade() + get("/next"))
        assert client.answer().status == 403
        assert client.answer().body == b"ok"
    gateway = gateway_factory([stub_factory(_echo).address])
    with Connection(gateway.port) as client:
        client.send(upgrade() + b"early")
        _switched(client)
        assert client._exactly(5) == b"early"


# --- the upgrade -------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_text", "status", "code"),
    [
        (upgrade(key="short"), 400, "bad_upgrade"),
        (upgrade(version="8"), 426, "upgrade_version"),
        (upgrade().replace(b"GET", b"POST"), 400, "bad_upgrade"),
    ],
)
def test_improper_upgrades(
    gateway_factory: GatewayFactory,
    stub_factory: StubFactory,
    request_text: bytes,
    status: int,
    code: str,
) -> None:
    """Refused before the app hears of them."""
    stub = stub_factory(always(OK))
    gateway = gateway_factory([stub.address])
    with Connection(gateway.port) as client:
        client.send(request_text)
        answer = client.answer()
    assert answer.status == status and error_code(answer) == code and stub.accepted == 0
    if status == 426:
        assert answer.headers["sec-websocket-version"] == "13"
        assert answer.headers["upgrade"] == "websocket"


def test_what_the_app_is_sent(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """The upgrade is ours; other protocols, or none in Connection, are no upgrade."""
    seen: list[bytes] = []

    def handler(conn: socket.socket, _index: int) -> None:
        seen.append(read_head(conn).lower())
        conn.sendall(OK)

    gateway = gateway_factory([stub_factory(handler).address])
    for request in (
        upgrade(),
        get("/", "Connection: upgrade", "Upgrade: h2c"),
        upgrade().replace(b"keep-alive, Upgrade", b"keep-alive"),
        upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"),
    ):
        with Connection(gateway.port) as client:
            client.send(request)
            assert client.answer().status == 200
    assert b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n" in seen[0]
    assert b"sec-websocket-key: " + KEY.lower().encode() in seen[0]
    assert all(b"upgrade" not in head for head in seen[1:])


@pytest.mark.parametrize(
    "answer",
    [
        SWITCH.replace(b"websocket", b"chat"),
        SWITCH.replace(b"Connection: Upgrade", b"X: y"),
        SWITCH.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_other_101s_are_refused(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, answer: bytes
) -> None:
    """502 where the app switches to what it was not asked for."""
    gateway = gateway_factory([stub_factory(serving(answer)).address])
    with Connection(gateway.port) as client:
        client.send(upgrade())
        got = client.answer()
    assert got.status == 502 and error_code(got) == "response_upgrade"


# --- the tunnel --------------------------------------------------------------


def test_half_close_both_ways(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """A FIN goes on when all before it has; the other direction lives."""
    heard: list[bytes] = []

    def client_first(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(SWITCH)
        while data := conn.recv(65536):
            heard.append(data)
        conn.sendall(b"still talking")

    gateway = gateway_factory([stub_factory(client_first).address])
    with tunnel(gateway) as (client, answer):
        client.send(b"bye")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.eof() == b"still talking" and b"".join(heard) == b"bye"
    assert _ended(gateway, answer.trace_id)["tunnel"]["cause"] is None

    def server_first(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(SWITCH + b"the end")
        conn.shutdown(socket.SHUT_WR)
        while data := conn.recv(65536):
            heard.append(data)

    heard.clear()
    gateway = gateway_factory([stub_factory(server_first).address])
    with tunnel(gateway) as (client, answer):
        assert client.eof() == b"the end"
        client.send(b"one more")
        wait_for(lambda: b"".join(heard) == b"one more", 5, "the app still listens")
    told = _ended(gateway, answer.trace_id)["tunnel"]
    assert (told["client_bytes"], told["server_bytes"], told["cause"]) == (8, 7, None)


def test_tunnels_hold_no_slot_and_are_not_idle(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """The only slot is not taken by three tunnels, and their connections are counted as tunnels."""
    stub = stub_factory(_echo)
    gateway = gateway_factory([stub.address], upstream={"max_connections": 1, "queue_max": 0})
    server = f'server="{stub.address}"'

    def values() -> list[float]:
        names = ("tunnels", "connections", "connections_idle", "in_flight")
        return [value(gateway, name, server) for name in names]

    with tunnel(gateway), tunnel(gateway), tunnel(gateway):
        assert values() == [3, 3, 0, 0]
    wait_for(lambda: values() == [0, 0, 0, 0], 5, "all ended")


@pytest.mark.parametrize("who", ["client", "app"])
def test_resets_are_passed_on(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, who: str
) -> None:
    """Whoever breaks off, the other side hears of it as it happened."""
    outcome: list[str] = []
    broken = threading.Event()

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(SWITCH)
        assert conn.recv(1) == b"x"
        if who == "app":
            reset(conn)
            return
        try:
            outcome.append("fin" if conn.recv(1) == b"" else "data")
        except ConnectionResetError:
            outcome.append("reset")
        broken.set()

    gateway = gateway_factory([stub_factory(handler).address])
    with tunnel(gateway) as (client, answer):
        client.send(b"x")
        if who == "app":
            with pytest.raises(ConnectionResetError):
                client.eof()
        else:
            time.sleep(0.2)
            reset(client.sock)
            assert broken.wait(5) and outcome == ["reset"]
    cause = {"client": "client_abort", "app": "upstream_reset"}[who]
    exchange = _ended(gateway, answer.trace_id)
    assert exchange["tunnel"]["cause"] == cause and exchange["cause"] is None


def test_back_pressure(gateway_factory: GatewayFactory, uvicorn_factory: AppFactory) -> None:
    """A reader that stops stops the app; the worker's memory stays flat, nothing is lost."""
    gateway = gateway_factory([uvicorn_factory("ws_app:app").address])
    (worker,) = gateway.worker_pids()
    before = resident_kib(worker)
    with connect(f"ws://127.0.0.1:{gateway.port}/push", max_size=None, max_queue=2) as client:
        pause_and_take_all(client, worker, before)


def test_slow_app_pauses_the_client(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """The same the other way; all bytes arrive in order."""
    total = 8 << 20
    got = bytearray()
    go_on = threading.Event()

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        conn.sendall(SWITCH)
        go_on.wait(10)
        while data := conn.recv(1 << 20):
            got.extend(data)

    gateway = gateway_factory([stub_factory(handler).address])
    (worker,) = gateway.worker_pids()
    data = bytes(range(256)) * (total // 256)
    with tunnel(gateway) as (client, answer):
        before = resident_kib(worker)
        sender = threading.Thread(target=client.send, args=(data,))
        sender.start()
        time.sleep(0.5)
        assert resident_kib(worker) - before < 4096
        go_on.set()
        sender.join(20)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.eof() == b""
    assert bytes(got) == data
    assert _ended(gateway, answer.trace_id)["tunnel"]["client_bytes"] == total


# --- limits ------------------------------------------------------------------


def test_limit_of_tunnels(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """At the maximum open, one past it 503; they hold no slot; a place is free again at the end."""
    gateway = gateway_factory(
        [stub_factory(_echo).address], limits={"tunnels": 3}, upstream={"max_connections": 1}
    )
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client, _ = stack.enter_context(tunnel(gateway))
            client.send(b"x")
            assert client._exactly(1) == b"x"
        with Connection(gateway.port) as late:
            late.send(upgrade())
            answer = late.answer()
            assert answer.status == 503 and error_code(answer) == "tunnel_limit"

    def again() -> bool:
        with Connection(gateway.port) as client:
            client.send(upgrade())
            return client._until(b"\r\n").startswith(b"HTTP/1.1 101")

    wait_for(again, 5, "a free place")


def test_refused_upgrades_give_their_place_back(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """An upgrade that came to nothing counts no more."""
    gateway = gateway_factory([stub_factory(always(OK)).address], limits={"tunnels": 1})
    for _ in range(3):
        with Connection(gateway.port) as client:
            client.send(upgrade())
            assert client.answer().status == 200


def test_idle_limit(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """Bytes either way keep it open; without any it ends by FIN, both sides."""
    outcome: list[bytes] = []

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(SWITCH)
        while data := conn.recv(10):
            conn.sendall(data)
        outcome.append(data)

    gateway = gateway_factory(
        [stub_factory(handler).address], limits={"tunnel_idle_timeout_ms": 600}
    )
    with tunnel(gateway) as (client, answer):
        for _ in range(4):
            time.sleep(0.3)
            client.send(b"x")
            assert client._exactly(1) == b"x"
        started = time.monotonic()
        assert client.eof() == b""
        assert 0.5 < time.monotonic() - started < 5
    wait_for(lambda: outcome == [b""], 5, "the app's end")
    told = _ended(gateway, answer.trace_id)["tunnel"]
    assert told["cause"] == "tunnel_idle" and told["ns"] > 1.7e9


def test_drain(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """On TERM a tunnel lives on until shutdown_timeout_ms, then ends."""
    gateway = gateway_factory([stub_factory(_echo).address], worker={"shutdown_timeout_ms": 1500})
    with tunnel(gateway) as (client, _):
        gateway.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        time.sleep(1)
        client.send(b"still")
        assert client._exactly(5) == b"still"
        with contextlib.suppress(ConnectionResetError):
            assert client.eof() == b""
        assert 1.3 < time.monotonic() - started < 8
    assert gateway.process.wait(10) == 0


def test_open_tunnel_is_told(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """After ten seconds an open tunnel can be seen, marked as not final."""
    gateway = gateway_factory([stub_factory(_echo).address])
    with tunnel(gateway) as (client, answer):
        client.send(b"hello")
        exchange = stored(gateway, answer.trace_id, 20)
        assert exchange["provisional"] and exchange["tunnel"]["client_bytes"] == 5
        assert exchange["total_ns"] < 5e9
