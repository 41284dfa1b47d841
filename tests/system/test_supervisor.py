"""Lives and deaths of the processes: start, restart, drain, stop order, what is left behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import (
    BINARY,
    Gateway,
    StubServer,
    clean_env,
    free_port,
    group_members,
    processes,
    wait_for,
)

Factory = Callable[..., Gateway]
Stubs = Callable[..., StubServer]
Hanging = Callable[[Gateway, StubServer, int], None]
NOWHERE = "127.0.0.1:1"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def answer_after(delay_s: float) -> Callable[[socket.socket, int], None]:
    """Return a server that answers every request of a connection `delay_s` after its head."""

    def serve(conn: socket.socket, _index: int) -> None:
        buffered = b""
        while True:
            while b"\r\n\r\n" not in buffered:
                chunk = conn.recv(65536)
                if not chunk:
                    return
                buffered += chunk
            buffered = buffered.split(b"\r\n\r\n", 1)[1]
            time.sleep(delay_s)
            conn.sendall(ANSWER)

    return serve


def never_answer(conn: socket.socket, _index: int) -> None:
    """Read until the gateway closes."""
    while conn.recv(65536):
        pass


class Load:
    """Clients that send request after request on kept-alive connections until told to stop."""

    def __init__(self, port: int, clients: int) -> None:
        self.answered = 0
        self.faults: list[str] = []
        self.closed = 0
        self._stop = threading.Event()
        self._port = port
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            while not self._stop.is_set():
                connection.request("GET", "/load")
                response = connection.getresponse()
                body = response.read()
                with self._lock:
                    self.answered += 1
                    if response.status != 200 or body != b"hello":
                        self.faults.append(f"{response.status} {body!r}")
                if response.will_close:
                    with self._lock:
                        self.closed += 1
                    return
        except Exception as error:
            with self._lock:
                self.faults.append(repr(error))
        finally:
            connection.close()

    def wait(self, answered: int) -> None:
        """Return once that many more requests were answered."""
        target = self.answered + answered
        wait_for(lambda: self.answered >= target or self.faults, 20, "answers under load")

    def finish(self) -> None:
        """Stop the clients; AssertionError for any request that failed."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        assert not self.faults, self.faults[:5]


def hang(port: int, count: int) -> list[socket.socket]:
    """Send requests whose answers nobody waits for; the connections stay open."""
    sockets = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port), 5)
        sock.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        sockets.append(sock)
    return sockets


@pytest.fixture
def hanging(stub_factory: Stubs) -> Iterator[Hanging]:
    """Return a function that puts requests in flight until the test ends."""
    sockets: list[socket.socket] = []

    def start(gateway: Gateway, stub: StubServer, count: int) -> None:
        sockets.extend(hang(gateway.port, count))
        wait_for(lambda: stub.accepted >= count, 10, "requests at the server")

    yield start
    for sock in sockets:
        sock.close()


def test_titles_and_ready_line(gateway_factory: Factory) -> None:
    gateway = gateway_factory([NOWHERE])
    titles = {text for _, _, group, text in processes() if group == gateway.process.pid}
    assert titles == {"tailrace: supervisor", "tailrace: worker 1", "tailrace: collector"}
    line = next(line for line in gateway.log().splitlines() if " ready: " in line)
    assert f"clients on 127.0.0.1:{gateway.port}" in line
    assert f"control on unix:{gateway.control}" in line
    assert str(gateway.store) in line
    assert gateway.log().count(" ready: ") == 1


def test_term_stops_all_and_leaves_nothing(gateway_starter: Factory) -> None:
    gateway = gateway_starter([NOWHERE])
    control = Path(gateway.control)
    assert control.stat().st_mode & 0o777 == 0o660
    gateway.process.terminate()
    assert gateway.process.wait(10) == 0
    assert group_members(gateway.process.pid) == []
    assert not control.exists()
    log = gateway.log()
    assert log.index("worker ended") < log.index("collector ended") < log.rindex(": stopped")
    gateway.stop()


def test_killed_supervisor_leaves_nobody(
    gateway_starter: Factory, stub_factory: Stubs, hanging: Hanging
) -> None:
    stub = stub_factory(never_answer)
    gateway = gateway_starter([stub.address])
    try:
        hanging(gateway, stub, 3)
        os.kill(gateway.process.pid, signal.SIGKILL)
        gateway.process.wait(5)
        group = gateway.process.pid
        wait_for(lambda: not group_members(group), 5, f"nobody left: {group_members(group)}")
    finally:
        gateway.stop()
    # What it left on disk is no hindrance: the next one starts in its place.
    again = gateway_starter([stub.address], control=gateway.config["control"])
    assert again.stop() == 0


