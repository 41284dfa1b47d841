"""/api/v1/status, /api/v1/config and /api/v1/live of the real gateway."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from handmade import HandApp, batch, metrics, post, process, row
from harness import Gateway, start_gateway, wait_for

SUBSCRIBERS_MAX = 32
BUFFER_MAX = 256 << 10
SECRET = "s3cr3t-path-of-a-webhook"


class Events:
    """A reader of the event stream over the control socket; reads only when asked."""

    def __init__(self, gateway: Gateway, query: str = "", rcvbuf: int = 0) -> None:
        """Ask for the stream. Raises AssertionError where there is none."""
        self.sock = socket.socket(socket.AF_UNIX)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(10)
        self.sock.connect(gateway.control)
        self.sock.sendall(f"GET /api/v1/live{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.raw = b""
        self.nibbled = 0
        while b"\r\n\r\n" not in self.raw:
            self.raw += self._more()
        head, _, self.raw = self.raw.partition(b"\r\n\r\n")
        self.status = int(head.split(b" ")[1])
        self.head = head.decode().lower()
        assert self.status == 200, head + self.raw
        self.text = ""

    def _more(self) -> bytes:
        data = self.sock.recv(1 << 20)
        assert data, "the stream ended"
        return data

    def _dechunk(self) -> None:
        while True:
            size, found, rest = self.raw.partition(b"\r\n")
            if not found or len(rest) < int(size, 16) + 2:
                return
            self.text += rest[: int(size, 16)].decode()
            self.raw = rest[int(size, 16) + 2 :]

    def nibble(self) -> None:
        """Read a little: who takes nothing for 30 s is disconnected."""
        self.sock.settimeout(10)
        data = self.sock.recv(32768)
        assert data, "the stream ended"
        self.raw += data
        self.nibbled += len(data)

    def take(self, seconds: float) -> list[tuple[str, Any]]:
        """All events that come within that time: (name, data)."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                self.raw += self._more()
            except TimeoutError:
                break
            self._dechunk()
        *whole, self.text = self.text.split("\n\n")
        found = []
        for event in whole:
            lines = dict(line.split(": ", 1) for line in event.split("\n") if ": " in line)
            if "event" in lines:
                found.append((lines["event"], json.loads(lines["data"])))
        return found

    def close(self) -> None:
        """Leave."""
        self.sock.close()


def ask(gateway: Gateway, path: str = "/x", count: int = 1) -> None:
    """`count` requests over one connection."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as sock:
        for _ in range(count):
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"ok"):
                answer += sock.recv(65536)


@pytest.fixture(scope="module")
def app() -> Iterator[HandApp]:
    """One scripted app for all tests here."""
    server = HandApp().start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def gateway(app: HandApp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all tests here."""
    hook = f"https://hooks.example:8443/services/{SECRET}?key={SECRET}"
    gateway = start_gateway(
        tmp_path_factory.mktemp("status"),
        [app.address],
        profile={"join_timeout_ms": 300},
        alerts={"receivers": {"chat": {"type": "slack", "url": hook}}},
    )
    yield gateway
    gateway.stop()


def test_status(gateway: Gateway, app: HandApp) -> None:
    """Processes with their cost, what was joined, the hook that posted, the store."""
    before = gateway.json("/api/v1/status")["exchanges"]["ended"]
    ask(gateway)
    seen = wait_for(lambda: [s for s in app.seen if s.end_ns], 5, "seen")[-1]
    post(gateway, batch(row(seen, route="GET /x"), process=process(version="v7")))
    status = wait_for(
        lambda: (s := gateway.json("/api/v1/status"))["profiles"]["joined"] and s, 5, "joined"
    )
    assert [p["role"] for p in status["processes"]] == ["supervisor", "worker", "collector"]
    assert all(p["rss_bytes"] > 1 << 20 and p["cpu_s"] >= 0 for p in status["processes"])
    assert {p["state"] for p in status["processes"]} == {"running"}
    assert status["processes"][1]["pid"] in gateway.worker_pids()
    assert status["exchanges"]["ended"] == before + 1
    assert status["cost"]["rss_bytes"] == sum(p["rss_bytes"] for p in status["processes"])
    assert status["restarts"] == {"worker": 0, "collector": 0}
    assert not any(status["drops"].values()), status["drops"]
    (hook,) = status["hooks"]
    assert hook["hook_version"] == "0.1.0" and hook["version"] == "v7"
    assert hook["profiles"] == 1 and hook["heard_s"] < 5
    store = status["store"]
    assert store["path"] == str(gateway.store) and store["writable"] is True
    assert 0 <= store["queued"] <= store["queue_max"]
    assert status["lately"]["sent"] >= status["lately"]["joined"]


