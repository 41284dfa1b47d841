"""The access log: lines from records, both formats, rotation, a disk that is full or slow."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from handmade import metrics
from harness import Gateway, StubServer, wait_for
from proxy_tools import OK, Connection, get

Factory = Callable[..., Gateway]
Stubs = Callable[..., StubServer]
PHASES = "head admit queue retry connect dispatch send wait reply_head reply stream drain"


def answer_all(conn: socket.socket, _index: int) -> None:
    """Answer every request of a connection."""
    buffered = b""
    while chunk := conn.recv(65536):
        buffered += chunk
        while b"\r\n\r\n" in buffered:
            buffered = buffered.split(b"\r\n\r\n", 1)[1]
            conn.sendall(OK)


def lines_of(path: Path, count: int) -> list[str]:
    """Return the lines once there are `count` of them."""
    return wait_for(
        lambda: lines if len(lines := path.read_text().splitlines()) >= count else None,
        10,
        f"{count} lines in {path}",
    )


def test_json_lines(gateway_factory: Factory, stub_factory: Stubs, tmp_path: Path) -> None:
    """One object per exchange, whose phases sum to its total; refused requests too."""
    path = tmp_path / "new folder" / "access.log"
    gateway = gateway_factory(
        [stub_factory(answer_all).address],
        log={"access": {"path": str(path)}},
        routes=[{"name": "all", "upstream": "app"}],
    )
    with Connection(gateway.port) as client:
        request = get("/a?b=c", "User-Agent: agent\tX", 'Referer: http://x/"y')
        client.send(request.replace(b"\tX", b"\t\xff"))
        trace = client.answer().headers["x-trace-id"]
        client.send(get("/second"))
        client.answer()
    with Connection(gateway.port) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        client.answer()
    with Connection(gateway.port) as client:
        client.send(b"BAD\r\n\r\n")
        client.answer()
    first, second, old, bad = (json.loads(line) for line in lines_of(path, 4))
    assert first["trace_id"] == trace and first["client"] == "127.0.0.1"
    assert (first["method"], first["path"], first["protocol"]) == ("GET", "/a?b=c", "HTTP/1.1")
    assert (first["status"], first["route"], first["upstream"]) == (200, "all", "app")
    assert first["user_agent"] == "agent\t\ufffd" and first["referer"] == 'http://x/"y'
    assert " ".join(first["phases_ns"]) == PHASES
    for line in (first, second, old, bad):
        assert sum(line["phases_ns"].values()) == line["total_ns"]
    assert second["user_agent"] is None and second["client_reused"] is True
    assert (
        "client_reused" not in first
        and first["response_body_bytes"] == second["response_body_bytes"]
    )
    assert old["protocol"] == "HTTP/1.0"
    assert bad["status"] == 400 and bad["local"] is True and bad["cause"]
    assert path.stat().st_mode & 0o777 == 0o640
    assert metrics(gateway)["tailrace_access_log_lines_total"] == 4


def test_combined_lines(gateway_factory: Factory, stub_factory: Stubs, tmp_path: Path) -> None:
    """What a client sends can neither end a line nor a field; long texts are cut."""
    path = tmp_path / "access.log"
    gateway = gateway_factory(
        [stub_factory(answer_all).address],
        env={"TZ": "UTC-5:30"},
        log={"access": {"path": str(path), "format": "combined"}},
    )
    before = int(time.time())
    with Connection(gateway.port) as client:
        request = get("/a", 'User-Agent: a"b\\cX', f"Referer: http://{'r' * 3000}")
        client.send(request.replace(b"cX", b"c\xe9"))
        client.answer()
    (line,) = lines_of(path, 1)
    match = re.fullmatch(
        r'127\.0\.0\.1 - - \[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0530)\] "GET /a HTTP/1\.1" 200 '
        r'(\d+) "(http://r+)" "(.*)"',
        line,
    )
    assert match, line
    when = datetime.strptime(match[1], "%d/%b/%Y:%H:%M:%S %z").timestamp()
    assert before - 1 <= when <= time.time() + 1
    assert len(match[3]) == 1024
    assert match[4] == r"a\x22b\x5Cc\xE9"


@pytest.mark.parametrize("kind", ["rename", "remove"])
def test_rotation(gateway_factory: Factory, stub_factory: Stubs, tmp_path: Path, kind: str) -> None:
    """USR1 opens both logs anew; no line is lost or written twice while requests go on."""
    access, error = tmp_path / "access.log", tmp_path / "error.log"
    gateway = gateway_factory(
        [stub_factory(answer_all).address],
        log={"access": {"path": str(access)}, "error": {"path": str(error)}},
    )
    stop = threading.Event()
    sent: list[str] = []

    def load() -> None:
        with Connection(gateway.port) as client:
            while not stop.is_set():
                client.send(get())
                sent.append(client.answer().headers["x-trace-id"])

    thread = threading.Thread(target=load)
    thread.start()
    rotated = []
    for n in range(3):
        lines_of(access, 20)
        old = tmp_path / f"access.log.{n}"
        os.rename(access, old)
        rotated.append(old)
        if kind == "remove":
            error.unlink()
        else:
            os.rename(error, tmp_path / f"error.log.{n}")
        os.kill(gateway.process.pid, signal.SIGUSR1)
        wait_for(lambda: access.exists() and error.exists(), 5, "new files")
    lines_of(access, 20)
    stop.set()
    thread.join(10)
    assert gateway.stop() == 0
    seen = [
        json.loads(line)["trace_id"]
        for path in (*rotated, access)
        for line in path.read_text().splitlines()
    ]
    assert sorted(seen) == sorted(sent)
    # The children found the new file too: their last words are in it.
    assert "worker ended" in error.read_text() and "stopped" in error.read_text()
    assert re.search(r"worker 1\[\d+\]: draining", error.read_text())
    assert "draining" not in gateway.log()


def test_full_disk(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """Lines that the disk refuses are counted; requests do not notice."""
    gateway = gateway_factory(
        [stub_factory(answer_all).address], log={"access": {"path": "/dev/full"}}
    )
    with Connection(gateway.port) as client:
        for _ in range(50):
            client.send(get())
            assert client.answer().status == 200
    lost = 'tailrace_access_log_dropped_total{reason="file"}'
    wait_for(lambda: metrics(gateway)[lost] == 50, 10, "lost lines")
    assert metrics(gateway)["tailrace_access_log_lines_total"] == 0
    assert gateway.log().count("lines are lost") == 1


@pytest.fixture
def stuck_pipe(tmp_path: Path) -> Iterator[Path]:
    """Yield a pipe whose reader never reads."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path
    with contextlib.suppress(OSError):
        os.close(reader)