def test_killed_worker_is_restarted(
    gateway_factory: Factory,
    stub_factory: Stubs,
    hanging: Hanging,
) -> None:
    stub = stub_factory(never_answer)
    gateway = gateway_factory([stub.address])
    hanging(gateway, stub, 4)
    (worker,) = gateway.worker_pids()
    collector = gateway.collector_pid()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: gateway.worker_pids() not in ([], [worker]), 10, "another worker")
    log = wait_for(
        lambda: gateway.log() if gateway.log().count("worker ready") == 2 else None, 10, "ready"
    )
    assert f"worker[{worker}] was ended by signal 9, 4 exchanges lost" in log
    assert gateway.collector_pid() == collector
    metrics = gateway.api("/metrics")[2].decode()
    assert re.search(r"^tailrace_exchanges_lost_total 4(\.0)?$", metrics, re.MULTILINE), metrics


def test_clients_wait_in_the_queue_while_the_worker_is_away(
    gateway_factory: Factory, stub_factory: Stubs
) -> None:
    stub = stub_factory(answer_after(0))
    gateway = gateway_factory([stub.address])
    (worker,) = gateway.worker_pids()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: worker not in gateway.worker_pids(), 5, "worker gone")
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hello"
    connection.close()


def test_restarts_back_off(gateway_factory: Factory) -> None:
    gateway = gateway_factory([NOWHERE])
    for n in (1, 2, 3):
        os.kill(gateway.collector_pid(), signal.SIGKILL)
        wait_for(lambda n=n: gateway.log().count("collector ready") == n + 1, 10, "restarted")
    delays = re.findall(
        r"collector\[\d+\] was ended by signal 9.* next start in (\d+) ms", gateway.log()
    )
    assert delays == ["100", "200", "400"]


def test_killed_collector_is_invisible_to_clients(
    gateway_factory: Factory, stub_factory: Stubs
) -> None:
    stub = stub_factory(answer_after(0.001))
    gateway = gateway_factory([stub.address])
    (worker,) = gateway.worker_pids()
    load = Load(gateway.port, 4)
    load.wait(50)
    for _ in range(2):
        collector = gateway.collector_pid()
        os.kill(collector, signal.SIGKILL)
        load.wait(100)
        wait_for(
            lambda old=collector: [p for p in gateway._children("tailrace: collector") if p != old],
            10,
            "another collector",
        )
        load.wait(100)
    load.finish()
    assert gateway.worker_pids() == [worker]
    assert gateway.api("/healthz")[0] == 200


def test_stuck_children_are_killed_and_restarted(gateway_factory: Factory) -> None:
    gateway = gateway_factory([NOWHERE])
    (worker,) = gateway.worker_pids()
    collector = gateway.collector_pid()
    os.kill(worker, signal.SIGSTOP)
    os.kill(collector, signal.SIGSTOP)
    time.sleep(5)
    assert gateway.worker_pids() == [worker], "killed before its heartbeat was 10 s old"
    wait_for(lambda: gateway.log().count(" ready after ") == 4, 15, "both restarted")
    assert gateway.worker_pids() not in ([], [worker])
    assert gateway.collector_pid() != collector
    assert f"worker[{worker}] killed: no heartbeat for 10 s" in gateway.log()
    assert f"collector[{collector}] killed: no heartbeat for 10 s" in gateway.log()


def test_interrupt_of_the_whole_group_drains(gateway_starter: Factory, stub_factory: Stubs) -> None:
    """One Ctrl-C under load reaches every process of the group; no accepted request fails."""
    stub = stub_factory(answer_after(0.05))
    gateway = gateway_starter([stub.address])
    try:
        load = Load(gateway.port, 16)
        load.wait(50)
        os.killpg(gateway.process.pid, signal.SIGINT)
        assert gateway.process.wait(20) == 0
        load.finish()
        assert load.closed == 16, "every client was told to close"
        log = gateway.log()
        assert "0 exchanges lost" not in log and "signal 2" not in log
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gateway.port), 2)
    finally:
        gateway.stop()


def test_second_signal_stops_now(
    gateway_starter: Factory, stub_factory: Stubs, hanging: Hanging
) -> None:
    stub = stub_factory(never_answer)
    gateway = gateway_starter([stub.address])
    try:
        hanging(gateway, stub, 2)
        gateway.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert gateway.process.poll() is None, "it drains while requests are in flight"
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(6) == 0
        assert "Interrupt again: stopping now" in gateway.log()
    finally:
        gateway.stop()