def test_lately(gateway: Gateway) -> None:
    """A minute's exchanges and how many of them were joined, the running second left out."""
    ask(gateway, count=5)
    wait_for(lambda: gateway.json("/api/v1/status")["lately"]["exchanges"] >= 5, 5, "counted")
    lately = gateway.json("/api/v1/status")["lately"]
    assert 0 <= lately["joined_ratio"] < 1
    assert lately["requests_per_s"] == pytest.approx(lately["exchanges"] / lately["span_s"], 1e-3)


def test_config(gateway: Gateway) -> None:
    """What the file says, what it leaves out, and nothing of what is secret."""
    answer = gateway.json("/api/v1/config")
    config = answer["config"]
    assert answer["serial"] == 1
    assert config["listeners"][0]["address"] == gateway.config["listeners"][0]["address"]
    assert config["profile"]["join_timeout_ms"] == 300
    assert config["upstreams"]["app"]["queue_max"] == 1024
    assert config["alerts"]["receivers"]["chat"]["url"] == "https://hooks.example:8443/…"
    assert SECRET not in json.dumps(answer)
    schema = json.loads((Path(__file__).parents[2] / "conf/tailrace.schema.json").read_text())
    assert set(schema["properties"]) - {"$schema"} == set(config)


def test_live(gateway: Gateway) -> None:
    """Each exchange once it ended, as an entry of /requests with its phases."""
    events = Events(gateway)
    assert events.status == 200 and "text/event-stream" in events.head
    ask(gateway, "/live?x=%22%0a", 3)
    found = [data for name, data in events.take(1.5) if name == "exchange"]
    assert [e["path"] for e in found] == ["/live?x=%22%0a"] * 3
    for each in found:
        assert sum(each["phases_ns"].values()) == each["total_ns"]
        assert each["status"] == 200 and each["method"] == "GET"
    listed = gateway.json("/api/v1/requests?limit=3")["requests"]
    assert {e["trace_id"] for e in found} == {e["trace_id"] for e in listed}
    events.close()


def test_live_filters(gateway: Gateway, app: HandApp) -> None:
    """By route, by a part of its name, by duration; at most so many a second, the rest told."""
    readers = {
        "route": Events(gateway, "?route=GET%20(no%20route)"),
        "other": Events(gateway, "?route=GET%20/none"),
        "contains": Events(gateway, "?contains=NO%20RO"),
        "slow": Events(gateway, "?min_ms=60000"),
        "rate": Events(gateway, "?per_s=2"),
    }
    ask(gateway, "/f", 10)
    time.sleep(1.2)
    got = {name: events.take(1) for name, events in readers.items()}
    names = {k: [n for n, _ in v] for k, v in got.items()}
    assert names["route"] == names["contains"] == ["exchange"] * 10
    assert names["other"] == names["slow"] == []
    assert (
        names["rate"].count("exchange") + sum(d["count"] for n, d in got["rate"] if n == "skipped")
        == 10
    )
    assert 2 <= names["rate"].count("exchange") <= 6
    for events in readers.values():
        events.close()
    for wrong in ("min_ms=-1", "min_ms=x", "per_s=10001", "route=" + "x" * 600):
        status, _, body = gateway.api(f"/api/v1/live?{wrong}")
        assert status == 400 and json.loads(body)["error"]["code"] == "bad_query"
    assert gateway.api("/api/v1/live", "POST", b"")[0] == 405


def test_live_tells_what_was_skipped_while_requests_come(gateway: Gateway) -> None:
    """How many were left out is told second by second, though there is no quiet one."""
    events = Events(gateway, "?per_s=2")
    sent, told, told_meanwhile = 0, 0, 0
    end = time.monotonic() + 3.3

    def load() -> None:
        nonlocal sent
        while time.monotonic() < end:
            ask(gateway, "/s", 10)
            sent += 10

    asking = threading.Thread(target=load)
    asking.start()
    while told < sent or asking.is_alive():
        told += sum(data.get("count", 1) for _, data in events.take(0.1))
        if asking.is_alive():
            told_meanwhile = told
        assert time.monotonic() < end + 10, f"{told} of {sent} were told of"
    events.close()
    asking.join()
    assert told == sent
    assert told_meanwhile >= sent // 2, "one second's may be to come"


def test_live_tells_what_was_skipped_once_a_second(gateway: Gateway) -> None:
    """How many were left out is told when their second is over, not beside its first event."""
    events = Events(gateway, "?per_s=1")
    time.sleep(1.1)  # the next event begins a second of its own
    ask(gateway, "/s", 10)
    names: list[str] = []
    end = time.monotonic() + 10
    while "exchange" not in names and time.monotonic() < end:
        names += [name for name, _ in events.take(0.05)]
    assert names == ["exchange"]
    skipped = 0
    while skipped < 9 and time.monotonic() < end:
        more = events.take(0.2)
        names += [name for name, _ in more]
        skipped += sum(data["count"] for name, data in more if name == "skipped")
    assert skipped + names.count("exchange") == 10
    events.close()


