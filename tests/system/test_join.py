"""The join under the real gateway: either side first, retries, parts, foreign clocks."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from handmade import (
    HandApp,
    Seen,
    batch,
    metrics,
    outcome,
    post,
    process,
    row,
    wait_exchange,
)
from harness import Gateway, wait_for

Start = Callable[..., Gateway]
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def app() -> Any:
    """A scripted app; tests set its delay or its answers before the first request."""
    server = HandApp(delay_s=0.02).start()
    yield server
    server.stop()


def ask(gateway: Gateway) -> str:
    """One request through the gateway; its trace ID."""
    with urllib.request.urlopen(gateway.base + "/x", timeout=20) as response:
        response.read()
        return str(response.headers["X-Trace-Id"])


def assert_sums(exchange: dict[str, Any]) -> dict[str, Any]:
    """Every sum of the API's contract; returns the profile."""
    phases = {phase["name"]: phase["ns"] for phase in exchange["phases"]}
    profile: dict[str, Any] = exchange["profile"]
    assert sum(phases.values()) == exchange["total_ns"]
    parts = ("app_queue_ns", "app_ns", "app_out_ns")
    assert all(profile[name] >= 0 for name in parts)
    assert sum(profile[name] for name in parts) == phases["send"] + phases["wait"]
    rows = sum(entry["ns"] for entry in profile["breakdown"])
    assert rows + profile["unattributed_ns"] == profile["app_ns"]
    stream = sum(entry["ns"] for entry in profile["stream_breakdown"])
    assert stream + profile["stream_unattributed_ns"] == profile["app_stream_ns"]
    return profile


def test_profile_first(app: HandApp, gateway_factory: Start) -> None:
    """A profile that is here before its exchange has ended waits for it."""
    release = threading.Event()

    def answer(conn: socket.socket, seen: Seen) -> None:
        seen.start_ns = time.monotonic_ns()
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        seen.end_ns = time.monotonic_ns()
        assert release.wait(10)
        conn.sendall(b"k")

    app.answer = answer
    gateway = gateway_factory([app.address])
    thread = threading.Thread(target=ask, args=(gateway,))
    thread.start()
    seen = wait_for(lambda: app.seen and app.seen[0].end_ns and app.seen[0], 5, "head sent")
    assert post(gateway, batch(row(seen)))[1]["accepted"] == 1
    assert metrics(gateway)['tailrace_join_waiting{side="profile"}'] == 1
    assert outcome(gateway, "joined") == 0
    release.set()
    thread.join()
    exchange = wait_exchange(gateway, seen.trace, lambda x: x["profile"] is not None)
    assert_sums(exchange)
    assert outcome(gateway, "joined") == 1


def test_app_split(app: HandApp, gateway_factory: Start) -> None:
    """What the gateway waited is what the app measured, plus what lies before and after it."""
    app.delay_s = 0.1
    gateway = gateway_factory([app.address])
    trace = ask(gateway)
    seen = app.seen[0]
    inside = seen.enter_ns + 20_000_000  # a hook that was called 20 ms after the bytes arrived
    rows = [["wait", "sleep", 0, 70_000_000, 7, 1, 0, None, None]]
    left = seen.start_ns - inside - 70_000_000
    post(gateway, batch(row(seen, enter=inside, breakdown=rows, unattributed=left)))
    profile = assert_sums(wait_exchange(gateway, trace, lambda x: x["profile"] is not None))
    assert profile["clock"] == "shared" and profile["clock_slack_ns"] == 0
    assert profile["app_ns"] == seen.start_ns - inside
    assert 15_000_000 <= profile["app_queue_ns"] < 60_000_000
    assert profile["breakdown"][0]["count"] == 7
    assert profile["unattributed_ns"] == left


def test_foreign_clock(app: HandApp, gateway_factory: Start) -> None:
    """Another boot, another clock: placed by causality, with the room it has as slack."""
    gateway = gateway_factory([app.address])
    for boot in (None, "11111111-2222-3333-4444-555555555555"):
        trace = ask(gateway)
        seen = app.seen[-1]
        seen.start_ns = seen.end_ns = seen.enter_ns + 10_000_000  # half of what it took
        profile = row(seen)
        for field in (5, 6, 7):
            profile[field] += 10**15
        post(gateway, batch(profile, process=process(boot_id=boot)))
        exchange = wait_exchange(gateway, trace, lambda x: x["profile"] is not None)
        got = assert_sums(exchange)
        assert got["clock"] == "placed"
        assert got["app_ns"] == 10_000_000
        assert got["clock_slack_ns"] == got["app_queue_ns"] + got["app_out_ns"]


def test_tail(app: HandApp, gateway_factory: Start) -> None:
    """The app's return is told after the profile, and shows."""
    gateway = gateway_factory([app.address])
    trace = ask(gateway)
    profile = row(app.seen[0])
    post(gateway, batch(profile))
    exchange = wait_exchange(gateway, trace, lambda x: x["profile"] is not None)
    assert exchange["profile"]["app_tail_ns"] is None
    post(gateway, batch(tails=[[profile[0], 250000], ["ab" * 16 + "-" + "cd" * 8, 1]]))
    exchange = wait_exchange(gateway, trace, lambda x: x["profile"]["app_tail_ns"] is not None)
    assert exchange["profile"]["app_tail_ns"] == 250000


