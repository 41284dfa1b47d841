"""Runs scenarios in this interpreter on one event loop and prints one JSON line per result.

    python scenario_runner.py --loop uvloop [--modes alone,many,mixed] [--names a,b] [--quick]

A result is right when every time the scenario knows is told by the profile: exact rows within
max(1 %, 0.5 ms) of what it took by construction and by the request's own clock (the difference is
the timer's own lateness), not beyond its deadline where a known block held the loop then, sampled
splits within two gaps, sums exactly, and no frame of another scenario anywhere.

What the machine took from this process meanwhile is measured beside (known/lateness.py): runs and
jobs may be longer by that, and a wait shorter by what its own request's runs are longer. A round in
which nothing was taken is judged once; another one again where it is wrong, at most TRIES times.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import inspect
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
os.environ.setdefault("TAILRACE_CALLBACK", "unix:/nonexistent/tailrace-truth")
sys.path[:0] = [str(HERE), str(HERE / "known")]

import truth_known  # noqa: E402
from lateness import Lateness  # noqa: E402
from tailrace import _engine, middleware, sender  # noqa: E402
from truth_known import ENTRIES, LAST, MS, START, Entry, Known, Truth  # noqa: E402

MODULES = [
    importlib.import_module(name)
    for name in ("scenarios_tasks", "scenarios_sync", "scenarios_threads", "scenarios_answers")
]
FILES = {module.__file__ for module in MODULES}

TRIES = 5
SHARE, SLACK_NS = 0.01, MS // 2
TAKEN_NS = MS // 4  # less is as good as nothing
UVLOOP_NS = MS  # its timers count whole milliseconds, from a clock that is up to one late
GIL_NS = 10 * MS  # a thread among others: what a job may wait for the interpreter at its ends
SAMPLE_GAP_NS = 4 * MS  # of the watchdog; a tenth of the age where that is more
AWAITED = ("wait", "thread_run")
STEP_NS = MS // 5  # what any step may run beside what it is told to
COUNTS = {"alone": 1, "mixed": 10}
BLOCK_MS, BLOCK_PAUSE_MS = 12, 25
TIMEOUT_S = 60


# --- profiles ---------------------------------------------------------------------------------

Frame = tuple[str, str, int]  # file, function, line: of the app's own frames

_stacks: dict[int, list[Frame]] = {}


class Row:
    """A breakdown row with the app's own frames."""

    def __init__(self, raw: list[Any], where: str) -> None:
        self.kind, self.cause, number, self.ns, self.count = raw[:5]
        self.exact, self.samples, self.by = raw[5:8]
        self.where = where
        self.frames = _stacks[number] if number >= 0 else []

    @property
    def function(self) -> str | None:
        """The innermost function of the app."""
        return self.frames[-1][1] if self.frames else None

    def shown(self) -> str:
        """For eyes."""
        names = ">".join(f"{f}:{line}" for _, f, line in self.frames)
        return (
            f"{self.where} {self.kind} {self.cause} {self.ns / MS:.3f} ms x{self.count} "
            f"exact={self.exact} samples={self.samples} {names} by={self.by}"
        )


class Profile:
    """What of a row of docs/protocol.md section 2 is asked for."""

    def __init__(self, raw: list[Any]) -> None:
        self.key, self.enter_ns, self.start_ns, self.end_ns = raw[0], raw[5], raw[6], raw[7]
        self.truncated = raw[10]
        self.rows = [Row(r, "breakdown") for r in raw[11]] + [Row(r, "stream") for r in raw[13]]
        self.unattributed_ns, self.stream_unattributed_ns = raw[12], raw[14]

    def sum(self, where: str) -> int:
        """The rows of one list."""
        return sum(r.ns for r in self.rows if r.where == where)


def take() -> dict[str, Profile]:
    """All finished profiles."""
    found: dict[str, Profile] = {}
    while True:
        rows, ends, stacks = _engine.take(1 << 18)
        for number, frames in stacks:
            _stacks[number] = [
                (code.co_filename, code.co_name, line)
                for code, line in frames
                if _engine.frame_in_app(code)
            ]
        if not (rows or ends or stacks):
            break
        for raw in json.loads(b"[" + rows + b"]"):
            found[raw[0]] = Profile(raw)
    jobs, returns, _ = (json.loads(b"[" + rows + b"]") for rows in _engine.take_beside())
    for (key, _, totals), (_, _, lags) in zip(jobs, returns, strict=True):
        for (stack, count, *_), ns in zip(totals, lags, strict=True):
            row = ["return", None, stack, ns, count, 1, 0, None, None]
            found[key].rows.append(Row(row, "jobs"))
    return found


