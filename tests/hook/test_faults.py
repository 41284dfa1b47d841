"""Each call into Python or for memory that can fail fails once: the app never hears of it.

In a build of its own (_engine_fault.h). The n-th fallible call of a round fails, for every n there
is: the answer is whole, the hook is off after one line of log, and nothing it says later is wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import pythons

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def folder() -> Path:
    return pythons.build(sys.executable, "-DTAILRACE_FAULTS", name="faults")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("engine", ["steps", "drive"])
def test_every_failing_call(folder: Path, loop: str, engine: str) -> None:
    env = {**os.environ, "PYTHONPATH": f"{folder}:{HERE}"}
    done = subprocess.run(
        [sys.executable, str(HERE / "fault_rounds.py"), loop, engine],
        env=env,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["wrong"] == []
    assert told["faults"] >= 90, told
    assert told["switched_off"] >= told["faults"] * 3 // 4, told
