"""What a profiled request costs the app: one process, blocks with and without the header."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import procs
from stats import Estimate, estimate

BLOCK = 2000
WARM_BLOCKS = 3
PAIRS_MIN = 15
PAIRS_MAX = 60
INTERVAL_GOAL_US = 1.0
COST_GOAL_US = 10.0
VARIANTS = ("none", "tailrace", "pyinstrument", "cprofile")


def process_cpu_ns(pid: int) -> int:
    """The process CPU clock, all threads (clock_getcpuclockid(3): the kernel's encoding of it)."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def start_app(folder: Path, variant: str, control: str) -> procs.Service:
    """uvicorn on uvloop with httptools, one process, access log off, pinned."""
    port = procs.free_port()
    env = dict(os.environ, BENCH_VARIANT=variant, TAILRACE_CALLBACK=f"unix:{control}")
    command = ["taskset", "-c", str(procs.PROXY_CORE), sys.executable, "-m", "uvicorn"]
    command += ["hello:make", "--factory", "--port", str(port), "--loop", "uvloop"]
    command += ["--http", "httptools", "--no-access-log", "--log-level", "warning"]
    command += ["--app-dir", str(Path(__file__).parent)]
    with (folder / f"uvicorn-{variant}.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    procs.wait_port(port, process)
    return procs.Service(variant, port, process, process.pid)


class Client:
    """One kept-alive connection that sends a block of requests one after the other."""

    def __init__(self, service: procs.Service) -> None:
        self.pid = service.counted_pid
        self.sock = socket.create_connection(("127.0.0.1", service.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def block_us(self, triggered: bool) -> float:
        """CPU microseconds per request over one block.

        The header is on every request, only its name differs, so that parsing costs the same.
        """
        name = b"x-tailrace" if triggered else b"x-tailrac0"
        trace = secrets.token_hex(16).encode()
        before = process_cpu_ns(self.pid)
        for i in range(BLOCK):
            self.sock.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\n%s: 1;%s-%016x\r\n\r\n" % (name, trace, i + 1)
            )
            answer = self.sock.recv(65536)
            while not answer.endswith(b"}"):  # head and body may come apart
                answer += self.sock.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"unexpected answer {answer[:80]!r}")
        time.sleep(0.15)  # what was put off (posting) counts too
        return (process_cpu_ns(self.pid) - before) / 1e3 / BLOCK


def measure(service: procs.Service, say: Callable[[str], None]) -> dict[str, Estimate]:
    """Added and base cost and an A/A control of one variant, until the interval is narrow."""
    client = Client(service)
    for _ in range(WARM_BLOCKS):
        client.block_us(True)
        client.block_us(False)
    added: list[float] = []
    base: list[float] = []
    control: list[float] = []
    while len(added) < PAIRS_MAX:
        a1, b1, b2, a2 = (client.block_us(t) for t in (False, True, True, False))
        added.append((b1 + b2 - a1 - a2) / 2)
        base += [a1, a2]
        control.append(a2 / a1)
        if len(added) >= PAIRS_MIN:
            now = estimate(added)
            if now.high - now.low <= 2 * INTERVAL_GOAL_US:
                break
    say(f"{service.name}: {len(added)} pairs")
    return {"added_us": estimate(added), "base_us": estimate(base), "control": estimate(control)}


def run(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """All variants. A real gateway takes the posts."""
    services: list[procs.Service] = []
    try:
        origin = procs.start_origin(folder)
        services.append(origin)
        gateway = procs.start_tailrace(folder, "tailrace-hook", origin.port)
        services.append(gateway)
        result = {}
        for variant in VARIANTS:
            app = start_app(folder, variant, gateway.extra["control"])
            services.append(app)
            result[variant] = measure(app, say)
            app.stop()
        return result
    finally:
        for service in reversed(services):
            service.stop()


def verdicts(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (what, figure, verdict) for the table."""
    rows = [
        ("hello-world, CPU per request, no hook", f"{result['none']['base_us'].text(1)} µs", "")
    ]
    for variant in VARIANTS:
        added: Estimate = result[variant]["added_us"]
        control: Estimate = result[variant]["control"]
        verdict = ""
        if variant == "tailrace":
            verdict = "holds" if added.high <= COST_GOAL_US else f"over {COST_GOAL_US:g} µs"
            if added.high - added.low > 2 * INTERVAL_GOAL_US:
                verdict = "too noisy"
        label = "control: header ignored" if variant == "none" else variant
        rows.append((f"added by {label}", f"{added.text(1)} µs (A/A {control.text()})", verdict))
    return rows
