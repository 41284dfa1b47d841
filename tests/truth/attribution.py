"""What truth tests ask of a profile."""

from __future__ import annotations

from typing import Any

MS = 1_000_000


def own_frames(row: dict[str, Any]) -> list[str]:
    """Return the app's own functions on a row's stack, outermost first."""
    return [f["function"] for f in row["stack"] if f["in_app"] and f["module"] != "tailrace"]


def rows_of(profile: dict[str, Any], kind: str, where: str = "breakdown") -> list[dict[str, Any]]:
    """Return the rows of one kind."""
    return [row for row in profile[where] if row["kind"] == kind]


def time_of(profile: dict[str, Any], kind: str, where: str = "breakdown") -> int:
    """Return the time of one kind, ns."""
    return sum(row["ns"] for row in rows_of(profile, kind, where))


def time_under(profile: dict[str, Any], kind: str, function: str, where: str = "breakdown") -> int:
    """Return the time of a kind whose innermost frame of the app is `function`, ns."""
    rows = rows_of(profile, kind, where)
    return sum(row["ns"] for row in rows if own_frames(row)[-1:] == [function])


def long_waits(profile: dict[str, Any], at_least_ms: float = 5) -> list[dict[str, Any]]:
    """Return the waits that matter."""
    return [row for row in rows_of(profile, "wait") if row["ns"] >= at_least_ms * MS]


def check_sums(exchange: dict[str, Any]) -> dict[str, Any]:
    """Assert every sum docs/api.md promises; return the profile."""
    assert sum(phase["ns"] for phase in exchange["phases"]) == exchange["total_ns"]
    profile: dict[str, Any] = exchange["profile"]
    phases = {phase["name"]: phase["ns"] for phase in exchange["phases"]}
    parts = profile["app_queue_ns"] + profile["app_ns"] + profile["app_out_ns"]
    assert parts == phases["send"] + phases["wait"]
    rows = sum(row["ns"] for row in profile["breakdown"])
    assert rows + profile["unattributed_ns"] == profile["app_ns"]
    rows = sum(row["ns"] for row in profile["stream_breakdown"])
    assert rows + profile["stream_unattributed_ns"] == profile["app_stream_ns"]
    assert all(row["ns"] >= 0 for row in profile["breakdown"] + profile["stream_breakdown"])
    return profile
