"""Reloads, upgrades and a killed collector over 10^5 requests: none fails, none is lost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Gateway, StubServer, wait_for
from reload_tools import Load, answer_all, change, hup, stored

REQUESTS = 100_000
CLIENTS = 16


@pytest.mark.timeout(600)
@pytest.mark.parametrize("threads", [1, 2])
def test_reloads(
    gateway_starter: Callable[..., Gateway],
    stub_factory: Callable[..., StubServer],
    tmp_path: Path,
    threads: int,
) -> None:
    """HUP again and again, the number of threads changing with each second one."""
    access = tmp_path / "access.log"
    gateway = gateway_starter(
        [stub_factory(answer_all).address],
        worker={"threads": threads, "shutdown_timeout_ms": 10000},
        log={"access": {"path": str(access)}},
    )
    clients = Load(gateway.port, CLIENTS)
    try:
        serial = 1
        while clients.answered < REQUESTS and not clients.faults:
            clients.wait(2000)
            serial += 1
            change(gateway, worker={"threads": threads + serial // 2 % 2})
            hup(gateway, serial)
        clients.finish()
        assert gateway.stop() == 0
        print(
            f"{clients.answered} requests, {serial - 1} reloads, {clients.slowest_s:.3f} s slowest"
        )
        assert stored(gateway) == clients.answered
        lines = access.read_text().splitlines()
        assert len({json.loads(line)["span_id"] for line in lines}) == clients.answered
    finally:
        clients.halt()
        gateway.stop()


@pytest.mark.timeout(600)
def test_upgrades(
    gateway_starter: Callable[..., Gateway], stub_factory: Callable[..., StubServer]
) -> None:
    """USR2 again and again, and the collector killed between: clients notice nothing."""
    gateway = gateway_starter([stub_factory(answer_all).address])
    clients = Load(gateway.port, CLIENTS)
    try:
        upgrades = 0
        while clients.answered < REQUESTS and not clients.faults:
            clients.wait(4000)
            old = {*gateway.worker_pids(), gateway.collector_pid()}
            gateway.process.send_signal(signal.SIGUSR2)
            upgrades += 1
            ready = upgrades + 1
            wait_for(lambda n=ready: gateway.log().count(" ready: ") == n, 30, "upgraded")
            wait_for(lambda old=old: not old & _children(gateway), 30, "the old ones are gone")
            if upgrades % 3 == 0:
                os.kill(gateway.collector_pid(), signal.SIGKILL)
                wait_for(lambda: len(_children(gateway)) == 2, 10, "another collector")
        clients.finish()
        print(
            f"{clients.answered} requests, {upgrades} upgrades, {clients.slowest_s:.3f} s slowest"
        )
        assert gateway.stop() == 0
    finally:
        clients.halt()
        gateway.stop()


def _children(gateway: Gateway) -> set[int]:
    return {*gateway.worker_pids(), *gateway._children("tailrace: collector")}
