"""TLS towards clients: a kept-alive GET and a full handshake, ours and the peers', interleaved.

CPU per request of a proxy that is alone on its core is the inverse of its throughput at saturation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import procs
from stats import Estimate, control_ok, estimate

CONNECTIONS = 64
PAIRS = 11
SECONDS = 1
RATIO_GOAL = 1 / 0.95
KINDS = {"keep-alive": False, "handshake": True}
CONTROL = "control (A/A)"


def cost_ns(service: procs.Service, close: bool) -> float:
    """CPU nanoseconds per request of one loaded interval."""
    before = procs.cpu_ns(service.counted_pid)
    requests = procs.wrk(service.port, CONNECTIONS, SECONDS, "https", close)
    return (procs.cpu_ns(service.counted_pid) - before) / requests


def abba(a: procs.Service, b: procs.Service, close: bool) -> tuple[float, float]:
    """One ABBA pair: drift that is linear in time cancels. Returns the mean cost of each."""
    a1, b1, b2, a2 = (cost_ns(service, close) for service in (a, b, b, a))
    return (a1 + a2) / 2, (b1 + b2) / 2


def compare(
    ours: procs.Service, others: list[procs.Service], close: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Ratios ours/other for each other, pairs of all taken in turn, and costs."""
    ratios: dict[str, list[float]] = {other.name: [] for other in others}
    costs: dict[str, list[float]] = {service.name: [] for service in [ours, *others]}
    for pair in range(PAIRS):
        for other in others:
            mine, theirs = abba(ours, other, close)
            ratios[other.name].append(mine / theirs)
            costs[ours.name].append(mine)
            costs[other.name].append(theirs)
        say(f"pair {pair + 1}/{PAIRS}")
    return {
        "ratios": {name: estimate(values) for name, values in ratios.items()},
        "cost_us": {name: estimate([v / 1e3 for v in values]) for name, values in costs.items()},
    }


def run(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole comparison. Everything started is stopped again."""
    tls = procs.make_certificate(folder)
    services: list[procs.Service] = []
    try:
        origin = procs.start_origin(folder)
        services.append(origin)
        ours = procs.start_tailrace(folder, "tailrace", origin.port, tls)
        services.append(ours)
        again = procs.start_tailrace(folder, CONTROL, origin.port, tls)
        services.append(again)
        services.append(procs.start_haproxy(folder, origin.port, tls=tls))
        services.append(procs.start_nginx_proxy(folder, origin.port, tls=tls))
        result = {}
        for kind, close in KINDS.items():
            for service in services[1:]:
                procs.wrk(service.port, CONNECTIONS, 1, "https", close)  # warm
            result[kind] = compare(ours, services[2:], close, lambda t, k=kind: say(f"{k}, {t}"))
        return result
    finally:
        for service in reversed(services):
            service.stop()


def verdicts(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (what, figure, verdict) for the table."""
    rows = []
    for kind, figures in result.items():
        ratios: dict[str, Estimate] = figures["ratios"]
        control = ratios[CONTROL]
        peers = [name for name in ratios if name != CONTROL]
        better = max(peers, key=lambda name: ratios[name].median)
        for name, cost in figures["cost_us"].items():
            if name != CONTROL:
                rows.append((f"CPU per TLS {kind}, {name}", f"{cost.text(2)} µs", ""))
        noise = "ok" if control_ok(control) else "noisy"
        rows.append((f"A/A control, TLS {kind}", control.text(), noise))
        for name in peers:
            verdict = ""
            if name == better:
                verdict = "holds" if ratios[name].high <= RATIO_GOAL else f"over {RATIO_GOAL:.3f}"
                if not control_ok(control):
                    verdict = "too noisy"
            rows.append((f"CPU ratio TLS {kind}, ours to {name}", ratios[name].text(), verdict))
    return rows
