"""What three profilers say of the demo's `/sync` and `/async`, beside the truth.

Each answer of the demo tells how long its functions slept by the app's own clock. Every tool
profiles each request; what it books on the child function is held against that. One process a
cell. Writes the table and the picture of docs/comparison-routes.md:

    python tests/bench/compare_routes.py [--write]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("TAILRACE_CALLBACK", "unix:/nonexistent/tailrace-compare")
TOOLS = ("cProfile", "pyinstrument", "tailrace")
CHILD = {"/async": "async_child_function", "/sync": "child_function"}
LOOKED_AT = 10  # of pyinstrument's sessions
CELL_TIMEOUT_S = 60
ASKED_S = 0.100  # ten sleeps of 10 ms
MISSED_SHARE = 0.05  # farther from the truth than this is wrong


def of_cprofile(profiler: Any, name: str) -> tuple[float, int]:
    """Cumulative seconds and calls of a function."""
    for entry in profiler.getstats():
        if getattr(entry.code, "co_name", None) == name:
            return entry.totaltime, entry.callcount
    return 0.0, 0


def of_pyinstrument(session: Any, name: str) -> tuple[float, int]:
    """Seconds of the frames of a function; pyinstrument counts no calls."""

    def walk(frame: Any) -> float:
        if frame.function == name:
            return float(frame.time)
        return sum(walk(child) for child in frame.children)

    root = session.root_frame(trim_stem=False)
    return (walk(root) if root is not None else 0.0), -1


class Wrapped:
    """The demo with one tool round each request, as its documentation says."""

    def __init__(self, tool: str, app: Any) -> None:
        self.tool, self.app = tool, app
        self.said: list[tuple[float, int] | str] = []
        self.sessions: list[Any] = []  # read afterwards: that alone takes seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.tool == "tailrace":
            await self.app(scope, receive, send)
            return
        name = CHILD[scope["path"]]
        try:
            if self.tool == "cProfile":
                import cProfile

                profiler = cProfile.Profile()
                profiler.enable()
                try:
                    await self.app(scope, receive, send)
                finally:
                    profiler.disable()
                self.said.append(of_cprofile(profiler, name))
            else:
                from pyinstrument import Profiler

                sampler = Profiler(async_mode="enabled")
                with sampler:
                    await self.app(scope, receive, send)
                self.sessions.append(sampler.last_session)
        except (RuntimeError, ValueError) as error:
            self.said.append(type(error).__name__)


async def request(app: Any, path: str, number: int) -> Any:
    """One request; its answer's JSON, or None where there was none."""
    key = f"{number:032x}-{number:016x}"
    body = b""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "client": ("127.0.0.1", 1), "server": ("test", 80),
        "headers": [(b"x-tailrace", f"1;{key}".encode())],
    }  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal body
        body += message.get("body", b"")

    await asyncio.get_running_loop().create_task(app(scope, receive, send))
    return json.loads(body) if body else None


def ours(name: str) -> list[tuple[float, int] | str]:
    """What the hook's rows say of a function, per request."""
    from tailrace import _engine

    rows, functions = b"", {}
    while True:
        more, _, stacks = _engine.take(1 << 18)
        if not (more or stacks):
            break
        rows += (b"," if rows and more else b"") + more
    for number, frames in _engine.stacks():
        functions[number] = [code.co_name for code, _ in frames]
    return [
        (sum(r[3] for r in row[11] if name in functions.get(r[2], ())) / 1e9, 1)
        for row in json.loads(b"[" + rows + b"]")
    ]


def cell(tool: str, loop_name: str, path: str, in_flight: int) -> dict[str, Any]:
    """One tool, loop, route and number in flight."""
    sys.path.insert(0, str(ROOT / "demo"))
    import app as demo
    from tailrace import middleware, sender

    sender.ensure_started = lambda: None  # type: ignore[assignment]
    wrapped = Wrapped(tool, demo.app if tool == "tailrace" else demo.api)
    name = CHILD[path]

    async def main() -> list[Any]:
        await middleware.prepare_loop()
        tasks = (request(wrapped, path, n + 1) for n in range(in_flight))
        return await asyncio.gather(*tasks, return_exceptions=True)

    if loop_name == "uvloop":
        import uvloop

        answers = uvloop.run(main())
    else:
        answers = asyncio.run(main())
    truth = [a["slept_ns"][name] / 1e9 for a in answers if isinstance(a, dict)]
    said = ours(name) if tool == "tailrace" else wrapped.said
    said += [of_pyinstrument(session, name) for session in wrapped.sessions[:LOOKED_AT]]
    told = [s for s in said if not isinstance(s, str)]
    wanted = statistics.median(truth) if truth else 0.0
    low, high = ASKED_S * (1 - MISSED_SHARE), wanted * (1 + MISSED_SHARE) + 0.005
    right = [s for s, _ in told if low <= s <= high]
    return {
        "answered": len(truth),
        "of": len(said),
        "truth_ms": 1e3 * wanted,
        "said_ms": 1e3 * statistics.median(s for s, _ in told) if told else None,
        "calls": statistics.median(c for _, c in told) if told else None,
        "right": len(right),
        "errors": len(said) - len(told),
    }


