"""What slows an app down, one app and gateway each, all at the same time: what the alert says.
And a wall clock that steps."""

from __future__ import annotations

import socket
import struct
import subprocess
import tempfile
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alert_tools import Failing, Traffic, incidents, wait_incident
from harness import AppServer, Gateway, wait_for
from test_alert_delivery import alertmanager, alerts_of, app, sections

__all__ = ["alertmanager", "app"]

FAST = {
    **{"window_ms": 1000, "min_duration_s": 10, "reference_s": 60, "reference_gap_s": 10},
    **{"min_effect": 0.3, "min_effect_ms": 15},
}


class Scenario:
    """One route that gets slower, and what must be said of it."""

    def __init__(self, route: str, env: dict[str, str] | None = None) -> None:
        """The route's path; settings of the app."""
        self.route, self.env = route, env or {}

    def begin(self, gateway: Gateway) -> Callable[[], None]:
        """Make it slower; returns what ends that."""
        name = self.route.strip("/")
        switch(gateway, name, True)
        return lambda: switch(gateway, name, False)

    def check(self, incident: dict[str, Any]) -> None:
        """AssertionError where it says something else."""
        raise NotImplementedError


def switch(gateway: Gateway, name: str, on: bool) -> None:
    """Turn a slowness of the app on or off."""
    url = f"{gateway.base}/switch/{name}/{int(on)}"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10) as answer:
        answer.read()


def top(incident: dict[str, Any]) -> tuple[str, str | None, str | None]:
    """Kind, cause and frame of the row that adds most."""
    row = incident["cause"]["rows"][0]
    return row["kind"], row["cause"], row["frame"]


class Cpu(Scenario):
    """More computing on the loop."""

    def check(self, incident: dict[str, Any]) -> None:
        """It is run, in the function that computes."""
        assert top(incident) == ("run", None, "alert_app:burn"), top(incident)


class Block(Scenario):
    """A call that blocks the loop."""

    def check(self, incident: dict[str, Any]) -> None:
        """It is run, in the function that blocks."""
        assert top(incident) == ("run", None, "alert_app:read_file"), top(incident)


class Threads(Scenario):
    """Others take all threads of the pool."""

    def begin(self, gateway: Gateway) -> Callable[[], None]:
        """Sixty clients hold forty threads for a second each."""
        hogs = Traffic(gateway, "/hog", rate=6000, threads=60)
        return hogs.stop

    def check(self, incident: dict[str, Any]) -> None:
        """It is the wait for a thread."""
        assert top(incident)[:2] == ("thread_queue", "limiter"), top(incident)
        assert "waiting for a free thread" in incident["text"]


class Saturation(Scenario):
    """Nothing but more traffic than the app can take."""

    def begin(self, gateway: Gateway) -> Callable[[], None]:
        """Twenty clients ask without a pause."""
        crowd = Traffic(gateway, "/work", rate=20000, threads=20)
        return crowd.stop

    def check(self, incident: dict[str, Any]) -> None:
        """It says so, and how much was asked for."""
        assert incident["title"].startswith("Saturation: "), (incident["title"], top(incident))
        assert incident["load"]["after"] > 2 * incident["load"]["before"]
        assert "requests/s" in incident["title"]


def run(scenario: Scenario, gateway: Gateway, failures: list[str]) -> None:
    """Learn, get slower, be told, get better, be told."""
    name = f"GET {scenario.route}"
    traffic = Traffic(gateway, scenario.route, 12, threads=2)
    try:
        wait_for(
            lambda: any(
                one["route"] == name and one["state"] == "ok"
                for one in gateway.json("/api/v1/routes")["routes"]
            ),
            180,
            f"{name} is compared",
            every_s=1,
        )
        time.sleep(10)
        end = scenario.begin(gateway)
        try:
            incident = wait_incident(
                gateway,
                120,
                lambda one: (
                    name in one["routes"] and not one["cause"]["verdict"].startswith("not enough")
                ),
                f"{name} fires and its cause is known",
            )
            scenario.check(incident)
        finally:
            end()
        wait_incident(
            gateway,
            300,
            lambda one: name in one["routes"] and one["status"] == "resolved",
            f"{name} resolves",
        )
    except BaseException:
        failures.append(f"{type(scenario).__name__}: {traceback.format_exc()}")
    finally:
        traffic.stop()


def slow_reader(gateway: Gateway, stop: threading.Event) -> None:
    """Clients that take a large answer little by little."""
    while not stop.is_set():
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.settimeout(30)
            sock.connect(("127.0.0.1", gateway.port))
            sock.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while sock.recv(65536):
                time.sleep(0.01)


