"""Reload, upgrade, and what a crash costs: under load, without a failed request."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from handmade import metrics
from harness import (
    BINARY,
    Gateway,
    StubServer,
    clean_env,
    free_port,
    group_members,
    make_config,
    wait_for,
)
from proxy_tools import OK, Connection, ask, get
from reload_tools import Load, answer_all, change, hup, stored

Factory = Callable[..., Gateway]
Stubs = Callable[..., StubServer]
NOWHERE = "127.0.0.1:1"


@pytest.fixture
def load() -> Iterator[Callable[[int, int], Load]]:
    """Start clients that are stopped whatever happens."""
    started: list[Load] = []

    def start(port: int, clients: int) -> Load:
        started.append(Load(port, clients))
        return started[-1]

    yield start
    for one in started:
        one.halt()


def test_reloads_under_load(
    gateway_starter: Factory, stub_factory: Stubs, load: Callable[[int, int], Load], tmp_path: Path
) -> None:
    """Eight HUPs under load: no request fails, no record is lost or counted twice."""
    access = tmp_path / "access.log"
    gateway = gateway_starter(
        [stub_factory(answer_all).address], log={"access": {"path": str(access)}}
    )
    try:
        collector = gateway.collector_pid()
        clients = load(gateway.port, 8)
        clients.wait(200)
        for serial in range(2, 10):
            hup(gateway, serial)
            clients.wait(150)
        clients.finish()
        assert clients.reconnects >= 8 * 8
        assert gateway.collector_pid() == collector
        wait_for(lambda: len(gateway.worker_pids()) == 1, 10, "one worker is left")
        wait_for(
            lambda: metrics(gateway)["tailrace_records_read_total"] == clients.answered,
            10,
            "every record was read once",
        )
        assert metrics(gateway)['tailrace_reloads_total{result="done"}'] == 8
        assert gateway.stop() == 0
        assert stored(gateway) == clients.answered
        lines = access.read_text().splitlines()
        assert len({json.loads(line)["span_id"] for line in lines}) == clients.answered
    finally:
        gateway.stop()


def test_one_store_is_one_gateways(gateway_factory: Factory, gateway_starter: Factory) -> None:
    """Neither a start nor a reload takes the store of a gateway that runs, and each lets go."""
    first, other = gateway_factory([NOWHERE]), gateway_factory([NOWHERE])
    theirs, own = first.config["store"], dict(other.config["store"])
    said = f"store: {first.store}: another gateway keeps its requests there"
    with pytest.raises(AssertionError, match="status 1") as caught:
        gateway_starter([NOWHERE], store=theirs)
    assert said in str(caught.value)
    change(other, store=theirs)
    other.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "reload refused" in other.log(), 5, "refused")
    assert said in other.log()
    assert first.stop() == 0
    hup(other, 2)
    third = gateway_starter([NOWHERE], store=own)
    with pytest.raises(AssertionError, match="status 1"):
        gateway_starter([NOWHERE], store=theirs)
    assert third.stop() == 0


def test_bad_file_changes_nothing(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """A file that `check` refuses is refused with its words; the next good one is taken."""
    gateway = gateway_factory([stub_factory(answer_all).address])
    (worker,) = gateway.worker_pids()
    good = gateway.config_path.read_text()
    gateway.config_path.write_text('{"listeners": 1}')
    gateway.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "reload refused" in gateway.log(), 5, "refused")
    assert "/listeners: found 1, allowed: a list" in gateway.log()
    assert gateway.worker_pids() == [worker]
    assert ask(gateway.port, get()).status == 200
    gateway.config_path.write_text(good)
    hup(gateway, 2)
    assert ask(gateway.port, get()).status == 200
    assert metrics(gateway)['tailrace_reloads_total{result="refused"}'] == 1


def test_listeners_come_and_go(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """HUP opens new ports, closes old ones, and refuses a file whose port is taken."""
    gateway = gateway_factory([stub_factory(answer_all).address])
    first, second = gateway.port, free_port()
    directory = Path(tempfile.mkdtemp(prefix="tailrace-"))
    try:
        control = [*gateway.config["control"]["listeners"], {"address": f"unix:{directory}/c"}]
        public = [{"address": f"127.0.0.1:{p}"} for p in (first, second)]
        change(gateway, listeners=public, control={"listeners": control})
        hup(gateway, 2)
        assert ask(first, get()).status == ask(second, get()).status == 200
        old_control = gateway.control
        gateway.control = f"{directory}/c"
        wait_for(lambda: (directory / "c").is_socket(), 5, "new control socket")
        assert gateway.api("/healthz")[0] == 200
        change(gateway, listeners=public[1:], control={"listeners": control[1:]})
        hup(gateway, 3)
        assert ask(second, get()).status == 200
        wait_for(lambda: not Path(old_control).exists(), 5, "old control socket removed")
        wait_for(lambda: len(gateway.worker_pids()) == 1, 10, "the old worker has ended")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", first), 2)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            change(gateway, listeners=[*public, {"address": address}])
            gateway.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "reload refused" in gateway.log(), 5, "refused")
        assert f"{address}: cannot bind: Address already in use" in gateway.log()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", first), 2)
        assert ask(second, get()).status == 200
        assert gateway.api("/healthz")[0] == 200
    finally:
        shutil.rmtree(directory)


def test_names_of_each_generation(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """A record's route, upstream and server are those of the configuration its worker had."""
    release = threading.Event()

    def slow(conn: socket.socket, _index: int) -> None:
        conn.recv(65536)
        release.wait(20)
        conn.sendall(OK)

    old, new = stub_factory(slow), stub_factory(answer_all)
    gateway = gateway_factory(
        [old.address], routes=[{"name": "before", "path_prefix": "/", "upstream": "app"}]
    )
    with Connection(gateway.port, 20) as client:
        client.send(get("/slow"))
        wait_for(lambda: old.accepted == 1, 5, "request at the old server")
        upstreams = {"first": {"servers": [NOWHERE]}, "second": {"servers": [new.address]}}
        routes = [
            {"name": "none", "path_prefix": "/none", "upstream": "first"},
            {"name": "after", "path_prefix": "/", "upstream": "second"},
        ]
        change(gateway, routes=routes, upstreams=upstreams)
        del gateway.config["upstreams"]["app"]
        change(gateway)
        hup(gateway, 2)
        fast_id = ask(gateway.port, get("/fast")).trace_id
        release.set()
        answer = client.answer()
    assert answer.status == 200 and answer.headers["connection"] == "close"

    def kept(trace_id: str) -> Any:
        status, _, body = gateway.api(f"/api/v1/requests/{trace_id}")
        return json.loads(body) if status == 200 else None

    slow_one = wait_for(lambda: kept(answer.trace_id), 10, "the slow one")
    fast_one = wait_for(lambda: kept(fast_id), 10, "the fast one")
    assert slow_one["route"] == "GET before" and fast_one["route"] == "GET after"
    assert slow_one["connection"]["upstream"] == "app"
    assert slow_one["connection"]["server"] == old.address
    assert fast_one["connection"]["upstream"] == "second"
    assert fast_one["connection"]["server"] == new.address
    phases = "tailrace_phase_duration_seconds_count"
    for name in ("app", "second"):
        key = f'{phases}{{upstream="{name}",phase="wait"}}'
        wait_for(lambda key=key: metrics(gateway).get(key) == 1, 15, key)