def test_live_readers_are_bounded(gateway: Gateway) -> None:
    """32 readers; the 33rd is told so; one that leaves makes room."""
    before = metrics(gateway).get("tailrace_live_refused_total", 0)
    wait_for(lambda: gateway.json("/api/v1/status")["live"]["subscribers"] == 0, 10, "all gone")
    readers = [Events(gateway) for _ in range(SUBSCRIBERS_MAX)]
    status, headers, body = gateway.api("/api/v1/live")
    assert status == 503 and headers["retry-after"]
    assert json.loads(body)["error"]["code"] == "busy"
    assert metrics(gateway)["tailrace_live_refused_total"] == before + 1
    readers.pop().close()
    wait_for(
        lambda: gateway.json("/api/v1/status")["live"]["subscribers"] == SUBSCRIBERS_MAX - 1,
        10,
        "one is gone",
    )
    for reader in [*readers, Events(gateway)]:
        reader.close()
    Events(gateway).close()  # in their place, at once


def told_all(events: Events, count: int) -> tuple[list[dict[str, Any]], int]:
    """What the reader was sent of that many exchanges, and how many it was told it lost."""
    exchanges: list[dict[str, Any]] = []
    dropped = 0
    end = time.monotonic() + 20
    while len(exchanges) + dropped < count and time.monotonic() < end:
        for name, data in events.take(0.05):
            if name == "exchange":
                exchanges.append(data)
            elif name == "dropped":
                dropped += data["count"]
    assert len(exchanges) + dropped == count
    return exchanges, dropped


def test_live_reader_that_lags(gateway: Gateway) -> None:
    """Who does not read loses events beyond his buffer, is told how many, and goes on."""
    before = metrics(gateway)["tailrace_live_dropped_total"]
    slow = Events(gateway)
    quick = Events(gateway)
    path = "/" + "p" * 250
    sent = 0
    end = time.monotonic() + 30

    def send(count: int) -> None:
        """Until the other reader has them all: what is lost is the slow one's."""
        ask(gateway, path, count)
        assert told_all(quick, count)[1] == 0

    while metrics(gateway)["tailrace_live_dropped_total"] == before and time.monotonic() < end:
        send(200)
        slow.nibble()
        sent += 200
    send(50)
    sent += 50
    quick.close()
    exchanges, dropped = told_all(slow, sent)
    assert dropped > 0
    size = sum(len(json.dumps(e, separators=(",", ":"))) + 30 for e in exchanges)
    # And what the kernel held.
    assert BUFFER_MAX * 0.9 < size < BUFFER_MAX + (1 << 20) + slow.nibbled
    ask(gateway, "/after", 1)
    assert [e["path"] for e in told_all(slow, 1)[0]] == ["/after"]
    slow.close()


def test_live_reader_that_sends(gateway: Gateway) -> None:
    """What a reader sends is no request: 4 KiB may wait, one more byte ends the stream."""
    reader = Events(gateway)
    before = metrics(gateway).get('tailrace_live_closed_total{reason="reader_sent"}', 0)
    reader.sock.sendall(b"x" * 4096)
    assert reader.take(0.3) == []
    reader.sock.sendall(b"x")
    tail = b""
    with contextlib.suppress(ConnectionResetError):  # of what nobody read
        while data := reader.sock.recv(65536):
            tail += data
    assert b'event: end\ndata: {"reason":"reader_sent"}\n\n' in tail
    assert metrics(gateway)['tailrace_live_closed_total{reason="reader_sent"}'] == before + 1
    reader.close()


def test_stop_ends_streams(tmp_path: Path, app: HandApp) -> None:
    """An open stream does not hold up the gateway's end."""
    gateway = start_gateway(tmp_path, [app.address])
    events = Events(gateway)
    began = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - began < 8
    tail = b""
    events.sock.settimeout(5)
    while data := events.sock.recv(65536):
        tail += data
    assert b'"stopping"' in tail and tail.endswith(b"0\r\n\r\n")
    events.close()


def test_head_and_probe(gateway: Gateway) -> None:
    """HEAD has no body, and what asks with another method is told which there are."""
    for path in ("/api/v1/status", "/api/v1/config"):
        status, _, body = gateway.api(path, "HEAD")
        assert status == 200 and body == b""
        assert gateway.api(path, "POST", b"{}")[0] == 405
    with urllib.request.urlopen(gateway.base + "/api/v1/status") as response:
        assert response.read() == b"ok"  # the app's: nothing of this is on the public listener
