"""The sender against a scripted gateway: every answer of docs/protocol.md §3, and every failure."""

from __future__ import annotations

import itertools
import logging
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_gateway import RESEND, FakeEngine, FakeGateway, error, key, row
from tailrace import sender as sending
from tailrace import transport
from tailrace.sender import Sender
from tailrace.transport import parse_address


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "control.sock")


@pytest.fixture
def make(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., tuple[Sender, FakeEngine]]]:
    caplog.set_level(logging.DEBUG, "tailrace")
    made: list[Sender] = []

    def maker(address: str, token: str | None = None) -> tuple[Sender, FakeEngine]:
        engine = FakeEngine()
        made.append(Sender(engine, parse_address(address), token))
        return made[-1], engine

    yield maker
    for sender in made:
        sender.close()


@pytest.fixture
def gateways() -> Iterator[Callable[..., FakeGateway]]:
    made: list[FakeGateway] = []

    def maker(*args, **kwargs) -> FakeGateway:
        made.append(FakeGateway(*args, **kwargs))
        return made[-1]

    yield maker
    for gateway in made:
        gateway.stop()


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= level]


def test_batch_has_the_protocols_shape(make, gateways, path):
    gateway = gateways(path)
    sender, engine = make(gateway.address)
    code = test_batch_has_the_protocols_shape.__code__
    engine.add_stack(7, (code, 12), (time_function.__code__, 34))
    engine.put(row(1, 7))
    engine.tails.append(b'["' + key(1).encode() + b'",250000]')
    engine.lost = 3
    sender.start()
    gateway.wait([key(1)])
    body = gateway.posts[0].body
    assert set(body) == {"v", "process", "stacks", "profiles", "tails"}
    assert body["v"] == 1
    process = body["process"]
    assert re.fullmatch("[0-9a-f]{32}", process["instance"])
    assert process["pid"] == os.getpid()
    assert process["python"] == platform.python_version()
    assert (process["loop"], process["engine"], process["dropped"]) == ("uvloop", "steps", 3)
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert process["boot_id"] == file.read().strip()
    assert process["time_namespace"] == os.stat("/proc/self/ns/time").st_ino
    assert body["tails"] == [[key(1), 250000]]
    [[number, frames]] = body["stacks"]
    assert number == 7
    module, function, file, line, in_app = frames[0]
    assert module == __name__
    assert function == "test_batch_has_the_protocols_shape"
    assert file.endswith("test_sender.py")
    assert not file.startswith("/")
    assert (line, in_app) == (12, 1)
    assert frames[1][1:2] + frames[1][3:4] == ["time_function", 34]
    assert gateway.posts[0].headers["content-type"] == "application/json"
    assert "content-encoding" not in gateway.posts[0].headers


def time_function() -> None:
    pass


def test_stacks_go_once_and_all_again_on_resend(make, gateways, path):
    gateway = gateways(path)
    sender, engine = make(gateway.address)
    engine.add_stack(0, (time_function.__code__, 1))
    engine.put(row(1, 0))
    sender.start()
    gateway.wait([key(1)])
    engine.add_stack(1, (time_function.__code__, 2))
    engine.put(row(2, 1))
    gateway.wait([key(2)])
    assert [p.stack_ids for p in gateway.posts] == [[0], [1]]
    gateway.known.clear()  # as after a restart
    engine.put(row(3, 0))
    assert gateway.wait([key(3)]) == [key(1), key(2), key(3)]
    ids = [p.stack_ids for p in gateway.posts[2:]]
    assert ids == [[], [0, 1], []]
    assert [p.keys for p in gateway.posts[2:]] == [[key(3)], [], [key(3)]]


def test_a_gateway_that_always_wants_stacks_costs_one_batch(make, gateways, path, caplog):
    gateway = gateways(path)
    sender, engine = make(gateway.address)
    engine.add_stack(0, (time_function.__code__, 1))
    # The batch, then (all stacks, the batch) three times: seven posts.
    gateway.script = [RESEND, error(200, "x")] * 3 + [RESEND]
    engine.put(row(1, 0))
    sender.start()
    gateway.wait_posts(7)
    engine.put(row(2, 0))
    assert gateway.wait([key(2)]) == [key(2)]
    assert gateway.posts[-1].body["process"]["dropped"] == 1


def test_full_gateway_is_asked_again_after_its_time(make, gateways, path, caplog):
    full = error(503, "full", {"Retry-After": "1"})
    gateway = gateways(path, [full, full])
    sender, engine = make(gateway.address)
    engine.put(row(1))
    sender.start()
    gateway.wait([key(1)])
    times = [p.at for p in gateway.posts]
    assert all(later - earlier >= 0.99 for earlier, later in itertools.pairwise(times))
    assert sum("is full" in m for m in messages(caplog)) == 1
    assert gateway.posts[-1].body["process"]["dropped"] == 0


