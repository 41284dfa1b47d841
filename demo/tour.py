"""The waterfalls of docs/waterfall.md: the demo's routes, and one request that another one held up.

Run by `make samples`; writes docs/samples/{gather,block,db,held}.{json,txt}.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from run import FOLDER, DemoError, request, save, serving, show

#: How long after /async began /block comes, so that it falls between two of its sleeps.
HELD_AFTER_S = 0.055
HELD_MIN_NS = 50_000_000
ATTEMPTS = 5
CALM_NS = 200_000  # the usual dispatch is a tenth of that


def held(base: str, control: str) -> dict[str, Any]:
    """An /async that a /block held up in its middle."""
    for _ in range(ATTEMPTS):
        with ThreadPoolExecutor(1) as pool:
            victim = pool.submit(request, base + "/async")
            time.sleep(HELD_AFTER_S)
            request(base + "/block")
        exchange = show(victim.result()[0], control)
        stalls = exchange["profile"]["stalls"]
        if any(s["route"] == "GET /block" and s["ns"] > HELD_MIN_NS for s in stalls):
            return exchange
    raise DemoError("no /async was held up by a /block")


def calm(base: str, path: str, control: str) -> dict[str, Any]:
    """A request that the machine's other work did not touch: its waits are exact. The last one of
    ATTEMPTS where none was."""
    for _ in range(ATTEMPTS):
        exchange = show(request(base + path)[0], control)
        phases = {phase["name"]: phase["ns"] for phase in exchange["phases"]}
        if phases["dispatch"] < CALM_NS and exchange["profile"]["app_queue_ns"] > 0:
            break
    return exchange


def tour(base: str, control: str) -> None:
    """Request every route twice, save the second time."""
    for path in ("/async", "/gather", "/block", "/db"):
        request(base + path)
    for path in ("/gather", "/block", "/db"):
        save(calm(base, path, control), path.strip("/"))
    save(held(base, control), "held")


def main() -> int:
    """Run all of it. Exit status 1 where something did not hold."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    control = str(FOLDER / "control.sock")
    try:
        with serving(control) as base:
            tour(base, control)
    except DemoError as error:
        print(f"tour: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
