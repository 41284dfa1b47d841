"""The critical path (docs/internals.md section 8): which of several lanes decided, and only it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from attribution import MS, check_sums, long_waits, own_frames, rows_of, time_of, time_under
from truth_pair import Pair

UNATTRIBUTED_MAX = 0.02


def only_wait(profile: dict[str, Any]) -> dict[str, Any]:
    waits = long_waits(profile)
    assert len(waits) == 1, waits
    return waits[0]


@pytest.mark.parametrize(
    ("path", "function"),
    [
        ("/path/child", "long_child"),
        ("/path/gather", "gather_300"),
        ("/path/group", "gather_300"),
    ],
)
def test_one_300_ms_row(truth: Pair, path: str, function: str) -> None:
    profile = check_sums(truth.get(path)[0])
    wait = only_wait(profile)
    assert own_frames(wait)[-1] == function
    assert 295 * MS <= wait["ns"] <= 330 * MS
    assert (wait["cause"], wait["exact"]) == ("sleep", True)
    assert profile["unattributed_ns"] <= UNATTRIBUTED_MAX * profile["app_ns"]


def test_middlewares_child_task_is_followed(truth: Pair) -> None:
    profile = check_sums(truth.get("/path/middleware")[0])
    waits = {own_frames(row)[-1]: row["ns"] for row in long_waits(profile)}
    assert set(waits) == {"middleware_wait", "below_middleware"}
    assert 15 * MS <= waits["middleware_wait"] <= 35 * MS
    assert 35 * MS <= waits["below_middleware"] <= 60 * MS
    assert profile["unattributed_ns"] <= UNATTRIBUTED_MAX * profile["app_ns"]


def test_stream_is_apart_from_the_response_start(truth: Pair) -> None:
    profile = check_sums(truth.get("/stream")[0])
    assert 25 * MS <= time_under(profile, "wait", "stream") <= 50 * MS
    assert 90 * MS <= time_under(profile, "wait", "pieces", "stream_breakdown") <= 150 * MS
    assert time_under(profile, "wait", "pieces") == 0
    assert 90 * MS <= profile["app_stream_ns"] <= 200 * MS


def test_background_task_is_no_latency(truth: Pair) -> None:
    exchange, _ = truth.get("/background")
    profile = check_sums(exchange)
    assert exchange["total_ns"] < 140 * MS  # it alone takes 150
    assert 15 * MS <= time_of(profile, "wait") <= 50 * MS
    assert not [row for row in rows_of(profile, "wait") if "afterwards" in own_frames(row)]


def test_lock_held_by_another_request_names_it(truth: Pair) -> None:
    async def both() -> list[str]:
        async with httpx.AsyncClient(base_url=truth.gateway.base, timeout=20) as client:
            first = asyncio.create_task(client.get("/lock/120"))
            await asyncio.sleep(0.040)
            second = asyncio.create_task(client.get("/lock/10"))
            responses = [await first, await second]
        return [response.headers["x-trace-id"] for response in responses]

    holder, waiter = asyncio.run(both())
    profile = check_sums(truth.gateway.wait_profile(waiter))
    locks = [row for row in rows_of(profile, "wait") if row["cause"] == "lock"]
    assert len(locks) == 1
    assert 30 * MS <= locks[0]["ns"] <= 125 * MS
    assert locks[0]["by"] == {"trace_id": holder, "route": "GET /lock/{ms}"}
    held = check_sums(truth.gateway.wait_profile(holder))
    assert not [row for row in rows_of(held, "wait") if row["cause"] == "lock"]
