"""Ours beside its peers under one load: pairs in turn, CPU and requests a second of each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import procs
from stats import Estimate, control_ok, estimate

CONTROL = "control (A/A)"
SATURATED = 0.9  # of its core: below it, something else was the bottleneck
RATE_GOAL = 0.95


@dataclass(frozen=True)
class Load:
    """What wrk does."""

    connections: int = 64
    seconds: int = 1
    scheme: str = "http"
    close: bool = False


@dataclass(frozen=True)
class Sample:
    """One loaded interval: CPU nanoseconds per request, requests a second, share of a core."""

    cost_ns: float
    per_s: float
    busy: float
    aside_ns: float  # of our collector, on the load's core


def sample(service: procs.Service, load: Load) -> Sample:
    """Loads a service for one interval."""
    collector = int(service.extra.get("collector", 0))

    def clocks() -> tuple[int, int, int]:
        aside = procs.cpu_ns(collector) if collector else 0
        return procs.cpu_ns(service.counted_pid), aside, time.monotonic_ns()

    before = clocks()
    requests = procs.wrk(service.port, load.connections, load.seconds, load.scheme, load.close)
    cpu_ns, aside_ns, took_ns = (now - then for now, then in zip(clocks(), before, strict=True))
    return Sample(cpu_ns / requests, requests / load.seconds, cpu_ns / took_ns, aside_ns / requests)


def both(a: Sample, b: Sample) -> Sample:
    """The mean of two."""
    pairs = zip(dataclasses.astuple(a), dataclasses.astuple(b), strict=True)
    return Sample(*((x + y) / 2 for x, y in pairs))


def abba(a: procs.Service, b: procs.Service, load: Load) -> tuple[Sample, Sample]:
    """One ABBA pair: drift that is linear in time cancels."""
    a1, b1, b2, a2 = (sample(service, load) for service in (a, b, b, a))
    return both(a1, a2), both(b1, b2)


def compare(
    ours: procs.Service,
    others: dict[str, procs.Service],
    load: Load,
    pairs: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Ours and each other in turn. ``ratios``: CPU per request; ``rates``: requests a second."""
    ratios: dict[str, list[float]] = {name: [] for name in others}
    rates: dict[str, list[float]] = {name: [] for name in others}
    taken: dict[str, list[Sample]] = {name: [] for name in ["tailrace", *others]}
    for service in [ours, *others.values()]:
        procs.wrk(service.port, load.connections, 1, load.scheme, load.close)  # warm
    for pair in range(pairs):
        for name, other in others.items():
            mine, theirs = abba(ours, other, load)
            ratios[name].append(mine.cost_ns / theirs.cost_ns)
            rates[name].append(mine.per_s / theirs.per_s)
            taken["tailrace"].append(mine)
            taken[name].append(theirs)
        say(f"pair {pair + 1}/{pairs}")
    return {
        "ratios": {name: estimate(values) for name, values in ratios.items()},
        "rates": {name: estimate(values) for name, values in rates.items()},
        "cost_us": {name: estimate([s.cost_ns / 1e3 for s in taken[name]]) for name in taken},
        "per_s": {name: estimate([s.per_s for s in taken[name]]) for name in taken},
        "aside_us": estimate([s.aside_ns / 1e3 for s in taken["tailrace"]]),
        "busy": {name: estimate([s.busy for s in taken[name]]) for name in taken},
    }


def ratio_rows(result: dict[str, Any], what: str, goal: float) -> list[tuple[str, str, str]]:
    """CPU per request of each, and ours to each; the better peer's row has the verdict."""
    ratios: dict[str, Estimate] = result["ratios"]
    control, rows = ratios[CONTROL], []
    peers = [name for name in ratios if name != CONTROL]
    better = max(peers, key=lambda name: ratios[name].median)
    for name in ["tailrace", *peers]:
        rows.append((f"CPU per {what}, {name}", f"{result['cost_us'][name].text(2)} µs", ""))
    aside = f"{result['aside_us'].text(2)} µs"
    rows.append((f"CPU per {what}, tailrace's collector, in no request's way", aside, ""))
    noise = "ok" if control_ok(control) else "noisy"
    rows.append((f"A/A control, CPU per {what}", control.text(), noise))
    for name in peers:
        verdict = ""
        if name == better:
            verdict = "holds" if ratios[name].high <= goal else f"over {goal:.3f}"
            verdict = verdict if control_ok(control) else "too noisy"
        rows.append((f"CPU ratio per {what}, ours to {name}", ratios[name].text(), verdict))
    return rows


def rate_rows(result: dict[str, Any], what: str) -> list[tuple[str, str, str]]:
    """Requests a second of each on one core, and ours to each."""
    rates: dict[str, Estimate] = result["rates"]
    rows = []
    peers = [name for name in rates if name != CONTROL]
    better = min(peers, key=lambda name: rates[name].median)
    for name in ["tailrace", *peers]:
        busy = result["busy"][name].median
        note = "" if busy >= SATURATED else "the load's core was the limit"
        figure = f"{result['per_s'][name].text(0)}, {busy:.2f} of its core"
        rows.append((f"{what} a second, {name}", figure, note))
    for name in peers:
        verdict = ""
        if name == better:
            verdict = "holds" if rates[name].low >= RATE_GOAL else f"under {RATE_GOAL}"
            verdict = verdict if control_ok(rates[CONTROL]) else "too noisy"
        rows.append((f"{what} a second, ours to {name}", rates[name].text(), verdict))
    return rows
