"""`make screenshots`: every page of the dashboard, with real traffic, into build/screenshots."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
for suite in ("system", "truth"):
    sys.path.insert(0, str(HERE.parent / suite))

from forward import forward  # noqa: E402
from harness import ROOT, Gateway  # noqa: E402
from truth_pair import start_pair  # noqa: E402

PATHS = ("/async", "/sync", "/gather", "/gather", "/block", "/db")
ROUNDS = 12


def traffic(base: str) -> None:
    """A minute of mixed requests."""

    def get(path: str) -> None:
        with urllib.request.urlopen(base + path, timeout=20) as response:
            response.read()

    with ThreadPoolExecutor(4) as pool:
        for _ in range(ROUNDS):
            list(pool.map(get, PATHS))
            time.sleep(3)


def pages(gateway: Gateway) -> list[str]:
    """NAME=HASH of what is worth a picture."""
    routes = {r["route"]: r["id"] for r in gateway.json("/api/v1/routes")["routes"]}
    slow = gateway.json("/api/v1/requests?route=GET%20/gather&sort=slowest&limit=1")["requests"][0]
    return [
        "routes=#/routes?window=15m",
        f"route=#/route/{routes['GET /async']}?window=15m",
        f"request=#/request/{slow['trace_id']}",
        "incidents=#/incidents",
        "live=#/live",
        "health=#/health",
    ]


def main() -> int:
    """Starts gateway and app, makes traffic, takes the pictures."""
    out = ROOT / "build" / "screenshots"
    out.mkdir(parents=True, exist_ok=True)
    script = ROOT / "build" / "web" / "shots.mjs"  # beside node_modules, where Node looks
    script.write_text((HERE / "shots.mjs").read_text())
    with tempfile.TemporaryDirectory() as folder:
        for pair in start_pair(Path(folder), "app:app", ROOT / "demo", "uvloop"):
            traffic(pair.gateway.base)
            time.sleep(1)
            with forward(pair.gateway.control) as base:
                command = ["node", str(script), base, str(out), *pages(pair.gateway)]
                subprocess.run(command, check=True, timeout=300)
    print(f"{len(list(out.glob('*.png')))} pictures in {out.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
