"""What the machine took from this process: time its threads wanted a processor and had none.

Linux counts it for each thread (``/proc/self/task/*/schedstat``: run, waited, slices), and what the
host took from the whole machine (``steal`` of ``/proc/stat``).
"""

from __future__ import annotations

import os
from pathlib import Path

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _waited() -> dict[str, int]:
    """Thread -> what it has waited so far."""
    found = {}
    for thread in os.listdir("/proc/self/task"):
        try:
            text = Path(f"/proc/self/task/{thread}/schedstat").read_text()
        except OSError:  # it has ended meanwhile
            continue
        found[thread] = int(text.split()[1])
    return found


def _stolen_ns() -> int:
    return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8]) * _TICK_NS


class Lateness:
    """Between its making and taken_ns()."""

    def __init__(self) -> None:
        self._waited, self._stolen_ns = _waited(), _stolen_ns()

    def taken_ns(self) -> int:
        """Altogether. What threads waited that have ended since is not known any more."""
        now = _waited()
        waited_ns = sum(ns - self._waited.get(thread, 0) for thread, ns in now.items())
        return waited_ns + _stolen_ns() - self._stolen_ns
