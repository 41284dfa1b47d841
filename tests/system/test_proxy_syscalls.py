"""What a keep-alive exchange costs in system calls, counted by strace on the worker."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Gateway, StubServer
from proxy_tools import OK, Connection, get, read_head, request_bytes

GatewayFactory = Callable[..., Gateway]
StubFactory = Callable[..., StubServer]

EXCHANGES = 500
WARM_UP = 20
# Besides what an exchange costs: random bytes, bought 4 KiB at a time.
SPARE = 12


def _serve(conn: socket.socket, _index: int) -> None:
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        read_head(conn)
        conn.sendall(OK)


def _count(trace: Path) -> Counter[str]:
    calls: Counter[str] = Counter()
    for line in trace.read_text().splitlines():
        name = line.split("(")[0].split()[-1]
        if name.isidentifier():
            calls[name] += 1
    return calls


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("threads", [1, 2])
def test_system_calls_per_exchange(
    gateway_factory: GatewayFactory,
    stub_factory: StubFactory,
    tmp_path: Path,
    method: str,
    threads: int,
) -> None:
    """Exactly 2 reads and 2 writes, no epoll_ctl, no clock call, one epoll_wait per event."""
    gateway = gateway_factory([stub_factory(_serve).address], worker={"threads": threads})
    (worker,) = gateway.worker_pids()
    trace = tmp_path / "trace"
    request = get() if method == "GET" else request_bytes("POST", "/", body=b"x" * 500)
    with Connection(gateway.port) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def exchange(times: int) -> None:
            for _ in range(times):
                client.send(request)
                assert client.answer().status == 200

        exchange(WARM_UP)
        strace = subprocess.Popen(
            ["strace", "-f", "-o", str(trace), "-p", str(worker)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert strace.stderr is not None
        assert "attached" in strace.stderr.readline()
        time.sleep(0.1)
        exchange(EXCHANGES)
        strace.send_signal(signal.SIGINT)
        strace.wait(10)
    calls = _count(trace)
    reads = sum(calls[name] for name in ("read", "readv", "recvfrom", "recvmsg"))
    writes = sum(calls[name] for name in ("write", "writev", "sendto", "sendmsg"))
    assert (reads, writes) == (2 * EXCHANGES, 2 * EXCHANGES), calls
    assert calls["epoll_ctl"] == 0
    waits = calls["epoll_wait"] + calls["epoll_pwait"] + calls["epoll_pwait2"]
    assert 2 * EXCHANGES <= waits <= 2.05 * EXCHANGES, calls
    others = sum(calls.values()) - reads - writes - waits
    assert others <= SPARE, calls