def test_retry(app: HandApp, gateway_factory: Start) -> None:
    """The first attempt's profile is superseded, the last one's joined."""
    first = threading.Event()

    def answer(conn: socket.socket, seen: Seen) -> None:
        seen.start_ns = seen.end_ns = time.monotonic_ns()
        if seen.path == "/x" and not first.is_set():
            first.set()  # a kept-alive connection that dies under the request
            conn.shutdown(socket.SHUT_RDWR)
            return
        conn.sendall(PLAIN)

    app.answer = answer
    gateway = gateway_factory([app.address])
    client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    client.request("GET", "/warm-up")
    client.getresponse().read()
    client.request("GET", "/x")
    response = client.getresponse()
    assert response.status == 200 and response.read() == b"ok"
    client.close()
    lost, made = app.seen[1], app.seen[2]
    assert lost.trace == made.trace and lost.key != made.key
    post(gateway, batch(row(lost), row(made)))
    exchange = wait_exchange(gateway, made.trace, lambda x: x["profile"] is not None)
    assert_sums(exchange)
    assert exchange["span_id"] == made.key[33:]
    assert exchange["connection"]["attempts"] == 2
    wait_for(lambda: outcome(gateway, "superseded") == 1, 5, "superseded")
    assert outcome(gateway, "joined") == 1


def test_client_gone(app: HandApp, gateway_factory: Start) -> None:
    """The client leaves while the app works: the app's part is cut at the end of the exchange."""
    gone = threading.Event()

    def answer(conn: socket.socket, seen: Seen) -> None:
        assert gone.wait(10)
        time.sleep(0.3)
        seen.start_ns = seen.end_ns = time.monotonic_ns()

    app.answer = answer
    gateway = gateway_factory([app.address])
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: app.seen, 5, "the app saw it")
        time.sleep(0.1)
    gone.set()
    seen = app.seen[0]
    wait_for(lambda: seen.end_ns, 5, "the app gave up")
    profile = row(seen, start=None, ended="disconnect", stream_unattributed=0)
    post(gateway, batch(profile))
    exchange = wait_exchange(gateway, seen.trace, lambda x: x["profile"] is not None)
    got = assert_sums(exchange)
    assert exchange["cause"] == "client_abort" and exchange["died_in"] == "wait"
    assert exchange["status"] is None
    assert got["app_clipped_ns"] >= 250_000_000
    assert got["breakdown"][0]["exact"] is False


def test_long_response(app: HandApp, gateway_factory: Start) -> None:
    """Open for over 10 s: shown provisionally, joined from parts; a forged key is orphaned."""
    release = threading.Event()

    def answer(conn: socket.socket, seen: Seen) -> None:
        if seen.path != "/x":
            conn.sendall(PLAIN)
            return
        seen.start_ns = time.monotonic_ns()
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        assert release.wait(30)
        conn.sendall(b"k")
        seen.end_ns = time.monotonic_ns()

    app.answer = answer
    gateway = gateway_factory([app.address], profile={"join_timeout_ms": 500})
    thread = threading.Thread(target=ask, args=(gateway,))
    thread.start()
    seen = wait_for(lambda: app.seen and app.seen[0].start_ns and app.seen[0], 5, "head sent")
    forged = Seen("ab" * 16 + "-" + "cd" * 8, "/", seen.enter_ns, seen.start_ns, seen.start_ns)
    post(gateway, batch(row(forged)))
    exchange = wait_exchange(gateway, seen.trace, lambda x: x["provisional"], timeout_s=20)
    assert exchange["profile_missing"] == "pending"
    assert exchange["total_ns"] >= 10_000_000_000
    middle = time.monotonic_ns()
    sleeping = ["wait", "sleep", 0, middle - seen.start_ns, 1, 1, 0, None, None]
    part = row(seen, final=0, ended="open", end=middle, stream=[sleeping], stream_unattributed=0)
    assert post(gateway, batch(part))[1]["accepted"] == 1
    release.set()
    thread.join()
    wait_for(lambda: seen.end_ns, 5, "the app answered it")
    rest = [*sleeping[:3], seen.end_ns - middle, *sleeping[4:]]
    last = row(seen, part=1, breakdown=[], stream=[rest], stream_unattributed=0)
    assert post(gateway, batch(last))[1]["accepted"] == 1
    exchange = wait_exchange(gateway, seen.trace, lambda x: x["profile"] is not None)
    got = assert_sums(exchange)
    assert exchange["provisional"] is False and exchange["others"] == []
    assert got["parts"] == 2 and got["truncated"] is False
    assert len(got["stream_breakdown"]) == 1
    assert got["app_stream_ns"] == seen.end_ns - seen.start_ns
    wait_for(lambda: outcome(gateway, "orphaned") == 1, 5, "the forged key orphaned")
    assert outcome(gateway, "joined") == 1


def test_many_at_once(app: HandApp, gateway_factory: Start) -> None:
    """200 exchanges from 8 clients, profiles in one shuffled batch: each gets its own."""
    gateway = gateway_factory([app.address])
    app.delay_s = 0.001
    traces: list[str] = []

    def load() -> None:
        for _ in range(25):
            traces.append(ask(gateway))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [
        row(
            seen,
            route=f"GET /{seen.trace}",
            breakdown=[],
            unattributed=seen.start_ns - seen.enter_ns,
        )
        for seen in sorted(app.seen, key=lambda seen: seen.key)
    ]
    status, answer = post(gateway, batch(*rows))
    assert (status, answer.get("accepted")) == (200, 200), answer
    for trace in traces:
        exchange = wait_exchange(gateway, trace, lambda x: x["profile"] is not None)
        assert_sums(exchange)
        assert exchange["route"] == f"GET /{trace}"
    assert outcome(gateway, "joined") == 200
