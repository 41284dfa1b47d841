"""Several event-loop threads in one worker: sockets, limits, drain, death, records."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from handmade import metrics
from harness import BINARY, Gateway, StubServer, clean_env, free_port, make_config, wait_for
from proxy_tools import OK, Connection, always, get, read_head
from reload_tools import change, hup

GatewayFactory = Callable[..., Gateway]
StubFactory = Callable[..., StubServer]


def listening(port: int) -> int:
    """Return how many sockets of 127.0.0.1 listen on a port."""
    place = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1] == place and line.split()[3] == "0A" for line in lines)


def wakeups(pid: int) -> dict[str, int]:
    """Return how often each thread of a process gave up the processor by itself."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    found[task.name] = int(line.split()[1])
    return found


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_socket_per_thread(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, threads: int
) -> None:
    """On TCP each thread has a socket, serves requests, and its records reach the collector."""
    gateway = gateway_factory([stub_factory(always(OK)).address], worker={"threads": threads})
    assert listening(gateway.port) == threads
    (worker,) = gateway.worker_pids()
    before = wakeups(worker)
    assert len(before) == threads or "tsan" in str(BINARY)
    clients = [Connection(gateway.port) for _ in range(12 * threads)]
    for client in clients:
        for _ in range(5):
            client.send(get())
            assert client.answer().status == 200
    after = wakeups(worker)
    busy = [task for task in before if after[task] - before[task] >= 5]
    assert len(busy) >= threads, (before, after)

    def counted(name: str) -> bool:
        return metrics(gateway)[f"tailrace_{name}_total"] == 60 * threads

    for name in ("exchanges_ended", "records_read"):
        wait_for(partial(counted, name), 5, name)


def test_one_socket_for_all_threads(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, tmp_path: Path
) -> None:
    """A unix listener is one socket, served by whichever thread comes first, until the drain."""
    where = f"/tmp/tailrace-{os.getpid()}-{free_port()}.sock"
    gateway = gateway_factory(
        [stub_factory(always(OK)).address],
        listeners=[{"address": f"unix:{where}"}],
        worker={"threads": 4},
    )
    for _ in range(20):
        with Connection(where) as client:
            client.send(get())
            assert client.answer().status == 200
    assert gateway.stop() == 0
    assert not os.path.exists(where)


def test_an_occupied_address_is_refused(tmp_path: Path) -> None:
    """A socket per thread joins no other program's group of sockets."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        config = make_config(tmp_path, tmp_path, port, ["127.0.0.1:1"], {"worker": {"threads": 2}})
        file = tmp_path / "tailrace.json"
        file.write_text(json.dumps(config))
        done = subprocess.run(
            [BINARY, "run", "-c", file],
            env=clean_env(),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{port}: cannot bind: Address already in use" in done.stderr


def test_connection_limit_over_all_threads(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """limits.connections holds for the worker: at the maximum served, one past it waits."""
    gateway = gateway_factory(
        [stub_factory(always(OK)).address], worker={"threads": 3}, limits={"connections": 6}
    )
    clients = [Connection(gateway.port) for _ in range(6)]
    for client in clients:
        client.send(get())
        assert client.answer().status == 200
    with Connection(gateway.port, timeout_s=0.5) as seventh:
        seventh.send(get())
        with pytest.raises(TimeoutError):
            seventh.answer()
        for client in clients:
            client.sock.close()
        seventh.sock.settimeout(5)
        assert seventh.answer().status == 200
    assert metrics(gateway)['tailrace_closes_total{reason="connection_limit"}'] >= 1


def _slow(conn: socket.socket, _index: int) -> None:
    while True:
        read_head(conn)
        time.sleep(0.5)
        conn.sendall(OK)


def _silent(conn: socket.socket, _index: int) -> None:
    read_head(conn)
    conn.recv(1)


def test_drain_over_all_threads(gateway_starter: GatewayFactory, stub_factory: StubFactory) -> None:
    """On TERM every exchange of every thread is answered, then the worker ends by itself."""
    gateway = gateway_starter([stub_factory(_slow).address], worker={"threads": 4})
    clients = [Connection(gateway.port) for _ in range(24)]
    for client in clients:
        client.send(get())
    time.sleep(0.2)
    gateway.process.send_signal(signal.SIGTERM)
    for client in clients:
        answer = client.answer()
        assert answer.status == 200 and answer.headers["connection"] == "close"
        client.sock.close()
    assert gateway.stop() == 0
    assert "Killed" not in gateway.log() and "killed" not in gateway.log()


def test_drain_ends_at_its_limit(
    gateway_starter: GatewayFactory, stub_factory: StubFactory
) -> None:
    """shutdown_timeout_ms holds in every thread: what is left gets 503."""
    gateway = gateway_starter(
        [stub_factory(_silent).address],
        worker={"threads": 3, "shutdown_timeout_ms": 300},
    )
    clients = [Connection(gateway.port) for _ in range(12)]
    for client in clients:
        client.send(get())
    time.sleep(0.2)
    assert gateway.stop() == 0
    assert [client.answer().status for client in clients] == [503] * 12


def test_a_death_takes_all_threads(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """What all threads of a killed worker had in flight is counted; the next one serves at once."""
    stub = stub_factory(_silent)
    gateway = gateway_factory([stub.address], worker={"threads": 3})
    clients = [Connection(gateway.port) for _ in range(12)]
    for client in clients:
        client.send(get())
    wait_for(lambda: stub.accepted == 12, 10, "all at the app")
    (worker,) = gateway.worker_pids()
    os.kill(worker, signal.SIGKILL)
    for client in clients:
        with pytest.raises((EOFError, ConnectionError)):
            client.answer()
    with Connection(gateway.port) as client:
        client.send(get())
        wait_for(lambda: stub.accepted == 13, 5, "the next worker serves")
    assert metrics(gateway)["tailrace_exchanges_lost_total"] == 12


def test_reloads_change_the_number_of_threads(
    gateway_factory: GatewayFactory, stub_factory: StubFactory
) -> None:
    """More threads get sockets of their own, fewer take over spare ones; upstreams move about."""
    stub = stub_factory(always(OK))
    gateway = gateway_factory([stub.address], worker={"threads": 2})
    label = f'upstream="app",server="{stub.address}"'
    for serial, threads in enumerate((4, 1, 3), 2):
        # a name before it: another place on the board
        upstreams = {f"other{serial}": {"servers": ["127.0.0.1:1"]}, **gateway.config["upstreams"]}
        change(
            gateway,
            worker={"threads": threads},
            routes=[{"upstream": "app"}],
            upstreams=upstreams,
        )
        hup(gateway, serial)
        (worker,) = wait_for(lambda: _alone(gateway), 10, "one worker is left")
        assert len(wakeups(worker)) == threads or "tsan" in str(BINARY)
        assert listening(gateway.port) == max(4, threads)
        clients = [Connection(gateway.port) for _ in range(24)]
        for client in clients:
            client.send(get())
            assert client.answer().status == 200
        values = metrics(gateway)
        assert 1 <= values[f"tailrace_upstream_connections_idle{{{label}}}"] <= 24
        assert values[f'tailrace_upstream_addresses{{{label},state="up"}}'] == 1
        for client in clients:
            client.sock.close()


def _alone(gateway: Gateway) -> list[int]:
    workers = gateway.worker_pids()
    return workers if len(workers) == 1 else []
