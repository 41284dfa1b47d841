"""Every scenario of scenarios.py, alone, many in flight and beside blockers: the profile is true.

In processes of their own (scenario_runner.py): this Python on both loops, all of it; the other
Pythons that are here, the quick ones. ``make truth`` (TRUTH_ALL=1) runs everything everywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import pythons

HERE = Path(__file__).resolve().parent
LOOPS = ("asyncio", "uvloop")
ALL = os.environ.get("TRUTH_ALL") == "1"
TIMEOUT_S = 600
#: Scenarios that cannot run somewhere, with how many there are at least where all can.
SCENARIOS_MIN = 40


class Run:
    """A runner on its way: all of one Python's scenarios on one loop."""

    def __init__(self, python: str, loop: str, *args: str, path: Path | None = None) -> None:
        env = dict(os.environ)
        if path is not None:
            env["PYTHONPATH"] = str(path)
        self.process = subprocess.Popen(
            [python, str(HERE / "scenario_runner.py"), "--loop", loop, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        self._results: list[dict[str, Any]] | None = None

    def results(self) -> list[dict[str, Any]]:
        """Its lines, when it has ended."""
        if self._results is None:
            out, err = self.process.communicate(timeout=TIMEOUT_S)
            assert self.process.returncode == 0, (self.process.args, err[-4000:], out[-1000:])
            self._results = [json.loads(line) for line in out.splitlines()]
        return self._results


@pytest.fixture(scope="module")
def own() -> dict[str, Run]:
    """This Python on both loops, one process each, at once."""
    return {loop: Run(sys.executable, loop) for loop in LOOPS}


def faults(results: list[dict[str, Any]]) -> str:
    """What is wrong, for eyes."""
    return "\n".join(
        f"{r['name']} {r['mode']} ({r['tries']} tries):\n  " + "\n  ".join(r["wrong"])
        for r in results
        if r.get("wrong")
    )


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("mode", ["alone", "many", "mixed"])
def test_profiles_are_true(own: dict[str, Run], loop: str, mode: str) -> None:
    results = [r for r in own[loop].results() if r["mode"] == mode]
    absent = [r for r in own[loop].results() if "absent" in r]
    assert len(results) + len(absent) >= SCENARIOS_MIN
    assert not [r for r in absent if not r["absent"].startswith("needs Python")], absent
    assert faults(results) == ""


@pytest.mark.timeout(TIMEOUT_S)
def test_other_pythons() -> None:
    """Standard library only: nothing is installed for them. On asyncio."""
    found = pythons.find()
    absent = pythons.missing(found)
    if absent:
        warnings.warn(f"NOT TESTED, not on this machine: CPython {', '.join(absent)}", stacklevel=1)
    found.pop(pythons.OWN, None)
    if not found:
        pytest.skip(f"no CPython but {pythons.OWN} on this machine (of {pythons.VERSIONS})")
    args = [] if ALL else ["--quick"]
    wrong = ""
    runs = []
    for version, python in found.items():
        runs.append((version, Run(python, "asyncio", *args, path=pythons.build(python))))
    for version, run in runs:
        results = run.results()
        assert len([r for r in results if "wrong" in r]) >= 3 * 7, (version, results)
        told = faults(results)
        wrong += f"--- CPython {version}\n{told}\n" if told else ""
    assert wrong == ""
