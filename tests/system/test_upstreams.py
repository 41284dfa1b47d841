"""Slots, the queue for them, balance, ejection, health checks and names of servers."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
from handmade import metrics
from harness import AppServer, Gateway, StubServer, free_port, wait_for
from keepalive_race import UPSTREAM, UVICORN, race
from proxy_tools import (
    OK,
    Connection,
    ask,
    error_code,
    get,
    last_cause,
    phase,
    read_head,
    request_bytes,
    stored,
    timed,
)
from upstream_tools import counting, serve_forever, value

GatewayFactory = Callable[..., Gateway]
StubFactory = Callable[..., StubServer]


class Gate:
    """A scripted app whose answers wait until they are let out, one by one."""

    def __init__(self) -> None:
        """Begin with all held back."""
        self.seen: list[bytes] = []
        self._tickets = threading.Semaphore(0)
        self.open = False

    def __call__(self, conn: socket.socket, _index: int) -> None:
        """Serve one connection."""
        while True:
            data = read_head(conn)
            self.seen.append(data.split(b" ")[1])
            if not self.open:
                assert self._tickets.acquire(timeout=15)
            conn.sendall(OK)

    def let_out(self, count: int = 1) -> None:
        """Let so many answers go."""
        self._tickets.release(count)


def queue_length(gateway: Gateway, length: int) -> None:
    """Return once so many exchanges wait."""
    wait_for(lambda: value(gateway, "queue_length") == length, 5, f"{length} waiting")


# --- slots and queue -----------------------------------------------------------


def test_waits_for_a_slot(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """Who comes when the server is full waits, first come first served, and that is `queue`."""
    gate = Gate()
    gateway = gateway_factory([stub_factory(gate).address], upstream={"max_connections": 1})
    clients = []
    for number in range(5):
        clients.append(Connection(gateway.port))
        clients[-1].send(request_bytes("POST", f"/{number}", body=b"x" * 70000))
        queue_length(gateway, number)
    time.sleep(0.3)
    answers = []
    for client in clients:
        gate.let_out()
        answers.append(client.answer())
    assert [answer.status for answer in answers] == [200] * 5
    assert gate.seen[0] == b"/0"
    first, last = (stored(gateway, answer.trace_id) for answer in (answers[0], answers[-1]))
    assert phase(first, "queue") < 0.25 and phase(last, "queue") > 0.3
    assert phase(last, "wait") + phase(last, "send") < 5 and last["died_in"] is None
    assert value(gateway, "queued_total") == 4 and value(gateway, "queue_length") == 0


def test_served_in_order(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """The order of coming is the order of being served."""
    gate = Gate()
    gateway = gateway_factory([stub_factory(gate).address], upstream={"max_connections": 1})
    clients = []
    for number in range(8):
        clients.append(Connection(gateway.port))
        clients[-1].send(get(f"/{number}"))
        queue_length(gateway, number)
    gate.let_out(8)
    assert [client.answer().status for client in clients] == [200] * 8
    assert gate.seen == [f"/{number}".encode() for number in range(8)]


def test_waits_no_longer_than_allowed(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """503 with Retry-After after queue_timeout_ms; a route's own limit goes before."""
    gate = Gate()
    gateway = gateway_factory(
        [stub_factory(gate).address],
        upstream={"max_connections": 1, "queue_timeout_ms": 1500},
        routes=[{"path_prefix": "/quick", "queue_timeout_ms": 200}, {"path_prefix": "/"}],
    )
    with Connection(gateway.port) as holder:
        holder.send(get("/hold"))
        wait_for(lambda: gate.seen, 5, "the slot is taken")
        for path, limit_s, most_s in (("/slow", 1.5, 9), ("/quick", 0.2, 1.4)):
            took, answer = timed(partial(ask, gateway.port, get(path)))
            assert answer.status == 503 and error_code(answer) == "upstream_queue_timeout"
            assert answer.headers["retry-after"] == "1"
            assert limit_s - 0.01 < took < most_s
            assert last_cause(gateway, path) == ("upstream_queue_timeout", "queue")
        gate.let_out()
        assert holder.answer().status == 200
    assert value(gateway, "refused_total", 'reason="timeout"') == 2
    assert value(gateway, "queue_length") == 0


