"""uvicorn's keep-alive race: requests that set out just as uvicorn closes the idle connection.

Clients send in bursts, whose requests the app holds until all of them are there: as many server
connections fall idle together. The next burst comes when they have been so for about as long as
uvicorn keeps them, give or take what the two bursts are spread. A GET must never fail; a POST must
never arrive twice.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field

from harness import AppServer, Gateway
from proxy_tools import ask, get

KEEP_ALIVE_S = 1
SPREAD_S = 0.05
HELD_S = 0.15  # of count_app
UPSTREAM = {"idle_timeout_ms": 60000, "max_connections": 4000, "queue_max": 0}
UVICORN = ["--timeout-keep-alive", str(KEEP_ALIVE_S), "--backlog", "4096"]


@dataclass
class Outcome:
    """What became of the requests."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    answered: set[str] = field(default_factory=set)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, text = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(text)
    return int(head.split(b" ")[1]), await reader.readexactly(length)


async def _client(port: int, number: int, rounds: int, start: float, outcome: Outcome) -> None:
    loop = asyncio.get_running_loop()
    rng = random.Random(number)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for index in range(rounds):
        start += KEEP_ALIVE_S + HELD_S
        await asyncio.sleep(start + rng.uniform(-SPREAD_S, SPREAD_S) - loop.time())
        key = f"{number}.{index}"
        method = "POST" if number % 4 == 0 else "GET"
        body = "Content-Length: 1\r\n\r\nx" if method == "POST" else "\r\n"
        writer.write(f"{method} /?{key} HTTP/1.1\r\nHost: race\r\n{body}".encode())
        status, answer = await _answer(reader)
        outcome.statuses[method, status] += 1
        if status == 200 and method == "POST":
            outcome.answered.add(key)
        elif status != 200:
            outcome.codes[json.loads(answer)["error"]["code"]] += 1
    writer.close()


async def _clients(port: int, count: int, rounds: int) -> Outcome:
    outcome = Outcome()
    start = asyncio.get_running_loop().time()
    await asyncio.gather(
        *(_client(port, number, rounds, start, outcome) for number in range(count))
    )
    return outcome


def race(gateway: Gateway, app: AppServer, clients: int, rounds: int) -> Outcome:
    """Run the race and check it: every GET 200, every POST at most once, 502 only by its name."""
    outcome = asyncio.run(_clients(gateway.port, clients, rounds))
    counts = json.loads(ask(app.port, get("/counts")).body)
    gets, posts = clients - (clients + 3) // 4, (clients + 3) // 4
    assert outcome.statuses["GET", 200] == gets * rounds, outcome.statuses
    assert set(outcome.codes) <= {"upstream_closed_idle"}, outcome.codes
    failed = outcome.statuses["POST", 502]
    assert outcome.statuses["POST", 200] + failed == posts * rounds, outcome.statuses
    assert outcome.codes["upstream_closed_idle"] == failed
    assert max(counts.values()) == 1, "a POST arrived twice"
    assert outcome.answered <= set(counts)
    return outcome
