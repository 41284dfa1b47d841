"""The dashboard in a real Chromium, before the real gateway, the real hook and real traffic."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forward import forward
from harness import ROOT, Gateway, free_port, wait_for
from truth_pair import start_pair

HERE = Path(__file__).resolve().parent

EVIL = "<img src=x onerror=window.ran=1><script>window.ran=1</script>';id;'"
EVIL_QUOTED = urllib.parse.quote(EVIL, safe="<>=/'")
TOKEN = "a-token-of-more-than-16-bytes"
EVIL_HEADERS = dict.fromkeys(("User-Agent", "Referer", "X-Forwarded-For", "tracestate"), EVIL)
BROWSER_S = 200
pytestmark = pytest.mark.timeout(BROWSER_S + 60)  # of the one run that all look at

# The demo, and a function whose name is markup.
NAMED_APP = f"""
import asyncio, sys
sys.path.append({str(ROOT / "demo")!r})
from app import api, app

async def named():
    await asyncio.sleep(0.05)

names = [n for n in ("co_name", "co_qualname") if hasattr(named.__code__, n)]
named.__code__ = named.__code__.replace(**dict.fromkeys(names, {EVIL!r}))
api.get("/named")(named)
"""


def fetch(base: str, path: str, headers: dict[str, str] | None = None) -> str:
    """One request through the gateway, whatever the status; its trace ID."""
    request = urllib.request.Request(base + path, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return str(response.headers["X-Trace-Id"])
    except urllib.error.HTTPError as error:
        return str(error.headers["X-Trace-Id"])


def browse(plan: dict[str, str]) -> dict[str, Any]:
    """Runs browse.mjs. AssertionError with its output where it fails."""
    web = ROOT / "build" / "web"
    assert (web / "node_modules").is_dir(), "the dashboard's packages are missing: make deps-web"
    script = web / "browse.mjs"  # beside node_modules, where Node looks for packages
    script.write_text((HERE / "browse.mjs").read_text())
    done = subprocess.run(
        ["node", str(script), json.dumps(plan)],
        capture_output=True,
        text=True,
        timeout=BROWSER_S,
        env=dict(os.environ, HOME=str(web)),
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return dict(json.loads(done.stdout))


def wait_lanes(gateway: Gateway, trace: str) -> None:
    """The detail of a request comes a moment after its profile."""
    wait_for(lambda: gateway.wait_profile(trace)["profile"]["lanes"], 10, "lanes")


class Going:
    """Some requests a second to a route that breaks a rule, until stop()."""

    def __init__(self, base: str) -> None:
        """Begin."""
        self._stopped = threading.Event()
        self._base = base
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopped.wait(0.2):
                fetch(self._base, "/async")
        except Exception as error:  # told by the thread that waits for this one
            self._fault = error

    def stop(self) -> None:
        """No more. AssertionError where a request had failed and the others never were sent."""
        self._stopped.set()
        self._thread.join()
        assert self._fault is None, f"the traffic ended: {self._fault!r}"


RULE = {"metric": "p50", "route": "GET /async", "above_ms": 1, "for_s": 10, "min_requests": 5}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What Chromium saw on all pages: one run, looked at by all tests here."""
    folder = tmp_path_factory.mktemp("web")
    token, port = folder / "token", free_port()
    token.write_text(TOKEN + "\n")
    tcp = {"address": f"127.0.0.1:{port}", "token_file": str(token)}
    alerts = {"window_ms": 1000, "rules": [RULE]}
    (folder / "named.py").write_text(NAMED_APP)
    for pair in start_pair(folder, "named:app", folder, "uvloop", tcp, alerts=alerts):
        gateway = pair.gateway
        going = Going(gateway.base)
        try:
            for path in ("/async", "/sync", "/gather", "/block", "/db"):
                fetch(gateway.base, path)
            trace = fetch(gateway.base, "/gather")
            evil = fetch(gateway.base, "/async?x=" + EVIL_QUOTED, EVIL_HEADERS)
            named = fetch(gateway.base, "/named")
            for each in (trace, evil, named):
                gateway.wait_profile(each)
            wait_lanes(gateway, trace)
            with forward(gateway.control) as base:
                plan = {"base": base, "trace": trace, "evil": evil, "lanes": trace}
                plan["named"] = named
                plan |= {"tcp": f"http://127.0.0.1:{port}", "token": TOKEN}
                yield browse(plan)
        finally:
            going.stop()


def test_nothing_foreign_and_no_error(seen: dict[str, Any]) -> None:
    """No request leaves the gateway, no script fails, and the policy is never broken."""
    assert seen["foreign"] == []
    assert seen["errors"] == []