def test_drain_ends_at_its_timeout(
    gateway_starter: Factory, stub_factory: Stubs, hanging: Hanging
) -> None:
    stub = stub_factory(never_answer)
    gateway = gateway_starter([stub.address], worker={"shutdown_timeout_ms": 700})
    try:
        hanging(gateway, stub, 2)
        start = time.monotonic()
        # A shell and its group often send the same order twice within a moment: one order.
        gateway.process.terminate()
        time.sleep(0.02)
        gateway.process.terminate()
        assert gateway.process.wait(10) == 0
        assert 0.6 < time.monotonic() - start < 5
    finally:
        gateway.stop()


def test_child_that_does_not_end_is_killed(gateway_starter: Factory) -> None:
    gateway = gateway_starter([NOWHERE])
    try:
        (worker,) = gateway.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        gateway.process.terminate()
        time.sleep(0.8)
        gateway.process.terminate()
        assert gateway.process.wait(10) == 1, "a forced end is no success"
        assert f"worker[{worker}] killed: did not end in time" in gateway.log()
        assert group_members(gateway.process.pid) == []
    finally:
        gateway.stop()


def test_frozen_together_nobody_is_killed(gateway_factory: Factory) -> None:
    """After Ctrl-Z and fg, or a frozen container, every heartbeat is old and nobody is to blame."""
    gateway = gateway_factory([NOWHERE])
    before = (gateway.worker_pids(), gateway.collector_pid())
    os.killpg(gateway.process.pid, signal.SIGSTOP)
    time.sleep(11)
    os.killpg(gateway.process.pid, signal.SIGCONT)
    time.sleep(1.5)
    assert (gateway.worker_pids(), gateway.collector_pid()) == before
    assert "killed" not in gateway.log()


def test_environment_overrides_the_running_configuration(
    gateway_factory: Factory, stub_factory: Stubs
) -> None:
    stub = stub_factory(answer_after(0))
    name = "TAILRACE_CONF__UPSTREAMS__APP__SERVERS__0__ADDRESS"
    gateway = gateway_factory([NOWHERE], env={name: stub.address})
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hello"
    connection.close()


def test_live_control_socket_is_refused(gateway_factory: Factory, gateway_starter: Factory) -> None:
    first = gateway_factory([NOWHERE])
    with pytest.raises(AssertionError, match="status 1") as caught:
        gateway_starter([NOWHERE], control=first.config["control"])
    assert "another process serves this socket" in str(caught.value)
    assert first.api("/healthz")[0] == 200


def test_dead_control_socket_is_replaced(gateway_factory: Factory) -> None:
    directory = Path(tempfile.mkdtemp(prefix="tailrace-"))
    try:
        path = directory / "control.sock"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
            sock.listen()
        assert path.exists()
        control = {"listeners": [{"address": f"unix:{path}"}]}
        gateway = gateway_factory([NOWHERE], control=control)
        assert gateway.api("/healthz")[0] == 200
        gateway.stop()
    finally:
        shutil.rmtree(directory)


def test_port_in_use_is_an_error(gateway_starter: Factory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError, match="status 1") as caught:
            gateway_starter([NOWHERE], listener={"address": f"127.0.0.1:{port}"})
    assert f"127.0.0.1:{port}: cannot bind: Address already in use" in str(caught.value)


def test_gateway_that_cannot_start_ends() -> None:
    """A user who may have one process only: the supervisor runs and can start nobody."""
    directory = Path(tempfile.mkdtemp(prefix="tailrace-"))
    directory.chmod(0o777)
    config = directory / "c.json"
    config.write_text(
        f'{{"listeners": [{{"address": "unix:{directory}/l"}}], "store": {{"path": "x.db"}},'
        f'"upstreams": {{"app": {{"servers": ["{NOWHERE}"]}}}},'
        f'"control": {{"listeners": [{{"address": "unix:{directory}/c"}}]}}}}'
    )
    binary = directory / "tailrace"
    shutil.copy(BINARY, binary)

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65533)
            os.setuid(65533)

    try:
        done = subprocess.run(
            [str(binary), "run", "-c", str(config)],
            env=clean_env(),
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=20,
            preexec_fn=restrict,
        )
        assert done.returncode == 1, done.stderr
        assert "cannot be started: Resource temporarily unavailable" in done.stderr
        assert "cannot start; stopping" in done.stderr
        assert " ready: " not in done.stdout
        assert sorted(path.name for path in directory.iterdir()) == ["c.json", "tailrace"]
    finally:
        shutil.rmtree(directory)


