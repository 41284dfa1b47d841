#!/usr/bin/env python3
"""The measured figures of docs/detector.md: false alarms and delays of ``tailrace backtest``.

    backtest_table.py null             # false alarms by traffic, and of deploys' twins
    backtest_table.py power            # delays, beside the reference on the same streams
    backtest_table.py null --rate 5 --seeds 40

Streams of seeds 0 to 39 have a change, those of 5000 to 5039 have none. One process at a time;
hours for everything. Exit status 1 when a figure misses the bar of docs/detector.md.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import latency_streams as streams
import numpy as np

HERE = Path(__file__).resolve().parent
BINARY = HERE.parent.parent / "build" / "tailrace"
NULL_SEED, NULL_DAYS, LEARNING_DAYS, MONTH_DAYS = 5000, 9, 2, 30
NULL_SEEDS = {5.0: 40, 0.05: 16, 0.5: 16, 50.0: 16}  # of each kind: 840 route-days, and 336 each
TWIN_ROUTES = 100
CHANGES = [("all", 0.2), ("all", 0.5), ("all", 1.0), ("upper", 0.5), ("tail", 1.0)]
ALARMS_MAX, DELAY_MAX = 1.0, 1.1


def upper_bound(alarms: int) -> float:
    """One-sided 95 % upper bound of a Poisson mean of which ``alarms`` were seen."""
    low, high = 0.0, 20.0 + 3.0 * alarms
    for _ in range(60):
        mean = (low + high) / 2
        below = sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(alarms + 1))
        low, high = (mean, high) if below > 0.05 else (low, mean)
    return high


def firings(command: list, text: str) -> list[dict]:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [x for x in lines if x["state"] == "firing" and "reopened" not in x and "note" not in x]


def text_of(counts: np.ndarray, deploy_each_day: bool = False) -> str:
    """Tick lines as streams.ticks_of() gives them, without empty windows, five times as fast."""
    middles = np.exp((np.arange(streams.BUCKETS) - 0.5) * streams.LOG_GAMMA)
    pairs = [f"[{round(float(middle), 3)}," for middle in middles]
    ticks, buckets = np.nonzero(counts)
    cells = [
        f"{pairs[bucket]}{n}]"
        for bucket, n in zip(buckets.tolist(), counts[ticks, buckets].tolist(), strict=True)
    ]
    ends = np.searchsorted(ticks, np.arange(len(counts)), side="right").tolist()
    begin, lines = 0, []
    for i, end in enumerate(ends):
        t = streams.START_S + i * streams.TICK_S
        if deploy_each_day and i % streams.TICKS_PER_DAY == streams.TICKS_PER_DAY // 2:
            lines.append(f'{{"t":{t},"deploy":"v{i}"}}\n')
        if begin < end:
            latency = ",".join(cells[begin:end])
            lines.append(f'{{"t":{t},"route":"GET /stream","latency_ms":[{latency}]}}\n')
        begin = end
    return "".join(lines)


def null(rates: dict[float, int]) -> bool:
    """False alarms of days 3 to 9 (and, apart, of the first two, on a trailing reference)."""
    good = True
    for rate, seeds in rates.items():
        late = early = twins = 0
        for seed in range(NULL_SEED, NULL_SEED + seeds):
            for kind in streams.KINDS:
                counts = streams.stream(kind, seed, NULL_DAYS, rate)
                fired = firings([BINARY, "backtest"], text_of(counts))
                start = streams.START_S + LEARNING_DAYS * 86400
                late += sum(x["t"] >= start for x in fired)
                early += sum(x["t"] < start for x in fired)
                if rate == 5:
                    among = [BINARY, "backtest", "--routes", str(TWIN_ROUTES)]
                    text = text_of(counts, deploy_each_day=True)
                    twins += sum("deploy" in x for x in firings(among, text))
        days = seeds * len(streams.KINDS) * (NULL_DAYS - LEARNING_DAYS)
        bound = upper_bound(late) * MONTH_DAYS / days
        good &= bound <= ALARMS_MAX
        print(
            f"{rate:g} requests/s: {late} false alarms in {days} route-days, "
            f"{late * MONTH_DAYS / days:.2f} a route-month (<= {bound:.2f}); "
            f"{early} more in the {seeds * len(streams.KINDS) * LEARNING_DAYS} of learning",
            flush=True,
        )
        if rate == 5:
            days = seeds * len(streams.KINDS) * NULL_DAYS
            bound = upper_bound(twins) * MONTH_DAYS / days
            good &= bound <= ALARMS_MAX
            print(
                f"one of {TWIN_ROUTES} routes with a deploy a day: {twins} false alarms of twins "
                f"in {days} route-days (<= {bound:.2f} a route-month)",
                flush=True,
            )
    return good


def delay(fired: list[dict], counts: np.ndarray, change: int) -> float:
    """Requests from the change to the end of the window that fired."""
    ticks = [(x["t"] - streams.START_S) // streams.TICK_S for x in fired]
    after = [tick for tick in ticks if tick >= change]
    return float(counts[change : after[0] + 1].sum()) if after else math.inf


def figures(delays: list[float]) -> tuple[float, float, float]:
    rank = sorted(delays)
    median, late = rank[(len(rank) - 1) // 2], rank[math.ceil(0.95 * len(rank)) - 1]
    return median / 1000, late / 1000, sum(map(math.isfinite, delays)) / len(delays)


def power(seeds: int) -> bool:
    """Delays in thousand requests, median/p95, beside the reference's."""
    good = True
    for mode, size in CHANGES:
        ours, theirs = [], []
        for seed in range(seeds):
            for kind in streams.KINDS:
                change = streams.change_tick(seed)
                counts = streams.stream(kind, seed, 4, 5, mode, size, change)
                text = text_of(counts)
                slow = [sys.executable, HERE / "f2_reference.py"]
                ours.append(delay(firings([BINARY, "backtest"], text), counts, change))
                theirs.append(delay(firings(slow, text), counts, change))
        mine, yours = figures(ours), figures(theirs)
        good &= all(a <= DELAY_MAX * b for a, b in zip(mine[:2], yours[:2], strict=True))
        print(
            f"{mode} +{size:.0%}, {len(ours)} streams: {mine[0]:.1f}/{mine[1]:.1f}, "
            f"found {mine[2]:.0%}; reference {yours[0]:.1f}/{yours[1]:.1f}, found {yours[2]:.0%}",
            flush=True,
        )
    return good


def main() -> None:
    ap = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ap.add_argument("what", choices=["null", "power"])
    ap.add_argument("--rate", type=float, action="append", choices=list(NULL_SEEDS))
    ap.add_argument("--seeds", type=int, help="of each kind (default: the bar's)")
    a = ap.parse_args()
    if a.what == "power":
        good = power(a.seeds or 20)
    else:
        rates = {rate: a.seeds or NULL_SEEDS[rate] for rate in a.rate or NULL_SEEDS}
        good = null(rates)
    sys.exit(not good)


if __name__ == "__main__":
    main()
