"""Fills a store of the gateway's with a million requests of 500 routes, in about a minute.

Rows are copies of real ones, which one run of the real gateway wrote: only keys, routes and times
differ. ``python fill_store.py FILE`` takes a store in which each table has a row.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROUTES = 500
REQUESTS = 1_000_000
MINUTES = 120
SPAN_S = 24 * 3600


def routes(db: sqlite3.Connection) -> list[int]:
    """IDs of the routes, made where there are fewer."""
    have = db.execute("SELECT count(*) FROM routes").fetchone()[0]
    names = [(f"GET /service{i % 25}/resource{i}/{{id}}",) for i in range(ROUTES - have)]
    db.executemany("INSERT INTO routes(name) VALUES (?)", names)
    return [row[0] for row in db.execute("SELECT id FROM routes ORDER BY id")]


def exchanges(ids: list[int], now_s: int, body: str, count: int) -> Iterator[tuple[object, ...]]:
    """Requests of the last day, oldest first, of all routes in turn."""
    keys = memoryview(os.urandom(24 * count))
    for i in range(count):
        start_ns = (now_s - SPAN_S) * 10**9 + i * SPAN_S * 10**9 // count
        key = keys[24 * i : 24 * i + 24]
        total_ns = 10**6 + (i * 7919) % (500 * 10**6)
        yield (key[:16], key[16:], ids[i % len(ids)], start_ns, total_ns, 200, 0, "no_hook", body)


def minutes(ids: list[int], now_s: int, row: tuple[object, ...]) -> Iterator[tuple[object, ...]]:
    """What each route did in each minute of the last two hours."""
    for minute in range(now_s // 60 - MINUTES, now_s // 60):
        for route in ids:
            yield (minute, route, *row)


def fill(path: Path, requests: int = REQUESTS) -> None:
    """Fill the file, which no gateway has open. Raises sqlite3.Error."""
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous = OFF", "cache_size = -400000", "temp_store = MEMORY"):
        db.execute(f"PRAGMA {pragma}")
    now_s = int(time.time())
    body = db.execute("SELECT body FROM exchanges ORDER BY length(body)").fetchone()[0]
    row = db.execute(
        "SELECT requests, errors, sent, joined, phases_ns, histogram FROM route_minutes"
    ).fetchone()
    made = db.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'exchanges'"
    ).fetchall()
    db.execute("BEGIN")
    ids = routes(db)
    for name, _ in made:
        db.execute(f"DROP INDEX {name}")
    db.executemany(
        "INSERT INTO exchanges(trace, span, route, start_wall_ns, total_ns, status, provisional,"
        " missing, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        exchanges(ids, now_s, body, requests),
    )
    db.executemany(
        "INSERT OR IGNORE INTO route_minutes VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        minutes(ids, now_s, row),
    )
    for _, sql in made:
        db.execute(sql)
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


if __name__ == "__main__":
    fill(Path(sys.argv[1]))
