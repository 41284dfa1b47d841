"""Kill -9 of everything, three times over minutes of traffic: the sums over time that are left."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from handmade import HandApp, batch, post, row
from harness import Gateway
from test_history import call, route_of
from test_store import stored

ROUTE = "GET /hand/{made}"
JOIN_S = 1.0
SAVED_S = 4.0  # a round over the routes, the store's commit, and this machine's slack
KILLS = 3


@pytest.fixture
def app() -> Iterator[HandApp]:
    """A scripted app that answers after 3 ms."""
    server = HandApp(delay_s=0.003).start()
    yield server
    server.stop()


class Traffic:
    """One request after the other, each profiled; nothing at a minute's end, so that it is known
    which minute each belongs to."""

    def __init__(self, app: HandApp) -> None:
        """Of an app that has seen nothing."""
        self.app, self.profiled = app, 0
        self.sent: Counter[int] = Counter()  # by the minute's begin, of this life of the gateway

    def post_profiles(self, gateway: Gateway) -> None:
        """What the hook would have told by now."""
        ready = self.app.seen[self.profiled :]
        self.profiled += len(ready)
        if ready:
            post(gateway, batch(*[row(seen) for seen in ready]))

    def run(self, gateway: Gateway, until_s: float) -> None:
        """Until a time of the wall clock."""
        while time.time() < until_s:
            second = time.time() % 60
            if second > 59 or second < 0.1:
                self.post_profiles(gateway)  # in time: what is not joined has no route
                time.sleep(0.02)
                continue
            call(gateway, "/hand/made")
            self.sent[int(time.time() // 60 * 60)] += 1
            if len(self.app.seen) - self.profiled >= 20:
                self.post_profiles(gateway)
        self.post_profiles(gateway)


def check_minutes(gateway: Gateway, least: Counter[int], most: Counter[int]) -> None:
    """Every minute that was saved is there, whole and once."""
    route = route_of(gateway, ROUTE)["id"]
    span = f"from={min(most)}&to={max(most) + 60}"
    points = gateway.json(f"/api/v1/routes/{route}/series?{span}&step=60")["points"]
    seen = {point["t"]: point for point in points if point["requests"]}
    assert set(least) <= set(seen) <= set(most)
    for minute, point in seen.items():
        assert least[minute] <= point["requests"] <= most[minute], (minute, point)
        assert sum(band[2] for band in point["bands"]) == point["requests"]
        if least[minute] == most[minute]:
            assert point["joined"] == point["requests"]
    # The first is whole; of the others, which began with a kill, what the next life added.
    assert sum(least[minute] == most[minute] for minute in seen) >= 1
    assert sum(least[minute] > 0 for minute in seen) >= KILLS
    flame = gateway.json(f"/api/v1/routes/{route}/flame?{span}")
    assert flame["requests"] == sum(point["requests"] for point in seen.values())
    # A name comes to the file before the first sum that needs it.
    assert [r["frame"] for r in flame["rows"] if r["kind"] == "wait"] == ["app:async_root"]


@pytest.mark.timeout(600)
def test_killed_again_and_again(app: HandApp, gateway_starter: Callable[..., Gateway]) -> None:
    """A kill costs the minute that was not over: all minutes before it are whole, none doubled."""
    least: Counter[int] = Counter()
    most: Counter[int] = Counter()
    store: dict[str, Any] = {}

    def begin() -> Gateway:
        return gateway_starter(
            [app.address], profile={"join_timeout_ms": int(JOIN_S * 1000)}, store=store
        )

    for _ in range(KILLS):
        gateway = begin()
        store = {"path": str(gateway.store)}
        traffic = Traffic(app)
        traffic.profiled = len(app.seen)
        minute_end_s = time.time() // 60 * 60 + 60
        traffic.run(gateway, minute_end_s + JOIN_S + SAVED_S + random.random() * 15)
        killed_s = time.time()
        gateway.kill()
        most += traffic.sent
        for minute, count in traffic.sent.items():
            if minute + 60 + JOIN_S + SAVED_S <= killed_s:
                least[minute] += count
        stored(Path(store["path"]))
    gateway = begin()
    check_minutes(gateway, least, most)