# --- running ----------------------------------------------------------------------------------


def app_of(entry: Entry, truth: Truth) -> Any:
    """The scenario as an ASGI app."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if entry.asgi:
            await entry.run(truth, scope, receive, send)
            return
        await entry.run(truth)
        await send(START)
        await send(LAST)

    return app


def companion_of(entry: Entry, truth: Truth) -> Any:
    """The other request beside it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert entry.companion is not None
        await entry.companion(truth)
        await send(START)
        await send(LAST)

    return app


class Runner:
    """Makes requests of scenarios and judges their profiles."""

    def __init__(self, loop_name: str) -> None:
        self.loop_name = loop_name
        self.blocks_ns: list[tuple[int, int]] = []  # when blockers held the loop
        self.requests = 0
        self.taken_ns = 0  # by the machine, in the last round

    def request(self, app: Any) -> tuple[str, asyncio.Task[None]]:
        """One request in a task of its own; its key."""
        self.requests += 1
        key = f"{self.requests:032x}-{self.requests:016x}"
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
            "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "", "scheme": "http",
            "headers": [(b"x-tailrace", b"1;" + key.encode())], "client": ("127.0.0.1", 1),
            "server": ("test", 80),
        }  # fmt: skip

        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            pass

        hooked = middleware.Hook(app)
        return key, asyncio.get_running_loop().create_task(hooked(scope, receive, send))

    async def blocks(self) -> None:
        """Requests that hold the loop, one after the other, until cancelled."""

        async def blocker(scope: Any, receive: Any, send: Any) -> None:
            begin = time.monotonic_ns()
            time.sleep(BLOCK_MS / 1000)
            self.blocks_ns.append((begin, time.monotonic_ns()))
            await send(START)
            await send(LAST)

        while True:
            await asyncio.sleep(BLOCK_PAUSE_MS / 1000)
            await self.request(blocker)[1]

    async def run(self, entry: Entry, mode: str) -> list[str]:
        """What is wrong with the profiles of one round: empty where nothing is."""
        count = entry.many if mode == "many" else min(COUNTS[mode], entry.many)
        truths = [Truth(extra_ms=i % 10, mode=mode) for i in range(count)]
        loop = asyncio.get_running_loop()
        take()
        self.blocks_ns.clear()
        lateness = Lateness()
        others = [loop.create_task(self.blocks())] if mode == "mixed" else []
        keys, tasks, beside = [], [], []
        for truth in truths:
            if entry.companion is not None:
                beside.append(self.request(companion_of(entry, truth)))
        for truth in truths:
            key, task = self.request(app_of(entry, truth))
            keys.append(key)
            tasks.append(task)
        await asyncio.wait_for(asyncio.gather(*tasks, *(t for _, t in beside)), TIMEOUT_S)
        for other in others:
            other.cancel()
        await asyncio.sleep(0.003)
        self.taken_ns = lateness.taken_ns()
        found, wrong = take(), []
        companions = [key for key, _ in beside] or [""] * count
        for key, truth, companion in zip(keys, truths, companions, strict=True):
            profile = found.get(key)
            faults = (
                ["no profile"] if profile is None else self.judge(entry, truth, profile, companion)
            )
            if faults and profile is not None:
                faults += [f"    {r.shown()}" for r in profile.rows]
                faults += [f"    known {k}" for k in truth.known]
            wrong += faults
        return wrong

    # --- judging ------------------------------------------------------------------------------

    def judge(self, entry: Entry, truth: Truth, profile: Profile, companion: str) -> list[str]:
        """What the profile tells otherwise than it was."""
        faults = list(check_sums(profile)) + list(check_strangers(entry, profile))
        longer_ns, wrong = self.check_runs(truth, profile)
        faults += wrong
        if not truth.known:
            faults.append("the scenario has told nothing")
        groups: dict[tuple[Any, ...], list[Known]] = {}
        for known in truth.known:
            groups.setdefault(known.key, []).append(known)
        told: set[int] = set()
        for (where, kind, cause, function), known in groups.items():
            if kind == "run" and not known[0].sampled:
                continue  # told where the step ended, which may be elsewhere
            rows = [
                r
                for r in profile.rows
                if (r.where, r.kind, r.function) == (where, kind, function)
                and (cause is None or r.cause == cause)
            ]
            told |= {id(r) for r in rows}
            faults += self.check(truth, profile, known, rows, longer_ns)
            if known[0].by and {r.by for r in rows} != {companion[:32]}:
                faults.append(f"{function}: not named: {companion[:32]}")
        slack_ns = tolerance(profile.end_ns - profile.enter_ns)
        slack_ns += sum(r.count for r in profile.rows) * STEP_NS if truth.mode != "alone" else 0
        for name in truth.never:
            rows = [r for r in profile.rows if r.function == name and r.kind in AWAITED]
            if sum(r.ns for r in rows) > slack_ns:
                faults.append(f"{name}: is not on the path")
        rest = [r for r in profile.rows if id(r) not in told and r.kind in ("wait", "thread_run")]
        if sum(r.ns for r in rest) > slack_ns:
            faults.append(f"{sum(r.ns for r in rest) / MS:.3f} ms of waits that were not")
        return faults

    def check_runs(self, truth: Truth, profile: Profile) -> tuple[int, list[str]]:
        """All runs together are what was computed, and little more but for what was taken: by how
        much they are longer, and what is wrong."""
        known = [k for k in truth.known if k.kind == "run"]
        told_ns = sum(r.ns for r in profile.rows if r.kind == "run")
        least_ns, most_ns = sum(k.least_ns for k in known), sum(k.most_ns for k in known)
        most_ns += tolerance(most_ns)
        most_ns += sum(r.count for r in profile.rows) * STEP_NS
        longer_ns = max(0, told_ns - sum(k.most_ns for k in known))
        if least_ns - tolerance(least_ns) <= told_ns <= most_ns + self.taken_ns:
            return min(longer_ns, self.taken_ns), []
        bounds = f"{least_ns / MS:.3f} to {(most_ns + self.taken_ns) / MS:.3f}"
        return 0, [f"ran for {told_ns / MS:.3f} ms, not {bounds}"]

    def check(
        self, truth: Truth, profile: Profile, known: list[Known], rows: list[Row], longer_ns: int
    ) -> Iterator[str]:
        """One function's time of one kind."""
        told_ns = sum(r.ns for r in rows)
        least_ns, most_ns = sum(k.least_ns for k in known), sum(k.most_ns for k in known)
        slack_ns = tolerance(least_ns)
        kind = known[0].kind
        if self.loop_name == "uvloop" and kind == "wait":
            slack_ns += UVLOOP_NS
        if any(k.sampled for k in known):
            slack_ns += 2 * max(SAMPLE_GAP_NS, most_ns // 10) + self.taken_ns
        if kind in ("thread_run", "thread_queue", "return") and truth.mode != "alone":
            slack_ns += GIL_NS
        if kind == "wait":
            most_ns -= sum(self.held_when_due(k) for k in known)
            # A socket may have been ready while the loop was busy: told apart as an estimate.
            least_ns -= sum(r.ns for r in profile.rows if r.kind == "ready" and not r.exact)
            least_ns -= longer_ns
        else:
            most_ns += self.taken_ns
        if not least_ns - slack_ns <= told_ns <= most_ns + slack_ns:
            yield (
                f"{known[0].function}: {kind} {told_ns / MS:.3f} ms, "
                f"not {least_ns / MS:.3f} to {most_ns / MS:.3f} (+-{slack_ns / MS:.3f})"
            )

    def held_when_due(self, known: Known) -> int:
        """How long a blocker held the loop from when a timer was due: that is no waiting."""
        due_ns = known.begin_ns + known.least_ns
        if known.cause != "sleep":
            return 0
        return sum(
            max(0, end - max(due_ns, begin))
            for begin, end in self.blocks_ns
            if begin <= due_ns < end
        )


def tolerance(ns: int) -> int:
    """How far an exact row may be off."""
    return max(int(ns * SHARE), SLACK_NS)


def check_sums(profile: Profile) -> Iterator[str]:
    """The sums hold to the nanosecond, and nothing is left over."""
    if profile.start_ns is None or profile.truncated:
        yield "no start, or truncated"
        return
    app_ns, stream_ns = profile.start_ns - profile.enter_ns, profile.end_ns - profile.start_ns
    if profile.sum("breakdown") + profile.unattributed_ns != app_ns:
        yield "the breakdown does not add up"
    if profile.sum("stream") + profile.stream_unattributed_ns != stream_ns:
        yield "the stream's breakdown does not add up"
    if profile.unattributed_ns or profile.stream_unattributed_ns:
        yield f"unattributed {profile.unattributed_ns}, {profile.stream_unattributed_ns}"


def check_strangers(entry: Entry, profile: Profile) -> Iterator[str]:
    """Every frame of the app is this scenario's own or the runner's."""
    lines, first = inspect.getsourcelines(inspect.unwrap(entry.run))
    own, entry_file = range(first, first + len(lines)), inspect.getsourcefile(entry.run)
    for row in profile.rows:
        for file, function, line in row.frames:
            if file in FILES and (file != entry_file or line not in own):
                yield f"a stranger: {function}:{line}"


# --- the program ------------------------------------------------------------------------------


def absent(entry: Entry, loop_name: str) -> str | None:
    """Why it cannot run here."""
    if sys.version_info < entry.python:
        return f"needs Python {'.'.join(map(str, entry.python))}"
    if loop_name not in entry.loops:
        return f"not on {loop_name}"
    missing = [name for name in entry.needs if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(missing)}" if missing else None


async def run_all(loop_name: str, entries: list[Entry], modes: list[str], tries_max: int) -> None:
    """Run and print."""
    from concurrent.futures import ThreadPoolExecutor

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(80))
    if importlib.util.find_spec("anyio") is not None:
        import anyio.to_thread

        anyio.to_thread.current_default_thread_limiter().total_tokens = 80
    await middleware.prepare_loop()
    runner = Runner(loop_name)
    for entry in entries:
        why = absent(entry, loop_name)
        if why is None and entry.warm:
            await runner.run(entry, "alone")
        sys.setswitchinterval(entry.switch_s)
        for mode in modes if why is None else []:
            began, wrong, tries = time.monotonic(), ["?"], 0
            while wrong and tries < tries_max and (tries == 0 or runner.taken_ns > TAKEN_NS):
                tries += 1
                wrong = await runner.run(entry, mode)
            s = round(time.monotonic() - began, 2)
            tell(entry, mode, wrong=wrong, tries=tries, s=s, taken_ms=runner.taken_ns / MS)
        if why is not None:
            tell(entry, "all", absent=why)


