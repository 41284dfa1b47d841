"""The hook's cost by kind of await, and its instructions per request by callgrind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stats import Estimate, bar_of, control_ok

SCRIPT = Path(__file__).parent / "engine_cost.py"
REQUESTS = (200, 1200)  # the difference of two runs: what the start costs is in neither
BARS = {
    "per_short_await_us": ("added per await shorter than the threshold", 0.3),
    "per_real_wait_us": ("added per real wait, with its stack", 4.0),
}
FLIGHT_BAR_US, FLIGHT_P50, MEMORY_BAR = 25.0, 1.02, 20 << 20


def instructions(folder: Path, count: int, triggered: bool) -> int:
    """Instructions of a process that answers so many requests."""
    out = folder / f"callgrind-{count}-{int(triggered)}"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
    command += [sys.executable, str(SCRIPT), "requests", str(count), str(int(triggered))]
    env = dict(os.environ, PYTHONHASHSEED="0")
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stderr
    found = re.search(r"Collected : (\d+)", said)
    if not found:
        raise RuntimeError(f"callgrind said nothing:\n{said[-500:]}")
    return int(found[1])


def run(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Costs by the thread's CPU clock, then instructions."""
    command = [sys.executable, str(SCRIPT), "costs"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    say("costs")
    if shutil.which("valgrind") is None:
        say("no valgrind: instructions are not counted")
        return result
    for triggered in (False, True):
        few, many = (instructions(folder, count, triggered) for count in REQUESTS)
        result[f"instructions_{int(triggered)}"] = (many - few) / (REQUESTS[1] - REQUESTS[0])
    say("instructions")
    return result


def verdicts(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (what, figure, verdict) for the table."""
    rows = []
    for key, (label, bar) in BARS.items():
        value = Estimate(**result[key])
        rows.append((label, f"{value.text(2)} µs", bar_of([(value, bar)], f"{bar:g} µs")))
    for flight in (200, 400):
        told = {k: Estimate(**v) for k, v in result[f"real_{flight}"].items() if k != "base_us"}
        figure = f"{told['us'].text(1)} µs, p50 x {told['p50_ratio'].text()}"
        bars = [(told["us"], FLIGHT_BAR_US), (told["p50_ratio"], FLIGHT_P50)]
        verdict = bar_of(bars, f"{FLIGHT_BAR_US:g} µs or x {FLIGHT_P50}")
        if not control_ok(told["control"]):
            verdict = "too noisy"
        figure += f" (A/A {told['control'].text()})"
        rows.append((f"4 real awaits, {flight} in flight", figure, verdict))
    mib = result["memory_400"] / (1 << 20)
    verdict = "holds" if result["memory_400"] <= MEMORY_BAR else "over 20 MiB"
    rows.append(("memory at 400 in flight", f"{mib:.1f} MiB", verdict))
    if "instructions_1" in result:
        base, on = result["instructions_0"], result["instructions_1"]
        share = f"{(on - base) / base * 100:.1f} %"
        rows.append(("instructions per hello-world", f"{base:.0f} + {on - base:.0f} ({share})", ""))
    return rows
