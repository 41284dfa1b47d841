"""What a profiled request costs the app: one process, with and without the header in turn."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import procs
from stats import Estimate, bar_of, control_ok, estimate

SLICE = 100  # requests between two readings of the clocks
IN_FLIGHT = 10
SLICES = 20  # of each kind in a round: 2 000 requests with the header and 2 000 without
WARM_ROUNDS = 2
ROUNDS_MIN = 15
ROUNDS_MAX = 300  # of ours, whose interval the goal names; the peers are told apart by 15
INTERVAL_GOAL_US = 0.5  # to each side
COST_GOAL_US = 5.0
VARIANTS = ("tailrace", "none", "pyinstrument", "cprofile")


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


def read_answer(sock: socket.socket) -> None:
    """One whole answer. Raises RuntimeError where it is not a 200."""
    answer = sock.recv(65536)
    while not answer.endswith(b"}"):  # head and body may come apart
        answer += sock.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"unexpected answer {answer[:80]!r}")


class Client:
    """Kept-alive connections, each with one request at a time, all sent to before any is read: the
    app is busy, as one that is worth counting microseconds in is. With one request in flight it
    would sleep after each, and what is measured is how it wakes up with cold caches."""

    def __init__(self, service: procs.Service) -> None:
        self.pid = service.counted_pid
        self.socks = []
        for _ in range(IN_FLIGHT):
            sock = socket.create_connection(("127.0.0.1", service.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socks.append(sock)

    def slice_us(self, triggered: bool) -> float:
        """CPU microseconds of the app's main thread per request over one slice.

        The header is on every request, only its name differs, so that parsing costs the same.
        """
        name = b"x-tailrace" if triggered else b"x-tailrac0"
        trace = secrets.token_hex(16).encode()
        before = procs.thread_cpu_ns(self.pid, self.pid)
        for first in range(0, SLICE, IN_FLIGHT):
            for i, sock in enumerate(self.socks):
                sock.sendall(
                    b"GET / HTTP/1.1\r\nHost: x\r\n%s: 1;%s-%016x\r\n\r\n"
                    % (name, trace, first + i + 1)
                )
            for sock in self.socks:
                read_answer(sock)
        time.sleep(0.001)  # the app sleeps again: its clock stands
        return (procs.thread_cpu_ns(self.pid, self.pid) - before) / 1e3 / SLICE


@dataclass
class Round:
    """2 000 requests each with and without the header, CPU microseconds per request."""

    added: float
    base: float
    posting: float  # part of `added`: all threads but the main one
    control: float  # one half of the slices without the header over the other half


def one_round(client: Client) -> Round:
    """Slices in ABBA order, so short that a machine that changes its speed changes it for both.

    What the main thread spends is told apart by slice. What other threads spend (posting, which
    comes later) is counted over the whole round, and belongs to the requests with the header.
    """
    others = -procs.cpu_ns(client.pid) + procs.thread_cpu_ns(client.pid, client.pid)
    plain: list[float] = []
    triggered: list[float] = []
    for _ in range(SLICES // 2):
        for kind in (False, True, True, False):
            (triggered if kind else plain).append(client.slice_us(kind))
    time.sleep(0.15)
    others += procs.cpu_ns(client.pid) - procs.thread_cpu_ns(client.pid, client.pid)
    posting = others / 1e3 / (SLICE * SLICES)
    added = sum(triggered) / SLICES - sum(plain) / SLICES + posting
    return Round(added, sum(plain) / SLICES, posting, sum(plain[::2]) / sum(plain[1::2]))


def measure(
    service: procs.Service, rounds_max: int, say: Callable[[str], None]
) -> dict[str, Estimate]:
    """Added and base cost and an A/A control of one variant, until the interval is narrow."""
    client = Client(service)
    for _ in range(WARM_ROUNDS):
        one_round(client)
    rounds: list[Round] = []
    while len(rounds) < rounds_max:
        rounds.append(one_round(client))
        if len(rounds) >= ROUNDS_MIN:
            now = estimate([r.added for r in rounds])
            if now.high - now.low <= 2 * INTERVAL_GOAL_US:
                break
            if len(rounds) % 20 == 0:
                say(f"{service.name}: {len(rounds)} rounds, {now.text(1)} µs")
    say(f"{service.name}: {len(rounds)} rounds")
    return {
        "added_us": estimate([r.added for r in rounds]),
        "posting_us": estimate([r.posting for r in rounds]),
        "base_us": estimate([r.base for r in rounds]),
        "control": estimate([r.control for r in rounds]),
    }


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
            rounds_max = ROUNDS_MAX if variant == "tailrace" else ROUNDS_MIN
            result[variant] = measure(app, rounds_max, say)
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
            verdict = bar_of([(added, COST_GOAL_US)], f"{COST_GOAL_US:g} µs")
            if added.high - added.low > 2 * INTERVAL_GOAL_US:
                verdict = "too noisy"
        if variant == "tailrace" and not control_ok(control):
            verdict = "too noisy"
        label = "control: header ignored" if variant == "none" else variant
        rows.append((f"added by {label}", f"{added.text(1)} µs (A/A {control.text()})", verdict))
    posting: Estimate = result["tailrace"]["posting_us"]
    return [*rows, ("of that by posting, off the loop", f"{posting.text(1)} µs", "")]
