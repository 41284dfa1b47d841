"""The store under the real gateway: what survives kill -9, its bounds, what it refuses."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import signal
import sqlite3
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from handmade import HandApp, batch, metrics, post, row, wait_exchange
from harness import Gateway, wait_for

APPLICATION_ID = 0x7461726C
SCHEMA = 3
KEEP_ALL = {"keep_slowest": 1000, "keep_random": 1000}
Start = Callable[..., Gateway]


@pytest.fixture
def app() -> Any:
    """A scripted app that answers at once."""
    server = HandApp().start()
    yield server
    server.stop()


def ask(gateway: Gateway) -> str:
    """One request through the gateway; its trace ID."""
    with urllib.request.urlopen(gateway.base + "/x", timeout=10) as response:
        return str(response.headers["X-Trace-Id"])


def stored(path: Path) -> dict[str, dict[str, Any]]:
    """The exchanges in a store nobody writes, by trace; asserts that the file is whole."""
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        rows = db.execute("SELECT hex(trace), missing, provisional, status FROM exchanges")
        result = {
            trace.lower(): {"missing": missing, "provisional": provisional, "status": status}
            for trace, missing, provisional, status in rows
        }
    db.close()
    return result


def test_no_header_and_no_body_is_kept(app: HandApp, gateway_factory: Start) -> None:
    """What the README says that is kept of a request, and what it says is not."""
    gateway = gateway_factory([app.address], profile={"join_timeout_ms": 100}, store=KEEP_ALL)
    secret = {"Cookie": "in-a-cookie", "Authorization": "in-a-header", "User-Agent": "in-an-agent"}
    url = f"{gateway.base}/kept-path?kept=query"
    asked = urllib.request.Request(url, b"in-a-body", secret, method="PATCH")
    with urllib.request.urlopen(asked, timeout=10) as response:
        trace = str(response.headers["X-Trace-Id"])
    wait_exchange(gateway, trace, lambda x: x["profile_missing"] == "no_hook")
    assert gateway.stop() == 0
    assert trace in stored(gateway.store)
    kept = b"".join(file.read_bytes() for file in gateway.store.parent.glob("*.db*"))
    assert b"/kept-path?kept=query" in kept and b"PATCH" in kept
    for text in (*secret.values(), "in-a-body"):
        assert text.encode() not in kept, text


def test_kill_under_load(app: HandApp, gateway_starter: Start) -> None:
    """Kill -9 of everything loses only the last second and what still waited for its profile."""
    gateway = gateway_starter([app.address], profile={"join_timeout_ms": 300}, store=KEEP_ALL)
    ended: dict[str, float] = {}
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            try:
                ended[ask(gateway)] = time.monotonic()
                time.sleep(0.006)  # no more than KEEP_ALL keeps of one route in 10 s
            except OSError:
                assert done.wait(5), "the gateway failed a request before it was killed"

    def profiles() -> None:
        sent = 0
        while not done.is_set():
            ready = [seen for seen in app.seen[sent:] if seen.end_ns]
            sent += len(ready)
            if ready:
                with contextlib.suppress(OSError):  # the last ones meet the end
                    post(gateway, batch(*[row(seen) for seen in ready[::2]]))
            time.sleep(0.05)

    threads = [threading.Thread(target=load) for _ in range(3)]
    threads.append(threading.Thread(target=profiles))
    for thread in threads:
        thread.start()
    time.sleep(3)
    killed = time.monotonic()
    done.set()
    gateway.kill()
    for thread in threads:
        thread.join()
    kept = stored(gateway.store)
    must = [trace for trace, at in ended.items() if at < killed - 1.3]
    assert len(must) > 100
    missing = [trace for trace in must if trace not in kept]
    assert not missing, f"{len(missing)} of {len(must)} lost"
    assert sum(entry["missing"] is None for entry in kept.values()) > 20
    assert sum(entry["missing"] is not None for entry in kept.values()) > 20


def test_collector_restart(app: HandApp, gateway_factory: Start) -> None:
    """The collector alone is killed: traffic goes on, rings are read on, the store is reopened."""
    gateway = gateway_factory([app.address], profile={"join_timeout_ms": 300})
    first = ask(gateway)
    wait_exchange(gateway, first, lambda x: x["profile_missing"] == "no_hook")
    # It is answered before it is written; what is written outlives the kill.
    written = "tailrace_store_exchanges_written_total"
    wait_for(lambda: metrics(gateway)[written] == 1, 5, "written")
    pid = gateway.collector_pid()
    os.kill(pid, signal.SIGKILL)
    while_away = [ask(gateway) for _ in range(20)]

    def back() -> bool:
        try:
            return gateway.collector_pid() != pid and gateway.api("/readyz")[0] == 200
        except (AssertionError, OSError):
            return False

    wait_for(back, 15, "collector back")
    for trace in [first, *while_away]:
        wait_exchange(gateway, trace, lambda x: x["profile_missing"] == "no_hook")
    assert metrics(gateway)['tailrace_restarts_total{process="collector"}'] == 1


def test_stop_writes_what_waits(app: HandApp, gateway_factory: Start) -> None:
    """SIGTERM: exchanges that still wait for a profile are written without one, all of them."""
    gateway = gateway_factory([app.address], profile={"join_timeout_ms": 60000}, store=KEEP_ALL)
    traces = {ask(gateway) for _ in range(30)}
    assert gateway.stop() == 0
    kept = stored(gateway.store)
    assert set(kept) == traces
    assert {entry["missing"] for entry in kept.values()} == {"no_hook"}


def test_supervisor_killed(app: HandApp, gateway_starter: Start) -> None:
    """The supervisor is killed: the collector still writes all that waits, and ends."""
    gateway = gateway_starter([app.address], profile={"join_timeout_ms": 60000}, store=KEEP_ALL)
    traces = {ask(gateway) for _ in range(30)}
    collector = gateway.collector_pid()
    os.kill(gateway.process.pid, signal.SIGKILL)
    gateway.process.wait(5)
    wait_for(lambda: not Path(f"/proc/{collector}").exists(), 6, "the collector ended")
    assert set(stored(gateway.store)) == traces


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up rights: run as root")
def test_owner(app: HandApp, gateway_factory: Start) -> None:
    """The store belongs to process.user, folder and files, and is written as that user."""
    with tempfile.TemporaryDirectory(prefix="tailrace-") as top:
        os.chmod(top, 0o755)
        path = Path(top) / "made" / "here" / "tailrace.db"
        gateway = gateway_factory(
            [app.address],
            store={"path": str(path)},
            process={"user": "nobody"},
            profile={"join_timeout_ms": 100},
        )
        trace = ask(gateway)
        wait_exchange(gateway, trace, lambda x: x["profile_missing"] == "no_hook")
        owners = {entry.stat().st_uid for entry in [path.parent, *path.parent.iterdir()]}
        assert owners == {pwd.getpwnam("nobody").pw_uid}
        assert path.stat().st_mode & 0o007 == 0
        assert gateway.stop() == 0
        assert trace in stored(path)


def test_bounded_size(app: HandApp, gateway_factory: Start) -> None:
    """Over max_bytes the oldest exchanges go; the file stays near its bound, the newest stay."""
    limit = 1 << 20
    gateway = gateway_factory(
        [app.address], store={"max_bytes": limit, **KEEP_ALL}, profile={"join_timeout_ms": 100}
    )
    traces: list[str] = []

    def over() -> bool:
        traces.extend(ask(gateway) for _ in range(100))
        return metrics(gateway)['tailrace_store_evicted_total{reason="bytes"}'] > 300

    wait_for(over, 60, "eviction")
    wait_exchange(gateway, traces[-1], lambda x: x["profile_missing"] == "no_hook")
    assert gateway.api(f"/api/v1/requests/{traces[0]}")[0] == 404
    assert gateway.stop() == 0
    assert gateway.store.stat().st_size <= limit * 1.3
    kept = stored(gateway.store)
    assert traces[-1] in kept and traces[0] not in kept


def make_newer(path: Path) -> None:
    """A store that some later version wrote."""
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE later(x)")
        db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.close()


def make_foreign(path: Path) -> None:
    """Somebody else's database."""
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE users(name)")
    db.close()


