"""TLS towards clients: bytes both ways, records, ends, system calls, memory."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import BINARY, AppServer, Gateway, StubServer, free_port, wait_for
from proxy_tools import OK, Connection, always, get, read_head, request_bytes
from tls_tools import (
    TLS12,
    TLS13,
    Authority,
    RecordClient,
    TLSConnection,
    listen,
    wait_reason,
)

GatewayFactory = Callable[..., Gateway]
StubFactory = Callable[..., StubServer]
Served = tuple[Gateway, Authority]
VERSIONS = [pytest.param(TLS12, id="1.2"), pytest.param(TLS13, id="1.3")]
MIB = 1 << 20


@pytest.mark.parametrize("version", VERSIONS)
def test_echo(
    gateway_factory: GatewayFactory,
    uvicorn_factory: Callable[..., AppServer],
    authority: Authority,
    version: ssl.TLSVersion,
) -> None:
    """1 MiB both ways, in records of odd sizes, comes back as it went."""
    app = uvicorn_factory("proxy_app:app")
    gateway = gateway_factory([app.address], listener=listen(authority.issue("app.example")))
    body = os.urandom(MIB)
    for _ in range(2):
        with TLSConnection(gateway.port, authority.client_context(version)) as client:
            client.send(request_bytes("POST", "/echo", body=body)[:-MIB])
            at = 0
            for size in (1, 16383, 16384, 16385, 100_000, 7, MIB):
                client.send(body[at : at + size])
                at += size
            assert client.answer().body == body


def test_pipelined_and_split(served: Served) -> None:
    """Many requests in one record, and one request in a record per byte, sent by single bytes."""
    gateway, authority = served
    client = RecordClient(gateway.port, authority.client_context())
    client.raw.sendall(client.record(get() * 20))
    data = b""
    while data.count(b"\r\n\r\nok") < 20:
        data += client.read()
    wire = b"".join(client.record(get()[at : at + 1]) for at in range(len(get())))
    for at in range(0, len(wire), 97):
        client.raw.sendall(wire[at : at + 97])
    assert b"\r\n\r\nok" in client.read()
    # two records at once, the second in part: the rest wakes the reader
    request = get()
    one, two = client.record(request), client.record(request)
    client.raw.sendall(one + two[:10])
    assert b"\r\n\r\nok" in client.read()
    client.raw.sendall(two[10:])
    assert b"\r\n\r\nok" in client.read()
    client.close()


def test_clean_end(served: Served) -> None:
    """After a last answer comes close_notify, also where the client's came first."""
    gateway, authority = served
    with TLSConnection(gateway.port, authority.client_context()) as client:
        client.send(get("/", "Connection: close"))
        assert client.answer().status == 200
        client.sock.suppress_ragged_eofs = False
        assert client.sock.recv(100) == b""
    with TLSConnection(gateway.port, authority.client_context(TLS12)) as client:
        client.send(get())
        assert client.answer().status == 200
        client.sock.unwrap()  # waits for the gateway's