def test_accessible(seen: dict[str, Any]) -> None:
    """axe-core finds nothing on any page, in both themes."""
    assert len(seen["axe"]) == 20, sorted(seen["axe"])
    assert {page: faults for page, faults in seen["axe"].items() if faults} == {}


def test_routes(seen: dict[str, Any]) -> None:
    """All routes; filter and order are in the address; the table as files; keys open a route."""
    pages = seen["pages"]
    assert set(pages["routes"]) >= {f"GET /{n}" for n in ("async", "sync", "gather", "block", "db")}
    assert pages["filtered"] == {"rows": ["GET /gather"], "hash": "#/routes?q=gather"}
    assert pages["sorted"] == sorted(pages["sorted"], reverse=True) and len(pages["sorted"]) >= 5
    assert pages["csv"][0].startswith("Route,State,Requests")
    assert pages["csv"][1].startswith("GET /gather,") and pages["json"] == 1
    assert pages["opened"].startswith("#/route/")


def test_route(seen: dict[str, Any]) -> None:
    """Charts, the flame graph with the app's frames, the rows; linked to by name."""
    route = seen["pages"]["route"]
    assert route["title"] == seen["pages"]["byName"] == "GET /gather"
    assert any("Latency" in c for c in route["charts"])
    assert any("Throughput" in c for c in route["charts"])
    assert any("slowest_child" in label for label in route["flame"])
    assert any(re.search(r"slowest_child\s+app\.py:[0-9]+$", row) for row in route["rows"])
    assert {"Requests", "Errors", "Mean", "Slowest"} <= set(route["tiles"])
    found = seen["pages"]["found"]
    assert found.startswith("“slowest_child”: ") and " ms per request, " in found
    assert seen["pages"]["lit"] >= 1
    assert seen["pages"]["zoomed"]["kept"] and seen["pages"]["zoomed"]["faded"] > 0
    pressed = seen["pages"]["pressed"]
    assert pressed["told"].startswith(f"{pressed['marked']}  ") and "request, " in pressed["told"]


def test_a_change_is_coloured_by_evidence(seen: dict[str, Any]) -> None:
    """Red, or green, where it is certain and more than a little; else no colour."""
    colors, tones = seen["pages"]["colors"], dict(seen["pages"]["tones"])
    assert len(set(colors.values())) == 3
    wanted = {"150 true": "worse", "50 true": "better", "150 false": "quiet"}
    wanted |= {"50 false": "quiet", "103 true": "quiet"}
    assert tones == {route: colors[name] for route, name in wanted.items()}


def test_deep_frames_are_not_cut(seen: dict[str, Any]) -> None:
    """A flame graph is as high as what is zoomed to is deep."""
    assert seen["pages"]["deep"] == {"before": 0, "inside": True}


def test_request(seen: dict[str, Any]) -> None:
    """The waterfall's phases, the app's frames, all frames on demand, exports, curl."""
    pages = seen["pages"]
    request = pages["request"]
    assert request["title"] == "GET /gather"
    assert {"head", "wait", "app_queue", "app", "unattributed"} <= set(request["rows"])
    assert any("slowest_child" in row for row in request["rows"])
    few, all_frames = pages["frames"]
    assert all_frames > few
    assert "Try again" in pages["missing"]
    assert pages["curl"].startswith("curl -i -X 'GET' 'http://127.0.0.1:")
    assert [href.split("format=")[1].split("&")[0] for href in pages["downloads"]] == [
        *("speedscope", "chrome", "collapsed")
    ]


def test_lanes(seen: dict[str, Any]) -> None:
    """A lane per task, lines to who woke whom, a segment with its stack."""
    lanes = seen["pages"]["lanes"]
    assert len(lanes["names"]) >= 4  # the request and its children
    assert lanes["wakes"] >= 1
    assert "of lane" in lanes["chosen"] and "wait" in lanes["chosen"]


def test_speedscope(seen: dict[str, Any]) -> None:
    """The built-in speedscope opens a request's profile, under its policy, offline."""
    speedscope = seen["pages"]["speedscope"]
    assert "GET /gather" in speedscope["title"] and not speedscope["error"]
    assert speedscope["styled"] != "static"  # its styles, made while it runs, are in force


def test_what_clients_send_is_text(seen: dict[str, Any]) -> None:
    """Markup in a path and in headers is never run; nor does it leave a shell's quotes."""
    evil = seen["pages"]["evil"]
    assert evil["ran"] is None
    assert "onerror=window.ran=1" in evil["title"]
    assert shlex.split(evil["curl"])[-1].endswith(EVIL_QUOTED)