def test_term_to_every_process_loses_no_record(
    gateway_starter: Factory, stub_factory: Stubs
) -> None:
    """A service manager may signal all processes at once: the collector then comes back once."""
    stub = stub_factory(answer_after(0.4))
    gateway = gateway_starter([stub.address])
    try:
        load = Load(gateway.port, 8)
        wait_for(lambda: stub.accepted == 8, 10, "requests at the server")
        os.killpg(gateway.process.pid, signal.SIGTERM)
        assert gateway.process.wait(20) == 0
        load.finish()
        assert load.answered >= 8
        with contextlib.closing(sqlite3.connect(gateway.store)) as db:
            rows = db.execute("SELECT count(*) FROM exchanges").fetchone()[0]
        assert rows == load.answered
    finally:
        gateway.stop()


def test_configuration_is_sealed(gateway_factory: Factory) -> None:
    gateway = gateway_factory([NOWHERE])
    folder = Path(f"/proc/{gateway.process.pid}/fd")
    (sealed,) = [fd for fd in folder.iterdir() if "tailrace-config" in os.readlink(fd)]
    fd = os.open(sealed, os.O_RDWR)
    try:
        assert os.read(fd, 1) == b"{"
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def test_children_have_no_descriptor_too_many(gateway_factory: Factory) -> None:
    """The worker must not hold the control socket, nor the collector the clients' sockets."""
    gateway = gateway_factory([NOWHERE])

    def sockets(pid: int) -> set[str]:
        links = (os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir())
        return {link for link in links if link.startswith("socket:")}

    own = sockets(gateway.process.pid)
    (worker,) = gateway.worker_pids()
    assert len(own & sockets(worker)) == 1
    assert len(own & sockets(gateway.collector_pid())) == 1
    assert not own & sockets(worker) & sockets(gateway.collector_pid())


def test_service_manager_is_told(gateway_starter: Factory) -> None:
    directory = Path(tempfile.mkdtemp(prefix="tailrace-"))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(directory / "notify"))
            notify.settimeout(10)
            env = {"NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "400000"}
            gateway = gateway_starter([NOWHERE], env=env)
            told = [notify.recv(100)]
            while told[-1] != b"READY=1\nSTATUS=serving":
                told.append(notify.recv(100))
            assert notify.recv(100) == b"WATCHDOG=1"
            assert gateway.stop() == 0
            while told[-1] != b"STOPPING=1":
                told.append(notify.recv(100))
        assert set(told) <= {b"READY=1\nSTATUS=serving", b"WATCHDOG=1", b"STOPPING=1"}
    finally:
        shutil.rmtree(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_rights_are_dropped(gateway_starter: Factory, stub_factory: Stubs) -> None:
    directory = Path(tempfile.mkdtemp(prefix="tailrace-"))
    nobody = pwd.getpwnam("nobody")
    os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    stub = stub_factory(answer_after(0))
    try:
        gateway = gateway_starter(
            [stub.address],
            process={"user": "nobody"},
            control={"listeners": [{"address": f"unix:{directory}/sub/control.sock"}]},
            store={"path": str(directory / "store" / "x.db")},
        )
        for pid in (*gateway.worker_pids(), gateway.collector_pid()):
            status = Path(f"/proc/{pid}/status").read_text()
            uids = re.search(r"^Uid:\s+(.*)$", status, re.MULTILINE)
            groups = re.search(r"^Groups:\s*(.*)$", status, re.MULTILINE)
            assert uids is not None and groups is not None
            assert set(uids[1].split()) == {str(nobody.pw_uid)}
            assert "0" not in groups[1].split()
            assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert Path(gateway.control).stat().st_uid == nobody.pw_uid
        assert gateway.store.stat().st_uid == nobody.pw_uid
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello"
        connection.close()
        assert gateway.stop() == 0
    finally:
        shutil.rmtree(directory)


def test_defaults_of_a_plain_user() -> None:
    """Without `control` and `store` a user's files go below the XDG folders."""
    if os.geteuid() == 0:
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    else:
        prefix = []
    directory = Path(tempfile.mkdtemp(prefix="tailrace-"))
    directory.chmod(0o777)
    port = free_port()
    config = directory / "c.json"
    config.write_text(
        f'{{"listeners": [{{"address": "127.0.0.1:{port}"}}],'
        f'"upstreams": {{"app": {{"servers": ["{NOWHERE}"]}}}}}}'
    )
    binary = directory / "tailrace"
    shutil.copy(BINARY, binary)
    env = clean_env({"XDG_RUNTIME_DIR": f"{directory}/run", "HOME": f"{directory}/home"})
    env.pop("XDG_STATE_HOME", None)
    log = directory / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*prefix, str(binary), "-c", str(config)], env=env, stdout=out, stderr=out
        )
    try:
        wait_for(lambda: " ready: " in log.read_text(), 10, log.read_text())
        assert (directory / "run/tailrace/control.sock").is_socket()
        assert (directory / "home/.local/state/tailrace/tailrace.db").is_file()
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        shutil.rmtree(directory)
