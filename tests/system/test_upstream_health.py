"""Which servers are well: health checks, and the addresses that names have."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import BINARY, Gateway, StubServer, clean_env, free_port, wait_for
from proxy_tools import OK, always, ask, error_code, get, read_head
from tls_tools import Authority, server_context
from upstream_tools import serve_forever, value

GatewayFactory = Callable[..., Gateway]
StubFactory = Callable[..., StubServer]


# --- health checks ---------------------------------------------------------------


class Patient:
    """A scripted app with a health page, which counts what it is asked."""

    def __init__(self) -> None:
        """Begin well."""
        self.well = True
        self.asked = self.served = 0
        self.check = b""

    def __call__(self, conn: socket.socket, _index: int) -> None:
        """Serve one connection."""
        while True:
            data = read_head(conn)
            if data.startswith(b"GET /health?x=1 "):
                self.asked += 1
                self.check = data
                conn.sendall(OK if self.well else OK.replace(b"200 OK", b"503 No"))
                return
            self.served += 1
            conn.sendall(OK)


HEALTH = {"path": "/health?x=1", "interval_ms": 50, "timeout_ms": 2000, "rise": 2, "fall": 2}


@pytest.mark.parametrize("threads", [1, 3])
def test_health_checks(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, threads: int
) -> None:
    """A server whose checks fail gets nothing, one whose checks pass again does; none left: 503."""
    patients = [Patient(), Patient()]
    stubs = [stub_factory(patient) for patient in patients]
    gateway = gateway_factory(
        [stub.address for stub in stubs], upstream={"health": HEALTH}, worker={"threads": threads}
    )

    def state(index: int, name: str) -> None:
        labels = f'server="{stubs[index].address}",state="{name}"'
        wait_for(lambda: value(gateway, "addresses", labels) == 1, 5, f"{index} {name}")

    def served() -> list[int]:
        before = [patient.served for patient in patients]
        for _ in range(20):
            assert ask(gateway.port, get()).status == 200
        return [patient.served - b for patient, b in zip(patients, before, strict=True)]

    assert all(served())
    patients[0].well = False
    state(0, "down")
    assert served() == [0, 20]
    patients[1].well = False
    state(1, "down")
    answer = ask(gateway.port, get("/nobody"))
    assert answer.status == 503 and error_code(answer) == "upstream_down"
    assert answer.headers["retry-after"] == "1"
    assert value(gateway, "refused_total", 'reason="down"') == 1
    patients[0].well = True
    state(0, "up")
    assert served() == [20, 0]
    server = f'server="{stubs[0].address}"'
    assert value(gateway, "health_checks_total", f'{server},result="failed"') >= 2
    assert value(gateway, "health_checks_total", f'{server},result="passed"') >= 2
    check = patients[0].check.decode()
    assert f"Host: {stubs[0].address}\r\n" in check and "X-Tailrace:" not in check
    # one thread asks, whatever their number
    before, start = patients[0].asked, time.monotonic()
    time.sleep(1)
    assert patients[0].asked - before <= (time.monotonic() - start) / 0.05 + 2


@pytest.mark.parametrize("ailment", ["refuses", "silent", "closes", "garbage", "endless"])
def test_ways_to_be_ill(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, ailment: str
) -> None:
    """Whatever is no answer from 200 to 399 in time is a failed check, and hurts nothing else."""

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        if ailment == "silent":
            conn.recv(1)
        elif ailment == "garbage":
            conn.sendall(b"SSH-2.0-x\r\n\r\n")
        elif ailment == "endless":
            while True:
                conn.sendall(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 4096)

    address = f"127.0.0.1:{free_port()}" if ailment == "refuses" else stub_factory(handler).address
    well = stub_factory(always(OK))
    health = {**HEALTH, "timeout_ms": 200} if ailment == "silent" else HEALTH
    gateway = gateway_factory([well.address, address], upstream={"health": health})
    labels = f'server="{address}",state="down"'
    wait_for(lambda: value(gateway, "addresses", labels) == 1, 10, "down")
    for _ in range(10):
        assert ask(gateway.port, get()).status == 200


@pytest.mark.parametrize("trusted", [True, False])
def test_checks_speak_tls(
    gateway_factory: GatewayFactory,
    stub_factory: StubFactory,
    authority: Authority,
    trusted: bool,
) -> None:
    """Checks shake hands as exchanges do: a certificate that does not hold is a failed check."""
    context = server_context(authority.issue("app.test"))

    def handler(conn: socket.socket, _index: int) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(conn, server_side=True) as secured:
            read_head(secured)
            secured.sendall(OK)

    address = stub_factory(handler).address
    name = "app.test" if trusted else "other.test"
    tls = {"ca_file": str(authority.ca_file), "name": name}
    gateway = gateway_factory([address], upstream={"health": HEALTH, "tls": tls})
    result = "passed" if trusted else "failed"
    labels = f'server="{address}",result="{result}"'
    wait_for(lambda: value(gateway, "health_checks_total", labels) > 3, 5, result)
    answer = ask(gateway.port, get())
    assert (answer.status == 200) if trusted else (error_code(answer) == "upstream_down")


# --- names -------------------------------------------------------------------------


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Callable[[dict[str, list[str]]], dict[str, str]]]:
    """Return a function that says what names have which addresses, for a gateway's environment."""
    file = tmp_path / "hosts"
    second = [1_000_000_000]

    def write(names: dict[str, list[str]]) -> dict[str, str]:
        new = file.with_suffix(".new")
        lines = [f"{address} {name}\n" for name, all_ in names.items() for address in all_]
        new.write_text("".join(lines) or "127.0.0.9 somebody-else\n")
        # the wrapper reads the file again where its time in whole seconds is another one
        second[0] += 1
        os.utime(new, (second[0], second[0]))
        new.replace(file)
        return {"LD_PRELOAD": "libnss_wrapper.so", "NSS_WRAPPER_HOSTS": str(file)}

    yield write


