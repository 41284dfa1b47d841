"""1 000 slow heads, bodies and readers: the p99 of other clients is at most twice that without.

The app is a uvicorn of its own, so that nothing but the gateway stands between the client that
measures and the app; the same client asks the app directly too, which tells whose a delay is.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable

import pytest
from harness import AppServer, Gateway
from proxy_tools import Connection, get

#: What slowhttptest does, and how many connections it opens in a second. A slow reader's answer is
#: larger than all buffers between it and the app: what fits in them is sent at full speed when it
#: comes, so that those come more slowly.
KINDS = {
    "heads": (500, ["-H"]),
    "bodies": (500, ["-B", "-s", "8192"]),
    "readers": (100, ["-X", "-k", "1", "-w", "10", "-y", "20", "-z", "32", "-n", "1"]),
}
SLOW = 1000
READERS_BYTES = 1_000_000
SECONDS = 30
FLOOR_S = 0.002  # below it, scheduling alone makes a factor of two


def _p99(ports: list[int], until: Callable[[], bool]) -> list[float]:
    """Seconds by port, asked in turn."""
    took: list[list[float]] = [[] for _ in ports]
    clients = [Connection(port, 10) for port in ports]
    try:
        while not until():
            for client, times in zip(clients, took, strict=True):
                started = time.perf_counter()
                client.send(get("/2"))
                assert client.answer().status == 200
                times.append(time.perf_counter() - started)
            time.sleep(0.002)
    finally:
        for client in clients:
            client.sock.close()
    assert all(len(times) > 500 for times in took)
    return [sorted(times)[len(times) * 99 // 100] for times in took]


def _busy(gateway: Gateway) -> int:
    """Client connections that the gateway has."""
    text = gateway.api("/metrics")[2].decode()
    lines = [x for x in text.splitlines() if x.startswith("tailrace_client_connections ")]
    return int(float(lines[0].split()[-1]))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_others_are_served(
    gateway_factory: Callable[..., Gateway],
    uvicorn_factory: Callable[..., AppServer],
    kind: str,
) -> None:
    """The slow ones cost memory and descriptors, not time."""
    program = shutil.which("slowhttptest")
    assert program, "slowhttptest is missing: make deps-test"
    app = uvicorn_factory("size_app:app")
    gateway = gateway_factory([app.address], upstream={"max_connections": 2000})
    ports = [gateway.port, app.port]
    end = time.monotonic() + SECONDS / 3
    without, direct_without = _p99(ports, lambda: time.monotonic() > end)
    url = f"{gateway.base}/{READERS_BYTES}"
    rate, options = KINDS[kind]
    command = [program, *options, "-c", str(SLOW), "-r", str(rate), "-i", "5", "-l", str(SECONDS)]
    # Its own computing is no part of what slow clients cost: it would be on other machines.
    slow = subprocess.Popen(
        ["nice", "-n", "19", *command, "-p", "5", "-u", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    most = 0
    checked = 0.0

    def over() -> bool:
        nonlocal most, checked
        if time.monotonic() - checked > 2:
            checked = time.monotonic()
            most = max(most, _busy(gateway))
        return slow.poll() is not None

    try:
        beside, direct_beside = _p99(ports, over)
    finally:
        slow.kill()
        slow.wait(10)
    print(
        f"{kind}: p99 {without * 1e3:.2f} ms without, {beside * 1e3:.2f} ms beside; of the app"
        f" itself {direct_without * 1e3:.2f} and {direct_beside * 1e3:.2f} ms; {most} connections"
    )
    assert most > SLOW * 0.9  # the slow ones were there
    assert beside <= 2 * max(without, FLOOR_S)
