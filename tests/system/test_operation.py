"""Socket activation, open files, formats of /metrics, listen queues, overlays."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from handmade import metrics
from harness import BINARY, TOOLS, Gateway, StubServer, clean_env, free_port, make_config, wait_for
from prometheus_client.openmetrics import parser as openmetrics
from proxy_tools import OK, Connection, ask, get, read_head, stored

Factory = Callable[..., Gateway]
Stubs = Callable[..., StubServer]
NOWHERE = "127.0.0.1:1"
PROMTOOL = TOOLS / "promtool"


def answer_after(delay_s: float) -> Callable[[socket.socket, int], None]:
    """Return a server that answers each request delay_s after its head."""

    def serve(conn: socket.socket, _index: int) -> None:
        while read_head(conn):
            time.sleep(delay_s)
            conn.sendall(OK)

    return serve


# --- sockets and limits --------------------------------------------------------------


def start_activated(
    directory: Path, config: dict[str, Any], sockets: list[socket.socket]
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start the gateway as systemd does: sockets from descriptor 3 on."""
    path, log = directory / "c.json", directory / "log"
    path.write_text(json.dumps(config))
    launcher = (
        "import os, sys\n"
        "fds = [int(fd) for fd in sys.argv[1].split(',')]\n"
        "high = [os.dup2(fd, 200 + i) for i, fd in enumerate(fds)]\n"
        "for i, fd in enumerate(high): os.dup2(fd, 3 + i)\n"
        "for fd in high: os.set_inheritable(fd, False)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)))\n"
        "os.execv(sys.argv[2], sys.argv[2:])\n"
    )
    fds = [sock.fileno() for sock in sockets]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", launcher, ",".join(map(str, fds))),
                *(str(BINARY), "run", "-c", str(path)),
            ],
            env=clean_env(),
            stdout=out,
            stderr=out,
            pass_fds=fds,
        )
    return process, log


def test_socket_activation(stub_factory: Stubs, tmp_path: Path) -> None:
    """Sockets are told by their address, TCP and unix; their files stay when we go."""
    stub = stub_factory(answer_after(0))
    directory = Path(tempfile.mkdtemp(prefix="tailrace-"))
    control = socket.socket(socket.AF_UNIX)
    control.bind(str(directory / "control.sock"))
    public = socket.socket()
    public.bind(("127.0.0.1", 0))
    unused = socket.socket()
    unused.bind(("127.0.0.1", 0))
    sockets = [unused, control, public]
    for sock in sockets:
        sock.listen(16)
    port = public.getsockname()[1]
    config = make_config(tmp_path, directory, port, [stub.address], {})
    process, log = start_activated(tmp_path, config, sockets)
    try:
        wait_for(lambda: " ready: " in log.read_text(), 15, "ready")
        assert ask(port, get()).status == 200
        name = f"127.0.0.1:{unused.getsockname()[1]}"
        assert f"{name}: passed by the service manager, but no listener names it" in log.read_text()
        for pid in (process.pid, *children(process.pid)):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert pid == process.pid or b"LISTEN_FDS=" not in environment
        process.terminate()
        assert process.wait(10) == 0
        assert (directory / "control.sock").is_socket()
    finally:
        process.kill()
        process.wait(5)
        for sock in sockets:
            sock.close()


def children(pid: int) -> list[int]:
    """Return the child processes of a single-threaded process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def test_too_few_open_files(tmp_path: Path) -> None:
    """Where the hard limit cannot be raised the start says what is needed, and ends."""
    directory = Path(tempfile.mkdtemp(prefix="tailrace-"))
    directory.chmod(0o777)
    port = free_port()
    config = make_config(directory, directory, port, [NOWHERE], {"limits": {"connections": 5000}})
    (directory / "c.json").write_text(json.dumps(config))

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65533)
            os.setuid(65533)

    done = subprocess.run(
        [str(BINARY), "run", "-c", str(directory / "c.json")],
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=20,
        preexec_fn=restrict,
    )
    assert done.returncode == 1, done.stderr
    assert re.search(r"limits\.connections = 5000 needs \d+ open files", done.stderr), done.stderr
    assert "the hard limit is 1024" in done.stderr


def test_open_files_are_raised(gateway_factory: Factory) -> None:
    """The worker may open what limits.connections needs, whatever the soft limit was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        gateway = gateway_factory([NOWHERE], limits={"connections": 900})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (worker,) = gateway.worker_pids()
    match = re.search(r"Max open files\s+(\d+)", Path(f"/proc/{worker}/limits").read_text())
    assert match and int(match[1]) > 900


# --- /metrics ------------------------------------------------------------------------


def turn_ns(pid: int) -> int:
    """The slice of a thread as sched_getattr(2) tells it, which the C library does not have."""
    number = {"x86_64": 315, "aarch64": 275}[os.uname().machine]
    attr = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(number, pid, attr, 48, 0) == 0
    return int(struct.unpack("IIQiIQQQ", attr.raw)[5])


