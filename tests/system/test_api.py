"""The control API of the real gateway: lists, routes, health, metrics, errors of one shape."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from handmade import HandApp, Seen, batch, metrics, post, row, wait_exchange
from harness import Gateway, start_gateway, wait_for

Start = Callable[..., Gateway]
PHASES = [
    *("head", "admit", "queue", "retry", "connect", "dispatch", "send", "wait"),
    *("reply_head", "reply", "stream", "drain"),
]


def ask(gateway: Gateway, path: str = "/x", traceparent: str | None = None) -> str:
    """One request through the gateway; its trace ID."""
    headers = {"traceparent": traceparent} if traceparent else {}
    request = urllib.request.Request(gateway.base + path, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        response.read()
        return str(response.headers["X-Trace-Id"])


def joined(gateway: Gateway, app: HandApp, route: str, delay_s: float) -> str:
    """One request of a route, joined; its trace ID."""
    app.delay_s = delay_s
    trace = ask(gateway)
    seen = wait_for(lambda: [s for s in app.seen if s.trace == trace and s.end_ns], 5, "seen")[-1]
    post(gateway, batch(row(seen, route=route)))
    wait_exchange(gateway, trace, lambda x: x["profile"] is not None)
    return trace


@pytest.fixture(scope="module")
def app() -> Iterator[HandApp]:
    """One scripted app for all tests here."""
    server = HandApp().start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def gateway(app: HandApp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all tests here; it trusts its clients' trace IDs."""
    gateway = start_gateway(
        tmp_path_factory.mktemp("api"),
        [app.address],
        profile={"join_timeout_ms": 300},
        trace={"trust": "always"},
    )
    yield gateway
    gateway.stop()


