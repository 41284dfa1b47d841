"""The dashboard before a million requests of 500 routes, a flame graph of 20 000 nodes, and a live
view at 2 000 requests a second, in a real Chromium."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fill_store import REQUESTS, ROUTES, fill
from forward import forward
from handmade import HandApp
from harness import ROOT, Gateway, start_gateway, wait_for

pytestmark = pytest.mark.timeout(900)
HERE = Path(__file__).resolve().parent
RATE = 2000
LIVE_S = 40
FIRST_VIEW_BYTES = 150_000


def measure(base: str, what: str, **more: Any) -> dict[str, Any]:
    """Run measure.mjs: what Chromium took for it."""
    web = ROOT / "build" / "web"
    script = web / "measure.mjs"  # beside node_modules, where Node looks for packages
    script.write_text((HERE / "measure.mjs").read_text())
    plan = json.dumps({"base": base, "what": what, **more})
    env = dict(os.environ, HOME=str(web))
    done = subprocess.run(
        ["node", str(script), plan], capture_output=True, text=True, timeout=240, env=env
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    print(what, found)
    return found


def ask(port: int, count: int, per_s: float = 0.0) -> None:
    """`count` requests over one connection, so many a second (0: as fast as they go)."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        for i in range(count):
            if per_s and (wait := begun + i / per_s - time.monotonic()) > 0.001:
                time.sleep(wait)
            sock.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"ok"):
                answer += sock.recv(65536)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway before a scripted app, its store filled."""
    tmp_path = tmp_path_factory.mktemp("million")
    app = HandApp().start()
    options: dict[str, Any] = {
        "store": {"path": str(tmp_path / "million.db"), "max_bytes": 8 << 30},
        "profile": {"join_timeout_ms": 300},
    }
    first = start_gateway(tmp_path, [app.address], **options)
    ask(first.port, 10)
    wait_for(lambda: first.json("/api/v1/routes")["routes"], 10, "counted")
    assert first.stop() == 0
    begun = time.monotonic()
    fill(first.store)
    print(f"filled in {time.monotonic() - begun:.0f} s: {first.store.stat().st_size >> 20} MiB")
    second = start_gateway(tmp_path, [app.address], **options)
    yield second
    second.stop()
    app.stop()


def test_a_million_requests(gateway: Gateway) -> None:
    """The first view is small and quick; so is what it leads to."""
    with forward(gateway.control) as base:
        found = measure(base, "first", routes=ROUTES)
    assert found["rows"] == ROUTES
    assert found["bytes"] < FIRST_VIEW_BYTES
    assert found["first_ms"] < 1000, found
    assert found["filter_ms"] < 200, found
    slowest = gateway.json("/api/v1/requests?sort=slowest&limit=1000")["requests"]
    assert len(slowest) == 1000
    assert gateway.json("/api/v1/status")["store"]["bytes"] > REQUESTS * 500


def test_a_large_flame_graph(gateway: Gateway) -> None:
    """20 000 nodes: drawn, zoomed and searched without a pause that is felt."""
    with forward(gateway.control) as base:
        found = measure(base, "flame", nodes=20_000)
    assert found["nodes"] >= 20_000
    assert found["drawn"] <= 500
    assert found["draw_ms"] < 1000, found
    assert found["zoom_ms"] < 300, found
    assert found["search_ms"] < 300, found


def test_live_at_two_thousand_a_second(gateway: Gateway) -> None:
    """Rows, nodes and memory stay as they are, whatever passes."""
    per_thread = RATE / 4
    threads = [
        threading.Thread(target=ask, args=(gateway.port, int(per_thread * LIVE_S), per_thread))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    with forward(gateway.control) as base:
        found = measure(base, "live", seconds=LIVE_S - 10)
    for thread in threads:
        thread.join()
    samples = found["samples"]
    assert max(s["rows"] for s in samples) <= 100
    for what, slack in (("nodes", 2000), ("heap", 2 << 20)):  # between two collections
        first, last = (max(s[what] for s in part) for part in (samples[:3], samples[-3:]))
        assert last <= first * 1.1 + slack, samples
    assert found["rate"] > RATE / 2, found
    status = gateway.json("/api/v1/status")
    assert status["drops"]["live_dropped"] == 0
    assert status["drops"]["records_dropped"] == 0
