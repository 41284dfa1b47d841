"""The waterfalls of docs/waterfall.md: the demo's routes, and one request that another one held up.

Run by `make samples`; writes docs/samples/{gather,block,db,held}.{json,txt}.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from run import (
    BINARY,
    FOLDER,
    DemoError,
    free_port,
    is_ready,
    make_config,
    request,
    running,
    save,
    show,
)

START_S = 20.0
#: How long after /async began /block comes, so that it falls between two of its sleeps.
HELD_AFTER_S = 0.055
HELD_MIN_NS = 50_000_000
ATTEMPTS = 5
CALM_NS = 200_000  # the usual dispatch is a tenth of that


def with_demo(inside: Callable[[str, str], None]) -> None:
    """Call inside(base, control) while gateway and demo app run. DemoError."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    control = str(FOLDER / "control.sock")
    port, app_port = free_port(), free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")}
    gateway = [str(BINARY), "run", "-c", str(make_config(control, port, app_port))]
    app = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", "demo", "--loop", "uvloop"]
    app += ["--http", "httptools", "--port", str(app_port), "--no-access-log"]
    app_env = {**env, "TAILRACE_CALLBACK": f"unix:{control}"}
    with running("gateway", gateway, env), running("app", app, app_env):
        end = time.monotonic() + START_S
        while not is_ready(control, app_port):
            if time.monotonic() > end:
                raise DemoError("gateway and app did not start")
            time.sleep(0.02)
        inside(f"http://127.0.0.1:{port}", control)


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
    try:
        with_demo(tour)
    except DemoError as error:
        print(f"tour: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
