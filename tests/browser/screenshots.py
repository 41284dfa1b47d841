"""`make screenshots`: every page of the dashboard, with real traffic, into build/screenshots.

Each at three widths in both themes: NAME-WIDTH-THEME.png. Six minutes, for the incident is a real
one (`make headline` tells its story); --quick leaves it out.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for suite in ("tests/system", "tests/truth", "demo"):
    sys.path.insert(0, str(HERE.parents[1] / suite))

import headline  # noqa: E402
from forward import forward  # noqa: E402
from harness import ROOT, Gateway, free_port  # noqa: E402
from truth_pair import start_pair  # noqa: E402

PATHS = ("/async", "/sync", "/gather", "/gather", "/block", "/db")
ROUNDS = 12
OUT = ROOT / "build" / "screenshots"


def get(url: str) -> None:
    """One request."""
    with urllib.request.urlopen(url, timeout=20) as response:
        response.read()


def traffic(base: str) -> None:
    """A minute of mixed requests."""
    with ThreadPoolExecutor(4) as pool:
        for _ in range(ROUNDS):
            list(pool.map(get, [base + path for path in PATHS]))
            time.sleep(3)


def shoot(base: str, pages: dict[str, str]) -> None:
    """Take the pictures of addresses behind #, by name."""
    script = ROOT / "build" / "web" / "shots.mjs"  # beside node_modules, where Node looks
    script.write_text((HERE / "shots.mjs").read_text())
    command = ["node", str(script), base, str(OUT)]
    command += [f"{name}={place}" for name, place in pages.items()]
    subprocess.run(command, check=True, timeout=300)


def slowest(gateway: Gateway, route: str) -> str:
    """The trace of a route's slowest request, with its lanes."""
    query = urllib.parse.urlencode({"route": route, "sort": "slowest", "limit": 20})
    for request in gateway.json(f"/api/v1/requests?{query}")["requests"]:
        one = gateway.json(f"/api/v1/requests/{request['trace_id']}")
        if one["profile"] and one["profile"]["lanes"]:
            return str(request["trace_id"])
    raise AssertionError(f"no request of {route} with lanes")


def shoot_demo(folder: Path) -> None:
    """The demo app's pages, the live view under load, and the log-in."""
    token = folder / "token"
    token.write_text("a-token-for-pictures\n")
    port = free_port()
    listener = {"address": f"127.0.0.1:{port}", "token_file": str(token)}
    for pair in start_pair(folder, "app:app", ROOT / "demo", "uvloop", listener):
        gateway = pair.gateway
        traffic(gateway.base)
        time.sleep(1)
        routes = {r["route"]: r["id"] for r in gateway.json("/api/v1/routes")["routes"]}
        stop = threading.Event()

        def go_on(stop: threading.Event = stop, base: str = gateway.base) -> None:
            while not stop.wait(0.2):
                get(f"{base}/async")

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            with forward(gateway.control) as base:
                shoot(
                    base,
                    {
                        "routes": "#/routes?window=15m",
                        "route": f"#/route/{routes['GET /async']}?window=15m",
                        "request": f"#/request/{slowest(gateway, 'GET /gather')}",
                        "request-stall": f"#/request/{slowest(gateway, 'GET /block')}",
                        "incidents-none": "#/incidents",
                        "live": "#/live",
                        "health": "#/health",
                        "config": "#/health/config",
                        "metrics": "#/health/metrics?q=profiles",
                        "missing": "#/request/00000000000000000000000000000001",
                    },
                )
            shoot(f"http://127.0.0.1:{port}", {"login": "#/routes"})
        finally:
            stop.set()
            thread.join()


def shoot_story(gateway: headline.Gateway, incident: dict[str, Any]) -> None:
    """An incident, its route, and the lists with it."""
    route = urllib.parse.quote(incident["route"], safe="")
    with forward(gateway.control) as base:
        shoot(
            base,
            {
                "routes-firing": "#/routes?window=15m",
                "incidents": "#/incidents",
                "incident": f"#/incident/{incident['id']}",
                "route-firing": f"#/route/{route}?window=15m",
            },
        )


def main() -> int:
    """Start gateway and app, make traffic, take the pictures."""
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        shoot_demo(Path(folder))
    if "--quick" not in sys.argv[1:]:
        headline.run_story(shoot_story, strict=False)
    print(f"{len(list(OUT.glob('*.png')))} pictures in {OUT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
