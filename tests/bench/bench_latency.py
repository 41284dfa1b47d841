"""Latency at half load, by an open-loop generator: what a stall delays counts, every time.

Many short intervals, not few long ones: a virtual machine is stopped for 10 to 100 ms every few
seconds, which is the p99 of each interval that it falls into, whoever is measured. It falls into
some of the short ones; the median ratio is that of the others.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import procs
from paired import CONTROL
from stats import Estimate, estimate, median

ROUNDS = 61
SECONDS = 0.5
CONNECTIONS = 64
SHARE = 0.5  # of what the slower peer can do at all
RATIO_GOAL = 1.10
GENERATOR = procs.ROOT / "build" / "release" / "open_loop"


def measure(service: procs.Service, rate: float, seconds: float = SECONDS) -> dict[str, int]:
    """One interval at ``rate`` requests a second: quantiles from when each was due."""
    command = ["taskset", "-c", str(procs.LOAD_CORE), str(GENERATOR), str(service.port)]
    command += [str(rate), str(seconds), str(CONNECTIONS)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result: dict[str, int] = json.loads(out)
    return result


def run(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole comparison. Everything started is stopped again."""
    services: list[procs.Service] = []
    try:
        origin = procs.start_origin(folder)
        services.append(origin)
        named = {
            "tailrace": procs.start_tailrace(folder, "tailrace", origin.port),
            "haproxy": procs.start_haproxy(folder, origin.port),
            "nginx": procs.start_nginx_proxy(folder, origin.port),
            CONTROL: procs.start_tailrace(folder, "tailrace-again", origin.port),
        }
        services += named.values()
        most = {name: procs.wrk(s.port, CONNECTIONS, 2) / 2 for name, s in named.items()}
        rate = SHARE * min(most["haproxy"], most["nginx"])
        say(f"{rate:.0f} requests a second")
        rounds: list[dict[str, dict[str, int]]] = []
        names = list(named)
        for i in range(ROUNDS):
            order = names[i % len(names) :] + names[: i % len(names)]
            rounds.append({name: measure(named[name], rate) for name in order})
            if i % 10 == 0:
                say(f"round {i + 1}/{ROUNDS}")
        return {"rate": rate, "most": most, "rounds": rounds}
    finally:
        for service in reversed(services):
            service.stop()


def verdicts(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (what, figure, verdict) for the table."""
    rounds: list[dict[str, dict[str, int]]] = result["rounds"]
    rows = []
    for name in rounds[0]:
        p50, p99 = (estimate([r[name][q] / 1e3 for r in rounds]) for q in ("p50_ns", "p99_ns"))
        what = f"latency at {result['rate']:.0f}/s (half load), {name}"
        rows.append((what, f"p50 {p50.text(0)} µs, p99 {p99.text(0)} µs", ""))
    ratios: dict[str, Estimate] = {
        name: estimate([r["tailrace"]["p99_ns"] / r[name]["p99_ns"] for r in rounds])
        for name in ("haproxy", "nginx", CONTROL)
    }
    better = min(("haproxy", "nginx"), key=lambda n: median([r[n]["p99_ns"] for r in rounds]))
    for name, ratio in ratios.items():
        verdict = ""
        if name == better:
            verdict = "holds" if ratio.median <= RATIO_GOAL else f"over {RATIO_GOAL}"
            if not 1 / RATIO_GOAL <= ratios[CONTROL].median <= RATIO_GOAL:
                verdict = "too noisy"
        rows.append((f"p99 ratio at half load, ours to {name}", ratio.text(), verdict))
    return rows
