"""The dashboard in a real Chromium, before the real gateway, the real hook and real traffic."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forward import forward
from harness import ROOT
from truth_pair import start_pair

HERE = Path(__file__).resolve().parent

EVIL = "<img src=x onerror=window.ran=1><script>window.ran=1</script>"
BROWSER_S = 150


def fetch(base: str, path: str) -> str:
    """One request through the gateway, whatever the status; its trace ID."""
    try:
        with urllib.request.urlopen(base + path, timeout=20) as response:
            return str(response.headers["X-Trace-Id"])
    except urllib.error.HTTPError as error:
        return str(error.headers["X-Trace-Id"])


def browse(base: str, trace: str, evil: str) -> dict[str, Any]:
    """Runs browse.mjs. AssertionError with its output where it fails."""
    web = ROOT / "build" / "web"
    assert (web / "node_modules").is_dir(), "the dashboard's packages are missing: make deps-web"
    script = web / "browse.mjs"  # beside node_modules, where Node looks for packages
    script.write_text((HERE / "browse.mjs").read_text())
    done = subprocess.run(
        ["node", str(script), base, trace, evil],
        capture_output=True,
        text=True,
        timeout=BROWSER_S,
        env=dict(os.environ, HOME=str(web)),
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What Chromium saw on all pages: one run, looked at by all tests here."""
    for pair in start_pair(tmp_path_factory.mktemp("web"), "app:app", ROOT / "demo", "uvloop"):
        gateway = pair.gateway
        for path in ("/async", "/sync", "/gather", "/block", "/db"):
            fetch(gateway.base, path)
        trace = fetch(gateway.base, "/gather")
        evil = fetch(gateway.base, "/async?x=" + urllib.parse.quote(EVIL, safe="<>=/"))
        for each in (trace, evil):
            gateway.wait_profile(each)
        with forward(gateway.control) as base:
            yield browse(base, trace, evil)


def test_nothing_foreign_and_no_error(seen: dict[str, Any]) -> None:
    """No request leaves the gateway, no script fails, and the policy is never broken."""
    assert seen["foreign"] == []
    assert seen["errors"] == []


def test_accessible(seen: dict[str, Any]) -> None:
    """axe-core finds nothing on any page, in both themes."""
    assert len(seen["axe"]) == 9
    assert {page: faults for page, faults in seen["axe"].items() if faults} == {}


def test_routes(seen: dict[str, Any]) -> None:
    """All routes; the filter is in the address; the table as a file; keys open a route."""
    pages = seen["pages"]
    assert set(pages["routes"]) >= {f"GET /{n}" for n in ("async", "sync", "gather", "block", "db")}
    assert pages["filtered"] == {"rows": ["GET /gather"], "hash": "#/routes?q=gather"}
    assert pages["csv"][0].startswith("Route,State,Requests")
    assert pages["csv"][1].startswith("GET /gather,")
    assert pages["opened"].startswith("#/route/")


def test_route(seen: dict[str, Any]) -> None:
    """Charts, the flame graph with the app's frames, and what the time is made of."""
    route = seen["pages"]["route"]
    assert route["title"] == "GET /gather"
    assert any("Latency" in c for c in route["charts"])
    assert any("slowest_child" in label for label in route["flame"])
    assert any("slowest_child" in row for row in route["rows"])


def test_request(seen: dict[str, Any]) -> None:
    """The waterfall's phases, the app's frames, and all frames on demand."""
    request = seen["pages"]["request"]
    assert request["title"] == "GET /gather"
    assert {"head", "wait", "app_queue", "app", "unattributed"} <= set(request["rows"])
    assert any("slowest_child" in row for row in request["rows"])
    few, all_frames = seen["pages"]["frames"]
    assert all_frames > few
    assert "Try again" in seen["pages"]["missing"]


def test_what_clients_send_is_text(seen: dict[str, Any]) -> None:
    """Markup in a path is shown, and never run."""
    evil = seen["pages"]["evil"]
    assert evil["ran"] is None
    assert "onerror=window.ran=1" in evil["title"]


def test_other_pages(seen: dict[str, Any]) -> None:
    """Incidents say why there are none, live fills, health shows its tiles."""
    pages = seen["pages"]
    assert "No incidents" in pages["incidents"][0]
    assert pages["live"] >= 7
    assert "Records dropped" in pages["health"]


def test_no_width_scrolls_sideways(seen: dict[str, Any]) -> None:
    """A phone, a tablet, a desk: tables scroll in their own boxes."""
    assert all(wide <= 0 for wide in seen["pages"]["overflow"].values()), seen["pages"]["overflow"]
