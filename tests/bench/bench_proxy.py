"""What a proxied keep-alive GET costs: ours, HAProxy and nginx, interleaved in one run."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paired
import procs

CONNECTIONS = 64
PAIRS = 15
RATIO_GOAL = 1.03


def callgrind(
    start: Callable[[list[str]], procs.Service],
    folder: Path,
    name: str,
    beside: Callable[[int], contextlib.AbstractContextManager[None]] | None = None,
    at_once: bool = True,
) -> float:
    """Instructions in user space per request: the difference of two run lengths.

    ``beside``: given the port, what goes on meanwhile. ``at_once``: see procs.keepalive_gets().
    """
    counts = []
    lengths = (20, 120)
    for rounds in lengths:
        pattern = folder / f"callgrind.{name}.{rounds}.%p"
        for old in folder.glob(f"callgrind.{name}.{rounds}.*"):
            old.unlink()
        service = start(
            [
                "valgrind",
                "-q",
                "--tool=callgrind",
                f"--callgrind-out-file={pattern}",
            ]
        )
        try:
            with beside(service.port) if beside else contextlib.nullcontext():
                procs.keepalive_gets(service.port, CONNECTIONS, rounds, at_once)
            pid = service.counted_pid
        finally:
            service.stop()
        out = folder / f"callgrind.{name}.{rounds}.{pid}"
        found = re.search(r"^(?:summary|totals): (\d+)", out.read_text(errors="replace"), re.M)
        if not found:
            raise RuntimeError(f"{out} has no totals")
        counts.append(int(found[1]))
    return (counts[1] - counts[0]) / ((lengths[1] - lengths[0]) * CONNECTIONS)


def syscalls(service: procs.Service, connections: int, per_connection: int) -> dict[str, float]:
    """System calls per request of the counted process, by name; connections stay open."""
    import socket

    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    sockets = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(connections)]

    def round_trip() -> None:
        for sock in sockets:
            sock.sendall(request)
        for sock in sockets:
            if not sock.recv(65536).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("unexpected answer")

    for _ in range(3):
        round_trip()
    tracer = subprocess.Popen(
        ["strace", "-f", "-c", "-p", str(service.counted_pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(1.0)
    for _ in range(per_connection):
        round_trip()
    tracer.send_signal(2)
    table = tracer.communicate(timeout=20)[1]
    for sock in sockets:
        sock.close()
    requests = connections * per_connection
    counts: dict[str, float] = {}
    for line in table.splitlines():
        found = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
        if found and found[2] != "total":
            counts[found[2]] = int(found[1]) / requests
    return counts


READS, WRITES = ("read", "recvfrom", "recvmsg", "readv"), ("write", "sendto", "sendmsg", "writev")


def split_syscalls(counts: dict[str, float]) -> dict[str, float]:
    """The groups that the goal names."""
    reads = sum(counts.get(n, 0) for n in READS)
    writes = sum(counts.get(n, 0) for n in WRITES)
    wait = counts.get("epoll_wait", 0) + counts.get("epoll_pwait", 0)
    ctl = counts.get("epoll_ctl", 0)
    other = sum(counts.values()) - reads - writes - wait - ctl
    return {"reads": reads, "writes": writes, "epoll_wait": wait, "epoll_ctl": ctl, "other": other}


def run(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole comparison. Everything started is stopped again."""
    services: list[procs.Service] = []
    try:
        origin = procs.start_origin(folder)
        services.append(origin)
        ours = procs.start_tailrace(folder, "tailrace", origin.port)
        services.append(ours)
        others = {}
        for name, service in (
            ("haproxy", procs.start_haproxy(folder, origin.port)),
            ("nginx", procs.start_nginx_proxy(folder, origin.port)),
            (paired.CONTROL, procs.start_tailrace(folder, "tailrace-again", origin.port)),
        ):
            services.append(service)
            others[name] = service
        result = paired.compare(ours, others, paired.Load(CONNECTIONS), PAIRS, say)
        say("system calls")
        result["syscalls"] = {
            f"{connections} connections": split_syscalls(
                syscalls(ours, connections, 6400 // connections)
            )
            for connections in (1, CONNECTIONS)
        }
        say("instructions")
        starters = {
            "tailrace": lambda w: procs.start_worker_alone(folder, origin.port, w),
            "haproxy": lambda w: procs.start_haproxy(folder, origin.port, w),
            "nginx": lambda w: procs.start_nginx_proxy(folder, origin.port, w),
        }
        result["instructions"] = {
            name: callgrind(start, folder, name) for name, start in starters.items()
        }
        return result
    finally:
        for service in reversed(services):
            service.stop()


def verdicts(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (what, figure, verdict) for the table."""
    rows = paired.ratio_rows(result, "proxied GET", RATIO_GOAL)
    rows += paired.rate_rows(result, "proxied GETs")
    counts = result["instructions"]
    least = min(count for name, count in counts.items() if name != "tailrace")
    for name, count in counts.items():
        verdict = ("holds" if count <= least else "over") if name == "tailrace" else ""
        rows.append((f"user instructions per GET, {name}", f"{count:.0f}", verdict))
    limits = {"1 connections": 2.05, f"{CONNECTIONS} connections": 0.2}
    for name, calls in result["syscalls"].items():
        ok = (
            abs(calls["reads"] - 2) < 0.01
            and abs(calls["writes"] - 2) < 0.01
            and calls["epoll_ctl"] == 0
            and calls["epoll_wait"] <= limits[name]
            and calls["other"] <= 0.02
        )
        figure = ", ".join(f"{key} {value:.3f}" for key, value in calls.items())
        rows.append((f"system calls per GET, {name}", figure, "holds" if ok else "over"))
    return rows