def test_request(gateway: Gateway, app: HandApp) -> None:
    """The keys of docs/api.md, their order of phases, times that agree with this clock."""
    before = time.time_ns()
    exchange = gateway.json(f"/api/v1/requests/{joined(gateway, app, 'GET /one', 0.01)}")
    assert [phase["name"] for phase in exchange["phases"]] == PHASES
    assert exchange["method"] == "GET" and exchange["path"] == "/x"
    assert exchange["status"] == 200
    assert exchange["died_in"] is None and exchange["cause"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", exchange["start"])
    start = time.strptime(exchange["start"][:19], "%Y-%m-%dT%H:%M:%S")
    assert before // 10**9 - 1 <= time.mktime(start) - time.timezone <= time.time() + 1
    connection = exchange["connection"]
    assert connection["server"] == app.address
    assert re.fullmatch(r"127\.0\.0\.1:\d+", connection["client"])
    assert connection["client_reused"] is False and connection["attempts"] == 1
    assert set(exchange["profile"]) >= {
        "engine", "clock", "clock_slack_ns", "python", "loop", "pid", "instance", "hook_version",
        "app_queue_ns", "task_queue_ns", "app_ns", "app_out_ns", "app_stream_ns", "app_tail_ns",
        "cpu_ns", "ended", "truncated", "breakdown", "unattributed_ns", "stream_breakdown",
        "stream_unattributed_ns", "stalls", "threads", "lanes", "deep",
    }  # fmt: skip


def test_span_and_others(gateway: Gateway) -> None:
    """A trusted client repeats a trace ID: newest first, others listed, ?span= picks."""
    trace = "12" * 16
    for _ in range(3):
        assert ask(gateway, traceparent=f"00-{trace}-00f067aa0ba902b7-01") == trace
    newest = wait_exchange(gateway, trace, lambda x: len(x["others"]) == 2)
    others = newest["others"]
    assert newest["start"] > others[0]["start"] > others[1]["start"]
    for other in others:
        picked = gateway.json(f"/api/v1/requests/{trace}?span={other['span_id']}")
        assert picked["span_id"] == other["span_id"]
        assert len(picked["others"]) == 2
    assert gateway.api(f"/api/v1/requests/{trace}?span={'1' * 16}")[0] == 404


def test_lists(gateway: Gateway, app: HandApp) -> None:
    """Sorted, filtered, limited; pending ones are in it, and profiles show."""
    slow = joined(gateway, app, "GET /slow", 0.15)
    fast = [joined(gateway, app, "GET /fast", 0.0) for _ in range(3)]
    latest = gateway.json("/api/v1/requests?sort=latest&limit=3")["requests"]
    assert [entry["trace_id"] for entry in latest] == fast[::-1]
    slowest = gateway.json("/api/v1/requests?sort=slowest")["requests"]
    assert slowest[0]["trace_id"] == slow
    times = [entry["total_ns"] for entry in slowest]
    assert times == sorted(times, reverse=True)
    route = urllib.parse.quote("GET /fast")
    some = gateway.json(f"/api/v1/requests?route={route}")["requests"]
    assert {entry["trace_id"] for entry in some} == set(fast)
    assert all(entry["has_profile"] and entry["status"] == 200 for entry in some)
    assert gateway.json("/api/v1/requests?route=nothing")["requests"] == []
    pending = ask(gateway)
    wait_exchange(gateway, pending, lambda _: True)
    first = gateway.json("/api/v1/requests?limit=1")["requests"][0]
    assert (first["trace_id"], first["has_profile"]) == (pending, False)
    wait_exchange(gateway, pending, lambda x: x["profile_missing"] != "pending")
    again = gateway.json("/api/v1/requests?limit=1000")["requests"]
    assert [entry["trace_id"] for entry in again].count(pending) == 1


def test_routes(gateway: Gateway, app: HandApp) -> None:
    """Counts, quantiles and mean phases of a route agree with its exchanges."""
    traces = [
        joined(gateway, app, "GET /routes-test", delay / 1000) for delay in (1, 5, 10, 20, 60)
    ]
    exchanges = [gateway.json(f"/api/v1/requests/{trace}") for trace in traces]
    totals = sorted(exchange["total_ns"] for exchange in exchanges)
    for window in ("", "?window=5m", "?window=90", "?window=2d"):
        routes = gateway.json("/api/v1/routes" + window)["routes"]
        route = next(entry for entry in routes if entry["route"] == "GET /routes-test")
        assert (route["requests"], route["errors"], route["joined_ratio"]) == (5, 0, 1.0)
        assert route["max_ns"] == totals[-1] == route["p99_ns"]
        assert abs(route["p50_ns"] / totals[2] - 1) < 0.0115
        assert list(route["phases_mean_ns"]) == PHASES
        for index, name in enumerate(PHASES):
            mean = sum(exchange["phases"][index]["ns"] for exchange in exchanges) // 5
            assert route["phases_mean_ns"][name] == mean


def test_errors(gateway: Gateway) -> None:
    """Every error has the one shape and a clear status."""
    cases: list[tuple[str, str, int]] = [
        ("GET", "/nothing", 404),
        ("POST", "/", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/requests/" + "0" * 31 + "g", 400),
        ("GET", "/api/v1/requests/abc", 400),
        ("GET", "/api/v1/requests/" + "ab" * 16, 404),
        ("GET", "/api/v1/requests/" + "ab" * 16 + "?span=x", 400),
        ("GET", "/api/v1/requests?limit=0", 400),
        ("GET", "/api/v1/requests?limit=1001", 400),
        ("GET", "/api/v1/requests?limit=-1", 400),
        ("GET", "/api/v1/requests?sort=best", 400),
        ("GET", "/api/v1/routes?window=1y", 400),
        ("GET", "/api/v1/routes?window=0", 400),
        ("POST", "/api/v1/requests", 405),
        ("DELETE", "/healthz", 405),
        ("GET", "/v1/profiles", 405),
    ]
    for method, path, expected in cases:
        status, headers, body = gateway.api(path, method)
        assert status == expected, (method, path, status, body)
        assert headers["content-type"] == "application/json"
        error = json.loads(body)["error"]
        assert set(error) == {"code", "message", "pointer"} and error["message"]
        assert status != 405 or headers["allow"]
    status, headers, body = gateway.api("/healthz", "HEAD")
    assert (status, body, headers["content-length"]) == (200, b"", "15")


def test_clients_that_leave(gateway: Gateway) -> None:
    """Clients that hang up while their query runs harm nobody."""
    ask(gateway)
    asked = b"GET /api/v1/requests?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n"
    for count in range(60):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(gateway.control)
            sock.sendall(asked * (1 + count % 3))
    collector = gateway.collector_pid()
    assert gateway.json("/api/v1/requests?limit=1")["requests"]
    assert gateway.collector_pid() == collector
    assert metrics(gateway)['tailrace_restarts_total{process="collector"}'] == 0


def test_out_of_descriptors(app: HandApp, gateway_factory: Start) -> None:
    """A collector that cannot accept waits without spinning, and serves again when it can."""
    gateway = gateway_factory([app.address])
    pid = gateway.collector_pid()
    open_now = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now + 2, open_now + 2))

    def cpu_ticks() -> int:
        with open(f"/proc/{pid}/stat") as stat:
            return sum(int(n) for n in stat.read().rpartition(")")[2].split()[11:13])

    clients = []
    for _ in range(8):
        clients.append(socket.socket(socket.AF_UNIX))
        clients[-1].connect(gateway.control)
    time.sleep(0.2)
    before = cpu_ticks()
    time.sleep(2)
    assert cpu_ticks() - before < os.sysconf("SC_CLK_TCK"), "over half a core for nothing"
    for client in clients:
        client.close()
    assert gateway.json("/healthz")
    assert gateway.collector_pid() == pid


