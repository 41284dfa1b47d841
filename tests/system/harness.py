"""Starts the real gateway, real uvicorn and scripted servers for tests, and stops what it started.

Times are seconds (`_s`), ports are free ones of loopback. Every program runs in a process group
of its own, so that nothing outlives a test whatever happens in it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "build" / "tools" / "usr" / "bin"  # of Debian packages, unpacked by scripts/deps
BINARY = Path(os.environ.get("TAILRACE_BIN", ROOT / "build" / "tailrace"))
APPS = Path(__file__).resolve().parent / "apps"
START_TIMEOUT_S = 30.0
#: Section `worker` of tests in which one connection to the app serves several of clients: each
#: thread has idle ones of its own, so TEST_THREADS does not count there.
ONE_THREAD = {"threads": 1}
_T = TypeVar("_T")


_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listened on a moment ago, each only once."""
    while True:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


def wait_for(
    what: Callable[[], _T | None], timeout_s: float, message: str, every_s: float = 0.02
) -> _T:
    """Return the first true answer of `what`; AssertionError after timeout_s."""
    end = time.monotonic() + timeout_s
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {message}")
        time.sleep(every_s)


def processes() -> Iterator[tuple[int, int, int, str]]:
    """Yield (pid, parent, process group, command line) of every process that is no zombie."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text()
            command = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
        fields = stat.rpartition(")")[2].split()
        if fields[0] not in "ZX":
            text = command.replace(b"\0", b" ").decode(errors="replace").strip()
            yield int(entry), int(fields[1]), int(fields[2]), text


def group_members(group: int) -> list[int]:
    """Return the live processes of a process group."""
    return [pid for pid, _, pgrp, _ in processes() if pgrp == group]


class UnixHTTPConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float = 10) -> None:
        """Connect to `path` at the first request; each socket operation may take timeout_s."""
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect the Unix socket. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Program:
    """A started program: its process, its own process group and its log."""

    def __init__(
        self,
        command: Sequence[str],
        log_path: Path,
        env: Mapping[str, str],
        cwd: Path | None = None,
    ) -> None:
        """Start `command` with both outputs in log_path."""
        self.log_path = log_path
        with log_path.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )

    def log(self) -> str:
        """Return all that the program wrote to its outputs so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def kill(self) -> None:
        """End the whole process group at once; safe to call again."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def terminate(self, timeout_s: float) -> int:
        """Send SIGTERM to the process and return its exit status; kills it after timeout_s."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"still there {timeout_s} s after SIGTERM:\n{self.log()}"
            ) from None
        finally:
            self.kill()