def test_profiles_made_while_full_all_arrive_in_order(make, gateways, path):
    gateway = gateways(path, [error(503, "full", {"Retry-After": "1"})])
    sender, engine = make(gateway.address)
    engine.put(row(1))
    sender.start()
    gateway.wait_posts(1)
    for number in range(2, 6):
        engine.put(row(number))
        time.sleep(0.12)
    assert gateway.wait([key(5)]) == [key(n) for n in range(1, 6)]


@pytest.mark.parametrize(
    ("status", "code"), [(400, "malformed"), (411, "length"), (413, "oversized"), (415, "type")]
)
def test_a_refused_batch_is_dropped_and_said_once(make, gateways, path, caplog, status, code):
    gateway = gateways(path, [error(status, code), error(status, code)])
    sender, engine = make(gateway.address)
    engine.put(row(1))
    sender.start()
    gateway.wait_posts(1)
    engine.put(row(2))
    gateway.wait_posts(2)
    engine.put(row(3))
    assert gateway.wait([key(3)]) == [key(3)]
    assert gateway.posts[-1].body["process"]["dropped"] == 2
    said = [m for m in messages(caplog) if "refuses" in m]
    assert len(said) == 1
    assert f"status {status}: {code}" in said[0]
    assert "/profiles/0" in said[0]


@pytest.mark.parametrize("status", [401, 403])
def test_without_rights_profiles_are_dropped_and_said_once(
    make, gateways, path, caplog, monkeypatch, status
):
    monkeypatch.setattr(sending, "REFUSED_PAUSE_S", 0.3)
    gateway = gateways(path, [error(status, "no"), error(status, "no")])
    sender, engine = make(gateway.address, "secret-token")
    engine.put(row(1))
    sender.start()
    first = gateway.wait_posts(1)[0]
    engine.put(row(2))
    second = gateway.wait_posts(2)[1]
    assert second.at - first.at >= 0.29
    engine.put(row(3))
    assert gateway.wait([key(3)]) == [key(3)]
    assert gateway.posts[-1].body["process"]["dropped"] == 2
    assert sum("refuses" in m for m in messages(caplog)) == 1
    assert not any("secret-token" in m for m in messages(caplog, logging.DEBUG))


def test_tcp_with_token_and_kept_alive_connection(make, gateways):
    gateway = gateways()
    sender, engine = make(gateway.address, "abc")
    sender.start()
    for number in range(3):
        engine.put(row(number))
        gateway.wait([key(number)])
    assert {p.headers["authorization"] for p in gateway.posts} == {"Bearer abc"}
    assert gateway.connections == 1


def test_beyond_loopback_bodies_are_deflated(make, gateways, monkeypatch):
    gateway = gateways()
    monkeypatch.setattr(transport.Address, "is_local", False)
    sender, engine = make(gateway.address)
    engine.put(row(1))
    sender.start()
    gateway.wait([key(1)])
    assert gateway.posts[0].headers["content-encoding"] == "deflate"
    assert len(gateway.posts[0].raw) < 500


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 40000 + b"\r\n\r\n",
    ],
)
def test_an_answer_that_is_broken_costs_a_pause_and_no_profile(make, gateways, path, answer):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    sender, engine = make("unix:" + path)
    engine.put(row(1))
    sender.start()
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(answer)
    connection.close()
    listener.close()
    gateway = gateways(path)
    assert gateway.wait([key(1)]) == [key(1)]
    assert gateway.posts[-1].body["process"]["dropped"] == 0


