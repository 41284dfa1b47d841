"""End to end: an app whose routes get slower, and what the gateway says of it.

The settings are fast (1 s windows, 60 s of reference), so that it takes minutes, not hours. All of
it runs at the same time against one app: three routes, each with its own switch.
"""

from __future__ import annotations

import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from alert_tools import Traffic, incidents, restart, wait_incident
from harness import AppServer, Gateway, wait_for

FAST = {
    **{"window_ms": 1000, "min_duration_s": 10, "reference_s": 60, "reference_gap_s": 10},
    **{"min_effect": 0.3, "min_effect_ms": 15},
}
LEARNING_S = 130  # on a busy machine; 71 s on an idle one


@pytest.fixture
def sockets() -> Iterator[str]:
    """A folder for the control socket, which outlives a restart."""
    with tempfile.TemporaryDirectory(prefix="tailrace-") as path:
        yield path


def switch(gateway: Gateway, name: str, on: bool) -> None:
    """Turn a slowness of the app on or off."""
    url = f"{gateway.base}/switch/{name}/{int(on)}"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10) as answer:
        answer.read()


def states(gateway: Gateway) -> dict[str, str]:
    """The detector's state of each route."""
    return {one["route"]: one["state"] for one in gateway.json("/api/v1/routes")["routes"]}


def of_route(route: str) -> Callable[[dict[str, Any]], bool]:
    """Whether an incident names this route."""
    return lambda one: route in one["routes"]


@pytest.mark.xdist_group("alerts")
@pytest.mark.timeout(600)
def test_regressions(
    gateway_factory: Callable[..., Gateway],
    uvicorn_factory: Callable[..., AppServer],
    sockets: str,
) -> None:
    """A longer await and more queries are named and end; a blip is none; restarts keep all."""
    app = uvicorn_factory(
        "alert_app:app",
        control=f"{sockets}/control.sock",
        env={"TAILRACE_APP_VERSION": "v41"},
    )
    gateway = gateway_factory(
        [app.address],
        alerts={**FAST, "receivers": {"log": {"type": "log"}}},
        profile={"join_timeout_ms": 1000},
        control={"listeners": [{"address": f"unix:{sockets}/control.sock"}]},
    )
    traffic = [Traffic(gateway, path, 15) for path in ("/await", "/loop", "/blip")]
    learning = wait_for(
        lambda: gateway.json("/api/v1/routes")["routes"], 20, "routes known", every_s=0.5
    )
    assert {one["state"] for one in learning} <= {"learning"}
    ready = {"GET /await", "GET /loop", "GET /blip"}

    def learned() -> bool:
        return {route for route, state in states(gateway).items() if state == "ok"} >= ready

    wait_for(learned, LEARNING_S, "all routes compared", every_s=1)
    status, _, body = gateway.api("/api/v1/deploys", "POST", b'{"version": "v42"}')
    assert status == 201, body
    switch(gateway, "blip", True)
    time.sleep(5)
    switch(gateway, "blip", False)
    switch(gateway, "await", True)
    wait_for(
        lambda: states(gateway)["GET /await"] in ("pending", "firing"), 30, "pending", every_s=0.2
    )
    gateway = restart(gateway)
    for one in traffic:
        one.gateway = gateway
    await_fired = wait_incident(gateway, 40, of_route("GET /await"), "the longer await")
    switch(gateway, "loop", True)
    assert await_fired["kind"] == "regression" and await_fired["status"] == "firing"
    changes = {one["route"]: one["change"] for one in gateway.json("/api/v1/routes")["routes"]}
    change = changes["GET /await"]
    assert change["certain"] and change["p95_ns"] > 1.3 * change["p95_before_ns"], change
    before, after = await_fired["quantiles"]["p50"]
    assert 18 <= before <= 45 and 55 <= after <= 110
    assert await_fired["deploy"]["version"] == "v42"
    assert "deploy of v41" not in gateway.log()  # what the app told before the restart is no news

    def named(route: str) -> dict[str, Any]:
        return wait_incident(
            gateway,
            60,
            lambda one: (
                route in one["routes"] and not one["cause"]["verdict"].startswith("not enough")
            ),
            f"the cause of {route}",
        )

    top = named("GET /await")["cause"]["rows"][0]
    assert (top["kind"], top["cause"], top["frame"]) == ("wait", "sleep", "alert_app:fetch_user")
    assert 0.6 <= top["share"] <= 1.4  # what shrank meanwhile, on a machine that got quieter, adds
    switch(gateway, "await", False)
    loop = named("GET /loop")
    top = loop["cause"]["rows"][0]
    assert (top["kind"], top["frame"]) == ("wait", "alert_app:query")
    fewer, more = top["waits_per_request"]
    assert 1.5 <= fewer <= 3 and 5 <= more <= 7
    assert top["more_ms"] > 4 * abs(top["longer_ms"])
    assert "times per request instead of" in loop["text"]
    rows = loop["cause"]["rows"]
    if len(rows) < 10:
        total = sum(row["delta_ms"] for row in rows)
        assert abs(total - loop["cause"]["growth_ms"]) < 1e-5
    cited = loop["exemplars"]["after"]
    assert cited and gateway.json(f"/api/v1/requests/{cited[0]}")["route"] == "GET /loop"
    flame = gateway.json(loop["links"]["flame"])
    assert flame["rows"][0]["frame"] == "alert_app:query"
    switch(gateway, "loop", False)
    for route in ("GET /await", "GET /loop"):
        ended = wait_incident(
            gateway,
            240,
            lambda one, route=route: route in one["routes"] and one["status"] == "resolved",
            f"the end of {route}",
        )
        shown = gateway.json(f"/api/v1/incidents/{ended['id']}")
        assert shown["history"][0]["status"] == "firing"
        assert shown["history"][-1]["status"] == "resolved"
        assert shown["distributions"]["before"] and shown["distributions"]["after"]
    assert not [one for one in incidents(gateway) if of_route("GET /blip")(one)]
    for one in traffic:
        one.stop()