def run_slow_client(gateway: Gateway, failures: list[str]) -> None:
    """A slow client is nobody's regression."""
    traffic = Traffic(gateway, "/big", 8, threads=2)
    stop = threading.Event()
    try:
        wait_for(
            lambda: any(
                one["route"] == "GET /big" and one["state"] == "ok"
                for one in gateway.json("/api/v1/routes")["routes"]
            ),
            180,
            "GET /big is compared",
            every_s=1,
        )
        readers = [threading.Thread(target=slow_reader, args=(gateway, stop)) for _ in range(8)]
        for reader in readers:
            reader.start()
        time.sleep(60)
        slowest = gateway.json("/api/v1/requests?sort=slowest&limit=1")["requests"][0]
        assert slowest["total_ns"] > 200_000_000, "the clients were not slow"
        assert not incidents(gateway), [one["title"] for one in incidents(gateway)]
    except BaseException:
        failures.append(f"slow client: {traceback.format_exc()}")
    finally:
        stop.set()
        traffic.stop()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "scenarios",
    [
        [Cpu("/cpu"), Block("/block"), Threads("/thread"), Saturation("/work")],
        [None],
    ],
    ids=["app", "client"],
)
def test_switchboard(
    gateway_factory: Callable[..., Gateway],
    uvicorn_factory: Callable[..., AppServer],
    scenarios: list[Scenario | None],
) -> None:
    """CPU, a blocking call, starved threads, saturation; a slow client."""
    failures: list[str] = []
    threads = []
    for scenario in scenarios:
        sockets = tempfile.mkdtemp(prefix="tailrace-")
        server = uvicorn_factory(
            "alert_app:app",
            control=f"{sockets}/control.sock",
            env=scenario.env if scenario else {},
        )
        gateway = gateway_factory(
            [server.address],
            alerts={**FAST, "receivers": {"log": {"type": "log"}}},
            profile={"join_timeout_ms": 1000},
            control={"listeners": [{"address": f"unix:{sockets}/control.sock"}]},
        )
        threads.append(
            threading.Thread(target=run, args=(scenario, gateway, failures))
            if scenario
            else threading.Thread(target=run_slow_client, args=(gateway, failures))
        )
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, "\n".join(failures)


@pytest.mark.timeout(300)
def test_alertmanager_is_told_again(
    app: Failing, gateway_factory: Callable[..., Gateway], alertmanager: str
) -> None:
    """While it fires the alert is sent every minute, and is one alert."""
    receivers = {"am": {"type": "alertmanager", "url": alertmanager}}
    gateway = gateway_factory([app.address], **sections(receivers))
    traffic = Traffic(gateway)
    first = wait_for(lambda: alerts_of(alertmanager), 30, "the alert")[0]
    time.sleep(70)
    again = alerts_of(alertmanager)
    traffic.stop()
    assert len(again) == 1 and again[0]["fingerprint"] == first["fingerprint"]
    assert again[0]["updatedAt"] > first["updatedAt"]


STEPS_S = (2 * 3600, -24 * 3600, 3 * 86400)  # from the true time
SETTLED_S = 18


@pytest.mark.timeout(600)
def test_wall_clock_steps(
    gateway_factory: Callable[..., Gateway],
    uvicorn_factory: Callable[..., AppServer],
    tmp_path: Path,
) -> None:
    """No step makes a regression or hides one, and none ends an incident."""
    library, ahead = tmp_path / "step_clock.so", tmp_path / "ahead"
    source = Path(__file__).with_name("step_clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    ahead.write_bytes(struct.pack("q", 0))

    def step(seconds: int) -> None:
        with ahead.open("r+b") as file:
            file.write(struct.pack("q", seconds))

    sockets = tempfile.mkdtemp(prefix="tailrace-")
    server = uvicorn_factory("alert_app:app", control=f"{sockets}/control.sock")
    gateway = gateway_factory(
        [server.address],
        env={"LD_PRELOAD": str(library), "STEP_CLOCK_FILE": str(ahead)},
        alerts={**FAST, "receivers": {"log": {"type": "log"}}},
        profile={"join_timeout_ms": 1000},
        control={"listeners": [{"address": f"unix:{sockets}/control.sock"}]},
    )
    traffic = Traffic(gateway, "/await", 15)

    def state() -> str | None:
        routes = gateway.json("/api/v1/routes")["routes"]
        return next((one["state"] for one in routes if one["route"] == "GET /await"), None)

    wait_for(lambda: state() == "ok", 180, "GET /await is compared", every_s=1)
    for seconds in STEPS_S:
        step(seconds)
        end = time.monotonic() + SETTLED_S
        while time.monotonic() < end:  # at first the new clock's last hour knows no requests
            assert state() in ("ok", None), f"after a step to {seconds} s"
            time.sleep(0.5)
        assert state() == "ok"
    assert not incidents(gateway)
    switch(gateway, "await", True)
    told = wait_incident(gateway, 60, what="the longer await")
    now_s = time.time() + STEPS_S[-1]
    since = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(now_s))
    before = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(now_s - 60))
    assert told["since"][:16] in (since, before), "not by the clock on the wall"
    step(-3600)
    time.sleep(SETTLED_S)
    assert state() == "firing" and incidents(gateway)[0]["status"] == "firing"
    switch(gateway, "await", False)
    wait_incident(gateway, 240, lambda one: one["status"] == "resolved", "its end")
    traffic.stop()
