"""Idle connections: the memory of one, in clear and under TLS; what 10 000 of them cost others."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bench_proxy
import paired
import procs
from stats import Estimate

MEMORY_CONNECTIONS = 2000
IDLE = 10_000
PAIRS = 9
CONNECTIONS = 64
LIMITS_KIB = {"clear": 2.5, "TLS": 16.0}
SAME, CPU_SAME = 0.01, 0.05
WITH, WITHOUT = "10 000 idle beside", "none beside"
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LIMITS = {"connections": 12_000, "keepalive_timeout_ms": 600_000}
HEAD_TIMEOUT_S = 2  # looked at once more when it is over, then not before the idle limit


def private_kib(pid: int) -> int:
    """Memory that is this process's alone."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(n) for n in re.findall(r"^Private_\w+:\s+(\d+)", text, re.M))


@contextlib.contextmanager
def idle_connections(port: int, count: int, tls: bool) -> Iterator[None]:
    """Connections that made one request each and rest."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port), timeout=60)
            sock = context.wrap_socket(sock) if tls else sock
            opened.append(sock)
            sock.sendall(REQUEST)
            if not sock.recv(65536).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("unexpected answer")
        yield
    finally:
        for sock in opened:
            sock.close()


def memory(service: procs.Service, tls: bool) -> float:
    """KiB of one idle connection: of 2 000 more beside the first 64, which bring the pools in."""
    with idle_connections(service.port, 64, tls):
        before = private_kib(service.counted_pid)
        with idle_connections(service.port, MEMORY_CONNECTIONS, tls):
            time.sleep(0.5)
            return (private_kib(service.counted_pid) - before) / MEMORY_CONNECTIONS


def memories(folder: Path, origin_port: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Ours and the peers', in clear and under TLS."""
    figures: dict[str, Any] = {}
    for kind, tls in (("clear", None), ("TLS", procs.make_certificate(folder))):
        for name, starter in (
            ("tailrace", partial(procs.start_tailrace, folder, "tailrace", limits=LIMITS)),
            ("haproxy", partial(procs.start_haproxy, folder)),
            ("nginx", partial(procs.start_nginx_proxy, folder)),
        ):
            service = starter(origin_port=origin_port, tls=tls)
            try:
                figures[f"{kind}, {name}"] = memory(service, tls is not None)
            finally:
                service.stop()
            say(f"memory {kind}, {name}")
    return figures


def instructions(folder: Path, origin_port: int, idle: int) -> float:
    """User instructions per GET, one at a time (so that each takes the same turns of the loop)."""

    @contextlib.contextmanager
    def beside(port: int) -> Iterator[None]:
        with idle_connections(port, idle, tls=False):
            time.sleep(HEAD_TIMEOUT_S + 0.5)
            yield

    limits = {**LIMITS, "head_timeout_ms": HEAD_TIMEOUT_S * 1000}
    return bench_proxy.callgrind(
        lambda wrapper: procs.start_worker_alone(folder, origin_port, wrapper, limits),
        folder,
        f"idle{idle}",
        beside,
        at_once=False,
    )


def run(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """All of it. Everything started is stopped again."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    services: list[procs.Service] = []
    try:
        origin = procs.start_origin(folder)
        services.append(origin)
        result: dict[str, Any] = {"memory": memories(folder, origin.port, say)}
        result["instructions"] = {
            WITH: instructions(folder, origin.port, IDLE),
            WITHOUT: instructions(folder, origin.port, 0),
        }
        say("instructions")
        crowded = procs.start_tailrace(folder, "crowded", origin.port, limits=LIMITS)
        services.append(crowded)
        alone = procs.start_tailrace(folder, "tailrace", origin.port, limits=LIMITS)
        services.append(alone)
        with idle_connections(crowded.port, IDLE, tls=False):
            result["syscalls"] = {
                name: bench_proxy.split_syscalls(bench_proxy.syscalls(service, CONNECTIONS, 100))
                for name, service in ((WITH, crowded), (WITHOUT, alone))
            }
            say("system calls")
            cost = paired.compare(crowded, {WITHOUT: alone}, paired.Load(CONNECTIONS), PAIRS, say)
        result["cpu"] = cost["ratios"][WITHOUT]
        return result
    finally:
        for service in reversed(services):
            service.stop()


def same(a: float, b: float) -> str:
    """The verdict on two counts that are to be the same."""
    return "holds" if abs(a - b) <= SAME * b else f"differs by more than {SAME:.0%}"


def verdicts(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (what, figure, verdict) for the table."""
    rows = []
    for name, kib in result["memory"].items():
        kind, _, who = name.partition(", ")
        verdict = ""
        if who == "tailrace":
            limit = LIMITS_KIB[kind]
            verdict = "holds" if kib <= limit else f"over {limit} KiB"
        rows.append((f"memory of an idle connection, {name}", f"{kib:.2f} KiB", verdict))
    counts = result["instructions"]
    figure = f"{counts[WITH]:.0f} to {counts[WITHOUT]:.0f}"
    what = "10 000 idle connections"
    rows.append((f"{what}: instructions per GET", figure, same(counts[WITH], counts[WITHOUT])))
    calls = {name: result["syscalls"][name] for name in (WITH, WITHOUT)}
    sums = {name: c["reads"] + c["writes"] + c["epoll_ctl"] for name, c in calls.items()}
    waits = " to ".join(f"{calls[name]['epoll_wait']:.3f}" for name in (WITH, WITHOUT))
    figure = f"{sums[WITH]:.3f} to {sums[WITHOUT]:.3f} (epoll_wait {waits})"
    rows.append((f"{what}: system calls per GET", figure, same(sums[WITH], sums[WITHOUT])))
    cpu: Estimate = result["cpu"]
    verdict = "holds" if cpu.low <= 1 + CPU_SAME and cpu.high >= 1 - CPU_SAME else "over 5 %"
    rows.append((f"{what}: CPU ratio to none", cpu.text(), verdict))
    return rows
