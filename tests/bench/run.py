"""`make bench`: all that is measured against peers, in one run; a table and build/bench.json."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import bench_bulk
import bench_collector
import bench_deep
import bench_engine
import bench_gil
import bench_hook
import bench_idle
import bench_latency
import bench_proxy
import bench_tls

BENCHES: dict[str, Any] = {
    "proxy": bench_proxy,
    "latency": bench_latency,
    "tls": bench_tls.KEEP_ALIVE,
    "handshakes": bench_tls.HANDSHAKES,
    "idle": bench_idle,
    "bulk": bench_bulk,
    "hook": bench_hook,
    "collector": bench_collector,
    "deep": bench_deep,
    "engine": bench_engine,
    "gil": bench_gil,
}


def plain(value: Any) -> Any:
    """For json.dumps: estimates become objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(type(value))


def print_table(rows: list[tuple[str, str, str]]) -> None:
    """Rows (what, figure, verdict), aligned."""
    width = max(len(row[0]) for row in rows)
    for what, figure, verdict in rows:
        print(f"{what:<{width}}  {figure}{'  ' + verdict if verdict else ''}")
    print(flush=True)


def main() -> int:
    """Runs the benches named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"any of {', '.join(BENCHES)}; all by default")
    named = parser.parse_args().names
    names = named or list(BENCHES)
    build = Path(__file__).resolve().parents[2] / "build"
    folder = build / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {}
    if named and (build / "bench.json").exists():
        report = json.loads((build / "bench.json").read_text())  # of the parts that are not named
    report |= {"machine": platform.platform(), "python": platform.python_version()}
    tables: dict[str, list[tuple[str, str, str]]] = report.setdefault("tables", {})
    for name in names:
        started = time.monotonic()
        bench = BENCHES[name]
        report[name] = bench.run(folder, lambda text, n=name: print(f"{n}: {text}", flush=True))
        rows = bench.verdicts(report[name])
        tables[name] = rows
        (build / "bench.json").write_text(json.dumps(report, indent=1, default=plain))
        print(f"{name}: {time.monotonic() - started:.0f} s\n", flush=True)
        print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
