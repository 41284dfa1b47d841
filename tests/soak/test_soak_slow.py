"""1 000 slow heads, bodies and readers: the p99 of other clients is at most twice that without."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable

import pytest
from harness import Gateway, StubServer
from proxy_tools import Connection, get, read_head

KINDS = {
    "heads": ["-H"],
    "bodies": ["-B", "-s", "8192"],
    "readers": ["-X", "-k", "3", "-w", "10", "-y", "20", "-z", "32", "-n", "1"],
}
SECONDS = 20
FLOOR_S = 0.002  # below it, scheduling alone makes a factor of two


def _serve(conn: socket.socket, _index: int) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    small = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    while True:
        conn.sendall(small if b" /small " in read_head(conn) else answer)


def _p99(port: int, until: Callable[[], bool]) -> float:
    took = []
    with Connection(port, 10) as client:
        while not until():
            started = time.perf_counter()
            client.send(get("/small"))
            assert client.answer().status == 200
            took.append(time.perf_counter() - started)
            time.sleep(0.002)
    assert len(took) > 500
    return sorted(took)[len(took) * 99 // 100]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_others_are_served(
    gateway_factory: Callable[..., Gateway], stub_factory: Callable[..., StubServer], kind: str
) -> None:
    """The slow ones cost memory and descriptors, not time."""
    program = shutil.which("slowhttptest")
    assert program, "slowhttptest is missing: make deps-test"
    gateway = gateway_factory([stub_factory(_serve).address], upstream={"max_connections": 2000})
    end = time.monotonic() + SECONDS / 2
    without = _p99(gateway.port, lambda: time.monotonic() > end)
    url = f"{gateway.base}/"
    command = [program, *KINDS[kind], "-c", "1000", "-r", "500", "-i", "5", "-l", str(SECONDS)]
    slow = subprocess.Popen(
        [*command, "-p", "5", "-u", url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        beside = _p99(gateway.port, lambda: slow.poll() is not None)
    finally:
        slow.kill()
        slow.wait(10)
    print(f"{kind}: p99 {without * 1e3:.2f} ms without, {beside * 1e3:.2f} ms beside")
    assert beside <= 2 * max(without, FLOOR_S)
