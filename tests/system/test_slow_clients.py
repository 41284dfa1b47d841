"""slowhttptest: many slow heads, bodies and readers at once; others are served all the while."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable

import pytest
from harness import Gateway, StubServer
from proxy_tools import Connection, get, read_head

GatewayFactory = Callable[..., Gateway]
StubFactory = Callable[..., StubServer]

KINDS = {
    "heads": ["-H"],
    "bodies": ["-B", "-s", "8192"],
    "readers": ["-X", "-k", "3", "-w", "10", "-y", "20", "-z", "32", "-n", "1"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_survival(gateway_factory: GatewayFactory, stub_factory: StubFactory, kind: str) -> None:
    """100 slow clients for some seconds: everybody else is answered, and nothing stays behind."""
    program = shutil.which("slowhttptest")
    assert program, "slowhttptest is missing: make deps-test (Debian's slowhttptest)"

    def handler(conn: socket.socket, _index: int) -> None:
        body = b"x" * 200_000
        while True:
            read_head(conn)
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + body)

    gateway = gateway_factory(
        [stub_factory(handler).address],
        limits={"head_timeout_ms": 1500, "body_idle_timeout_ms": 1500},
    )
    (worker,) = gateway.worker_pids()
    url = f"{gateway.base}/"
    command = [program, *KINDS[kind], "-c", "100", "-r", "100", "-i", "1", "-l", "4", "-p", "3"]
    slow = subprocess.Popen(
        [*command, "-u", url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        asked = 0
        while slow.poll() is None:
            with Connection(gateway.port, 5) as client:
                client.send(get())
                assert client.answer().status == 200
            asked += 1
        assert asked > 50
    finally:
        slow.kill()
        slow.wait(10)
    assert gateway.worker_pids() == [worker]
