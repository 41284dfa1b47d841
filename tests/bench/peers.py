"""The table of ourselves beside nginx and HAProxy, from build/bench.json.

python tests/bench/peers.py [--write]: prints it, or writes docs/peers.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paired import CONTROL
from stats import median

ROOT = Path(__file__).resolve().parents[2]
TEXT = """# Beside nginx and HAProxy

Debian 12's nginx and HAProxy (one process, one thread) and this gateway with one worker thread
and everything of its own on: trace IDs, twelve marks, records, collector. Two cores of a shared
virtual machine, the proxy on one; load, app and our collector on the other. Keep-alive, 64
connections, small GET. Each row's services take turns; medians, 95 % intervals in brackets. Ours
to theirs: below 1 is better for CPU and p99, above 1 for rates.

`make bench BENCH="proxy latency tls handshakes idle bulk"` measures it, each part in a few
minutes, and says of each figure whether it holds; `tests/bench/peers.py --write` writes this
page. How far the control (A/A, ours beside ours) is from 1 says how much of a ratio is the
machine's.

"""
NAMES = ("tailrace", "nginx", "haproxy")
Row = tuple[str, str, str, str]


def middle(estimate: dict[str, float], digits: int) -> str:
    """The median of an estimate."""
    return f"{estimate['median']:.{digits}f}"


def interval(estimate: dict[str, float]) -> str:
    """An estimate with its 95 % interval."""
    return f"{estimate['median']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def each(what: str, figure: Callable[[str], str]) -> Row:
    """A row with a figure for each of the three."""
    ours, nginx, haproxy = (figure(name) for name in NAMES)
    return (what, ours, nginx, haproxy)


def loaded(part: dict[str, Any], what: str) -> list[Row]:
    """CPU and throughput of one kind of load; ratios ours to theirs."""
    ratios, rates = part["ratios"], part["rates"]
    control = interval(ratios[CONTROL])
    return [
        each(f"CPU per {what}, µs", lambda n: middle(part["cost_us"][n], 1)),
        (
            f"· ours to theirs (A/A {control})",
            "",
            interval(ratios["nginx"]),
            interval(ratios["haproxy"]),
        ),
        each(f"{what}s a second", lambda n: middle(part["per_s"][n], 0)),
        ("· ours to theirs", "", interval(rates["nginx"]), interval(rates["haproxy"])),
    ]


def rows_of(report: dict[str, Any]) -> list[Row]:
    """All rows for which there are figures."""
    rows: list[Row] = []
    if "proxy" in report:
        part = report["proxy"]
        rows += loaded(part, "proxied GET")
        rows.append(each("user instructions per GET", lambda n: f"{part['instructions'][n]:.0f}"))
        calls = part["syscalls"]["64 connections"]
        rows.append(("system calls per GET, 64 connections", f"{sum(calls.values()):.2f}", "", ""))
    for name, what in (("tls", "TLS GET"), ("handshakes", "TLS handshake")):
        if name in report:
            rows += loaded(report[name], what)
    if "latency" in report:
        rounds = report["latency"]["rounds"]
        for q in ("p50", "p99"):
            rows.append(
                each(
                    f"{q} at half load ({report['latency']['rate']:.0f}/s, open loop), µs",
                    lambda n, q=q: f"{median([r[n][q + '_ns'] / 1e3 for r in rounds]):.0f}",
                )
            )
        paired = {
            n: median([r["tailrace"]["p99_ns"] / r[n]["p99_ns"] for r in rounds]) for n in NAMES
        }
        rows.append(
            ("· p99, ours to theirs", "", f"{paired['nginx']:.3f}", f"{paired['haproxy']:.3f}")
        )
    if "idle" in report:
        memory = report["idle"]["memory"]
        for kind in ("clear", "TLS"):
            rows.append(
                each(
                    f"memory of an idle connection, {kind}, KiB",
                    lambda n, k=kind: f"{memory[f'{k}, {n}']:.2f}",
                )
            )
    if "bulk" in report:
        for way in ("download", "upload"):
            rounds = report["bulk"][way]

            def rate(name: str, rounds: list[dict[str, Any]] = rounds) -> str:
                if name not in rounds[0]:
                    return ""
                return f"{median([1024 / r[name]['s'] for r in rounds]):.0f}"

            rows.append(each(f"1 GiB {way}, MiB/s", rate))
    return rows


def table(report: dict[str, Any]) -> str:
    """The table in Markdown."""
    lines = ["| | tailrace | nginx | HAProxy |", "| --- | --- | --- | --- |"]
    lines += [f"| {row[0]} | {row[1]} | {row[2]} | {row[3]} |" for row in rows_of(report)]
    return "\n".join(lines)


def main() -> int:
    """Prints or writes."""
    text = table(json.loads((ROOT / "build" / "bench.json").read_text()))
    if "--write" not in sys.argv[1:]:
        print(text)
        return 0
    (ROOT / "docs" / "peers.md").write_text(f"{TEXT}{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