@pytest.mark.parametrize(
    ("make", "why"),
    [(make_newer, f"schema version {SCHEMA + 1}"), (make_foreign, "another program's")],
)
def test_not_ours(
    app: HandApp, gateway_factory: Start, tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    """A newer version's file or another program's is refused, untouched; traffic goes on."""
    path = tmp_path / "kept.db"
    make(path)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    gateway = gateway_factory(
        [app.address], store={"path": str(path)}, profile={"join_timeout_ms": 100}
    )
    ask(gateway)
    dropped = 'tailrace_store_dropped_total{reason="error"}'
    wait_for(lambda: metrics(gateway)[dropped] >= 1, 10, "drops counted")
    assert metrics(gateway)["tailrace_store_writable"] == 0
    assert why in gateway.log() and "left alone" in gateway.log()
    assert gateway.json("/api/v1/requests") == {"requests": []}
    assert gateway.stop() == 0
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_damaged(app: HandApp, gateway_factory: Start, tmp_path: Path) -> None:
    """A file that is no database is refused and left alone; one in its place is begun."""
    path = tmp_path / "kept.db"
    path.write_bytes(b"this is no database " * 500)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    gateway = gateway_factory(
        [app.address], store={"path": str(path)}, profile={"join_timeout_ms": 100}
    )
    ask(gateway)
    dropped = 'tailrace_store_dropped_total{reason="error"}'
    wait_for(lambda: metrics(gateway)[dropped] >= 1, 10, "drops counted")
    assert metrics(gateway)["tailrace_store_damaged_total"] == 1
    assert metrics(gateway)["tailrace_store_writable"] == 0
    assert f"{path} is damaged" in gateway.log() and "left alone" in gateway.log()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [entry.name for entry in tmp_path.glob("kept.db*")] == ["kept.db"]
    path.rename(tmp_path / "looked-at.db")

    def begun() -> bool:
        ask(gateway)
        return metrics(gateway)["tailrace_store_writable"] == 1

    wait_for(begun, 20, "a new file", every_s=0.5)
    assert f"store: {path}: can be written again" in gateway.log()
    trace = ask(gateway)
    wait_exchange(gateway, trace, lambda x: x["profile_missing"] == "no_hook")
    assert gateway.stop() == 0
    assert trace in stored(path)
    assert hashlib.sha256((tmp_path / "looked-at.db").read_bytes()).hexdigest() == before


def test_damaged_while_it_runs(app: HandApp, gateway_starter: Start, tmp_path: Path) -> None:
    """A file that is overwritten under the gateway is left as it is from then on."""
    path = tmp_path / "kept.db"
    gateway = gateway_starter(
        [app.address], store={"path": str(path)}, profile={"join_timeout_ms": 100}
    )
    trace = ask(gateway)
    wait_exchange(gateway, trace, lambda x: x["profile_missing"] == "no_hook")
    os.kill(gateway.collector_pid(), signal.SIGKILL)
    for name in (path, path.with_name("kept.db-wal")):
        if name.exists():
            size = name.stat().st_size
            with name.open("r+b") as file:
                file.write(b"\xff" * size)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    wait_for(lambda: "is damaged" in gateway.log(), 20, "said so")
    ask(gateway)
    time.sleep(1)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_unwritable(app: HandApp, gateway_factory: Start, tmp_path: Path) -> None:
    """No store can be had: said once, counted, and everything else goes on; it is tried again."""
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    path = blocker / "tailrace.db"
    gateway = gateway_factory(
        [app.address], store={"path": str(path)}, profile={"join_timeout_ms": 100}
    )
    for _ in range(3):
        ask(gateway)
    dropped = 'tailrace_store_dropped_total{reason="error"}'
    wait_for(lambda: metrics(gateway)[dropped] >= 3, 10, "drops counted")
    assert gateway.api("/readyz")[0] == 200
    assert gateway.log().count("not opened") == 1
    assert "unable to open database file: Not a directory" in gateway.log()
    blocker.unlink()
    blocker.mkdir()

    def written() -> bool:
        ask(gateway)
        return metrics(gateway)["tailrace_store_exchanges_written_total"] > 0

    wait_for(written, 20, "the store opened after all", every_s=0.5)
    assert gateway.stop() == 0
    assert stored(path)
