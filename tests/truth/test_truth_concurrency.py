"""500 mixed requests, 100 in flight, each with a sleep of its own: every profile is its own."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any, NamedTuple

from attribution import MS, check_sums, own_frames, time_of, time_under
from truth_pair import Pair

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


class Answer(NamedTuple):
    """What came back for one job."""

    kind: str
    ms: int
    trace_id: str
    body: dict[str, Any]


async def send_all(port: int, jobs: list[tuple[str, int]]) -> list[Answer]:
    """Send all jobs over IN_FLIGHT kept-alive connections, each as soon as one is free.

    Written on bare streams: a full HTTP client would cost more CPU than gateway and app together.
    """
    left = list(reversed(jobs))
    answers: list[Answer] = []

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while left:
            kind, ms = left.pop()
            writer.write(f"GET /own/{kind}/{ms} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            assert head[0] == "HTTP/1.1 200 OK"
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = json.loads(await reader.readexactly(int(fields["content-length"])))
            answers.append(Answer(kind, ms, fields["x-trace-id"], body))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(IN_FLIGHT)))
    return answers


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
        assert waited >= (ms * MS - cut) * 3 / 4
    else:
        ran = sum(row["ns"] for row in profile["breakdown"] if row["kind"] == "thread_run")
        assert ms * MS - cut <= ran <= measured + 20 * MS, (cut, profile["breakdown"])
        named = {f for row in profile["breakdown"] for f in own_frames(row)}
        assert function in named
    for row in profile["breakdown"]:
        strangers = (set(own_frames(row)) & FUNCTIONS) - {function}
        assert not strangers, (kind, ms, row)


def test_every_profile_is_its_own_requests(truth: Pair) -> None:
    answers = asyncio.run(send_all(truth.gateway.port, make_jobs()))
    assert len({answer.trace_id for answer in answers}) == REQUESTS
    for kind, ms, trace, body in answers:
        try:
            check_own(kind, ms, body, truth.gateway.wait_profile(trace))
        except AssertionError as error:
            raise AssertionError(f"/own/{kind}/{ms}, trace {trace}: {error}") from error