def test_fifth_generation_ends_the_oldest(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """Four generations may be alive; a HUP beyond ends the oldest, whatever it still has."""
    stub = stub_factory(lambda conn, _index: [None for _ in iter(lambda: conn.recv(65536), b"")])
    gateway = gateway_factory([stub.address])
    held = []
    try:
        for serial in range(2, 6):
            sock = socket.create_connection(("127.0.0.1", gateway.port), 10)
            sock.sendall(get())
            held.append(sock)
            wait_for(lambda: stub.accepted == len(held), 5, "request at the server")
            if serial == 5:
                assert len(gateway.worker_pids()) == 4
            hup(gateway, serial)
        assert "worker 1 has to end now: 4 generations are alive" in gateway.log()
        wait_for(lambda: len(gateway.worker_pids()) == 4, 5, "four are left")
        held[0].settimeout(5)
        assert b" 503 " in held[0].recv(65536)
        for sock in held[1:]:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
    finally:
        for sock in held:
            sock.close()


def test_reload_while_one_is_tried(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """HUPs in a row are one after the other; the last file wins."""
    gateway = gateway_factory([stub_factory(answer_all).address])
    for _ in range(5):
        gateway.process.send_signal(signal.SIGHUP)
    second = free_port()
    change(gateway, listeners=[{"address": f"127.0.0.1:{p}"} for p in (gateway.port, second)])
    gateway.process.send_signal(signal.SIGHUP)

    def serves() -> bool:
        with contextlib.suppress(OSError):
            return ask(second, get()).status == 200
        return False

    wait_for(serves, 15, "the last configuration")
    assert ask(gateway.port, get()).status == 200


def test_service_manager_is_told_of_reloads(gateway_starter: Factory) -> None:
    """RELOADING=1 with its time, then READY=1."""
    directory = Path(tempfile.mkdtemp(prefix="tailrace-"))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(directory / "notify"))
            notify.settimeout(10)
            gateway = gateway_starter([NOWHERE], env={"NOTIFY_SOCKET": str(directory / "notify")})
            assert notify.recv(200) == b"READY=1\nSTATUS=serving"
            before_us = time.monotonic_ns() // 1000
            gateway.process.send_signal(signal.SIGHUP)
            match = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", notify.recv(200))
            assert match and before_us <= int(match[1]) <= time.monotonic_ns() // 1000
            assert notify.recv(200) == b"READY=1\nSTATUS=serving"
            gateway.config_path.write_text("{")
            gateway.process.send_signal(signal.SIGHUP)
            assert notify.recv(200).startswith(b"RELOADING=1\n")
            assert notify.recv(200).startswith(b"READY=1\nSTATUS=serving; the last reload")
            assert gateway.stop() == 0
    finally:
        shutil.rmtree(directory)


def test_collector_killed_after_a_reload(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """A new collector knows every configuration of which records may still come."""
    stub = stub_factory(answer_all)
    gateway = gateway_factory([stub.address])
    change(gateway, routes=[{"name": "r2", "upstream": "app"}])
    hup(gateway, 2)
    collector = gateway.collector_pid()
    os.kill(collector, signal.SIGKILL)
    trace_id = ask(gateway.port, get()).trace_id
    wait_for(lambda: gateway.log().count("collector ready") == 2, 10, "another collector")
    wait_for(lambda: gateway.api(f"/api/v1/requests/{trace_id}")[0] == 200, 10, "the record")
    assert gateway.json(f"/api/v1/requests/{trace_id}")["route"] == "GET r2"


def test_upgrade_under_load(
    gateway_starter: Factory, stub_factory: Stubs, load: Callable[[int, int], Load]
) -> None:
    """USR2 twice: the same process, new children, no request fails, no record is lost."""
    gateway = gateway_starter([stub_factory(answer_all).address])
    try:
        old = {*gateway.worker_pids(), gateway.collector_pid()}
        clients = load(gateway.port, 8)
        for n in (2, 3):
            clients.wait(300)
            gateway.process.send_signal(signal.SIGUSR2)
            wait_for(lambda n=n: gateway.log().count(" ready: ") == n, 15, "upgraded")
            clients.wait(100)
            wait_for(lambda old=old: not old & set(group_members(gateway.process.pid)), 20, "gone")
            old = {*gateway.worker_pids(), gateway.collector_pid()}
            assert len(old) == 2
        clients.finish()
        assert gateway.process.poll() is None
        assert gateway.api("/healthz")[0] == 200
        assert gateway.stop() == 0
        assert stored(gateway) == clients.answered
        assert "killed" not in gateway.log()
    finally:
        gateway.stop()


def test_upgrade_to_what_does_not_start(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """A program or a file that would not start is found out before the old one is given up."""
    gateway = gateway_factory([stub_factory(answer_all).address])
    before = (gateway.worker_pids(), gateway.collector_pid())
    gateway.config_path.write_text("{")
    gateway.process.send_signal(signal.SIGUSR2)
    text = "the new program does not take the configuration"
    wait_for(lambda: text in gateway.log(), 10, text)
    assert (gateway.worker_pids(), gateway.collector_pid()) == before
    assert ask(gateway.port, get()).status == 200


def test_term_in_the_middle_of_an_upgrade(
    gateway_starter: Factory, stub_factory: Stubs, load: Callable[[int, int], Load]
) -> None:
    """Old and new drain; no accepted request fails, and nobody is left."""

    def slow(conn: socket.socket, _index: int) -> None:
        while conn.recv(65536):
            time.sleep(0.05)
            conn.sendall(OK)

    gateway = gateway_starter([stub_factory(slow).address])
    try:
        clients = load(gateway.port, 8)
        clients.wait(50)
        gateway.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: gateway.log().count(" ready: ") == 2, 15, "upgraded")
        gateway.process.terminate()
        assert gateway.process.wait(20) == 0
        clients.halt()
        assert all("refused" in fault for fault in clients.faults), clients.faults
        assert group_members(gateway.process.pid) == []
    finally:
        gateway.stop()


def test_killed_worker_is_back_within_a_second(
    gateway_factory: Factory, stub_factory: Stubs
) -> None:
    """New connections wait in the kernel's queue and are served by the next worker."""
    gateway = gateway_factory([stub_factory(answer_all).address])
    (worker,) = gateway.worker_pids()
    assert ask(gateway.port, get()).status == 200
    os.kill(worker, signal.SIGKILL)
    start = time.monotonic()
    assert ask(gateway.port, get()).status == 200
    assert time.monotonic() - start < 1
    assert metrics(gateway)['tailrace_restarts_total{process="worker"}'] == 1


def test_collector_starts_anew_for_what_only_a_start_reads(
    gateway_starter: Factory, stub_factory: Stubs, load: Callable[[int, int], Load], tmp_path: Path
) -> None:
    """Another store, under load: each exchange is counted in one of the two, none is lost."""
    gateway = gateway_starter([stub_factory(answer_all).address])
    try:
        collector = gateway.collector_pid()
        clients = load(gateway.port, 8)
        clients.wait(300)
        first, second = gateway.store, tmp_path / "sub" / "other.db"
        change(gateway, store={"path": str(second)})
        hup(gateway, 2)
        clients.wait(300)
        wait_for(lambda: gateway.log().count("collector ready") == 2, 10, "another collector")
        assert gateway.collector_pid() != collector
        clients.wait(100)
        clients.finish()
        assert metrics(gateway)['tailrace_restarts_total{process="collector"}'] == 0
        assert gateway.stop() == 0
        before = stored(gateway)
        gateway.store = second
        after = stored(gateway)
        assert min(before, after) > 0 and before + after == clients.answered
        assert first.exists()
    finally:
        gateway.stop()


@pytest.mark.skipif(
    BINARY.parent.name in ("asan", "tsan"), reason="a limit of memory ends a sanitizer's supervisor"
)
def test_worker_that_cannot_start_leaves_the_old_one(
    gateway_factory: Factory, stub_factory: Stubs
) -> None:
    """A new generation that dies at its start changes nothing; neither does one killed on trial."""
    gateway = gateway_factory([stub_factory(answer_all).address])
    (worker,) = gateway.worker_pids()
    second = free_port()
    change(gateway, listeners=[{"address": f"127.0.0.1:{p}"} for p in (gateway.port, second)])
    limits = resource.prlimit(gateway.process.pid, resource.RLIMIT_AS)
    # Enough for the supervisor, too little for a worker to map the rings.
    resource.prlimit(gateway.process.pid, resource.RLIMIT_AS, (100 << 20, limits[1]))
    gateway.process.send_signal(signal.SIGHUP)
    text = "the new worker did not come to serve"
    wait_for(lambda: text in gateway.log(), 15, text)
    assert "before it served" in gateway.log()
    assert gateway.worker_pids() == [worker]
    assert ask(gateway.port, get()).status == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", second), 2)
    assert metrics(gateway)['tailrace_restarts_total{process="worker"}'] == 0
    resource.prlimit(gateway.process.pid, resource.RLIMIT_AS, limits)
    hup(gateway, 3)
    assert ask(second, get()).status == 200


def other_build(path: Path) -> None:
    """Write a program to `path` that has another build ID, so that it shares no board with ours."""
    program = bytearray(BINARY.read_bytes())
    note = program.index(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0") + 16
    program[note] ^= 0xFF
    path.with_suffix(".new").write_bytes(program)
    path.with_suffix(".new").chmod(0o755)
    os.rename(path.with_suffix(".new"), path)


def test_upgrade_to_another_build(
    stub_factory: Stubs, load: Callable[[int, int], Load], tmp_path: Path
) -> None:
    """The file at our path was replaced: that runs after USR2, and the old build is gone."""
    stub = stub_factory(answer_all)
    directory = Path(tempfile.mkdtemp(prefix="tailrace-"))
    program, port = directory / "tailrace", free_port()
    shutil.copy(BINARY, program)
    config = make_config(tmp_path, directory, port, [stub.address], {})
    (tmp_path / "c.json").write_text(json.dumps(config))
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(program), "-c", str(tmp_path / "c.json")],
            env=clean_env(),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        wait_for(lambda: " ready: " in log.read_text(), 15, "ready")
        clients = load(port, 4)
        clients.wait(200)
        old = set(group_members(process.pid)) - {process.pid}
        other_build(program)
        process.send_signal(signal.SIGUSR2)
        wait_for(lambda: log.read_text().count(" ready: ") == 2, 15, "upgraded")
        clients.wait(200)
        wait_for(lambda: not old & set(group_members(process.pid)), 20, "the old build is gone")
        clients.finish()
        for pid in group_members(process.pid):
            assert "(deleted)" not in os.readlink(f"/proc/{pid}/exe")
        program.unlink()
        process.send_signal(signal.SIGUSR2)
        wait_for(lambda: "the old one goes on" in log.read_text(), 10, "refused")
        assert ask(port, get()).status == 200
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait(5)
        shutil.rmtree(directory)


def test_term_while_a_reload_is_tried(gateway_starter: Factory, stub_factory: Stubs) -> None:
    """The worker on trial ends like the others, and that is no failure."""
    for delay_s in (0, 0.005, 0.01, 0.02, 0.04):
        gateway = gateway_starter([stub_factory(answer_all).address])
        gateway.process.send_signal(signal.SIGHUP)
        time.sleep(delay_s)
        assert gateway.stop() == 0, gateway.log()
        assert group_members(gateway.process.pid) == []


def test_killed_worker_under_load(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """What was in flight fails and is counted; new connections are served again within a second."""
    gateway = gateway_factory([stub_factory(answer_all).address])
    (worker,) = gateway.worker_pids()
    served: list[float] = []
    failed: list[str] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                assert ask(gateway.port, get()).status == 200
                served.append(time.monotonic())
            except (AssertionError, OSError, ValueError, EOFError) as error:
                failed.append(repr(error))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(served) > 1000, 20, "answers")  # tens of ms of its CPU
    killed = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: served[-1] > killed + 1, 20, "answers after the kill")
    stop.set()
    for thread in threads:
        thread.join(20)
    around = sorted(at for at in served if at > killed - 0.5)
    assert max(b - a for a, b in itertools.pairwise(around)) < 1
    assert len(failed) <= 8, failed
    assert metrics(gateway)['tailrace_restarts_total{process="worker"}'] == 1
    status = gateway.json("/api/v1/status")
    assert status["cost"]["cpu_s"] > sum(p["cpu_s"] for p in status["processes"])  # its work too
