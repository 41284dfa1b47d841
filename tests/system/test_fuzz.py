"""Each fuzz target over its corpus and for a moment over mutations of it (`make fuzz`: longer)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from harness import ROOT

TARGETS = sorted(path.stem for path in (ROOT / "tests" / "fuzz").glob("fuzz_*.c"))
SECONDS = 1


@pytest.mark.parametrize("target", TARGETS)
def test_target(tmp_path: Path, target: str) -> None:
    """No crash, no broken promise; the seed is printed."""
    binary = ROOT / "build" / "release" / "fuzz" / target
    corpus = ROOT / "tests" / "fuzz" / "corpus" / target
    assert binary.exists(), "make fuzz-build"
    done = subprocess.run(
        [binary, "-s", str(SECONDS), corpus], cwd=tmp_path, capture_output=True, timeout=60
    )
    crash = tmp_path / f"crash-{target}"
    found = crash.read_bytes() if crash.exists() else b""
    assert done.returncode == 0, (done.stdout, done.stderr[-3000:], found)
    assert b"no crash" in done.stdout