def test_idle_end(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """An idle connection is ended by close_notify too."""
    gateway = gateway_factory(
        [stub_factory(always(OK)).address],
        listener=listen(authority.issue("app.example")),
        limits={"keepalive_timeout_ms": 300},
    )
    with TLSConnection(gateway.port, authority.client_context()) as client:
        client.send(get())
        assert client.answer().status == 200
        client.sock.suppress_ragged_eofs = False
        assert client.sock.recv(100) == b""
    wait_reason(gateway, "client_idle")


def test_cut_answer_is_no_end(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """An answer that the app broke off never ends by close_notify, also for HTTP/1.0."""

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50000)

    gateway = gateway_factory(
        [stub_factory(handler).address], listener=listen(authority.issue("app.example"))
    )
    for version in ("1.1", "1.0"):
        with TLSConnection(gateway.port, authority.client_context()) as client:
            client.send(get(version=version))
            client.sock.suppress_ragged_eofs = False
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                while client.sock.recv(65536):
                    pass


def test_cut_request(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """A client that closes within its body without close_notify has aborted."""

    def silent(conn: socket.socket, _: int) -> None:
        while conn.recv(4096):
            pass

    app = stub_factory(silent)
    gateway = gateway_factory([app.address], listener=listen(authority.issue("app.example")))
    client = RecordClient(gateway.port, authority.client_context())
    head = request_bytes("POST", "/", "Content-Length: 1000")
    client.raw.sendall(client.record(head + b"x" * 100))
    # Unread tickets make the close a reset, which would take the request's bytes with it.
    wait_for(lambda: app.accepted == 1, 5, "the request read")
    client.close()
    wait_reason(gateway, "client_abort")


def test_damaged_record(served: Served) -> None:
    """A record that was changed on the way ends the connection and is counted."""
    gateway, authority = served
    client = RecordClient(gateway.port, authority.client_context())
    client.raw.sendall(client.record(get()))
    assert b"\r\n\r\nok" in client.read()
    wire = bytearray(client.record(get()))
    wire[-1] ^= 1
    client.raw.sendall(wire)
    with pytest.raises((ssl.SSLError, OSError)):
        while client.read():
            pass
    client.close()
    wait_reason(gateway, "tls_fault")


def test_renegotiation_refused(served: Served) -> None:
    """Nobody can make the gateway shake hands again and again."""
    gateway, authority = served
    done = subprocess.run(
        [
            "openssl",
            "s_client",
            "-connect",
            f"127.0.0.1:{gateway.port}",
            "-tls1_2",
            "-legacy_renegotiation",
            "-CAfile",
            str(authority.ca_file),
        ],
        input=b"R\n",
        capture_output=True,
        timeout=10,
        check=False,
    )
    text = (done.stdout + done.stderr).decode(errors="replace")
    assert "Verify return code: 0 (ok)" in text
    assert "RENEGOTIATING" in text and "no renegotiation" in text


def test_system_calls_per_exchange(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority, tmp_path: Path
) -> None:
    """TLS costs no system call more: 2 reads and 2 writes."""

    def handler(conn: socket.socket, _index: int) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            read_head(conn)
            conn.sendall(OK)

    gateway = gateway_factory(
        [stub_factory(handler).address], listener=listen(authority.issue("app.example"))
    )
    (worker,) = gateway.worker_pids()
    trace = tmp_path / "trace"
    times = 300
    with TLSConnection(gateway.port, authority.client_context()) as client:

        def exchange(count: int) -> None:
            for _ in range(count):
                client.send(get())
                assert client.answer().status == 200

        exchange(20)
        strace = subprocess.Popen(
            ["strace", "-f", "-o", str(trace), "-p", str(worker)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert strace.stderr is not None
        assert "attached" in strace.stderr.readline()
        time.sleep(0.1)
        exchange(times)
        strace.send_signal(signal.SIGINT)
        strace.wait(10)
    calls: dict[str, int] = {}
    for line in trace.read_text().splitlines():
        name = line.split("(")[0].split()[-1]
        calls[name] = calls.get(name, 0) + 1
    assert calls.get("recvfrom", 0) == 2 * times, calls
    assert calls.get("sendto", 0) + calls.get("sendmsg", 0) == 2 * times, calls
    assert calls.get("epoll_ctl", 0) == 0, calls


@pytest.mark.skipif(
    BINARY.parent.name in ("asan", "tsan"), reason="sanitizers keep freed memory and shadow"
)
def test_memory_per_idle_connection(served: Served) -> None:
    """After one request an idle connection holds at most 16 KiB of the worker's memory."""
    gateway, authority = served
    (worker,) = gateway.worker_pids()
    context = authority.client_context()

    def private_kib() -> int:
        text = Path(f"/proc/{worker}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if "Private" in line)

    def visit() -> TLSConnection:
        client = TLSConnection(gateway.port, context)
        client.send(get())
        assert client.answer().status == 200
        return client

    warm = [visit() for _ in range(50)]
    before = private_kib()
    clients = [visit() for _ in range(200)]
    each = (private_kib() - before) / len(clients)
    for client in warm + clients:
        client.sock.close()
    print(f"{each:.1f} KiB per idle TLS connection")
    assert each <= 16


def test_curl(served: Served) -> None:
    """Curl checks the certificate and gets its answer."""
    gateway, authority = served
    done = subprocess.run(
        [
            "curl",
            "-sS",
            "--cacert",
            str(authority.ca_file),
            "--resolve",
            f"app.example:{gateway.port}:127.0.0.1",
            f"https://app.example:{gateway.port}/",
        ],
        capture_output=True,
        timeout=10,
        check=True,
    )
    assert done.stdout == b"ok"


def test_drain(
    gateway_starter: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """On TERM an exchange goes on, is answered with Connection: close and ended cleanly."""

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        time.sleep(0.5)
        conn.sendall(OK)

    gateway = gateway_starter(
        [stub_factory(handler).address], listener=listen(authority.issue("app.example"))
    )
    with TLSConnection(gateway.port, authority.client_context()) as client:
        client.send(get())
        time.sleep(0.1)
        gateway.process.terminate()
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        client.sock.suppress_ragged_eofs = False
        assert client.sock.recv(100) == b""
    assert gateway.stop() == 0


def test_half_close_needs_close_notify(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """Also with half_close a bare FIN, without close_notify, is an abort."""

    def handler(conn: socket.socket, _index: int) -> None:
        read_head(conn)
        time.sleep(0.3)
        conn.sendall(OK)

    gateway = gateway_factory(
        [stub_factory(handler).address],
        listener={**listen(authority.issue("app.example")), "half_close": True},
    )
    client = RecordClient(gateway.port, authority.client_context())
    client.raw.sendall(client.record(get()))
    client.raw.shutdown(socket.SHUT_WR)
    wait_reason(gateway, "client_abort")
    client.close()


def test_unix_listener_in_clear_beside(
    gateway_factory: GatewayFactory, stub_factory: StubFactory, authority: Authority
) -> None:
    """TLS is a listener's own: another one beside it stays in clear."""
    port = free_port()
    gateway = gateway_factory(
        [stub_factory(always(OK)).address],
        listeners=[
            {"address": f"127.0.0.1:{port}"},
            {"address": f"127.0.0.1:{free_port()}", **listen(authority.issue("app.example"))},
        ],
    )
    tls_port = int(gateway.config["listeners"][1]["address"].rpartition(":")[2])
    with Connection(port) as client:
        client.send(get())
        assert client.answer().status == 200
    with TLSConnection(tls_port, authority.client_context()) as secure:
        secure.send(get())
        assert secure.answer().status == 200


def test_key_updates(served: Served) -> None:
    """A client that changes its keys again and again is served, and keeps nobody out."""
    gateway, authority = served
    program = [
        *("openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}", "-tls1_3"),
        *("-CAfile", str(authority.ca_file), "-no_ign_eof"),
    ]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as client:
        assert client.stdin is not None and client.stdout is not None
        for number in range(40):  # one command a read
            client.stdin.write(b"K\n" if number % 2 else b"k\n")
            client.stdin.flush()
            time.sleep(0.01)
        with TLSConnection(gateway.port, authority.client_context()) as other:
            other.send(get())
            assert other.answer().status == 200
        client.stdin.write(get("/", "Connection: close"))
        client.stdin.flush()
        out = client.stdout.read().decode(errors="replace")
    assert out.count("KEYUPDATE") >= 10
    assert "HTTP/1.1 200" in out
