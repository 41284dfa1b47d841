"""The collector's parts alone: exchanges a second of one core, memory, answers under load.

Nobody else does this work, so there is no peer; figures are held against the project's own bars.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ALONE = ROOT / "build" / "release" / "collector_alone"
EXCHANGES = 400_000
HOLD_S = int(os.environ.get("BENCH_HOLD_S", "120"))  # 600 for the figure of the documents
HOLD_RATE = 5000
STORE_BYTES = 1 << 30

PER_S_MIN = 20_000
RSS_KIB_MAX = 256 << 10
API_P99_MS_MAX = 50
# What is asked beside the load, in turn.
QUESTIONS = [
    "routes",
    "slowest",
    "latest",
    "of_route",
    "request",
    "profile",
    "series",
    "flame",
    "compared",
    "incidents",
    "status",
    "metrics",
]


def alone(folder: Path, *args: str | int) -> dict[str, Any]:
    """One run with a store of its own; what it prints. CalledProcessError where it fails."""
    store = folder / "collector.db"
    for path in folder.glob("collector.db*"):
        path.unlink()
    command = [str(ALONE), str(args[0]), str(store), *map(str, args[1:])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Three runs, one after the other."""
    say(f"{EXCHANGES} joined exchanges, 500 routes, 4 rows each")
    throughput = alone(folder, "throughput", 500, 4, EXCHANGES)
    say("1 000 routes, 30 rows, stacks of 20 frames, 16 minutes of windows")
    memory = alone(folder, "memory", 1000, 30, 20)
    say(f"{HOLD_RATE} exchanges a second for {HOLD_S} s, 20 questions a second")
    hold = alone(folder, "hold", 500, 4, HOLD_RATE, HOLD_S)
    return {"throughput": throughput, "memory": memory, "hold": hold}


def verdict(good: bool) -> str:
    """As the table shows it."""
    return "" if good else "MISSED"


def verdicts(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (what, figure, verdict)."""
    fast, memory, hold = results["throughput"], results["memory"], results["hold"]
    lost = [run["dropped_full"] + run["dropped_error"] + run["displaced"] for run in (fast, hold)]
    lost[1] += hold["ring_dropped"] + hold["made"] - hold["joined"]
    slowest = max(QUESTIONS, key=lambda name: hold[name]["p99_ms"])
    return [
        (
            "collector: joined exchanges a second of one core",
            f"{fast['loop_per_s']:.0f} ({fast['all_threads_per_s']:.0f} with the store's thread)",
            verdict(fast["loop_per_s"] >= PER_S_MIN),
        ),
        ("collector: lost at that", f"{lost[0]} of {fast['made']}", verdict(lost[0] == 0)),
        (
            "collector: resident with 1 000 routes of 30 rows",
            f"{memory['rss_kib'] / 1024:.0f} MiB",
            verdict(memory["rss_kib"] <= RSS_KIB_MAX),
        ),
        (
            f"collector: API p99 at {HOLD_RATE}/s",
            f"{hold['api']['p99_ms']:.1f} ms (median {hold['api']['p50_ms']:.1f};"
            f" {slowest} {hold[slowest]['p99_ms']:.1f})",
            verdict(hold["api"]["p99_ms"] < API_P99_MS_MAX),
        ),
        ("collector: lost at that rate", f"{lost[1]} of {hold['made']}", verdict(lost[1] == 0)),
        (
            "collector: rate held",
            f"{hold['made'] / HOLD_S:.0f}/s for {HOLD_S} s, {hold['cpu_share']:.2f} cores",
            verdict(hold["made"] >= 0.99 * HOLD_RATE * HOLD_S),
        ),
        (
            "collector: database",
            f"{hold['file_bytes'] / 1e6:.0f} MB of {STORE_BYTES / 1e6:.0f}",
            verdict(hold["file_bytes"] <= STORE_BYTES),
        ),
    ]
