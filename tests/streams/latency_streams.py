#!/usr/bin/env python3
"""Synthetic latency with known change points, as input for ``tailrace backtest``.

One route watched in 10 s ticks: Poisson arrivals with a daily cycle, three base distributions
(log-normal; log-normal with a Pareto tail; bimodal cache hit/miss), a daily drift of the level, two
autocorrelated disturbances (6 h and 60 s) and short blips. A shift multiplies the latency of all
requests, of the slowest fifth ("upper") or of the slowest 2 % ("tail") between two ticks. A seed
gives the same stream on every machine. Days 1 and 2 are for learning; a change falls into day 3.

    latency_streams.py --kind logn --seed 0 --days 4 --mode all --size 0.5   # change on stderr
    latency_streams.py --kind pareto --seed 5000 --days 9                    # nothing changes
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

import numpy as np

KINDS = {"logn": 1, "pareto": 2, "bimodal": 3}
TICK_S, TICKS_PER_DAY = 10, 8640
LOG_GAMMA, BUCKETS = np.log(1.05), 256
ROOT_SEED = 20240901
START_S = 1_799_971_200  # unix time of the first tick, a midnight


def autocorrelated(rng, ticks: int, tau_s: float, sd: float) -> np.ndarray:
    """AR(1) noise of correlation time tau_s and standard deviation sd."""
    r = np.exp(-TICK_S / tau_s)
    noise = rng.standard_normal(ticks) * sd * np.sqrt(1 - r * r)
    noise[0] = rng.standard_normal() * sd
    value, out = 0.0, []
    for step in noise.tolist():
        value = step + r * value
        out.append(value)
    return np.array(out)


def base_log_ms(kind: str, rng, n: int, load) -> np.ndarray:
    """Natural log of n undisturbed latencies in ms."""
    z, u = rng.standard_normal(n), rng.random(n)
    if kind == "logn":
        return np.log(40) + 0.5 * z
    if kind == "pareto":
        tail = np.log(150) + rng.standard_exponential(n) / 1.5
        return np.where(u < 0.97, np.log(40) + 0.4 * z, tail)
    return np.where(u < 0.70 - 0.05 * load, np.log(8) + 0.3 * z, np.log(120) + 0.35 * z)


def base_quantile(kind: str, p: float) -> float:
    rng = np.random.default_rng([ROOT_SEED, KINDS[kind], 10**6])
    return float(np.quantile(base_log_ms(kind, rng, 2_000_000, np.zeros(2_000_000)), p))


def change_tick(seed: int) -> int:
    """The tick of day 3 at which the stream of this seed changes."""
    rng = np.random.default_rng([ROOT_SEED, 99, seed])
    return 2 * TICKS_PER_DAY + 720 + int(rng.integers(TICKS_PER_DAY - 720))


def stream(
    kind: str,
    seed: int,
    days: float,
    rps: float = 5.0,
    mode: str | None = None,
    size: float = 0.0,
    begin: int = 0,
    end: int | None = None,
) -> np.ndarray:
    """Counts of shape (ticks, BUCKETS); bucket b holds latencies in ms of [1.05^(b-1), 1.05^b).

    ``mode`` and ``size`` hold from tick ``begin`` up to but not including tick ``end``.
    """
    rng = np.random.default_rng([ROOT_SEED, KINDS[kind], seed])
    ticks = int(days * TICKS_PER_DAY)
    t = (np.arange(ticks) + 0.5) * TICK_S
    load = np.sin(2 * np.pi * (t / 86400 - 0.25))
    n = rng.poisson(TICK_S * rps * (1 + 0.7 * load))
    level = 0.12 * load
    level += autocorrelated(rng, ticks, 6 * 3600, 0.03)
    level += autocorrelated(rng, ticks, 60, 0.08)
    blip = np.zeros(ticks, bool)
    for _ in range(rng.poisson(4 * days)):
        start = rng.integers(ticks)
        blip[start : start + 1 + int(rng.exponential(20) / TICK_S)] = True
    total = int(n.sum())
    at = np.repeat(np.arange(ticks), n)
    x = base_log_ms(kind, rng, total, load[at])
    raw = x.copy()
    x += level[at]
    x[blip[at] & (rng.random(total) < 0.3)] += np.log(3.0)
    if mode:
        hit = (at >= begin) & (at < (ticks if end is None else end))
        if mode != "all":
            hit &= raw > base_quantile(kind, {"upper": 0.80, "tail": 0.98}[mode])
        x[hit] += np.log1p(size)
    bucket = np.clip((x / LOG_GAMMA).astype(np.int64) + 1, 0, BUCKETS - 1)
    counts = np.bincount(at * BUCKETS + bucket, minlength=ticks * BUCKETS)
    return counts.reshape(ticks, BUCKETS)


def ticks_of(counts: np.ndarray, route: str, start_s: int = START_S) -> Iterator[dict]:
    """The counts as tick lines; windows without a request come too, with an empty list."""
    middle = [round(float(v), 3) for v in np.exp((np.arange(BUCKETS) - 0.5) * LOG_GAMMA)]
    for i, row in enumerate(counts):
        pairs = [[middle[b], int(row[b])] for b in np.flatnonzero(row)]
        yield {"t": start_s + i * TICK_S, "route": route, "latency_ms": pairs}


def write(lines, out) -> None:
    for line in lines:
        out.write(json.dumps(line, separators=(",", ":")) + "\n")


def main() -> None:
    ap = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ap.add_argument("--kind", choices=list(KINDS), required=True)
    ap.add_argument("--seed", type=int, required=True)
    ap.add_argument("--days", type=float, default=4)
    ap.add_argument("--rps", type=float, default=5)
    ap.add_argument("--mode", choices=["all", "upper", "tail"])
    ap.add_argument("--size", type=float, default=0.0, help="0.5 is +50 %%")
    ap.add_argument("--hours", type=float, help="how long the shift lasts (default: to the end)")
    ap.add_argument("--route", default="GET /stream")
    a = ap.parse_args()
    begin = change_tick(a.seed)
    end = begin + int(a.hours * 3600 / TICK_S) if a.hours else None
    counts = stream(a.kind, a.seed, a.days, a.rps, a.mode, a.size, begin, end)
    write(ticks_of(counts, a.route), sys.stdout)
    if a.mode:
        change = {"change_tick": begin, "t": START_S + begin * TICK_S}
        print(json.dumps(change), file=sys.stderr)


if __name__ == "__main__":
    main()