def tell(entry: Entry, mode: str, **more: Any) -> None:
    """One line."""
    print(json.dumps({"name": entry.name, "mode": mode, **more}), flush=True)


def prepare_hook() -> None:
    """Quiet, and with what only helps the scenarios counted as a library."""
    sender.ensure_started = lambda: None  # type: ignore[assignment]
    middleware.prepare()
    prefixes = [*middleware._library_prefixes(), str(Path(truth_known.__file__).parent) + "/"]
    middleware._library_prefixes = lambda: prefixes  # type: ignore[assignment]


def new_loop(name: str) -> Any:
    """A fresh event loop of this kind."""
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def main() -> None:
    """Parse, prepare the hook, run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", default="asyncio", choices=["asyncio", "uvloop"])
    parser.add_argument("--modes", default="alone,many,mixed")
    parser.add_argument("--names", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tries", type=int, default=TRIES)
    options = parser.parse_args()
    names = set(filter(None, options.names.split(",")))
    entries = [
        e for e in ENTRIES if e.name in names or not (names or (options.quick and not e.quick))
    ]
    prepare_hook()
    loop = new_loop(options.loop)
    modes = options.modes.split(",")
    loop.run_until_complete(run_all(options.loop, entries, modes, options.tries))


if __name__ == "__main__":
    main()
