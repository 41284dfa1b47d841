"""The demo app's known times, through the real gateway, under uvicorn on both event loops."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from attribution import MS, check_sums, long_waits, own_frames, rows_of, time_of, time_under
from harness import ROOT
from truth_pair import Pair

UNATTRIBUTED_MAX = 0.02


def check_attributed(profile: dict[str, Any]) -> None:
    assert profile["unattributed_ns"] <= UNATTRIBUTED_MAX * profile["app_ns"]


def test_async_waits_name_parent_and_child(demo: Pair) -> None:
    exchange, response = demo.get("/async")
    profile = check_sums(exchange)
    check_attributed(profile)
    assert (exchange["route"], profile["loop"]) == ("GET /async", demo.loop)
    slept = response.json()["slept_ns"]
    held = time_of(profile, "ready") + time_of(profile, "run")
    for function in ("async_parent_function", "async_child_function"):
        waited = time_under(profile, "wait", function)
        assert 95 * MS <= waited <= slept[function] + MS
        # What the app measured beyond the waits is time its lane ran, or its loop was late.
        assert max(99 * MS, slept[function] - MS) <= waited + held
    child = [row for row in long_waits(profile) if own_frames(row)[-1] == "async_child_function"]
    assert [own_frames(row)[-3:] for row in child] == [
        ["async_root", "async_parent_function", "async_child_function"]
    ]
    assert {(row["cause"], row["count"], row["exact"]) for row in long_waits(profile)} == {
        ("sleep", 10, True)
    }


def test_await_lines_are_those_of_the_source(demo: Pair) -> None:
    exchange, _ = demo.get("/async")
    lines = (ROOT / "demo" / "app.py").read_text().splitlines()
    for row in long_waits(exchange["profile"]):
        for frame in row["stack"]:
            if frame["in_app"] and frame["function"].startswith("async_"):
                assert frame["file"] == "app.py"
                assert "await " in lines[frame["line"] - 1], frame


def test_sync_route_is_a_thread_run_that_names_both(demo: Pair) -> None:
    exchange, response = demo.get("/sync")
    profile = check_sums(exchange)
    check_attributed(profile)
    slept = response.json()["slept_ns"]
    ran = time_of(profile, "thread_run")
    assert sum(slept.values()) <= ran <= sum(slept.values()) + 20 * MS
    rows = rows_of(profile, "thread_run")
    assert all("sync_root" in own_frames(row) for row in rows if own_frames(row))
    for function in ("parent_function", "child_function"):
        # Sampled, so an estimate: within a quarter of the truth.
        share = time_under(profile, "thread_run", function)
        assert 0.75 * slept[function] <= share <= 1.25 * slept[function]
    child = [row for row in rows if own_frames(row)[-1:] == ["child_function"]]
    assert child
    assert all(own_frames(row)[-2] == "parent_function" for row in child)
    assert all(row["samples"] > 0 and not row["exact"] for row in child)


def test_gather_counts_only_the_slowest(demo: Pair) -> None:
    exchange, response = demo.get("/gather")
    profile = check_sums(exchange)
    check_attributed(profile)
    waits = long_waits(profile)
    assert [own_frames(row)[-2:] for row in waits] == [["slowest_child", "gathered"]]
    assert 295 * MS <= waits[0]["ns"] <= response.json()["slept_ns"]["slowest_child"] + MS


def test_block_is_the_loops_run(demo: Pair) -> None:
    exchange, response = demo.get("/block")
    profile = check_sums(exchange)
    check_attributed(profile)
    slept = response.json()["slept_ns"]["blocking_function"]
    run = time_of(profile, "run")
    # What ran before the gateway's send() returned, on a busy machine, is not the app's part.
    assert slept <= run + profile["app_clipped_ns"]
    assert run <= slept + 20 * MS
    assert time_under(profile, "run", "blocking_function") >= 0.75 * slept
    assert long_waits(profile) == []


def test_block_is_named_to_its_victim(demo: Pair) -> None:
    async def both() -> str:
        async with httpx.AsyncClient(base_url=demo.gateway.base, timeout=20) as client:
            await client.get("/openapi.json")  # both connections and what they import are made
            victim = asyncio.create_task(client.get("/gather"))
            await asyncio.sleep(0.250)
            await client.get("/block")  # 100 ms, within which the 300 ms child is due
            return (await victim).headers["x-trace-id"]

    profile = check_sums(demo.gateway.wait_profile(asyncio.run(both())))
    assert 295 * MS <= time_of(profile, "wait") <= 330 * MS
    assert 5 * MS <= time_of(profile, "ready") <= 110 * MS
    stalls = [stall for stall in profile["stalls"] if stall["route"] == "GET /block"]
    assert len(stalls) == 1
    assert stalls[0]["kind"] == "step"
    assert stalls[0]["state"] in ("blocked", None)
    # How long it held the loop while this request was due, or altogether.
    assert 5 * MS <= stalls[0]["ns"] <= 150 * MS
    assert "block_root" in own_frames(stalls[0])


@pytest.mark.parametrize("kept_alive", [True, False])
def test_block_is_named_to_whom_it_kept_waiting(demo: Pair, kept_alive: bool) -> None:
    """A request that comes while the loop is held is not in the app yet: app_queue."""

    async def both() -> tuple[str, int, int]:
        base = demo.gateway.base
        async with httpx.AsyncClient(base_url=base) as one, httpx.AsyncClient(base_url=base) as two:
            await one.get("/openapi.json")
            if kept_alive:
                await asyncio.gather(one.get("/gather"), two.get("/gather"))
            began = time.perf_counter_ns()
            culprit = asyncio.create_task(one.get("/block"))  # 100 ms
            await asyncio.sleep(0.030)
            late = time.perf_counter_ns() - began
            victim = await two.get("/openapi.json")
            slept = (await culprit).json()["slept_ns"]["blocking_function"]
            return victim.headers["x-trace-id"], late, slept

    trace, late, slept = asyncio.run(both())
    exchange = demo.gateway.wait_profile(trace)
    profile = check_sums(exchange)
    held = [stall for stall in profile["stalls"] if stall["phase"] == "app_queue"]
    assert len(held) == 1, profile["stalls"]
    assert (held[0]["route"], held[0]["kind"]) == ("GET /block", "step")
    assert held[0]["trace_id"] != exchange["trace_id"]
    assert own_frames(held[0])[-1] in ("blocking_function", "block_root")
    # It came `late` into what the other one slept; what is left of the queue is uvicorn's.
    assert slept - late - 20 * MS <= held[0]["ns"] <= min(profile["app_queue_ns"], slept + 20 * MS)
    assert profile["app_queue_ns"] - held[0]["ns"] <= 20 * MS
