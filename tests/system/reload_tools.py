"""Clients under load, and what a reload is told by."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import threading
import time
from typing import Any

from harness import Gateway, wait_for
from proxy_tools import OK, Connection, get


def answer_all(conn: socket.socket, _index: int) -> None:
    """Answer every request of a connection at once."""
    buffered = b""
    while chunk := conn.recv(65536):
        buffered += chunk
        while b"\r\n\r\n" in buffered:
            buffered = buffered.split(b"\r\n\r\n", 1)[1]
            conn.sendall(OK)


class Load:
    """Clients on kept-alive connections, made anew only where the gateway says that it closes."""

    def __init__(self, port: int, clients: int) -> None:
        """Start so many clients."""
        self.answered = 0
        self.reconnects = 0
        self.slowest_s = 0.0
        self.faults: list[str] = []
        self._port = port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _serve(self, client: Connection) -> bool:
        """Ask until told to stop (True) or the connection is over (False)."""
        while not self._stop.is_set():
            start = time.monotonic()
            client.send(get())
            answer = client.answer()
            took_s = time.monotonic() - start
            with self._lock:
                self.answered += 1
                self.slowest_s = max(self.slowest_s, took_s)
                if answer.status != 200:
                    self.faults.append(f"{answer.status} {answer.body!r}")
            if answer.headers.get("connection") == "close":
                return False
        return True

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with Connection(self._port, 20) as client:
                    if self._serve(client):
                        return
                with self._lock:
                    self.reconnects += 1
        except Exception as error:
            with self._lock:
                self.faults.append(repr(error))

    def wait(self, more: int, timeout_s: float = 60) -> None:
        """Return once so many more requests were answered, or one failed."""
        target = self.answered + more
        wait_for(lambda: self.answered >= target or self.faults, timeout_s, "answers under load")

    def halt(self) -> None:
        """Tell the clients to stop, whatever they did."""
        self._stop.set()

    def finish(self) -> None:
        """Stop the clients; AssertionError for any request that failed."""
        self._stop.set()
        for thread in self._threads:
            thread.join(25)
        assert not self.faults, (len(self.faults), self.faults[:5])


def change(gateway: Gateway, **sections: Any) -> None:
    """Write the configuration with these sections merged in."""
    for name, value in sections.items():
        if isinstance(value, dict):
            gateway.config.setdefault(name, {}).update(value)
        else:
            gateway.config[name] = value
    gateway.config_path.write_text(json.dumps(gateway.config))


def in_force(gateway: Gateway, serial: int) -> None:
    """Return once the supervisor says that this configuration is in force."""
    text = f"configuration {serial} in force; the worker before drains"
    wait_for(lambda: text in gateway.log(), 15, text)


def hup(gateway: Gateway, serial: int) -> None:
    """Reload, and wait until it is done."""
    gateway.process.send_signal(signal.SIGHUP)
    in_force(gateway, serial)


def stored(gateway: Gateway) -> int:
    """Return how many exchanges the store has counted, after its end."""
    with contextlib.closing(sqlite3.connect(gateway.store)) as db:
        return int(db.execute("SELECT sum(requests) FROM route_minutes").fetchone()[0])
