"""The truth suite's scenarios through tailrace, pyinstrument and cProfile, as a table in Markdown.

    build/venv/bin/python tests/bench/compare_profilers.py > docs/comparison.md

Each scenario runs alone, once per tool. A cell is the time a tool gives to the function that had it
by construction (the longest one of the scenario), of what the function's own clock measured.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import importlib
import pstats
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "truth"), str(ROOT / "tests" / "truth" / "known")]

runner = importlib.import_module("scenario_runner")
MS = 1_000_000
GOOD = 0.1  # told within a tenth of the truth
TOOLS = ("tailrace", "pyinstrument", "cProfile")


async def call(app: Any) -> None:
    """One ASGI call of an app, without a profiler's knowledge of it."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "", "scheme": "http",
        "headers": [], "client": ("127.0.0.1", 1), "server": ("test", 80),
    }  # fmt: skip

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        pass

    await asyncio.get_running_loop().create_task(app(scope, receive, send))


def longest(truth: Any) -> tuple[str, int, str]:
    """The function that had most time, how much in all, and of what kind."""
    sums: dict[tuple[str, str], int] = {}
    for known in truth.known:
        key = (known.function, known.kind)
        sums[key] = sums.get(key, 0) + known.most_ns
    (function, kind), ns = max(sums.items(), key=lambda item: item[1])
    return function, ns, kind


def in_pyinstrument(frame: Any, function: str, others: set[str]) -> float:
    """Seconds of this function, without those of other functions with known times."""
    if frame is None or frame.function in others:
        return 0.0
    inside = sum(in_pyinstrument(child, function, others) for child in frame.children)
    if frame.function != function:
        return float(inside)
    return float(frame.time) - sum(apart(child, others) for child in frame.children)


def apart(frame: Any, others: set[str]) -> float:
    """Seconds of the outermost frames of other functions."""
    if frame.function in others:
        return float(frame.time)
    return sum(apart(child, others) for child in frame.children)


async def told_by(tool: str, entry: Any, judge: Any) -> tuple[str, int, int, str]:
    """(function, truth ns, told ns, kind) of one run."""
    truth = runner.Truth()
    app = runner.app_of(entry, truth)
    if entry.companion is not None:
        companion = asyncio.create_task(call(runner.companion_of(entry, truth)))
        await asyncio.sleep(0.001)
    if tool == "tailrace":
        runner.take()
        key, task = judge.request(app)
        await task
        await asyncio.sleep(0.003)
        profile = runner.take()[key]
        function, ns, kind = longest(truth)
        rows = [r for r in profile.rows if (r.kind, r.function) == (kind, function)]
        told = sum(r.ns for r in rows)
    elif tool == "pyinstrument":
        from pyinstrument import Profiler

        async def profiled(scope: Any, receive: Any, send: Any) -> None:
            with profiler:
                await app(scope, receive, send)

        profiler = Profiler(async_mode="enabled")
        await call(profiled)
        function, ns, kind = longest(truth)
        session = profiler.last_session
        others = {known.function for known in truth.known} - {function}
        root = session.root_frame() if session else None
        told = int(in_pyinstrument(root, function, others) * 1e9)
    else:
        profile = cProfile.Profile()

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            profile.enable()
            try:
                await app(scope, receive, send)
            finally:
                profile.disable()

        await call(counted)
        function, ns, kind = longest(truth)
        stats: Any = pstats.Stats(profile).stats  # type: ignore[attr-defined]
        told = int(sum(v[3] for k, v in stats.items() if k[2] == function) * 1e9)
    if entry.companion is not None:
        await companion
    return function, ns, told, kind


def cell(truth_ns: int, told_ns: int) -> str:
    """What a tool told, marked where that is the truth."""
    good = abs(told_ns - truth_ns) <= max(GOOD * truth_ns, MS)
    return f"{'**' if good else ''}{told_ns / MS:.1f}{'**' if good else ''}"


async def table(loop_name: str) -> None:
    """Run all and print."""
    await runner.middleware.prepare_loop()
    judge = runner.Runner(loop_name)
    right = dict.fromkeys(TOOLS, 0)
    lines = []
    for entry in runner.ENTRIES:
        if runner.absent(entry, loop_name) is not None:
            continue
        cells, truth = [], ("", 0, "")
        for tool in TOOLS:
            function, ns, told, kind = await told_by(tool, entry, judge)
            right[tool] += abs(told - ns) <= max(GOOD * ns, MS)
            truth = truth if truth[0] else (function, ns, kind)
            cells.append(f"{cell(ns, told)} of {ns / MS:.1f}")
        name = entry.name.replace("_", " ")
        lines.append(f"| {name} | `{truth[0]}` ({truth[2]}) | {' | '.join(cells)} |")
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"## {loop_name}\n\nCPython {python}; **bold**: within a tenth, or 1 ms.\n")
    print("| scenario | function (kind) |", " | ".join(TOOLS), "|")
    print("| --- | --- |" + " --- |" * len(TOOLS))
    print("\n".join(lines))
    total = len(lines)
    print("| **right** | |", " | ".join(f"**{right[t]} of {total}**" for t in TOOLS), "|")


def main() -> None:
    """One loop in this process; without a name both, each in its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"])
    name = parser.parse_args().loop
    if name is None:
        print(f"# The same situations through three profilers\n\n{__doc__}", flush=True)
        for each in ("asyncio", "uvloop"):
            subprocess.run([sys.executable, __file__, "--loop", each], check=True)
            print(flush=True)
        return
    runner.prepare_hook()
    loop = runner.new_loop(name)
    loop.run_until_complete(table(name))


if __name__ == "__main__":
    main()