def test_answer_without_length_ends_with_the_connection(make, path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    sender, engine = make("unix:" + path)
    sender.start()
    for number in range(2):  # a connection each
        engine.put(row(number))
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        connection.sendall(b'{"accepted": 1, "stacks": "ok"}')
        connection.close()
    assert sender.flush(5)
    listener.close()
    assert sender.dropped == 0


def test_stale_connection_is_opened_anew_without_loss(make, gateways, path, caplog):
    gateway = gateways(path)
    gateway.close_after_each = True  # no "Connection: close": the sender sees it only at the next
    sender, engine = make(gateway.address)
    sender.start()
    for number in range(4):
        engine.put(row(number))
        gateway.wait([key(number)])
    assert gateway.connections == 4
    assert messages(caplog) == []


def test_gateway_that_is_away_is_waited_for(make, gateways, path, caplog):
    sender, engine = make("unix:" + path)
    engine.put(row(1))
    sender.start()
    time.sleep(0.5)
    engine.put(row(2))
    gateway = gateways(path)
    gateway.wait([key(1), key(2)])
    assert sum("cannot reach" in m for m in messages(caplog)) == 1
    gateway.stop()
    engine.put(row(3))
    time.sleep(0.4)
    again = gateways(path)
    again.wait([key(3)])
    assert sum("cannot reach" in m for m in messages(caplog)) == 2


def test_gateway_that_hangs_is_given_up_in_time(make, gateways, path, monkeypatch):
    monkeypatch.setattr(sending, "TIMEOUT_S", 0.2)
    gateway = gateways(path)
    real = gateway.answer
    hung = []

    def hang(post):
        if not hung:
            hung.append(post)
            time.sleep(0.6)
        return real(post)

    gateway.answer = hang
    sender, engine = make(gateway.address)
    engine.put(row(1))
    sender.start()
    gateway.wait([key(1)])


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_is_no_gateway_breaks_nothing(make, gateways, path, monkeypatch, status):
    monkeypatch.setattr(sending, "REFUSED_PAUSE_S", 0.1)
    monkeypatch.setattr(sending, "BACKOFF_S", (0.1, 0.2))
    gateway = gateways(
        path, [(status, {}, b"<html>not JSON"), (status, {"Connection": "close"}, b"")]
    )
    sender, engine = make(gateway.address)
    sender.start()
    engine.put(row(1))
    gateway.wait_posts(1)
    engine.put(row(2))
    gateway.wait_posts(2)
    engine.put(row(3))
    gateway.wait([key(3)])


def test_buffer_drops_the_oldest_past_its_bound_and_counts(make, gateways, path, monkeypatch):
    one = len(row(1, pad="x" * 1000)) + 1  # and the comma after it
    monkeypatch.setattr(sending, "BUFFER_BYTES_MAX", 3 * one)
    sender, engine = make("unix:" + path)
    sender.start()
    for number in range(1, 4):  # exactly at the bound: nothing lost
        engine.put(row(number, pad="x" * 1000))
        time.sleep(0.15)
    assert sender.dropped == 0
    engine.put(row(4, pad="x" * 1000))
    time.sleep(0.3)
    assert sender.dropped == 1
    gateway = gateways(path)
    assert gateway.wait([key(4)]) == [key(2), key(3), key(4)]
    assert gateway.posts[-1].body["process"]["dropped"] == 1


def test_many_profiles_and_stacks_are_split_into_legal_batches(make, gateways, path):
    gateway = gateways(path)
    sender, engine = make(gateway.address)
    for number in range(5000):
        engine.add_stack(number, *[(time_function.__code__, line) for line in range(8)])
    engine.put(*[row(n, n % 5000) for n in range(6000)])
    sender.start()
    taken = gateway.wait([key(n) for n in range(6000)], 30)
    assert taken == [key(n) for n in range(6000)]
    assert not any(p.raw and len(p.raw) > 1 << 20 for p in gateway.posts)
    assert max(len(p.body["stacks"]) for p in gateway.posts) <= 4096
    assert max(len(p.body["profiles"]) for p in gateway.posts) <= 4096
    sent = [n for p in gateway.posts for n in p.stack_ids]
    assert sorted(sent) == list(range(5000))


def test_a_profile_over_the_batch_limit_is_counted_and_costs_nothing_else(
    make, gateways, path, caplog
):
    gateway = gateways(path)
    sender, engine = make(gateway.address)
    real = engine.take
    huge = [row(1, pad="x" * (1 << 20))]
    engine.take = lambda n: (huge.pop(), b"", []) if huge else real(n)
    engine.put(row(2))
    sender.start()
    assert gateway.wait([key(2)]) == [key(2)]
    assert gateway.posts[-1].body["process"]["dropped"] == 1
    assert any("fit no batch" in m for m in messages(caplog))


def test_stack_deeper_than_the_protocol_keeps_its_innermost_frames(make, gateways, path):
    gateway = gateways(path)
    sender, engine = make(gateway.address)
    engine.add_stack(0, *[(time_function.__code__, line) for line in range(65)])
    engine.put(row(1, 0))
    sender.start()
    gateway.wait([key(1)])
    [[_, frames]] = gateway.posts[0].body["stacks"]
    assert [f[3] for f in frames] == list(range(1, 65))


def test_errors_of_the_engine_are_said_once_and_survived(make, gateways, path, caplog):
    gateway = gateways(path)
    sender, engine = make(gateway.address)
    engine.fail = 3
    engine.put(row(1))
    sender.start()
    gateway.wait([key(1)])
    assert sum("an error in the sender" in m for m in messages(caplog)) == 1


def test_an_engine_that_only_fails_ends_the_sender(make, path, caplog, monkeypatch):
    monkeypatch.setattr(sending, "INTERVAL_S", 0.01)
    monkeypatch.setattr(sending, "FAILURES_MAX", 3)
    sender, engine = make("unix:" + path)
    engine.fail = 1000
    sender.start()
    sender._thread.join(5)
    assert sender.broken
    sender.start()
    assert not sender.running
    assert engine.fail == 997


def test_flush_sends_at_once(make, gateways, path, monkeypatch):
    monkeypatch.setattr(sending, "INTERVAL_S", 60)
    gateway = gateways(path)
    sender, engine = make(gateway.address)
    sender.start()
    engine.put(row(1))
    assert sender.flush(5)
    assert gateway.taken == [key(1)]
    gateway.stop()
    os.unlink(path)
    sender._connection.close()
    engine.put(row(2))
    assert not sender.flush(5)


def test_close_with_the_gateway_away_is_bounded(make, path):
    sender, engine = make("unix:" + path)
    engine.put(row(1))
    sender.start()
    began = time.monotonic()
    sender.close(0.5)
    assert time.monotonic() - began < 2
    assert not sender.running


def test_a_forked_child_is_an_instance_of_its_own(make, gateways, path):
    gateway = gateways(path)
    sender, engine = make(gateway.address)
    sender.start()
    engine.put(row(1))
    gateway.wait([key(1)])
    pid = os.fork()
    if pid == 0:
        try:
            sender.after_fork()
            assert engine.forks == 1
            engine.put(row(2))
            sender.start()
            os._exit(0 if sender.flush(5) else 3)
        except BaseException:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    gateway.wait([key(2)])
    engine.put(row(3))
    gateway.wait([key(3)])
    processes = {p.keys[0]: p.body["process"] for p in gateway.posts}
    assert processes[key(2)]["pid"] == pid
    assert processes[key(2)]["instance"] != processes[key(1)]["instance"]
    assert processes[key(3)]["instance"] == processes[key(1)]["instance"]
    assert gateway.connections == 2  # the child opened its own, the parent's still serves


EXIT_SCRIPT = """
import sys
sys.path[:0] = [{folder!r}]
import tailrace.sender as sending
from fake_gateway import FakeEngine, row
sending.INTERVAL_S = 60
assert sending.configure({address!r})
sending.process.engine = engine = FakeEngine()
sending.ensure_started()
engine.put(row(5))
"""


def test_what_is_left_is_sent_when_the_interpreter_ends(gateways, path):
    gateway = gateways(path)
    script = EXIT_SCRIPT.format(folder=str(Path(__file__).parent), address=gateway.address)
    done = subprocess.run([sys.executable, "-c", script], timeout=20, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert gateway.taken == [key(5)]


CONFIGURE_SCRIPT = """
import logging, os
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
os.environ.pop("TAILRACE_CALLBACK", None)
from tailrace import sender
assert not sender.configure()
assert not sender.configure()
sender.hear([(b"host", b"x")])
sender.hear([(b"host", b"x"), (b"x-tailrace", b"1;")])
sender.hear([(b"x-tailrace", b"1;")])
sender.ensure_started()
assert not sender.configure("nowhere")
os.environ["TAILRACE_CALLBACK"] = "unix:/nowhere/a.sock"
assert sender.configure()
assert sender.configure("unix:/nowhere/a.sock")
assert sender.configure("unix:/nowhere/b.sock")
assert sender.process.address.text == "unix:/nowhere/a.sock"
assert not sender.process.running
"""


def test_configure_says_what_it_does(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURE_SCRIPT], timeout=20, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines == [
        "INFO tailrace: TAILRACE_CALLBACK is not set, no profiles are collected",
        "WARNING tailrace: requests come through a gateway, but no profiles are collected: set "
        "TAILRACE_CALLBACK to its control address, such as unix:/run/tailrace/control.sock",
        "ERROR tailrace: no profiles are collected: callback 'nowhere': neither unix:/path nor "
        "host:port",
        "WARNING tailrace: profiles go to unix:/nowhere/a.sock, not to unix:/nowhere/b.sock",
    ]


UNHEARD_SCRIPT = """
import asyncio, os
os.environ.pop("TAILRACE_CALLBACK", None)
import tailrace

async def app(scope, receive, send):
    pass

wrapped = tailrace.wrap(app)
for headers in ([], [(b"x-tailrace", b"1;")], [(b"x-tailrace", b"1;")]):
    asyncio.run(wrapped({"type": "http", "headers": headers}, None, None))
asyncio.run(wrapped({"type": "lifespan"}, None, None))
"""


def test_a_request_of_a_gateway_without_an_address_is_said_once():
    done = subprocess.run(
        [sys.executable, "-c", UNHEARD_SCRIPT], timeout=20, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("set TAILRACE_CALLBACK to its control address") == 1
    assert len(done.stderr.splitlines()) == 1
