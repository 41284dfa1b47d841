"""The examples of every framework, as users start them: behind the gateway, under uvicorn."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from harness import BINARY, ROOT, AppServer, Gateway, start_gateway

MS = 1_000_000
LATE_NS = 400 * MS  # of a timer or a thread on a machine that others load
EXAMPLES = {
    "starlette_app": "uvloop",
    "fastapi_app": "asyncio",
    "litestar_app": "uvloop",
    "quart_app": "asyncio",
    "django_app": "uvloop",
}


def get(gateway: Gateway, path: str) -> tuple[Any, dict[str, Any]]:
    """The answer to a request through the gateway, and its exchange with the profile."""
    with urllib.request.urlopen(gateway.base + path, timeout=20) as response:
        body = json.loads(response.read())
        exchange = gateway.wait_profile(response.headers["x-trace-id"])
    profile = exchange["profile"]
    rows = profile["breakdown"]
    assert sum(r["ns"] for r in rows) + profile["unattributed_ns"] == profile["app_ns"]
    app_part = profile["app_queue_ns"] + profile["app_ns"] + profile["app_out_ns"]
    phases = {p["name"]: p["ns"] for p in exchange["phases"]}
    assert app_part == phases["send"] + phases["wait"]
    assert profile["unattributed_ns"] < profile["app_ns"] // 10
    return body, exchange


def functions(row: dict[str, Any]) -> list[str]:
    """The app's own functions in a row's stack, outermost first."""
    return [f["function"] for f in row["stack"] or () if f["in_app"]]


def spent(exchange: dict[str, Any], kind: str, *names: str) -> int:
    """What rows of this kind take whose stack has exactly these functions of the app."""
    rows = exchange["profile"]["breakdown"]
    return sum(r["ns"] for r in rows if r["kind"] == kind and functions(r) == list(names))


def shown(exchange: dict[str, Any]) -> str:
    """The rows for eyes."""
    return "\n".join(
        f"{r['kind']} {r['cause']} {r['ns'] / MS:.2f} ms {functions(r)}"
        for r in exchange["profile"]["breakdown"]
    )


@pytest.mark.parametrize("folder", EXAMPLES)
def test_example(
    folder: str,
    gateway_factory: Callable[..., Gateway],
    uvicorn_factory: Callable[..., AppServer],
    tmp_path: Any,
) -> None:
    """Routes are named by template, rows sum, frames and threads are the app's own."""
    first = start_gateway(tmp_path / "address", ["127.0.0.1:1"])  # the app must know where to post
    first.stop()
    app = uvicorn_factory(
        "main:app",
        app_dir=ROOT / "examples" / folder,
        control=first.control,
        loop=EXAMPLES[folder],
    )
    gateway = gateway_factory(
        [app.address], control={"listeners": [{"address": f"unix:{first.control}"}]}
    )
    for number in (1, 2):  # the first request of Django comes without a lifespan before it
        body, exchange = get(gateway, f"/items/{number}")
        assert body == {"item": number}
        assert exchange["route"] == "GET /items/{number}"
        assert exchange["profile"]["engine"] == "steps"
        waited = spent(exchange, "wait", "item", "load")
        assert 19 * MS <= waited <= 20 * MS + LATE_NS, shown(exchange)
        others = {tuple(functions(r)) for r in exchange["profile"]["breakdown"]}
        assert not any("report" in o or "together" in o for o in others)

    body, exchange = get(gateway, "/report/7")
    assert body == {"report": "report 7"}
    assert exchange["route"] == "GET /report/{number}"
    ran = spent(exchange, "thread_run", "report", "render")
    assert 25 * MS <= ran <= 30 * MS + LATE_NS, shown(exchange)
    jobs = [t for t in exchange["profile"]["threads"] if t["stack"][-1]["function"] == "report"]
    assert len(jobs) == 1 and jobs[0]["count"] == 1
    assert 30 * MS <= jobs[0]["run_ns"] <= 30 * MS + LATE_NS
    assert jobs[0]["cpu_ns"] <= jobs[0]["run_ns"] - 29 * MS, "it slept"
    ready = spent(exchange, "ready")
    assert 0 < jobs[0]["return_ns"] <= ready, "which the way back to the loop is"
    command = [BINARY, "show", exchange["trace_id"], "--control", f"unix:{first.control}"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert "thread  report  1 job ran" in told.stdout, told.stdout
    assert ", back in the loop after " in told.stdout, told.stdout

    body, exchange = get(gateway, "/together")
    assert body == {"items": [1, 2]}
    assert exchange["route"] == "GET /together"
    waited = spent(exchange, "wait", "together", "load") + spent(exchange, "wait", "load")
    assert 29 * MS <= waited <= 30 * MS + LATE_NS, shown(exchange)

    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(gateway.base + "/nowhere/9", timeout=20)
    lost = gateway.wait_profile(caught.value.headers["x-trace-id"])
    assert caught.value.code == 404 and "nowhere" not in (lost["route"] or "")
    assert "Traceback" not in app.log() and "tailrace: an error" not in app.log(), app.log()