def test_slow_reader(gateway_factory: Factory, stub_factory: Stubs, stuck_pipe: Path) -> None:
    """A log that takes nothing more is in nobody's way: not a request's, nor the end's."""
    gateway = gateway_factory(
        [stub_factory(answer_all).address], log={"access": {"path": str(stuck_pipe)}}
    )
    with Connection(gateway.port) as client:
        start = time.monotonic()
        for _ in range(300):
            client.send(get("/" + "x" * 1000))
            assert client.answer().status == 200
        assert time.monotonic() - start < 10
    wait_for(lambda: metrics(gateway)["tailrace_records_read_total"] >= 300, 10, "records are read")
    start = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - start < 9


def test_file_that_cannot_be_opened(gateway_starter: Factory) -> None:
    """A gateway whose logs cannot be written does not start, and says why."""
    for log, text in (
        ({"access": {"path": "/proc/nowhere/x"}}, "access log /proc/nowhere/x: "),
        ({"error": {"path": "/proc/nowhere/x"}}, "/proc/nowhere/x: the log cannot be opened"),
    ):
        with pytest.raises(AssertionError) as caught:
            gateway_starter(["127.0.0.1:1"], log=log)
        assert text in str(caught.value)


def test_start_that_fails_is_said_where_it_was_started(
    gateway_starter: Factory, tmp_path: Path
) -> None:
    """With a log file too: who starts the program sees why it does not."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AssertionError) as caught:
            gateway_starter(
                ["127.0.0.1:1"],
                listener={"address": address},
                log={"error": {"path": str(tmp_path / "error.log")}},
            )
    assert "Address already in use" in str(caught.value)
    assert "Address already in use" in (tmp_path / "error.log").read_text()
