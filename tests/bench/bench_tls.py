"""TLS towards clients: a kept-alive GET, a connection for each; ours and the peers', interleaved.

wrk resumes a session wherever it was given a ticket, as browsers do: nearly every handshake of
``handshakes`` is a resumed one, with all of them.

Two sections of about five minutes each: ``tls`` and ``handshakes``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paired
import procs

PAIRS = 15
RATIO_GOAL = 1 / paired.RATE_GOAL


@dataclass(frozen=True)
class Section:
    """One kind of load."""

    what: str
    close: bool

    def run(self, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
        """The comparison. Everything started is stopped again."""
        tls = procs.make_certificate(folder)
        services: list[procs.Service] = []
        try:
            origin = procs.start_origin(folder)
            services.append(origin)
            ours = procs.start_tailrace(folder, "tailrace", origin.port, tls)
            services.append(ours)
            others = {
                paired.CONTROL: procs.start_tailrace(folder, "tailrace-again", origin.port, tls),
                "haproxy": procs.start_haproxy(folder, origin.port, tls=tls),
                "nginx": procs.start_nginx_proxy(folder, origin.port, tls=tls),
            }
            services += others.values()
            load = paired.Load(scheme="https", close=self.close)
            return paired.compare(ours, others, load, PAIRS, say)
        finally:
            for service in reversed(services):
                service.stop()

    def verdicts(self, result: dict[str, Any]) -> list[tuple[str, str, str]]:
        """Rows (what, figure, verdict) for the table."""
        rows = paired.ratio_rows(result, self.what, RATIO_GOAL)
        return rows + paired.rate_rows(result, f"{self.what}s")


KEEP_ALIVE = Section("TLS GET", close=False)
HANDSHAKES = Section("TLS handshake", close=True)
