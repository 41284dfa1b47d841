"""No reference is kept or given away per request: told by a debug build of CPython."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import pythons

HERE = Path(__file__).resolve().parents[1] / "hook"
DEBUG = shutil.which("python3-dbg")
DRIFT_MAX = 100  # references per 1000 requests: one kept by each would be 1000


@pytest.mark.timeout(300)
def test_references_do_not_drift() -> None:
    assert DEBUG is not None, "no python3-dbg: `make deps-soak` installs it"
    env = dict(os.environ, PYTHONPATH=f"{pythons.build(DEBUG, name='debug')}:{HERE}")
    command = [DEBUG, str(HERE / "refcount_rounds.py"), "asyncio"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    drift = json.loads(done.stdout)
    assert len(drift) == 7
    assert all(abs(by) <= DRIFT_MAX for by in drift.values()), drift
