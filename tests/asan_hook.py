"""`make asan-hook`: the hook's tests against an extension built with AddressSanitizer and UBSan.

The interpreter itself is not instrumented: libasan is loaded before it, and Python's allocator is
switched off, so that every object of the extension's is watched. Arguments go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pythons

FLAGS = [
    "-O1",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-Wno-maybe-uninitialized",
]
#: Their bounds are of memory and of forked processes; faults have a build of their own.
LEFT_OUT = ["leave_nothing", "test_every_failing_call", "test_each_process_sends_its_own"]


def library(name: str) -> str:
    """The compiler's runtime library of this name."""
    compiler = os.environ.get("CC", "gcc")
    command = [compiler, f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    """Build, run; pytest's exit status."""
    folder = pythons.build(sys.executable, *FLAGS, name="asan")
    env = dict(
        os.environ,
        LD_PRELOAD=f"{library('libasan.so')} {library('libubsan.so')}",
        ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=0",
        UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1",
        PYTHONMALLOC="malloc",
        PYTHONPATH=str(folder),
    )
    arguments = sys.argv[1:] or ["-q", "-x", "tests/hook", "-k", " and ".join(
        f"not {name}" for name in LEFT_OUT
    )]  # fmt: skip
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=pythons.ROOT, env=env).returncode


if __name__ == "__main__":
    sys.exit(main())