def _named(port: int, where: str, counts: dict[str, int]) -> socket.socket:
    listener = socket.create_server((where, port))
    counts[where] = 0

    def handler(conn: socket.socket, _index: int) -> None:
        while True:
            read_head(conn)
            counts[where] += 1
            conn.sendall(OK)

    threading.Thread(target=serve_forever, args=(listener, handler), daemon=True).start()
    return listener


@pytest.mark.skipif(
    "san" in str(BINARY), reason="ASan must be loaded first; TSan sees the wrapper's own faults"
)
def test_names_are_followed(
    gateway_factory: GatewayFactory, hosts: Callable[[dict[str, list[str]]], dict[str, str]]
) -> None:
    """Each address of a name is a server; a changed answer is followed, a missing one is not."""
    counts: dict[str, int] = {}
    port = free_port()
    places = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    listeners = [_named(port, where, counts) for where in places]
    env = hosts({"app.test": places[:2]})
    # libevent's getnameinfo() of a unix peer fails under the wrapper: metrics come over TCP here
    metrics_port = free_port()
    gateway = gateway_factory(
        [f"app.test:{port}"],
        env=env,
        upstream={"resolve_interval_ms": 100, "balance": "round_robin"},
        control={"listeners": [{"address": f"127.0.0.1:{metrics_port}", "role": "probe"}]},
    )
    server = f'server="app.test:{port}"'

    def value(name: str, labels: str = "") -> float:
        more = f",{labels}" if labels else ""
        text = ask(metrics_port, get("/metrics", "Connection: close")).body.decode()
        sample = f'tailrace_upstream_{name}{{upstream="app"{more}}} '
        (line,) = [line for line in text.splitlines() if line.startswith(sample)]
        return float(line.rpartition(" ")[2])

    def shares() -> list[int]:
        before = dict(counts)
        for _ in range(20):
            assert ask(gateway.port, get()).status == 200
        return [counts[where] - before[where] for where in places]

    def addresses(count: int) -> None:
        labels = f'{server},state="up"'
        wait_for(lambda: value("addresses", labels) == count, 5, f"{count} addresses")

    addresses(2)
    assert shares() == [10, 10, 0]
    hosts({"app.test": places[2:]})
    addresses(1)
    assert shares() == [0, 0, 20]
    hosts({})
    failures = value("lookup_failures_total")
    wait_for(lambda: value("lookup_failures_total") > failures + 2, 5, "failed lookups")
    assert shares() == [0, 0, 20]
    assert gateway.log().count("its last addresses stay") == 1
    os.kill(gateway.process.pid, signal.SIGHUP)  # better the old configuration than no address
    wait_for(lambda: "/upstreams/app/servers/0: found" in gateway.log(), 5, "the reload's refusal")
    assert shares() == [0, 0, 20]
    # a worker that starts while no name resolves has the address of the start
    (worker,) = gateway.worker_pids()
    os.kill(worker, 9)
    wait_for(lambda: _answers(gateway), 5, "the next worker serves")
    hosts({"app.test": places})
    addresses(3)
    assert all(shares())
    for listener in listeners:
        listener.close()


@pytest.mark.skipif(
    "san" in str(BINARY), reason="ASan must be loaded first; TSan sees the wrapper's own faults"
)
def test_a_name_may_come_later(
    gateway_factory: GatewayFactory, hosts: Callable[[dict[str, list[str]]], dict[str, str]]
) -> None:
    """A gateway starts before its app has an address; who checks is told; then it serves."""
    counts: dict[str, int] = {}
    port = free_port()
    listener = _named(port, "127.0.0.2", counts)
    env = hosts({})
    gateway = gateway_factory(
        [f"app.test:{port}"],
        env=env,
        upstream={"resolve_interval_ms": 100},
        control={"listeners": [{"address": f"127.0.0.1:{free_port()}", "role": "probe"}]},
    )
    answer = ask(gateway.port, get())
    assert (answer.status, error_code(answer)) == (503, "upstream_down")
    assert "it has none until it can" in gateway.log()
    checked = subprocess.run(
        [str(BINARY), "check", "-c", str(gateway.config_path)],
        capture_output=True,
        text=True,
        env=clean_env(env),
        timeout=20,
    )
    assert checked.returncode == 78
    assert f'/upstreams/app/servers/0: found "app.test:{port}", allowed' in checked.stderr
    hosts({"app.test": ["127.0.0.2"]})
    wait_for(lambda: _answers(gateway), 5, "the address")
    assert counts["127.0.0.2"] >= 1
    listener.close()


def _answers(gateway: Gateway) -> bool:
    with contextlib.suppress(OSError, EOFError):
        return ask(gateway.port, get()).status == 200
    return False
