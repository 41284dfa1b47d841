"""1 GiB down and up through ours and nginx: rate, CPU, and what the worker's memory grows by."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import procs
from paired import CONTROL
from stats import Estimate, control_ok, estimate

SIZE = 1 << 30
ROUNDS = 7
PIECE = bytes(1 << 18)
RATE_GOAL, RSS_KIB_MAX = 0.95, 4096
WAYS = ("download", "upload")


def answer(conn: socket.socket) -> None:
    """GET is answered with SIZE bytes; any body is taken whole before it is answered."""
    buffer = bytearray(1 << 18)
    head = b""
    while True:
        while b"\r\n\r\n" not in head:
            got = conn.recv(65536)
            if not got:
                conn.close()
                return
            head += got
        text, _, rest = head.partition(b"\r\n\r\n")
        head = b""
        length = re.search(rb"content-length: (\d+)", text, re.I)
        left = int(length[1]) - len(rest) if length else 0
        while left > 0:
            left -= conn.recv_into(buffer)
        size = SIZE if text.startswith(b"GET /big") else 0
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(PIECE)):
            conn.sendall(PIECE)


def serve(port: int) -> None:
    """The app's place."""
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def start_origin(folder: Path) -> procs.Service:
    """This file, run as the app."""
    port = procs.free_port()
    command = [sys.executable, __file__, str(port)]
    process = procs.start(command, port, procs.LOAD_CORE, folder / "bulk.log")
    return procs.Service("origin", port, process, process.pid)


def download(sock: socket.socket) -> None:
    """Reads one big answer."""
    buffer = bytearray(1 << 18)
    sock.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    got = sock.recv(65536)
    left = SIZE - len(got.partition(b"\r\n\r\n")[2])
    while left > 0:
        n = sock.recv_into(buffer)
        if n == 0:
            raise RuntimeError(f"{left} bytes are missing")
        left -= n


def upload(sock: socket.socket) -> None:
    """Sends one big body."""
    sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % SIZE)
    for _ in range(SIZE // len(PIECE)):
        sock.sendall(PIECE)
    if not sock.recv(65536).startswith(b"HTTP/1.1 200"):
        raise RuntimeError("unexpected answer")


def status_kib(pid: int, key: str) -> int:
    """Of a process's status: VmRSS, resident now, or VmHWM, the most of it since a reset."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(rf"^{key}:\s+(\d+)", text, re.M)[0])


def transfer(service: procs.Service, way: str) -> dict[str, float]:
    """One gibibyte: seconds, CPU seconds and KiB grown by of the proxy."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as sock:
        Path(f"/proc/{service.counted_pid}/clear_refs").write_text("5")  # resets VmHWM
        rss, cpu = status_kib(service.counted_pid, "VmRSS"), procs.cpu_ns(service.counted_pid)
        started = time.monotonic()
        (download if way == "download" else upload)(sock)
        took = time.monotonic() - started
        return {
            "s": took,
            "cpu_s": (procs.cpu_ns(service.counted_pid) - cpu) / 1e9,
            "grown_kib": status_kib(service.counted_pid, "VmHWM") - rss,
        }


def run(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole comparison, from the load's core. Everything started is stopped again."""
    services: list[procs.Service] = []
    os.sched_setaffinity(0, {procs.LOAD_CORE})
    try:
        origin = start_origin(folder)
        services.append(origin)
        named = {
            "tailrace": procs.start_tailrace(folder, "tailrace", origin.port),
            "nginx": procs.start_nginx_proxy(folder, origin.port),
            CONTROL: procs.start_tailrace(folder, "tailrace-again", origin.port),
        }
        services += named.values()
        names = list(named)
        result: dict[str, Any] = {way: [] for way in WAYS}
        for i in range(ROUNDS):
            order = names[i % len(names) :] + names[: i % len(names)]
            for way in WAYS:
                result[way].append({name: transfer(named[name], way) for name in order})
            say(f"round {i + 1}/{ROUNDS}")
        return result
    finally:
        for service in reversed(services):
            service.stop()
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def verdicts(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (what, figure, verdict) for the table."""
    rows = []
    for way in WAYS:
        rounds = result[way]
        for name in ("tailrace", "nginx"):
            mib_s = estimate([SIZE / (1 << 20) / r[name]["s"] for r in rounds])
            busy = estimate([r[name]["cpu_s"] for r in rounds])
            figure = f"{mib_s.text(0)} MiB/s, {busy.text(2)} s of CPU"
            rows.append((f"1 GiB {way}, {name}", figure, ""))
        ratios: dict[str, Estimate] = {
            name: estimate([r[name]["s"] / r["tailrace"]["s"] for r in rounds])
            for name in ("nginx", CONTROL)
        }
        verdict = "holds" if ratios["nginx"].median >= RATE_GOAL else f"under {RATE_GOAL}"
        verdict = verdict if control_ok(ratios[CONTROL]) else "too noisy"
        rows.append((f"1 GiB {way}, rate of ours to {CONTROL}", ratios[CONTROL].text(), ""))
        rows.append((f"1 GiB {way}, rate of ours to nginx", ratios["nginx"].text(), verdict))
        grown = max(r["tailrace"]["grown_kib"] for r in rounds)
        verdict = "holds" if grown < RSS_KIB_MAX else f"over {RSS_KIB_MAX} KiB"
        rows.append((f"1 GiB {way}, worker's memory grown by", f"{grown} KiB", verdict))
    return rows


if __name__ == "__main__":
    serve(int(sys.argv[1]))