def picture(results: list[dict[str, Any]]) -> str:
    """Bars: what share of the requests each tool told rightly."""
    rows, y = [], 30
    for r in results:
        share = r["right"] / max(1, r["of"])
        color = "#2a7" if share > 0.95 else "#c80" if share > 0 else "#c33"
        label = f"{r['path']} · {r['loop']} · {r['in_flight']} in flight · {r['tool']}"
        rows.append(f'<text x="8" y="{y + 11}">{label}</text>')
        width = max(2, 240 * share)
        rows.append(f'<rect x="330" y="{y}" width="{width:.0f}" height="13" fill="{color}"/>')
        rows.append(f'<text x="580" y="{y + 11}">{100 * share:.0f} %</text>')
        y += 20
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{y + 8}" '
    head += 'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
    title = "Requests whose child function was told rightly"
    title = f'<text x="8" y="18" font-weight="bold">{title}</text>'
    return head + title + "".join(rows) + "</svg>\n"


def table(results: list[dict[str, Any]]) -> str:
    """The results for docs/comparison-routes.md."""
    lines = [
        "| route | loop | in flight | tool | app's clock | said | calls | rightly | failed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        said = "–" if r["said_ms"] is None else f"{r['said_ms']:.0f} ms"
        calls = "–" if r["calls"] is None or r["calls"] < 0 else f"{r['calls']:.0f}"
        if r["tool"] == "tailrace":
            calls = "–"
        lines.append(
            f"| {r['path']} | {r['loop']} | {r['in_flight']} | {r['tool']} "
            f"| {r['truth_ms']:.0f} ms | {said} | {calls} "
            f"| {r['right']} of {r['of']} | {r['errors'] or ''} |"
        )
    return "\n".join(lines) + "\n"


TEXT = """# The same two routes through three profilers

`/async` sleeps ten times 10 ms in a parent coroutine and ten times 10 ms in its child; `/sync` does
so in `def` functions, which FastAPI runs in a worker thread. The table asks each tool what the
*child* took, per request (of pyinstrument's at 100 in flight, ten are read). Right is what lies
between the 100 ms it asked to sleep and what the app's own clock saw (5 % off at most, 5 ms above).
The app's clock also sees the loop busy with others, and with the profiler: tailrace tells that
apart (`ready`). Made by `make compare` on a machine of two busy cores; run it on yours.

cProfile books the time a coroutine runs, not what it waits, counts its resumptions as calls, and
sees one thread. pyinstrument samples the event loop's thread: what a `def` route does is not there.
tailrace books measured waits and thread runs per request. Its calls are counted in deep profiles
(`tailrace deep`): on `/async` there the child has 1 and `asyncio.sleep` 20.

![Requests told rightly](comparison-routes.svg)

"""


def in_process_of_its_own(at: list[str]) -> dict[str, Any]:
    """The result of a cell; one that does not end told nothing."""
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--cell", *at],
            capture_output=True,
            text=True,
            timeout=CELL_TIMEOUT_S,
            check=True,
        )
    except subprocess.TimeoutExpired:
        count = int(at[3])
        nothing = {"truth_ms": 0.0, "said_ms": None, "calls": None, "right": 0}
        return {"answered": 0, "of": count, "errors": count, **nothing}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """All cells, or one (in a process of its own)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help="write docs/comparison-routes.md and .svg"
    )
    parser.add_argument("--cell", nargs=4)
    options = parser.parse_args()
    if options.cell:
        tool, loop_name, path, count = options.cell
        print(json.dumps(cell(tool, loop_name, path, int(count))))
        return 0
    results = []
    for path in CHILD:
        for loop_name in ("asyncio", "uvloop"):
            for in_flight in (1, 100):
                for tool in TOOLS:
                    at = [tool, loop_name, path, str(in_flight)]
                    found = in_process_of_its_own(at)
                    cell_of = {"tool": tool, "loop": loop_name, "path": path}
                    results.append(cell_of | {"in_flight": in_flight} | found)
    print(table(results))
    if options.write:
        (ROOT / "docs" / "comparison-routes.md").write_text(TEXT + table(results))
        (ROOT / "docs" / "comparison-routes.svg").write_text(picture(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