class Gateway(Program):
    """A running `tailrace run -c FILE`."""

    def __init__(
        self,
        directory: Path,
        config: dict[str, Any],
        port: int,
        env: Mapping[str, str],
        sockets: Path,
    ) -> None:
        """Write the configuration and start the program; wait_ready() tells when it serves."""
        directory.mkdir(parents=True, exist_ok=True)
        self.port = port
        self.base = f"http://127.0.0.1:{port}"
        self.config = config
        self.config_path = directory / "tailrace.json"
        self.config_path.write_text(json.dumps(config, indent=2))
        self.store = Path(config["store"]["path"])
        self.control = str(config["control"]["listeners"][0]["address"]).removeprefix("unix:")
        self._sockets = sockets
        super().__init__(
            [str(BINARY), "run", "-c", str(self.config_path)], directory / "tailrace.log", env
        )

    def wait_ready(self) -> None:
        """Return when every child serves. AssertionError with the log where it ends instead."""

        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(
                    f"gateway ended with status {self.process.returncode}:\n{self.log()}"
                )
            return " ready: " in self.log()

        wait_for(ready, START_TIMEOUT_S, "gateway ready")

    def api(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask over the control socket: (status, headers with lower-case names, body). OSError."""
        connection = UnixHTTPConnection(self.control)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return response.status, fields, response.read()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        """Return the JSON of a GET over the control socket, which must answer 200."""
        status, _, body = self.api(path)
        assert status == 200, f"{path}: {status} {body!r}"
        return json.loads(body)

    def wait_profile(self, trace_id: str, timeout_s: float = 15) -> dict[str, Any]:
        """Return the exchange of that trace once its profile has been joined to it."""
        last: list[Any] = [None]

        def joined() -> dict[str, Any] | None:
            status, _, body = self.api(f"/api/v1/requests/{trace_id}")
            last[0] = (status, body)
            if status != 200:
                return None
            exchange: dict[str, Any] = json.loads(body)
            return exchange if exchange["profile"] is not None else None

        try:
            return wait_for(joined, timeout_s, f"profile of {trace_id}", every_s=0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}; last answer {last[0]}") from None

    def _children(self, title: str) -> list[int]:
        me = self.process.pid
        return sorted(
            pid for pid, parent, _, text in processes() if parent == me and text.startswith(title)
        )

    def worker_pids(self) -> list[int]:
        """Return the live workers, oldest first (by process ID)."""
        return self._children("tailrace: worker")

    def collector_pid(self) -> int:
        """Return the collector's process ID; AssertionError where there is not exactly one."""
        pids = self._children("tailrace: collector")
        assert len(pids) == 1, f"collectors: {pids}"
        return pids[0]

    def stop(self, timeout_s: float = 40) -> int:
        """Send SIGTERM and return the exit status."""
        try:
            return self.terminate(timeout_s)
        finally:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def kill(self) -> None:
        """End the gateway and all its children at once."""
        super().kill()


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without anything of tailrace's, plus `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
    return {**kept, **(extra or {})}


def make_config(
    directory: Path, sockets: Path, port: int, servers: list[str], sections: dict[str, Any]
) -> dict[str, Any]:
    """Return a configuration for one listener and one upstream `app`, with sections merged in."""
    config: dict[str, Any] = {
        "listeners": [{"address": f"127.0.0.1:{port}", **sections.pop("listener", {})}],
        "upstreams": {"app": {"servers": servers, **sections.pop("upstream", {})}},
        "control": {"listeners": [{"address": f"unix:{sockets}/control.sock", "role": "admin"}]},
        "store": {"path": str(directory / "tailrace.db")},
        "worker": {
            "threads": int(os.environ.get("TEST_THREADS", "1")),
            "shutdown_timeout_ms": 3000,  # idle connections hold the end up so long
        },
    }
    for name, value in sections.items():
        if isinstance(value, dict):
            config.setdefault(name, {}).update(value)
        else:
            config[name] = value
    return config


def _new_gateway(
    tmp_path: Path, servers: list[str], env: Mapping[str, str] | None, sections: dict[str, Any]
) -> Gateway:
    # A Unix socket's path may have 107 bytes, which pytest's folders can exceed.
    sockets = Path(tempfile.mkdtemp(prefix="tailrace-"))
    directory = tmp_path
    number = 1
    while (directory / "tailrace.json").exists():
        number += 1
        directory = tmp_path / f"gateway{number}"
    port = free_port()
    config = make_config(directory, sockets, port, servers, dict(sections))
    return Gateway(directory, config, port, clean_env(env), sockets)


def start_gateway(
    tmp_path: Path, servers: list[str], *, env: Mapping[str, str] | None = None, **sections: Any
) -> Gateway:
    """Start a gateway in front of `servers` and wait until it serves.

    `sections` are merged into the configuration's sections of the same name; `listener={…}` are
    keys of the listener, `upstream={…}` keys of the upstream `app`; `env` adds to the environment.
    AssertionError with the log where it does not come up.
    """
    for attempt in (1, 2, 3):
        gateway = _new_gateway(tmp_path, servers, env, sections)
        try:
            gateway.wait_ready()
            return gateway
        except BaseException:
            gateway.kill()
            gateway.stop()
            # Another test may have been given the same free port in the meantime.
            clash = f"127.0.0.1:{gateway.port}: cannot bind: Address already in use"
            if attempt == 3 or clash not in gateway.log():
                raise
    raise AssertionError("unreachable")


class AppServer(Program):
    """A running uvicorn; `address` suits a gateway's `servers`, `port` is 0 on a Unix socket."""

    port: int
    address: str
    _directory: Path | None = None

    def stop(self, timeout_s: float = 20) -> int:
        """Send SIGTERM and return the exit status."""
        try:
            return self.terminate(timeout_s)
        finally:
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)

    def wait_ready(self) -> None:
        """Return when it accepts connections. AssertionError with the log where it ends."""

        def accepts() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"uvicorn ended:\n{self.log()}")
            family = socket.AF_INET if self.port else socket.AF_UNIX
            with socket.socket(family) as sock:
                target: Any = ("127.0.0.1", self.port) if self.port else self.address[5:]
                return sock.connect_ex(target) == 0

        wait_for(accepts, START_TIMEOUT_S, "uvicorn accepting")


