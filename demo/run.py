"""Starts gateway and demo app, requests /async and /sync, prints and checks both waterfalls.

Exit status 0 when everything a waterfall claims agrees with what the app measured itself.
``KEEP=1`` in the environment leaves both running until Ctrl-C.
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
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from replay import printed

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "demo"
BINARY = ROOT / "build" / "tailrace"
START_S = 20.0
STOP_S = 10.0
SOCKET_PATH_MAX = 100  # the kernel takes 107 bytes
WAIT_MIN_NS = 99_000_000
TOLERANCE = 0.01  # of what the app measured round its own sleeps
ATTEMPTS = 3
UNATTRIBUTED_MAX = 0.02  # of the app's part


class DemoError(Exception):
    """Something did not hold; the text says what."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=2)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(2)
        self.sock.connect(self._path)


def free_port() -> int:
    """Return a port nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def is_ready(control: str, app_port: int) -> bool:
    """Return whether gateway and app both serve."""
    try:
        with socket.create_connection(("127.0.0.1", app_port), timeout=1):
            pass
        connection = UnixConnection(control)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
        connection.close()
    except OSError:
        return False
    return status == 200


@contextlib.contextmanager
def running(
    name: str, command: list[str], env: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with its output in build/demo/NAME.log; stop it at the end."""
    with (FOLDER / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=env, cwd=ROOT, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def show_log(name: str) -> None:
    """Print the end of a program's log."""
    text = (FOLDER / f"{name}.log").read_text(errors="replace")
    print(f"--- end of build/demo/{name}.log\n{text[-3000:]}", file=sys.stderr)


def request(url: str) -> tuple[str, Any]:
    """Curl `url`, print what came, return the trace ID and the JSON body."""
    print(f"$ curl -i {url}")
    done = subprocess.run(
        ["curl", "-sS", "-i", "--max-time", "20", url], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise DemoError(f"curl {url}: {done.stderr.strip()}")
    head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
    status, *lines = head.splitlines()
    headers = dict(line.lower().split(": ", 1) for line in lines)
    print(status)
    print("\n".join(line for line in lines if line.lower().startswith("x-trace-id")))
    print(f"\n{body}\n")
    if " 200 " not in status or "x-trace-id" not in headers:
        raise DemoError(f"{url}: no 200 with a trace ID")
    return headers["x-trace-id"], json.loads(body)


def show(trace: str, control: str) -> dict[str, Any]:
    """Print the waterfall of a trace as `tailrace show` draws it and return its JSON."""
    shown = os.path.relpath(control, ROOT) if control.startswith(str(ROOT)) else control
    command = [str(BINARY), "show", trace, "--control", f"unix:{control}"]
    print(f"$ build/tailrace show {trace} --control unix:{shown}", flush=True)
    if subprocess.run(command).returncode != 0:
        raise DemoError("tailrace show failed")
    print(flush=True)
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, check=True)
    exchange: dict[str, Any] = json.loads(done.stdout)
    return exchange


def save(exchange: dict[str, Any], name: str) -> None:
    """Write a waterfall and its JSON where $SAMPLES says (`make samples`)."""
    folder = os.environ.get("SAMPLES")
    if folder is None:
        return
    text = printed({"request": exchange}, "show", exchange["trace_id"])
    files = {"json": json.dumps(exchange, indent=1, ensure_ascii=False) + "\n", "txt": text}
    for ending, content in files.items():
        path = ROOT / folder / f"{name}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        command = [sys.executable, "scripts/check_docs.py", "--by", "make samples", "--made"]
        subprocess.run([*command, str(path.relative_to(ROOT))], check=True, cwd=ROOT)


def warm_up(base: str) -> None:
    """Request both routes once: a first request also pays for imports and cold code."""
    for path in ("/async", "/sync"):
        subprocess.run(["curl", "-sS", "-o", "/dev/null", "--max-time", "20", base + path])
    print("(each route was requested once before, so that no import is measured)\n")


def own_frames(row: dict[str, Any]) -> list[str]:
    """Return the app's own functions on a row's stack, outermost first."""
    return [frame["function"] for frame in row["stack"] if frame["in_app"]]


def check(condition: bool, claim: str) -> None:
    """Print a claim that holds; raise DemoError for one that does not."""
    if not condition:
        raise DemoError(f"does not hold: {claim}")
    print(f"  ok  {claim}")


def ms(ns: float) -> str:
    """Return nanoseconds as milliseconds for people."""
    return f"{ns / 1e6:.2f} ms"


def check_sums(exchange: dict[str, Any]) -> dict[str, Any]:
    """Check what holds for every request; return its profile."""
    phases = sum(phase["ns"] for phase in exchange["phases"])
    total = exchange["total_ns"]
    check(phases == total, f"the twelve phases sum to the total, {total} ns")
    profile: dict[str, Any] | None = exchange["profile"]
    if profile is None:
        raise DemoError(f"no profile: {exchange.get('profile_missing')}")
    app, rest = profile["app_ns"], profile["unattributed_ns"]
    rows = sum(row["ns"] for row in profile["breakdown"])
    check(rows + rest == app, f"the rows and what is unattributed sum to app, {app} ns")
    check(rest <= UNATTRIBUTED_MAX * app, f"unattributed, {ms(rest)}, is at most 2 % of {ms(app)}")
    return profile


def check_async(exchange: dict[str, Any], slept_ns: dict[str, int]) -> None:
    """Check that both functions' waits are there, exact, and as long as the app says."""
    profile = check_sums(exchange)
    waits: dict[str, int] = {}
    for row in profile["breakdown"]:
        frames = own_frames(row)
        if row["kind"] == "wait" and row["cause"] == "sleep" and frames:
            waits[frames[-1]] = waits.get(frames[-1], 0) + row["ns"]
            if frames[-1] == "async_child_function":
                check("async_parent_function" in frames[:-1], "the child is under its parent")
    # The app's clock goes on while its step ends, while it is due and until it reads the clock:
    # that is `run` and `ready`, not wait, and on a busy machine it is more than TOLERANCE.
    beside = sum(row["ns"] for row in profile["breakdown"] if row["kind"] in ("run", "ready"))
    for name, measured in slept_ns.items():
        wait = waits.get(name, 0)
        slack = TOLERANCE * measured
        check(
            wait >= WAIT_MIN_NS and -slack <= measured - wait <= max(slack, beside),
            f"{name} waited {ms(wait)}; the app itself measured {ms(measured)}",
        )


def check_sync(exchange: dict[str, Any], slept_ns: dict[str, int]) -> None:
    """Check that the thread's run names both functions and lasts as long as the app says."""
    profile = check_sums(exchange)
    rows = [row for row in profile["breakdown"] if row["kind"] == "thread_run"]
    ran = sum(row["ns"] for row in rows)
    measured = sum(slept_ns.values())
    names = {name for row in rows for name in own_frames(row)}
    for name in slept_ns:
        check(name in names, f"the thread run names {name}")
    check(
        measured <= ran <= measured * (1 + TOLERANCE) + 5_000_000,
        f"the thread ran {ms(ran)}; the app itself measured {ms(measured)}",
    )


def show_checked(
    base: str, path: str, control: str, checker: Callable[[dict[str, Any], dict[str, int]], None]
) -> str:
    """Request, show and check one route; return the trace.

    On a machine that is busy with other things the app's own clock sees pauses that are no waits,
    so a request that misses the bounds is said and the next one gets a chance.
    """
    for left in reversed(range(ATTEMPTS)):
        trace, body = request(base + path)
        exchange = show(trace, control)
        try:
            checker(exchange, body["slept_ns"])
        except DemoError as error:
            if left == 0:
                raise
            print(f"  --  {error}; once more\n")
        else:
            save(exchange, path.strip("/"))
            break
    print()
    return trace


def keep(base: str) -> None:
    """Wait for Ctrl-C."""
    print(f"running: {base}/async /sync /gather /block /db; Ctrl-C ends it", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    print()


def make_config(control: str, port: int, app_port: int) -> Path:
    """Write the gateway's configuration and return its path."""
    path = FOLDER / "tailrace.json"
    config = {
        "listeners": [{"address": f"127.0.0.1:{port}"}],
        "upstreams": {"app": {"servers": [f"127.0.0.1:{app_port}"]}},
        "control": {"listeners": [{"address": f"unix:{control}", "role": "admin"}]},
        "store": {"path": str(FOLDER / "tailrace.db")},
    }
    path.write_text(json.dumps(config, indent=2) + "\n")
    return path


@contextlib.contextmanager
def serving(control: str) -> Iterator[str]:
    """Run gateway and demo app; their address for requests, once both serve. DemoError."""
    port, app_port = free_port(), free_port()
    config = make_config(control, port, app_port)
    env = {k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")}
    gateway = [str(BINARY), "run", "-c", str(config)]
    app = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", "demo", "--loop", "uvloop"]
    app += ["--http", "httptools", "--port", str(app_port), "--no-access-log"]
    app_env = {**env, "TAILRACE_CALLBACK": f"unix:{control}"}
    with running("gateway", gateway, env) as one, running("app", app, app_env) as two:
        end = time.monotonic() + START_S
        while not is_ready(control, app_port):
            if time.monotonic() > end or one.poll() is not None or two.poll() is not None:
                show_log("gateway")
                show_log("app")
                raise DemoError("gateway and app did not start")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"


def demonstrate(control: str) -> None:
    """Run the whole demo once."""
    with serving(control) as base:
        warm_up(base)
        show_checked(base, "/async", control, check_async)
        trace = show_checked(base, "/sync", control, check_sync)
        store = os.path.relpath(FOLDER / "tailrace.db", ROOT)
        print(f"stored in    {store}  (SQLite)")
        print(f"control API  unix:{control}")
        print(f"             curl --unix-socket {control} http://localhost/api/v1/requests/{trace}")
        if os.environ.get("KEEP") == "1":
            keep(base)


def main() -> int:
    """Prepare build/demo/ and run the demo."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    FOLDER.mkdir(parents=True, exist_ok=True)
    control = FOLDER / "control.sock"
    elsewhere: str | None = None
    if len(str(control)) > SOCKET_PATH_MAX:
        elsewhere = tempfile.mkdtemp(prefix="tailrace-demo-")
        control = Path(elsewhere) / "control.sock"
    try:
        demonstrate(str(control))
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    finally:
        if elsewhere is not None:
            shutil.rmtree(elsewhere, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
