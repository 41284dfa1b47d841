"""Paired comparison: medians of ratios with an interval that assumes no shape of the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Where the A/A control's interval leaves this band, the figures beside it mean nothing.
CONTROL_LOW, CONTROL_HIGH = 0.98, 1.02


@dataclass(frozen=True)
class Estimate:
    """A median with its 95 % interval."""

    median: float
    low: float
    high: float
    count: int

    def text(self, digits: int = 3) -> str:
        """``1.021 [1.003, 1.044]``"""
        return f"{self.median:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the middle two."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def estimate(values: Sequence[float]) -> Estimate:
    """Median with the distribution-free 95 % interval (order statistics of the binomial)."""
    ordered = sorted(values)
    n = len(ordered)
    rank, tail = 0, 0.0
    while rank < n // 2:
        tail += math.comb(n, rank) / 2**n
        if tail > 0.025:
            break
        rank += 1
    low = max(rank - 1, 0)
    return Estimate(median(ordered), ordered[low], ordered[n - 1 - low], n)


def bar_of(values: Sequence[tuple[Estimate, float]], text: str) -> str:
    """Every interval under its bar, one over it, or neither can be said."""
    if all(value.high <= bar for value, bar in values):
        return "holds"
    return f"over {text}" if any(value.low > bar for value, bar in values) else f"at {text}"


def control_ok(control: Estimate) -> bool:
    """Does the A/A control allow a verdict at all?"""
    return CONTROL_LOW <= control.median <= CONTROL_HIGH