def start_uvicorn(
    tmp_path: Path,
    app: str,
    *,
    app_dir: Path | str = APPS,
    loop: str = "uvloop",
    http: str = "httptools",
    control: str | None = None,
    workers: int = 1,
    uds: bool = False,
    env: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
) -> AppServer:
    """Start `uvicorn APP` and wait until it accepts; `control` is the socket the hook posts to."""
    port = 0 if uds else free_port()
    directory = Path(tempfile.mkdtemp(prefix="tailrace-app-")) if uds else None
    address = f"unix:{directory}/app.sock" if uds else f"127.0.0.1:{port}"
    where = ["--uds", address[5:]] if uds else ["--host", "127.0.0.1", "--port", str(port)]
    extra = {"PYTHONUNBUFFERED": "1", **(env or {})}
    if control is not None:
        extra["TAILRACE_CALLBACK"] = f"unix:{control}"
    number = len(list(tmp_path.glob("uvicorn*.log"))) + 1
    command = [sys.executable, "-m", "uvicorn", app, "--app-dir", str(app_dir), *where]
    command += ["--loop", loop, "--http", http, "--workers", str(workers), "--no-access-log", *args]
    server = AppServer(command, tmp_path / f"uvicorn{number}.log", clean_env(extra))
    server.port, server.address, server._directory = port, address, directory
    try:
        server.wait_ready()
    except BaseException:
        server.kill()
        raise
    return server


class StubServer:
    """A scripted raw TCP server: `handler(conn, index)` runs in a thread per connection.

    A connection is closed when its handler returns. What a handler raises, connection errors apart,
    is raised again by stop(), so that an assertion inside it fails its test.
    """

    def __init__(self, handler: Callable[[socket.socket, int], None]) -> None:
        """Listen on a free port and serve until stop()."""
        self._handler = handler
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = int(self._listener.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self.accepted = 0
        self.errors: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopping = False
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                index, self.accepted = self.accepted, self.accepted + 1
                self._open.add(conn)
            thread = threading.Thread(target=self._serve, args=(conn, index), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, conn: socket.socket, index: int) -> None:
        try:
            self._handler(conn, index)
        except (ConnectionError, TimeoutError):
            pass
        except BaseException as error:
            if not self._stopping:
                self.errors.append(error)
        finally:
            with self._lock:
                self._open.discard(conn)
            conn.close()

    def stop(self) -> None:
        """Close everything and raise what a handler raised."""
        self._stopping = True
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(5)
        for thread in self._threads:
            thread.join(5)
        if self.errors:
            raise self.errors[0]


def start_stub(handler: Callable[[socket.socket, int], None]) -> StubServer:
    """Start a scripted server."""
    return StubServer(handler)


def raw_exchange(port: int, data: bytes, timeout_s: float = 5, half_close: bool = False) -> bytes:
    """Send `data` to a port of loopback and return all that comes until EOF or a reset.

    With half_close the sending side is shut down after `data`. AssertionError where no EOF comes
    for timeout_s.
    """
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout_s) as sock:
        try:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            while chunk := sock.recv(65536):
                received += chunk
        except ConnectionError:
            pass
        except TimeoutError:
            raise AssertionError(f"no EOF within {timeout_s} s after {bytes(received)!r}") from None
    return bytes(received)
