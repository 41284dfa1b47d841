"""500 mixed requests, 100 in flight, each with a sleep of its own: every profile is its own."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
from truth.attribution import MS, check_sums, own_frames, time_of, time_under
from truth.conftest import Pair

REQUESTS = 500
IN_FLIGHT = 100
FIRST_MS = 20  # the shortest sleep; each request sleeps one millisecond longer than another
#: What each kind of route must show: kind of row, innermost function of the app.
KINDS = {
    "plain": ("wait", "plain_wait"),
    "nested": ("wait", "nested_wait"),
    "task": ("wait", "task_wait"),
    "gather": ("wait", "gather_wait"),
    "def": ("thread_run", "thread_sleep"),
    "to_thread": ("thread_run", "to_thread_sleep"),
}
CUT_MAX_NS = 20 * MS
SLACK_NS = MS // 4
FUNCTIONS = {function for _, function in KINDS.values()} | {"gather_short"}


def make_jobs() -> list[tuple[str, int]]:
    """Return (kind of route, milliseconds) of every request; no two sleep equally long."""
    dice = random.Random(3)
    jobs = [(list(KINDS)[i % len(KINDS)], FIRST_MS + i) for i in range(REQUESTS)]
    dice.shuffle(jobs)
    return jobs


async def send_all(base: str, jobs: list[tuple[str, int]]) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    gate = asyncio.Semaphore(IN_FLIGHT)

    async with httpx.AsyncClient(base_url=base, limits=limits, timeout=60) as client:

        async def one(kind: str, ms: int) -> httpx.Response:
            async with gate:
                return await client.get(f"/own/{kind}/{ms}")

        return await asyncio.gather(*(one(*job) for job in jobs))


def check_own(kind: str, ms: int, answer: dict[str, Any], exchange: dict[str, Any]) -> None:
    profile = check_sums(exchange)
    row_kind, function = KINDS[kind]
    assert exchange["route"] == f"GET /own/{kind}/{{ms}}"
    assert exchange["path"] == f"/own/{kind}/{ms}"
    assert answer["header"].startswith(f"1;{exchange['trace_id']}-{exchange['span_id']}")
    # The app's own clock tells this request from its neighbours, which slept a millisecond more or
    # less. On a busy machine the gateway's t5 can come late; the app's part is cut to begin there.
    measured = answer["measured_ns"]
    cut = max(0, measured - profile["app_ns"])
    assert exchange["total_ns"] >= measured
    assert cut <= CUT_MAX_NS
    if row_kind == "wait":
        waited = time_under(profile, "wait", function)
        held = time_of(profile, "ready") + time_of(profile, "run")
        assert waited <= measured + SLACK_NS
        assert measured <= waited + held + cut + SLACK_NS
        assert waited >= ms * MS * 3 / 4
    else:
        ran = sum(row["ns"] for row in profile["breakdown"] if row["kind"] == "thread_run")
        assert ms * MS - cut <= ran <= measured + 20 * MS, (cut, profile["breakdown"])
        named = {f for row in profile["breakdown"] for f in own_frames(row)}
        assert function in named
    for row in profile["breakdown"]:
        strangers = (set(own_frames(row)) & FUNCTIONS) - {function}
        assert not strangers, (kind, ms, row)


def test_every_profile_is_its_own_requests(truth: Pair) -> None:
    jobs = make_jobs()
    responses = asyncio.run(send_all(truth.gateway.base, jobs))
    assert {response.status_code for response in responses} == {200}
    traces = [response.headers["x-trace-id"] for response in responses]
    assert len(set(traces)) == REQUESTS
    for (kind, ms), response, trace in zip(jobs, responses, traces, strict=True):
        try:
            check_own(kind, ms, response.json(), truth.gateway.wait_profile(trace))
        except AssertionError as error:
            raise AssertionError(f"/own/{kind}/{ms}, trace {trace}: {error}") from error