def test_short_turns(gateway_factory: Factory) -> None:
    """All threads but the supervisor's are scheduled in short turns, if the kernel knows them."""
    gateway = gateway_factory([NOWHERE], worker={"threads": 2})
    tasks = [Path(f"/proc/{pid}/task") for pid in children(gateway.process.pid)]
    threads = [int(thread.name) for task in tasks for thread in task.iterdir()]
    assert len(threads) >= 4
    known = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 12)
    assert {turn_ns(thread) for thread in threads} == {100_000 if known else 0}
    assert turn_ns(gateway.process.pid) != 100_000


def test_metrics_formats(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """promtool and the strict OpenMetrics parser find nothing; both formats say the same."""
    gateway = gateway_factory([stub_factory(answer_after(0.01)).address])
    traces = set()
    with Connection(gateway.port) as client:
        for _ in range(3):
            client.send(get())
            traces.add(client.answer().trace_id)
    name = 'tailrace_requests_total{route="GET (no route)",code="200"}'
    wait_for(lambda: metrics(gateway).get(name) == 3, 15, "counted")
    _, fields, text = gateway.api("/metrics")
    assert fields["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    accept = {"Accept": "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"}
    _, fields, text = gateway.api("/metrics", headers=accept)
    assert fields["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert text.endswith(b"# EOF\n")
    families = {
        family.name: family for family in openmetrics.text_string_to_metric_families(text.decode())
    }
    assert families["tailrace_build"].type == "info"
    assert families["tailrace_requests"].type == "counter"
    assert families["tailrace_loop_lag_seconds"].type == "histogram"
    shown = set()
    for family in ("tailrace_request_duration_seconds", "tailrace_phase_duration_seconds"):
        for sample in families[family].samples:
            if sample.exemplar is None:
                continue
            trace = sample.exemplar.labels["trace_id"]
            shown.add(trace)
            assert sample.exemplar.value <= float(sample.labels["le"])
            assert abs(float(sample.exemplar.timestamp) - time.time()) < 60
    assert shown and shown <= traces
    # As the older text, without what only OpenMetrics has, promtool takes it too.
    lines = [re.sub(r" # \{.*", "", line) for line in text.decode().splitlines()]
    plain = "\n".join(lines).replace("# EOF", "").replace("_build info", "_build_info gauge")
    plain = re.sub(r"(?m)^# TYPE (\S+) counter$", r"# TYPE \1_total counter", plain)
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=plain.encode(), capture_output=True, timeout=30
    )
    assert b"error" not in done.stderr, done.stderr


def test_names_that_users_rely_on(gateway_factory: Factory) -> None:
    """Every family that is promised is there from the start."""
    gateway = gateway_factory([NOWHERE])
    ask(gateway.port, get())
    wait_for(
        lambda: any(k.startswith("tailrace_requests_total") for k in metrics(gateway)),
        15,
        "counted",
    )
    names = {key.partition("{")[0] for key in metrics(gateway)}
    assert {
        "tailrace_request_duration_seconds_bucket",
        "tailrace_phase_duration_seconds_bucket",
        "tailrace_requests_total",
        "tailrace_upstream_connects_total",
        "tailrace_profiles_total",
        "tailrace_records_dropped_total",
        "tailrace_exchanges_lost_total",
        "tailrace_loop_lag_seconds_bucket",
        "tailrace_build_info",
        "tailrace_listen_queue_connections",
        "tailrace_listen_queue_limit",
    } <= names


def test_listen_queue(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """Connections that wait to be accepted are seen; they are served in the end."""
    stub = stub_factory(answer_after(0))
    gateway = gateway_factory([stub.address], limits={"connections": 1})
    label = f'{{listener="127.0.0.1:{gateway.port}"}}'
    depth, limit = (f"tailrace_listen_queue_{name}{label}" for name in ("connections", "limit"))
    wait_for(lambda: metrics(gateway).get(limit, 0) > 0, 5, "measured")
    held = [Connection(gateway.port) for _ in range(6)]
    try:
        wait_for(lambda: 3 <= metrics(gateway)[depth] <= 5, 5, "connections that wait")
    finally:
        for one in held:
            one.sock.close()
    wait_for(lambda: metrics(gateway)[depth] == 0, 5, "none waits")


# --- overlays ------------------------------------------------------------------------


def test_upstream_lb(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """A trusted proxy's X-Request-Start, whatever its unit; a skew is clamped and shown."""
    stub = stub_factory(answer_after(0))
    gateway = gateway_factory([stub.address], listener={"trusted_proxies": ["127.0.0.1"]})

    def overlays(*lines: str) -> Any:
        return stored(gateway, ask(gateway.port, get("/", *lines)).trace_id)["overlays"]

    assert "upstream_lb_ns" not in overlays()
    assert "upstream_lb_ns" not in overlays("X-Request-Start: yesterday")
    assert "upstream_lb_ns" not in overlays("X-Request-Start: t=1000000000")
    for text in ("t={us:.0f}", "{ms:.0f}", "t={s:.6f}", "{s:.3f}"):
        now_s = time.time() - 0.25
        value = text.format(us=now_s * 1e6, ms=now_s * 1e3, s=now_s)
        seen = overlays(f"X-Request-Start: {value}")
        assert 0.24e9 < seen["upstream_lb_ns"] < 2e9, (value, seen)
        assert seen["upstream_lb_skew_ns"] == 0
    seen = overlays(f"X-Request-Start: t={(time.time() + 5) * 1e6:.0f}")
    assert seen["upstream_lb_ns"] == 0 and 4e9 < seen["upstream_lb_skew_ns"] < 5.1e9


def test_strangers_request_start_is_not_believed(
    gateway_factory: Factory, stub_factory: Stubs
) -> None:
    """Whoever is no trusted proxy says nothing about times."""
    gateway = gateway_factory([stub_factory(answer_after(0)).address])
    trace_id = ask(gateway.port, get("/", f"X-Request-Start: t={time.time():.3f}")).trace_id
    assert "upstream_lb_ns" not in stored(gateway, trace_id)["overlays"]


def test_kernel_in_is_off_by_default(gateway_factory: Factory, stub_factory: Stubs) -> None:
    gateway = gateway_factory([stub_factory(answer_after(0)).address])
    exchange = stored(gateway, ask(gateway.port, get()).trace_id)
    assert exchange["overlays"]["kernel_in_ns"] is None
    assert "client_ack_ns" not in exchange["overlays"] and "tcp" not in exchange["overlays"]


def test_client_that_goes_before_its_ack(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """The record comes all the same, without the overlay where there was no acknowledgement."""
    gateway = gateway_factory(
        [stub_factory(answer_after(0.1)).address], overlays={"client_ack_one_in": 1}
    )
    for n in range(20):
        with Connection(gateway.port) as client:
            client.send(get(f"/{n}"))
            if n % 2:
                client.answer()
            linger = struct.pack("ii", 1, 0)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    wait_for(lambda: metrics(gateway)["tailrace_records_read_total"] == 20, 15, "every record")


def test_loop_lag_of_an_exchange(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """It is there, small, and never more than the loop's own latest."""
    gateway = gateway_factory([stub_factory(answer_after(0)).address])
    threads = [threading.Thread(target=ask, args=(gateway.port, get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    lag_ns = stored(gateway, ask(gateway.port, get()).trace_id)["overlays"]["loop_lag_ns"]
    assert 0 <= lag_ns <= 2 * metrics(gateway)["tailrace_loop_lag_max_seconds"] * 1e9


def test_kernel_in(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """What waits in the kernel while the worker stands still is seen, and in no phase."""
    gateway = gateway_factory([stub_factory(answer_after(0)).address], overlays={"kernel_in": True})
    (worker,) = gateway.worker_pids()
    with Connection(gateway.port) as client:
        client.send(get())
        quick = stored(gateway, client.answer().trace_id)
        os.kill(worker, 19)  # SIGSTOP
        time.sleep(0.05)
        client.send(get())
        time.sleep(0.3)
        os.kill(worker, 18)  # SIGCONT
        slow = stored(gateway, client.answer().trace_id)
    assert 0 <= quick["overlays"]["kernel_in_ns"] < 0.2e9
    assert 0.28e9 < slow["overlays"]["kernel_in_ns"] < 2e9
    assert sum(phase["ns"] for phase in slow["phases"]) == slow["total_ns"] < 0.25e9


def test_slow_exchanges_tell_of_tcp(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """Over the threshold TCP_INFO is there, under it not."""
    gateway = gateway_factory(
        [stub_factory(answer_after(0.15)).address], overlays={"tcp_info_over_ms": 100}
    )
    tcp = stored(gateway, ask(gateway.port, get()).trace_id)["overlays"]["tcp"]
    assert 0 < tcp["min_rtt_ns"] <= tcp["rtt_ns"] < 1e9 and tcp["retransmits"] == 0
    quick = gateway_factory(
        [stub_factory(answer_after(0)).address], overlays={"tcp_info_over_ms": 5000}
    )
    assert "tcp" not in stored(quick, ask(quick.port, get()).trace_id)["overlays"]


def test_client_ack(gateway_factory: Factory, stub_factory: Stubs) -> None:
    """Every exchange that is sampled waits for the acknowledgement; the loop does not spin."""
    gateway = gateway_factory(
        [stub_factory(answer_after(0)).address], overlays={"client_ack_one_in": 1}
    )
    with Connection(gateway.port) as client:
        for _ in range(5):
            client.send(get())
            trace_id = client.answer().trace_id
            overlays = stored(gateway, trace_id)["overlays"]
            assert 0 <= overlays["client_ack_ns"] < 1e9
    (worker,) = gateway.worker_pids()
    before = cpu_ticks(worker)
    time.sleep(1)
    assert cpu_ticks(worker) - before < 20, "its loop does not spin"
    assert wait_for(
        lambda: metrics(gateway)["tailrace_requests_in_flight"] == 0, 5, "none in flight"
    )


def cpu_ticks(pid: int) -> int:
    """Return the CPU time of a process in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