def test_names_of_functions_are_text(seen: dict[str, Any]) -> None:
    """Markup in one is shown by the breakdown, the flame graph and its line, and never run."""
    named = seen["pages"]["named"]
    assert any(EVIL in frame for frame in named["frames"]), named
    assert any(EVIL in label for label in named["labels"]), named
    assert EVIL in named["told"]
    assert named["ran"] is None


def test_live(seen: dict[str, Any]) -> None:
    """Fills, stands still when paused or walked through, says how much passes."""
    pages = seen["pages"]
    assert pages["paused"]
    assert 3 <= pages["live"]["rows"] <= 100
    assert pages["live"]["rate"].endswith("requests/s")


def test_health(seen: dict[str, Any]) -> None:
    """Own cost, losses, processes and hooks; the configuration; the metrics."""
    pages = seen["pages"]
    assert {"Profiled", "Lost", "CPU per request", "Memory", "Store"} <= set(
        pages["health"]["tiles"]
    )
    for word in ("supervisor", "collector", "uvloop"):
        assert word in pages["health"]["text"]
    assert pages["config"] == ["profile.join_timeout_ms", "10000"]
    assert pages["metrics"] > 100  # a screenful at first, the rest in the frames after
    assert pages["nowhere"] == "No such page"


def test_login_and_accept(seen: dict[str, Any]) -> None:
    """A wrong token, the right one, an incident accepted by the cookie, the log-out."""
    pages = seen["pages"]
    assert "not the token" in pages["wrong"]
    assert pages["cookie"] == {"http": True, "site": "Strict", "script": ""}
    assert any("GET /async" in title for title in pages["incidents"])
    assert pages["firing"] and int(pages["firing"][0]) >= 1
    (one, shown), (more, doubled) = pages["captions"]
    assert one == ("1 incident" if shown == 1 else f"{shown} incidents") + ", newest first"
    assert more == f"{doubled} incidents, newest first" and doubled == 2 * shown
    assert "GET /async" in pages["incident"]["title"] and pages["incident"]["text"]
    assert all("NaN" not in told for told in pages["incident"]["told"])
    assert pages["accepted"]
    assert pages["loggedOut"] == 0


def test_no_width_scrolls_sideways(seen: dict[str, Any]) -> None:
    """A phone, a tablet, a desk: tables scroll in their own boxes."""
    assert len(seen["pages"]["overflow"]) == 15
    assert all(wide <= 0 for wide in seen["pages"]["overflow"].values()), seen["pages"]["overflow"]


PART = re.compile(r"([a-z][a-z_ ]*): last ([0-9.]+ \S+),")


def duration_ns(text: str) -> float:
    """What the page wrote: "1.24 ms"."""
    value, unit = text.split(" ")
    return float(value) * {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}[unit]


def test_route_follows_the_time(seen: dict[str, Any]) -> None:
    """Charts, deploys, numbers of a route that stays open are the newest; nothing is disturbed."""
    follow = seen["pages"]["follow"]
    first, then, shown = follow["first"], follow["then"], follow["shown"]
    assert int(then["tiles"][0]) > int(first["tiles"][0])
    for title in ("Latency:", "Throughput", "Inside the app", "Gateway's phases"):
        (before,) = [c for c in first["charts"] if c.startswith(title)]
        (after,) = [c for c in then["charts"] if c.startswith(title)]
        assert before != after
    # A part that lies on others is told as what it is.
    (phases,) = [c for c in then["charts"] if c.startswith("Gateway's phases")]
    mean = {name: duration_ns(value) for name, value in PART.findall(phases)}
    assert 0 < mean["the rest"] < mean["wait"] / 2, phases
    assert follow["deploy"] > 50  # pixels of a line that was not there when the chart was made
    # The charts themselves, the flame graph, the frame and the row that were chosen, the focus.
    assert follow["kept"]["marked"] == [[True, True], [True], [True], [True]]
    assert follow["kept"]["focus"].startswith("Frames:")
    assert then["y"] == first["y"] > 0
    assert (then["flame"], then["span"]) == (first["flame"], first["span"])
    # Until somebody wants the newer ones.
    assert shown["span"] > first["span"] and shown["flame"] != first["flame"]
    assert shown["focus"] == "The newest data is shown"


def test_a_chosen_span_is_fixed(seen: dict[str, Any]) -> None:
    """What an address with from and to shows stays as it is."""
    fixed = seen["pages"]["fixed"]
    assert fixed["then"] == fixed["first"]
    assert fixed["newer"] == 0 and len(fixed["first"]["charts"]) >= 5
    yesterday = seen["pages"]["yesterday"]
    asked = yesterday["asked"]
    assert f"from={asked}&" in yesterday["hash"]
    assert (yesterday["from"], yesterday["to"]) == (asked - 300, asked + 600)  # 15 min around it
