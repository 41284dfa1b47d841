"""A scripted app and hand-made profiles for it: what a hook would post, under the test's control.

Times are nanoseconds of CLOCK_MONOTONIC (`_ns`), as in docs/protocol.md.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import Gateway, StubServer, start_stub, wait_for

INSTANCE = "c3b1a0f25e7d4c6f9a0b1c2d3e4f5061"
STACKS: list[Any] = [
    [
        0,
        [
            ["app", "async_root", "app.py", 31, 1],
            ["asyncio.tasks", "sleep", "asyncio/tasks.py", 627, 0],
        ],
    ]
]


@dataclass
class Seen:
    """One request as the scripted app saw it."""

    key: str
    path: str
    enter_ns: int
    start_ns: int = 0
    end_ns: int = 0

    @property
    def trace(self) -> str:
        """The trace ID of the key."""
        return self.key[:32]


@dataclass
class HandApp:
    """A keep-alive HTTP/1.1 server that answers `ok` after delay_s and remembers what it saw."""

    delay_s: float = 0.0
    answer: Callable[[socket.socket, Seen], None] | None = None
    seen: list[Seen] = field(default_factory=list)
    stub: StubServer | None = None

    def start(self) -> HandApp:
        """Listen; stop() ends it."""
        self.stub = start_stub(self._serve)
        return self

    @property
    def address(self) -> str:
        """Where it listens, for a gateway's `servers`."""
        assert self.stub is not None
        return self.stub.address

    def stop(self) -> None:
        """End the server; raises what its handler raised."""
        if self.stub is not None:
            self.stub.stop()

    def _serve(self, conn: socket.socket, index: int) -> None:
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                data = conn.recv(65536)
                if not data:
                    return
                pending += data
            enter_ns = time.monotonic_ns()
            head, _, pending = pending.partition(b"\r\n\r\n")
            key = re.search(rb"(?mi)^x-tailrace: 1;([0-9a-f]{32}-[0-9a-f]{16})", head)
            assert key is not None, head
            seen = Seen(key[1].decode(), head.split(b" ", 2)[1].decode(), enter_ns)
            self.seen.append(seen)
            if self.answer is not None:
                self.answer(conn, seen)
                continue
            time.sleep(self.delay_s)
            # The client may go on before this thread does: end_ns must be one that can be true.
            seen.start_ns = seen.end_ns = time.monotonic_ns()
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            seen.end_ns = time.monotonic_ns()


def process(**changes: Any) -> dict[str, Any]:
    """The sender of a batch: this machine's clock, unless changed."""
    return {
        "instance": INSTANCE,
        "pid": os.getpid(),
        "python": "3.11.7",
        "loop": "uvloop",
        "engine": "steps",
        "hook_version": "0.1.0",
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "time_namespace": os.stat("/proc/self/ns/time").st_ino,
        "dropped": 0,
        **changes,
    }


FIELDS = [
    *("key", "part", "final", "route", "task_queue", "enter", "start", "end", "tail", "ended"),
    *("truncated", "breakdown", "unattributed", "stream", "stream_unattributed", "stalls", "cpu"),
]


def row(seen: Seen, **changes: Any) -> list[Any]:
    """The profile of a request: all of its time one `sleep` of stack 0, unless changed by field."""
    app_ns = seen.start_ns - seen.enter_ns
    fields: dict[str, Any] = {
        "key": seen.key,
        "part": 0,
        "final": 1,
        "route": "GET /hand/{made}",
        "task_queue": 0,
        "enter": seen.enter_ns,
        "start": seen.start_ns,
        "end": seen.end_ns,
        "tail": None,
        "ended": "response",
        "truncated": 0,
        "breakdown": [["wait", "sleep", 0, app_ns, 1, 1, 0, None, None]],
        "unattributed": 0,
        "stream": [],
        "stream_unattributed": seen.end_ns - seen.start_ns,
        "stalls": [],
        "cpu": None,
    }
    assert set(changes) <= set(FIELDS)
    fields.update(changes)
    return [fields[name] for name in FIELDS]


def batch(*profiles: list[Any], **changes: Any) -> bytes:
    """A whole batch as JSON; keyword arguments replace its keys."""
    whole = {"v": 1, "process": process(), "stacks": STACKS, "profiles": list(profiles), **changes}
    return json.dumps(whole).encode()


def post(
    gateway: Gateway, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Post a batch over the control socket: (status, answer)."""
    fields = {"Content-Type": "application/json", **(headers or {})}
    status, _, answer = gateway.api("/v1/profiles", "POST", body, fields)
    return status, json.loads(answer)


def metrics(gateway: Gateway) -> dict[str, float]:
    """All samples of /metrics by their text up to the value."""
    status, fields, body = gateway.api("/metrics")
    assert status == 200
    assert fields["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def outcome(gateway: Gateway, name: str) -> float:
    """How many profiles ended as `name` so far."""
    return metrics(gateway)[f'tailrace_profiles_total{{outcome="{name}"}}']


def result(gateway: Gateway, name: str) -> float:
    """How many batches ended as `name` so far."""
    return metrics(gateway)[f'tailrace_profile_batches_total{{result="{name}"}}']


def wait_exchange(
    gateway: Gateway, trace: str, until: Callable[[dict[str, Any]], bool], timeout_s: float = 10
) -> dict[str, Any]:
    """Return the exchange of a trace once `until` is true of it."""

    def found() -> dict[str, Any] | None:
        status, _, body = gateway.api(f"/api/v1/requests/{trace}")
        exchange = json.loads(body) if status == 200 else None
        return exchange if exchange is not None and until(exchange) else None

    return wait_for(found, timeout_s, f"exchange {trace}")
