"""Every scenario, alone, many in flight and beside blockers: the profile is true.

In processes of their own (scenario_runner.py), a few at a time, for they mostly wait: this Python
on both loops, all of it; the other Pythons that are here, the quick ones, without a package.
``make truth`` (TRUTH_ALL=1) runs everything everywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import pythons

HERE = Path(__file__).resolve().parent
LOOPS = ("asyncio", "uvloop")
ALL = os.environ.get("TRUTH_ALL") == "1"
TIMEOUT_S = 600
AT_ONCE = 4
SCENARIOS_MIN, QUICK_MIN = 40, 8
MODES = ("alone", "many", "mixed")
OTHERS = [
    (version, loop)
    for version in pythons.VERSIONS
    if version != pythons.OWN
    for loop in (LOOPS if ALL else ("asyncio",))
]
Results = list[dict[str, Any]]


def run(version: str, loop: str) -> Results:
    """What the scenarios say on this loop of this Python; told where it is not here."""
    if version == pythons.OWN:
        return scenarios(sys.executable, loop, dict(os.environ))
    python = pythons.find().get(version)
    if python is None:
        return []
    env = dict(os.environ, PYTHONPATH=str(pythons.build(python)))
    if ALL:
        return scenarios(str(pythons.environment(version)), loop, env)
    return scenarios(python, loop, env, "--quick")


def scenarios(python: str, loop: str, env: dict[str, str], *args: str) -> Results:
    """The lines of one runner."""
    command = [python, str(HERE / "scenario_runner.py"), "--loop", loop, *args]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=TIMEOUT_S)
    assert done.returncode == 0, (command, done.stderr[-4000:], done.stdout[-1000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[tuple[str, str], Future[Results]]]:
    """All of them, started."""
    wanted = [(pythons.OWN, loop) for loop in LOOPS] + OTHERS
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {which: pool.submit(run, *which) for which in wanted}


def faults(results: Results) -> str:
    """What is wrong, for eyes."""
    return "\n".join(
        f"{r['name']} {r['mode']} ({r['tries']} tries, {r['taken_ms']:.1f} ms taken):\n  "
        + "\n  ".join(r["wrong"])
        for r in results
        if r.get("wrong")
    )


def check_absent(results: Results) -> list[dict[str, Any]]:
    """Where everything is installed, only an older Python is a reason."""
    absent = [r for r in results if "absent" in r]
    assert not [r for r in absent if not r["absent"].startswith("needs Python")], absent
    return absent


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("mode", MODES)
def test_profiles_are_true(runs: Any, loop: str, mode: str) -> None:
    every = runs[pythons.OWN, loop].result()
    results = [r for r in every if r["mode"] == mode]
    assert len(results) + len(check_absent(every)) >= SCENARIOS_MIN
    assert faults(results) == ""


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize(("version", "loop"), OTHERS)
def test_other_pythons(runs: Any, version: str, loop: str) -> None:
    results = runs[version, loop].result()
    if not results:
        pytest.skip(f"NOT TESTED, not on this machine: CPython {version}")
    if ALL:
        check_absent(results)
    judged = {(r["name"], r["mode"]) for r in results if "wrong" in r}
    for mode in MODES:
        names = [name for name, m in judged if m == mode]
        assert len(names) >= (SCENARIOS_MIN if ALL else QUICK_MIN), (mode, names)
    assert faults(results) == ""
