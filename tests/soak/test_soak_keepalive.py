"""uvicorn's keep-alive race over 10^5 requests on 1 000 connections, with one thread and two."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from handmade import metrics
from harness import AppServer, Gateway
from keepalive_race import UPSTREAM, UVICORN, race

CLIENTS = 1000
ROUNDS = 134  # three quarters of the requests are GET: 10^5 of them


@pytest.mark.timeout(600)
@pytest.mark.parametrize("threads", [1, 2])
def test_keepalive_race(
    gateway_factory: Callable[..., Gateway],
    uvicorn_factory: Callable[..., AppServer],
    threads: int,
) -> None:
    """No GET of 10^5 fails, no POST arrives twice, and the race did happen."""
    app = uvicorn_factory("count_app:app", args=UVICORN)
    gateway = gateway_factory([app.address], upstream=UPSTREAM, worker={"threads": threads})
    outcome = race(gateway, app, CLIENTS, ROUNDS)
    races = metrics(gateway)['tailrace_closes_total{reason="upstream_closed_idle"}']
    print(f"{outcome.statuses}, requests that met a closed connection: {races:.0f}")
    assert races > 0, "uvicorn never closed under a request: no race"
