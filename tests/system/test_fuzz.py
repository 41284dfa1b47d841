"""Each fuzz target over its corpus and for 10 s over mutations of it (`make fuzz`: longer)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from harness import ROOT

TARGETS = sorted(path.stem for path in (ROOT / "tests" / "fuzz").glob("fuzz_*.c"))
SECONDS = float(os.environ.get("FUZZ_SECONDS", "10"))


@pytest.mark.parametrize("target", TARGETS)
def test_target(tmp_path: Path, target: str) -> None:
    """No crash, no broken promise; the seed is printed."""
    binary = ROOT / "build" / "release" / "fuzz" / target
    corpus = ROOT / "tests" / "fuzz" / "corpus" / target
    assert binary.exists(), "make fuzz-build"
    command = [binary, "-s", str(SECONDS), corpus]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60 + SECONDS)
    crash = tmp_path / f"crash-{target}"
    found = crash.read_bytes() if crash.exists() else b""
    assert done.returncode == 0, (done.stdout, done.stderr[-3000:], found)
    assert b"no crash" in done.stdout
