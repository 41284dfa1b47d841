"""A gateway with one uvicorn behind it, for the truth tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from harness import AppServer, Gateway, start_gateway, start_uvicorn


@dataclass
class Pair:
    """A gateway and the app behind it."""

    gateway: Gateway
    app: AppServer
    loop: str

    def get(self, path: str) -> tuple[dict[str, Any], httpx.Response]:
        """GET through the gateway; return the exchange with its profile, and the response."""
        response = httpx.get(self.gateway.base + path, timeout=20)
        assert response.status_code == 200, response.text
        return self.gateway.wait_profile(response.headers["x-trace-id"]), response


def start_pair(
    folder: Path, app: str, app_dir: Path, loop: str, *more: dict[str, Any], **sections: Any
) -> Iterator[Pair]:
    """Start both, yield them, stop both; show their logs where the start fails.

    `more` are further control listeners, `sections` those of start_gateway().
    """
    sockets = tempfile.mkdtemp(prefix="tailrace-truth-")
    control = f"{sockets}/control.sock"
    listeners = [{"address": f"unix:{control}", "role": "admin"}, *more]
    server = start_uvicorn(folder, app, app_dir=app_dir, loop=loop, control=control)
    try:
        gateway = start_gateway(
            folder,
            [server.address],
            control={"listeners": listeners},
            store={"keep_slowest": 1000, "keep_random": 1000},  # all that these tests send
            **sections,
        )
        try:
            yield Pair(gateway, server, loop)
        finally:
            gateway.stop()
    finally:
        server.stop()
        print(server.log()[-4000:])
        shutil.rmtree(sockets, ignore_errors=True)
