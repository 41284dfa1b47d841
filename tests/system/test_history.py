"""Routes over time: series and flame of a real app that gets slower, before and after a restart."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from handmade import HandApp, metrics, wait_exchange
from harness import BINARY, AppServer, Gateway, wait_for

ROUTE = "GET /work/{item}"
WINDOW_S = 10
API_MD = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def call(gateway: Gateway, path: str, method: str = "GET") -> None:
    """One request through the gateway."""
    request = urllib.request.Request(gateway.base + path, method=method)
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 200


def next_window() -> int:
    """Wait for a window's begin; its time in unix seconds."""
    start = (int(time.time()) // WINDOW_S + 1) * WINDOW_S
    time.sleep(start - time.time() + 0.05)
    return start


def route_of(gateway: Gateway, name: str) -> dict[str, Any]:
    """The entry of a route in /api/v1/routes, once it is there."""

    def found() -> dict[str, Any] | None:
        routes = gateway.json("/api/v1/routes?window=15m")["routes"]
        return next((route for route in routes if route["route"] == name), None)

    return wait_for(found, 10, name)


def flame_of(gateway: Gateway, query: str) -> dict[str, Any]:
    """The flame answer of ROUTE."""
    answer: dict[str, Any] = gateway.json(
        f"/api/v1/routes/{route_of(gateway, ROUTE)['id']}/flame?{query}"
    )
    return answer


def leaves(node: dict[str, Any], key: str) -> int:
    """The sum of a tree's leaves."""
    if not node["children"]:
        return int(node[key])
    return sum(leaves(child, key) for child in node["children"])


def same_shape(example: Any, answer: Any, where: str) -> None:
    """Every key of a documented example is in the answer, with a value of the same type."""
    if isinstance(example, dict):
        assert isinstance(answer, dict), where
        for key, value in example.items():
            assert key in answer, f"{where}/{key}"
            same_shape(value, answer[key], f"{where}/{key}")
    elif isinstance(example, list) and example and isinstance(answer, list) and answer:
        same_shape(example[0], answer[0], f"{where}/0")
    elif example is not None and answer is not None:
        number = (int, float)
        kinds = number if isinstance(example, number) else type(example)
        assert isinstance(answer, kinds), where


def documented(path: str) -> Any:
    """The JSON example behind the heading of an endpoint in docs/api.md."""
    text = API_MD.read_text()
    section = text[text.index(f"## `GET {path}") :]
    found = re.search(r"```json\n(.*?)```", section, re.S)
    assert found
    return json.loads(found[1])


@pytest.fixture
def regression(
    gateway_factory: Callable[..., Gateway], uvicorn_factory: Callable[..., AppServer]
) -> Iterator[tuple[Gateway, int]]:
    """A gateway whose app got slower at the time that is told."""
    # A Unix socket's path may have 107 bytes, which pytest's folders can exceed.
    with tempfile.TemporaryDirectory(prefix="tailrace-") as sockets:
        control = f"{sockets}/control.sock"
        app = uvicorn_factory("history_app:app", control=control)
        listeners = [{"address": f"unix:{control}"}]
        gateway = gateway_factory([app.address], control={"listeners": listeners})
        yield slow_down(gateway)


def slow_down(gateway: Gateway) -> tuple[Gateway, int]:
    """40 requests, the switch at a window's begin, 40 more; all of them joined."""
    for _ in range(40):
        call(gateway, "/work/1")
    since = next_window()
    call(gateway, "/switch/35", "POST")
    for _ in range(40):
        call(gateway, "/work/1")
    wait_for(lambda: route_of(gateway, ROUTE)["requests"] == 80, 10, "all counted")
    wait_for(lambda: route_of(gateway, ROUTE)["joined_ratio"] == 1, 10, "all joined")
    return gateway, since


def test_regression(
    regression: tuple[Gateway, int], gateway_factory: Callable[..., Gateway]
) -> None:
    """The frame that got slower is named, sums hold, the terminal says so, a restart keeps it."""
    gateway, since = regression
    query = f"from={since}&to={since + 60}&baseline_from={since - 300}&baseline_to={since}"
    flame = flame_of(gateway, query)
    same_shape(documented("/api/v1/routes/{id}/flame"), flame, "flame")
    assert flame["requests"] == 40 and flame["baseline"]["requests"] == 40
    assert flame["coverage"]["joined_ratio"] == 1
    top = flame["rows"][0]
    assert (top["kind"], top["cause"]) == ("wait", "sleep")
    assert top["frame"] == "history_app:load_orders"
    assert [frame["function"] for frame in top["stack"]][-2:] == ["load_orders", "sleep"]
    assert top["delta_ns"] > 25e6 and top["share"] > 0.5
    assert top["verdict"] == "likely"
    assert sum(row["delta_ns"] for row in flame["rows"]) == flame["growth_ns"]
    waits = [row for row in flame["rows"] if row["kind"] == "wait"]
    user = next(row for row in waits if row["frame"] == "history_app:load_user")
    assert user["delta_ns"] < top["delta_ns"] and user["baseline_ns"] > 5e6
    tree = flame["tree"]
    assert tree["ns"] - tree["baseline_ns"] == pytest.approx(flame["growth_ns"], abs=2)
    assert leaves(tree, "ns") == pytest.approx(tree["ns"], rel=0.01)

    alone = flame_of(gateway, f"from={since}&to={since + 60}")
    assert alone["baseline"] is None and alone["growth_ns"] is None
    assert sum(row["ns"] for row in alone["rows"]) == alone["tree"]["ns"] == tree["ns"]
    assert flame_of(gateway, f"from={since - 300}&to={since}")["requests"] == 40

    check_series(gateway, since)
    check_terminal(gateway, since)
    assert gateway.stop() == 0
    # The same answer from the store alone, by a gateway that has seen nothing of it.
    again = gateway_factory(
        ["127.0.0.1:1"],
        store={"path": str(gateway.store)},
        profile={"join_timeout_ms": 100},
    )
    after = flame_of(again, query)
    for key in ("requests", "joined", "growth_ns", "rows", "tree", "baseline"):
        assert after[key] == flame[key], key


def check_series(gateway: Gateway, since: int) -> None:
    """Both spans are in the series, with kinds and bands that sum."""
    route = route_of(gateway, ROUTE)
    series = gateway.json(f"/api/v1/routes/{route['id']}/series?from={since - 300}&to={since + 60}")
    same_shape(documented("/api/v1/routes/{id}/series"), series, "series")
    points = series["points"]
    assert series["step_s"] == 10 and len(points) == 36
    assert sum(point["requests"] for point in points) == 80
    for point in points:
        assert sum(band[2] for band in point["bands"]) == point["requests"]
        assert (point["p95_ns"] is None) == (point["requests"] == 0)
        app = sum(point["phases_ns"][phase] for phase in ("send", "wait"))
        assert sum(point["kinds_ns"].values()) <= app
    before = [point for point in points if point["t"] < since and point["requests"]]
    after = [point for point in points if point["t"] >= since and point["requests"]]
    assert max(p["p50_ns"] for p in before) + 20e6 < min(p["p50_ns"] for p in after)
    assert len(route["p95_series"]) == 15 and route["p95_series"][-1] > 0
    minute = gateway.json(f"/api/v1/routes/{route['id']}/series?step=60")
    assert minute["step_s"] == 60 and sum(p["requests"] for p in minute["points"]) == 80


def check_terminal(gateway: Gateway, since: int) -> None:
    """`tailrace flame` draws both, and hands JSON through."""

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [str(BINARY), "flame", *args, "--control", f"unix:{gateway.control}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20)

    done = run(ROUTE, "--baseline", str(since))
    assert done.returncode == 0, done.stderr
    assert "WHAT MADE THE DIFFERENCE" in done.stdout
    named = done.stdout[done.stdout.index("WHAT MADE") :].splitlines()[1]
    assert named.startswith("wait sleep  history_app:load_orders") and "likely" in named
    assert "history_app:work" in done.stdout
    assert "asyncio.tasks:s" in done.stdout  # as far as its column goes
    plain = run(ROUTE)
    assert plain.returncode == 0 and "80 requests" in plain.stdout
    assert "DIFFERENCE" not in plain.stdout
    answer = json.loads(run(ROUTE, "--json", "--window", "15m").stdout)
    assert answer["requests"] == 80
    for args, status, word in [
        (("GET /none",), 1, "no route"),
        ((ROUTE, "--baseline", "soon"), 2, "--baseline"),
        ((ROUTE, "--window", "0"), 2, "--window"),
        ((), 2, "usage"),
    ]:
        done = run(*args)
        assert done.returncode == status and done.stdout == "" and word in done.stderr


def test_bad_questions(gateway_factory: Callable[..., Gateway]) -> None:
    """What is wrong is said with its parameter; a route that is not there is 404."""
    app = HandApp().start()
    gateway = gateway_factory([app.address], profile={"join_timeout_ms": 100})
    call(gateway, "/x")
    route = route_of(gateway, "GET (no route)")["id"]
    for path, status, pointer in [
        (f"{route}/flame?from=5&to=4", 400, "/from"),
        (f"{route}/flame?from=yesterday", 400, "/from"),
        (f"{route}/flame?to=-1", 400, "/to"),
        (f"{route}/flame?baseline_from=5", 400, "/baseline_to"),
        (f"{route}/flame?baseline_from=9&baseline_to=5", 400, "/baseline_from"),
        (f"{route}/series?step=7", 400, "/step"),
        (f"{route}/series?step=10&from=1000&to=9000", 400, "/step"),
        (f"{route}/series?from=0", 400, "/from"),
        ("99999/flame", 404, None),
        ("99999/series", 404, None),
        (f"{route}/what", 404, None),
        ("x/flame", 404, None),
    ]:
        answered, _, body = gateway.api(f"/api/v1/routes/{path}")
        assert answered == status, path
        assert json.loads(body)["error"]["pointer"] == pointer, path
    empty = gateway.json(f"/api/v1/routes/{route}/flame?from=1000&to=2000")
    assert empty["requests"] == 0 and empty["rows"] == [] and empty["tree"]["ns"] == 0
    phases = gateway.json(f"/api/v1/routes/{route}/flame")
    assert {row["kind"] for row in phases["rows"]} == {"phase", "no_profile"}
    app.stop()


def test_retention(gateway_factory: Callable[..., Gateway]) -> None:
    """A busy route keeps its slowest and a sample, a quiet one everything; all are counted."""
    app = HandApp().start()
    gateway = gateway_factory(
        [app.address],
        profile={"join_timeout_ms": 100},
        store={"keep_slowest": 3, "keep_random": 4},
    )
    next_window()
    for _ in range(60):
        call(gateway, "/busy")

    def counted() -> bool:
        return bool(route_of(gateway, "GET (no route)")["requests"] == 60)

    wait_for(counted, 10, "all counted")
    # Late ones may fall into the next window.
    wait_for(lambda: len(gateway.json("/api/v1/requests?limit=1000")["requests"]) <= 14, 10, "kept")
    kept = gateway.json("/api/v1/requests?limit=1000")["requests"]
    assert len(kept) >= 7
    dropped = metrics(gateway)['tailrace_store_evicted_total{reason="retention"}']
    assert dropped >= 0
    wait_exchange(gateway, kept[0]["trace_id"], lambda x: x["profile_missing"] == "no_hook")
    app.stop()