def test_queue_at_the_maximum_and_one_past(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """queue_max exchanges wait; the next is refused at once."""
    gate = Gate()
    gateway = gateway_factory(
        [stub_factory(gate).address], upstream={"max_connections": 1, "queue_max": 3}
    )
    clients = [Connection(gateway.port) for _ in range(4)]
    for number, client in enumerate(clients):
        client.send(get())
        queue_length(gateway, number)
    took, answer = timed(lambda: ask(gateway.port, get()))
    assert answer.status == 503 and error_code(answer) == "upstream_full" and took < 4
    assert answer.headers["retry-after"] == "1"
    assert value(gateway, "refused_total", 'reason="full"') == 1
    gate.let_out(4)
    assert [client.answer().status for client in clients] == [200] * 4


def test_leaving_while_waiting(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """A client that goes leaves the queue; nothing of its request reaches the app."""
    gate = Gate()
    gateway = gateway_factory([stub_factory(gate).address], upstream={"max_connections": 1})
    holder, leaver, paused, stayer = (Connection(gateway.port) for _ in range(4))
    for number, (client, request) in enumerate(
        (
            (holder, get("/hold")),
            (leaver, get("/leave")),
            (paused, b"POST /paused HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\nx"),
            (stayer, get("/stay")),
        )
    ):
        client.send(request)
        queue_length(gateway, number)
    leaver.sock.close()
    paused.sock.close()
    queue_length(gateway, 1)
    gate.let_out(2)
    assert holder.answer().status == 200 and stayer.answer().status == 200
    assert gate.seen == [b"/hold", b"/stay"]
    assert value(gateway, "queue_left_total") == 2
    assert last_cause(gateway, "/leave") == ("client_abort", "queue")


def test_drain_serves_those_who_wait(
    gateway_starter: GatewayFactory, stub_factory: StubFactory
) -> None:
    """TERM: the queue is worked off."""
    gate = Gate()
    gateway = gateway_starter([stub_factory(gate).address], upstream={"max_connections": 1})
    clients = [Connection(gateway.port) for _ in range(4)]
    for number, client in enumerate(clients):
        client.send(get())
        queue_length(gateway, number)
    gateway.process.terminate()
    time.sleep(0.3)
    gate.let_out(4)
    assert [client.answer().status for client in clients] == [200] * 4
    for client in clients:
        client.sock.close()
    assert gateway.stop() == 0


def test_drain_ends_while_some_wait(
    gateway_starter: GatewayFactory, stub_factory: StubFactory
) -> None:
    """Who waits still when shutdown_timeout_ms is over is told so; all slots are given back."""
    gate = Gate()
    gateway = gateway_starter(
        [stub_factory(gate).address],
        upstream={"max_connections": 1},
        worker={"threads": 2, "shutdown_timeout_ms": 400},
    )
    clients = [Connection(gateway.port) for _ in range(6)]
    for number, client in enumerate(clients):
        client.send(get())
        queue_length(gateway, number)
    assert gateway.terminate(20) == 0
    answers = [client.answer() for client in clients]
    assert [(answer.status, error_code(answer)) for answer in answers] == [(503, "shutdown")] * 6
    gate.let_out(6)


class Crowd:
    """A scripted app that knows how many exchanges it had at a time."""

    def __init__(self) -> None:
        """Begin with none."""
        self.now = self.most = self.served = 0
        self._lock = threading.Lock()

    def __call__(self, conn: socket.socket, _index: int) -> None:
        """Serve one connection."""
        while True:
            read_head(conn)
            with self._lock:
                self.now += 1
                self.most = max(self.most, self.now)
            time.sleep(0.002)
            with self._lock:
                self.now -= 1
                self.served += 1
            conn.sendall(OK)


@pytest.mark.parametrize("threads", [1, 4])
def test_the_limit_holds_over_all_threads(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, threads: int
) -> None:
    """Forty clients and three slots: all are served, never more than three at a time."""
    crowd = Crowd()
    gateway = gateway_factory(
        [stub_factory(crowd).address],
        worker={"threads": threads},
        upstream={"max_connections": 3, "queue_timeout_ms": 30000},
    )
    failed: list[object] = []

    def client() -> None:
        try:
            with Connection(gateway.port, timeout_s=30) as own:
                for _ in range(15):
                    own.send(get())
                    if own.answer().status != 200:
                        failed.append("status")
        except Exception as error:
            failed.append(error)

    clients = [threading.Thread(target=client) for _ in range(40)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    assert not failed, failed[:3]
    assert crowd.served == 600 and crowd.most == 3
    assert value(gateway, "queued_total") > 100 and value(gateway, "queue_length") == 0
    server = f'server="{gateway.config["upstreams"]["app"]["servers"][0]}"'
    assert value(gateway, "in_flight", server) == 0
    assert 1 <= value(gateway, "connections_idle", server) <= 3 * threads


# --- which server ----------------------------------------------------------------


def test_round_robin_with_weights(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """Shares are exact."""
    counts = [0, 0, 0]
    stubs = [stub_factory(counting(counts, index)) for index in range(3)]
    servers = [{"address": stub.address, "weight": 1 + i} for i, stub in enumerate(stubs)]
    gateway = gateway_factory(servers, upstream={"balance": "round_robin"})
    with Connection(gateway.port) as client:
        for _ in range(60):
            client.send(get())
            assert client.answer().status == 200
    assert counts == [10, 20, 30]


def test_ejection_and_the_way_back(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """A server that refuses is left alone after three tries, and used again when it is back."""
    counts = [0, 0]
    stub = stub_factory(counting(counts, 0))
    port = free_port()
    dead = f"127.0.0.1:{port}"
    gateway = gateway_factory([stub.address, dead])
    with Connection(gateway.port) as client:

        def exchanges(count: int) -> None:
            for _ in range(count):
                client.send(request_bytes("POST", "/", body=b"x"))
                assert client.answer().status == 200

        took_s, _ = timed(lambda: exchanges(100))
        assert counts[0] == 100
        failures = value(gateway, "connect_failures_total", f'server="{dead}"')
        assert 3 <= failures <= 4 + took_s  # one trial a second at most
        assert value(gateway, "ejections_total", f'server="{dead}"') == 1
        assert value(gateway, "addresses", f'server="{dead}",state="ejected"') == 1
        listener = socket.create_server(("127.0.0.1", port))
        again = threading.Thread(target=serve_forever, args=(listener, counting(counts, 1)))
        again.daemon = True
        again.start()

        def back() -> bool:
            exchanges(4)
            return counts[1] > 4

        wait_for(back, 10, "the server is used again", every_s=0.1)
        assert value(gateway, "addresses", f'server="{dead}",state="up"') == 1
    listener.close()


# --- kept-alive connections ----------------------------------------------------------


def test_idle_connections_go_with_their_fin(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """An idle connection the app closes is dropped at once: nobody runs into it later."""

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(OK)
        time.sleep(0.7)

    stub = stub_factory(handler)
    gateway = gateway_factory([stub.address], upstream={"idle_timeout_ms": 60000})
    server = f'server="{stub.address}"'
    for _ in range(3):
        assert ask(gateway.port, request_bytes("POST", "/", body=b"x")).status == 200
        assert value(gateway, "connections", server) == 1
        wait_for(lambda: value(gateway, "connections", server) == 0, 5, "dropped")
    assert value(gateway, "retries_total") == 0


def test_retries_by_route(gateway_factory: GatewayFactory) -> None:
    """A route's `retries` goes before the upstream's."""
    gateway = gateway_factory(
        [f"127.0.0.1:{free_port()}"],
        upstream={"retries": 2},
        routes=[{"path_prefix": "/once", "retries": 0}, {"path_prefix": "/"}],
    )
    for path, attempts in (("/once", 1), ("/", 3)):
        exchange = stored(gateway, ask(gateway.port, get(path)).trace_id)
        assert exchange["connection"]["attempts"] == attempts
    assert value(gateway, "retries_total") == 2


def test_metrics_are_bounded(gateway_factory: GatewayFactory) -> None:
    """256 servers have samples of their own, the rest of an upstream is `other`."""
    upstreams = {
        f"u{number}": {"servers": [f"127.0.{number}.{i + 1}:1" for i in range(60)]}
        for number in range(6)
    }
    gateway = gateway_factory(
        ["127.0.0.1:1"],
        routes=[{"upstream": "app"}],
        upstreams=upstreams,
        limits={"connections": 100},
    )
    names = [n for n in metrics(gateway) if n.startswith("tailrace_upstream_in_flight{")]
    others = [name for name in names if 'server="other"' in name]
    assert len(names) == 256 + len(others) and 1 <= len(others) <= 2
    state = 'tailrace_upstream_addresses{upstream="u5",server="other",state="up"}'
    assert metrics(gateway)[state] == 60 or len(others) == 1


def test_storm_over_threads(gateway_factory: GatewayFactory, stub_factory: StubFactory) -> None:
    """Clients that leave at random while they wait: no slot is lost in any thread."""
    crowd = Crowd()
    gateway = gateway_factory(
        [stub_factory(crowd).address], worker={"threads": 4}, upstream={"max_connections": 2}
    )
    end = time.monotonic() + 3

    def client(seed: int) -> None:
        rng = random.Random(seed)
        while time.monotonic() < end:
            with contextlib.suppress(OSError, EOFError), Connection(gateway.port, 0.5) as own:
                own.send(get())
                if rng.random() < 0.5:
                    time.sleep(rng.random() * 0.02)
                else:
                    own.answer()

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(24)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    server = f'server="{gateway.config["upstreams"]["app"]["servers"][0]}"'
    wait_for(lambda: value(gateway, "in_flight", server) == 0, 5, "all slots free")
    assert value(gateway, "queue_length") == 0 and value(gateway, "queue_left_total") > 10
    assert crowd.most <= 2 or crowd.served > 0
    for _ in range(10):
        assert ask(gateway.port, get()).status == 200


def test_keepalive_race(
    gateway_factory: GatewayFactory, uvicorn_factory: Callable[..., AppServer]
) -> None:
    """Requests just as uvicorn closes: no GET fails, no POST arrives twice. Longer: make soak."""
    app = uvicorn_factory("count_app:app", args=UVICORN)
    gateway = gateway_factory([app.address], upstream=UPSTREAM)
    race(gateway, app, clients=200, rounds=6)