def test_metrics(gateway: Gateway, app: HandApp) -> None:
    """Every family has HELP and TYPE before its samples, histograms are cumulative and agree."""
    joined(gateway, app, 'GET /quo"ted\\{x}', 0.02)
    text = gateway.api("/metrics")[2].decode()
    types: dict[str, str] = {}
    seen: set[str] = set()
    sample = re.compile(r'([a-z_]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+\})? [0-9.e+-]+')
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in types and len(line.split(" ", 3)[3]) > 3
        elif line.startswith("# TYPE "):
            types[line.split(" ")[2]] = line.split(" ")[3]
        else:
            match = sample.fullmatch(line)
            assert match is not None, line
            family = re.sub(r"_(bucket|sum|count)$", "", match[1])
            family = family if types.get(family) in ("histogram", "summary") else match[1]
            assert family in types, line
            assert types[family] != "counter" or match[1].endswith("_total"), line
            assert line.rpartition(" ")[0] not in seen, f"twice: {line}"
            seen.add(line.rpartition(" ")[0])
    values = metrics(gateway)
    label = 'route="GET /quo\\"ted\\\\{x}"'
    name = "tailrace_request_duration_seconds"
    assert values[f"{name}_count{{{label}}}"] == 1
    assert 0.02 <= values[f"{name}_sum{{{label}}}"] < 5
    buckets = [v for k, v in values.items() if k.startswith(f"{name}_bucket{{{label},le=")]
    assert buckets == sorted(buckets) and buckets[-1] == 1
    assert values[f'tailrace_requests_total{{{label},code="200"}}'] == 1
    total = sum(v for k, v in values.items() if k.startswith(f"{name}_count{{"))
    wait_phase = 'tailrace_phase_duration_seconds_count{upstream="app",phase="wait"}'
    assert values[wait_phase] == total
    assert values["tailrace_records_dropped_total"] == 0


def test_ready_while_draining(gateway_factory: Start) -> None:
    """Ready while it serves; 503 with its reason once the gateway stops, alive to the end."""
    release = threading.Event()

    def answer(conn: Any, seen: Seen) -> None:
        assert release.wait(20)
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    app = HandApp(answer=answer).start()
    gateway = gateway_factory([app.address])
    assert gateway.api("/readyz")[0] == 200 and gateway.api("/healthz")[0] == 200
    thread = threading.Thread(target=ask, args=(gateway,))
    thread.start()
    wait_for(lambda: app.seen, 5, "the app saw it")
    gateway.process.terminate()
    _, _, body = wait_for(lambda: (a := gateway.api("/readyz"))[0] == 503 and a, 5, "not ready")
    assert json.loads(body)["error"]["code"] in ("stopping", "no_worker")
    assert gateway.api("/healthz")[0] == 200
    release.set()
    thread.join()
    assert gateway.process.wait(20) == 0
    app.stop()


def test_unanswered(gateway_factory: Start) -> None:
    """No app behind the gateway: the local answer is an exchange too, and an error of its route."""
    app = HandApp().start()
    address = app.address
    app.stop()
    gateway = gateway_factory([address])
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(gateway)
    trace = caught.value.headers["X-Trace-Id"]
    exchange = wait_exchange(gateway, trace, lambda x: x["profile_missing"] == "no_hook")
    assert exchange["status"] == 502 and exchange["cause"] == "upstream_connect_failed"
    assert exchange["route"] == "GET (no route)"
    assert sum(phase["ns"] for phase in exchange["phases"]) == exchange["total_ns"]
    route = gateway.json("/api/v1/routes")["routes"][0]
    assert (route["route"], route["errors"]) == ("GET (no route)", 1)
