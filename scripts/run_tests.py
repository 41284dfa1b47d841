"""Runs the unit tests (cmocka, TAP) and the Python suites (pytest, JUnit XML) and adds them up.

The last line is ``N passed, N failed`` (with ``, N skipped`` where tests were skipped). Exit
status 0 only when at least one test ran and none failed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
UNIT_TIMEOUT_S = 120
PYTEST_TIMEOUT_S = 1200
AGAIN_MAX = 5  # more failures than these are no matter of the machine
#: Suites that claim times run one test at a time; the hook's share the two cores; those of the
#: running system mostly wait, and more of them at a time cost no more.
PARALLEL_SUITES = {"hook": (2, ["tests/hook", "tests/sender"]), "system": (4, ["tests/system"])}
SERIAL_SUITES = ["tests/truth", "tests/browser"]


class Tally:
    """Counts of one or more runs."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0
        self.names: list[str] = []  # of failed pytest tests, as pytest takes them

    def line(self) -> str:
        """The closing line that the gate reads."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def run_unit(binary: Path, tally: Tally) -> None:
    """Runs one cmocka binary; a crash or a time-out counts as one failure."""
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP")
    try:
        done = subprocess.run(
            [binary],
            env=env,
            capture_output=True,
            text=True,
            timeout=UNIT_TIMEOUT_S,
            errors="replace",
        )
        output, status = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired:
        output, status = f"no end after {UNIT_TIMEOUT_S} s", -1
    passed = len(re.findall(r"^ok \d+", output, re.M))
    failed = len(re.findall(r"^not ok \d+", output, re.M))
    planned = re.search(r"^1\.\.(\d+)", output, re.M)
    if status != 0 and failed == 0:
        failed = 1
    if planned and passed + failed < int(planned[1]):
        failed = int(planned[1]) - passed
    if not planned:
        failed = max(failed, 1)
    tally.passed += passed
    tally.failed += failed
    print(
        f"{'ok  ' if failed == 0 else 'FAIL'} {binary.name}: {passed} passed, {failed} failed",
        flush=True,
    )
    if failed:
        print(output, flush=True)


def run_pytest(name: str, arguments: list[str], tally: Tally) -> None:
    """Runs pytest with ``arguments``; no report or an abnormal end counts as one failure."""
    report = BUILD / f"pytest-{name}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments]
    try:
        status = subprocess.run(command, cwd=ROOT, timeout=PYTEST_TIMEOUT_S).returncode
    except subprocess.TimeoutExpired:
        print(f"FAIL {name}: no end after {PYTEST_TIMEOUT_S} s", flush=True)
        status = -1
    failed = passed = 0
    if report.exists():
        for suite in ET.parse(report).getroot().iter("testsuite"):
            count = {k: int(suite.get(k, "0")) for k in ("tests", "failures", "errors", "skipped")}
            failed += count["failures"] + count["errors"]
            tally.names += failed_names(suite)
            passed += count["tests"] - count["failures"] - count["errors"] - count["skipped"]
            tally.skipped += count["skipped"]
    if status != 0 and failed == 0:
        failed = 1
    tally.passed += passed
    tally.failed += failed


def failed_names(suite: ET.Element) -> list[str]:
    """The node IDs of the suite's tests that failed or had an error."""
    cases = [
        c
        for c in suite.iter("testcase")
        if c.find("failure") is not None or c.find("error") is not None
    ]
    return [f"{c.get('classname', '').replace('.', '/')}.py::{c.get('name')}" for c in cases]


def run_again(tally: Tally) -> None:
    """A few tests that failed beside others run once more, alone: on a machine that others load,
    known times come late. What fails alone too has failed; what passes is named, for it is either
    too tight or true only sometimes."""
    if not 0 < tally.failed == len(tally.names) <= AGAIN_MAX:
        return
    unsteady = []
    for name in tally.names:
        alone = Tally()
        run_pytest("again", [name], alone)
        if alone.failed == 0 and alone.passed > 0:
            unsteady.append(name)
    print(f"UNSTEADY: failed beside others, passed alone: {', '.join(unsteady) or 'none'}")
    tally.passed += len(unsteady)
    tally.failed -= len(unsteady)


def existing(paths: list[str]) -> list[str]:
    """Those of ``paths`` that hold tests."""
    return [p for p in paths if any((ROOT / p).glob("test_*.py"))]


def main() -> int:
    """Runs everything, or only pytest with the given arguments."""
    tally = Tally()
    started = time.monotonic()
    if len(sys.argv) > 1:
        run_pytest("selected", sys.argv[1:], tally)
    else:
        for binary in sorted((BUILD / "release" / "unit").glob("test_*")):
            if binary.suffix == "" and os.access(binary, os.X_OK):
                run_unit(binary, tally)
        for name, (workers, suites) in PARALLEL_SUITES.items():
            arguments = ["-n", str(workers), "--dist", "loadgroup", *existing(suites)]
            run_pytest(name, arguments, tally)
        run_pytest("serial", existing(SERIAL_SUITES), tally)
        run_again(tally)
    print(f"in {time.monotonic() - started:.0f} s")
    print(tally.line(), flush=True)
    return 0 if tally.failed == 0 and tally.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
