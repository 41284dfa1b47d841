"""`tailrace top` on a terminal (a pty, pyte at its end) and in pipes, with a real gateway too."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
import termios
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alert_tools import start_again
from harness import BINARY, AppServer, Gateway
from terminal_tools import Terminal, terminal
from test_cli import TRACE, Control

SHOWN_PROCESSES = [("supervisor", 11525), ("worker", 60), ("worker", 5), ("collector", 11525)]
ESCAPES = re.compile(rb"\x1b\[[0-9;]*m")


def route(number: int, name: str, **more: Any) -> dict[str, Any]:
    """A route as the API tells it."""
    mean = {"wait": 10_000_000 * (number + 1), "head": 1000}
    made = {"id": number, "route": name, "requests": 100, "errors": number, "p50_ns": 1_000_000}
    made |= {"p95_ns": 9_000_000 - number, "p99_ns": 90_000_000, "max_ns": 10**9}
    made |= {"phases_mean_ns": mean, "joined_ratio": 1.0, "state": "ok", "learning": None}
    return made | more


def flame(number: int, name: str, frame: str) -> dict[str, Any]:
    """A route's flame as the API tells it."""
    row = {"kind": "wait", "cause": "socket", "frame": frame, "ns": 8_000_000, "stack": []}
    return {"id": number, "route": name, "requests": 100, "tree": {"ns": 10**7}, "rows": [row]}


def status(**drops: int) -> dict[str, Any]:
    """What the gateway says of itself."""
    processes = [{"role": role, "uptime_s": s} for role, s in SHOWN_PROCESSES]
    lately = {"requests_per_s": 20.06, "joined_ratio": 0.98}
    made = {"version": "0.1.0", "processes": processes, "lately": lately}
    return made | {"drops": drops or {"records_dropped": 0}, "hooks": [{}, {}, {}]}


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """A scripted gateway with three routes."""
    made = Control(str(tmp_path / "c.sock"))
    names = {1: "GET /small", 2: "GET /middle", 3: "GET /large"}
    routes = [route(number, name) for number, name in names.items()]
    routes[2]["state"] = "firing"
    routes[0] |= {"state": "learning", "learning": {"have": 50, "need": 200, "ready_at": None}}
    made.answers["/api/v1/routes"] = [(200, {"routes": routes, "window_s": 300})]
    for number, name in names.items():
        answer = flame(number, name, f"app:frame{number}")
        made.answers[f"/api/v1/routes/{number}/flame"] = [(200, answer)]
    slow = {"trace_id": TRACE, "route": "GET /large", "status": 200, "total_ns": 345_000_000}
    slow |= {"start": "2026-11-23T10:00:00.123456789Z", "has_profile": True}
    made.answers["/api/v1/requests"] = [(200, {"requests": [slow]})]
    made.answers["/api/v1/status"] = [(200, status())]
    yield made
    made.close()


def command(control: Control | Gateway, *more: str) -> list[str]:
    """The command line."""
    address = control.address if isinstance(control, Control) else f"unix:{control.control}"
    return [str(BINARY), "top", "--control", address, *more]


def order(text: str) -> list[str]:
    """The routes on the screen, from the top."""
    return re.findall(r"(?:GET|POST) (/\w+)", text)


def test_routes_by_time_and_the_keys(control: Control) -> None:
    with terminal(command(control), 140) as top:
        text = top.wait(
            lambda text: all(f"app:frame{number}" in text for number in (1, 2, 3)), "all frames"
        )
        assert order(text) == ["/large", "/middle", "/small"]
        assert "44.4%" in text and "80% wait socket app:frame3" in text
        assert "firing" in text and "learning 25%" in text and "3 routes" in text
        top.send("r")
        top.wait(lambda text: order(text) == ["/small", "/middle", "/large"], "reversed")
        top.send("rl")
        top.wait_text("by p95")
        top.wait(lambda text: order(text) == ["/small", "/middle", "/large"], "by p95")
        top.send("e")
        top.wait(lambda text: order(text) == ["/large", "/middle", "/small"], "by errors")
        top.send("/mid")
        top.wait(lambda text: order(text) == ["/middle"], "filtered while it is typed")
        top.send("\r")
        top.wait_text("filter: mid")
        top.send("/\x1b")
        top.wait(lambda text: len(order(text)) == 3, "the filter is gone")
        top.send("w")
        top.wait_text("last 15m")
        top.wait(lambda _: any("window=900s" in path for path in control.asked), "asked so")
        top.send("W")
        top.wait_text("last 5m")
        top.send("?")
        top.wait_text("longer, shorter window")
        top.send("x")
        top.wait(lambda text: len(order(text)) == 3, "back from help")
        top.send("p")
        top.wait_text("PAUSED")
        top.send("p")
        top.wait(lambda text: "PAUSED" not in text, "going on")
        top.send("\x1b[B")
        top.wait_text("> GET /large")
        top.send("j")
        top.wait_text("> GET /middle")
        top.send("k\r")
        text = top.wait_text(TRACE)
        assert "wait socket  app:frame3" in text and "345.0 ms" in text and "slowest" in text
        top.send("\x1b")
        top.wait_text("> GET /large")
        top.send("q")
        assert top.end() == 0
        assert top.is_restored()


def test_the_gateway_tells_of_itself(control: Control) -> None:
    with terminal(command(control), 140) as top:
        told = "0.1.0 up 3h12m  20.1 req/s  joined 98%  2 workers  3 hooks  nothing lost"
        top.wait_text(told)
        control.answers["/api/v1/status"] = [(200, status(queries_refused=2, store_dropped_full=7))]
        top.wait_text("9 lost  (most: store_dropped_full)  0.1.0 up 3h12m")
        control.answers["/api/v1/status"] = [(500, {})]
        time.sleep(1.5)
        assert "9 lost" in top.text()  # the last that is known
        top.send("q")
        assert top.end() == 0
    control.answers["/api/v1/status"] = [(200, status())]
    done = run_piped(control)
    assert told in done.stdout
    told_json = json.loads(run_piped(control, "--json").stdout)["gateway"]
    assert told_json.pop("requests_per_s") == pytest.approx(20.06)
    assert told_json.pop("joined_ratio") == pytest.approx(0.98)
    numbers = {"uptime_s": 11525, "drops": 0, "workers": 2, "hook_processes": 3}
    assert told_json == {"version": "0.1.0", **numbers}


def test_a_route_that_never_answers_starves_no_other(control: Control) -> None:
    control.answers["/api/v1/routes/3/flame"] = [(503, {"error": {}})]
    with terminal(command(control), 140) as top:
        top.wait(lambda text: "app:frame1" in text and "app:frame2" in text, "the others")
        asked = [path for path in control.asked if "/flame" in path]
        assert "/routes/3/" in asked[0]  # it came first
        top.send("q")
        assert top.end() == 0


def test_the_selected_route_stays_where_the_order_changes(control: Control) -> None:
    with terminal(command(control)) as top:
        top.wait_text("GET /large")
        top.send("\x1b[B\x1b[B")
        top.wait_text("> GET /middle")
        routes = [route(1, "GET /small"), route(2, "GET /middle"), route(3, "GET /large")]
        routes[1]["phases_mean_ns"] = {"wait": 900_000_000}
        control.answers["/api/v1/routes"] = [(200, {"routes": routes, "window_s": 300})]
        top.wait(lambda text: order(text)[:1] == ["/middle"], "the order changed")
        assert "> GET /middle" in top.text()


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_every_width_is_kept(control: Control, columns: int) -> None:
    with terminal(command(control), 100, 12) as top:
        top.wait_text("GET /large")
        top.resize(columns, 9)
        os.kill(top.process.pid, signal.SIGWINCH)
        top.raw.clear()
        text = top.wait(lambda text: "GET /large" in text and b"\x1b[J" in top.raw, "drawn anew")
        drawn = ESCAPES.sub(b"", bytes(top.raw)).split(b"\x1b[H")[-1].decode()
        lines = re.sub(r"\x1b\[[KJ]|\r", "", drawn).split("\n")
        assert len(lines) == 9 and max(map(len, lines)) <= columns, text
        assert ("ERRORS" in text) == (columns >= 58)
        assert ("MOSTLY" in text) == (columns >= 80)
        assert ("STATE" in text) == (columns >= 88)
        assert ("! GET /large" in text) == (columns < 88)
        assert "REQ/S" in text and "TIME" in text
        top.send("q")
        assert top.end() == 0


def test_colours_and_other_locales(control: Control) -> None:
    with terminal(command(control), 140, env={"NO_COLOR": "1", "LC_ALL": "C"}) as top:
        top.wait_text("app:frame3")
        assert not ESCAPES.search(bytes(top.raw).replace(b"\x1b[0m", b""))
        assert top.text().isascii() and "###" in top.text()
        top.send("q")
        assert top.end() == 0
    with terminal(command(control), 140) as top:
        top.wait_text("firing")
        assert b"\x1b[31mfiring" in top.raw
        top.send("q")
        assert top.end() == 0


def test_nothing_from_outside_drives_the_terminal(control: Control) -> None:
    bad = "GET /\x1b[2J\x1b]0;x\x07\u202e\u009b31m"
    wide = "GET /" + "漢字" * 40 + "e\u0301" * 20
    routes = [route(1, bad), route(2, wide)]
    control.answers["/api/v1/routes"] = [(200, {"routes": routes, "window_s": 300})]
    control.answers["/api/v1/routes/1/flame"] = [(200, flame(1, bad, "app:\x1b[31mf\x07"))]
    with terminal(command(control), 200) as top:
        text = top.wait(lambda text: "app:\\x1b[31mf\\x07" in text and "漢" in text, "escaped")
        assert "GET /\\x1b[2J\\x1b]0;x\\x07\\xe2\\x80\\xae\\xc2\\x9b31m" in text
        assert b"\x07" not in top.raw and b"\x1b]" not in top.raw
        assert bytes(top.raw).count(b"\x1b[2J") == 1  # our own, at the beginning
        top.resize(60, 24)
        os.kill(top.process.pid, signal.SIGWINCH)
        top.wait(lambda text: re.search("漢.*…", text), "cut at a whole character")
        top.send("q")
        assert top.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGSEGV])
def test_signals_give_the_terminal_back(control: Control, number: int) -> None:
    with terminal(command(control), env={"ASAN_OPTIONS": "handle_segv=0"}) as top:
        top.wait_text("GET /large")
        if number == signal.SIGINT:
            top.send("\x03")
        else:
            os.kill(top.process.pid, number)
        assert top.end() == -number
        assert top.is_restored()


def test_a_stop_and_a_terminal_that_goes(control: Control) -> None:
    with terminal(command(control)) as top:
        top.wait_text("GET /large")
        os.kill(top.process.pid, signal.SIGTSTP)
        top.wait(lambda _: top.is_restored(), "given back while it is stopped")
        os.kill(top.process.pid, signal.SIGCONT)
        top.wait(lambda _: not top.is_restored(), "taken again")
        top.wait_text("GET /large")
        os.kill(top.process.pid, signal.SIGHUP)
        assert top.end() == -signal.SIGHUP


def test_behind_a_shell_the_terminal_is_left_alone(control: Control) -> None:
    """As by ``tailrace top &``: it stops before it takes the terminal, and goes on in front."""
    quoted = shlex.join(command(control))
    script = f"set -m; {quoted} & sleep 1; jobs; read go; fg >/dev/null; echo status $?"
    with terminal(["bash", "-c", script]) as shell:
        shell.wait_text("Stopped")
        assert termios.tcgetattr(shell.slave) == shell.before
        assert b"\x1b[?1049h" not in shell.raw
        shell.send("\n")
        shell.wait_text("GET /large")
        shell.send("q")
        shell.wait_text("status 0")
        assert shell.end() == 0
        assert shell.is_restored()


def run_piped(control: Control, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Without a terminal."""
    return subprocess.run(
        command(control, *more),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=30,
        env={**os.environ, "LC_ALL": "C.UTF-8", **env},
    )


def test_one_plain_frame_where_there_is_no_terminal(control: Control) -> None:
    done = run_piped(control)
    assert (done.returncode, done.stderr) == (0, "")
    assert order(done.stdout) == ["/large", "/middle", "/small"]
    assert "\x1b" not in done.stdout and "app:frame1" not in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    done = run_piped(control, "--json", "--sort", "errors", "--reverse", "--filter", "M")
    rows = json.loads(done.stdout)["routes"]
    assert [row["route"] for row in rows] == ["GET /small", "GET /middle"]
    assert rows[1]["time_share"] == pytest.approx(1 / 3, abs=0.01)
    assert rows[1]["main"] == "80% wait socket app:frame2"
    for more, env in ((("--once",), {}), ((), {"TERM": "dumb"})):
        with terminal(command(control, *more), 140, env=env) as top:
            assert top.end() == 0
            assert b"\x1b[?1049h" not in top.raw
            assert "GET /large" in top.text()


def test_long_names_are_whole(control: Control) -> None:
    name, frame = "GET /" + "ü" * 250, "app:" + "ü" * 400
    control.answers["/api/v1/routes"] = [(200, {"routes": [route(1, name)], "window_s": 300})]
    for more in ("", "x"):  # a character begins at an even place, and at an odd one
        control.answers["/api/v1/routes/1/flame"] = [(200, flame(1, name, more + frame))]
        done = run_piped(control, "--json")
        (row,) = json.loads(done.stdout)["routes"]
        assert row["route"] == name
        assert f"80% wait socket {more}{frame}".startswith(row["main"])
        assert len(row["main"].encode()) > 500


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (["--window", "1w"], 2),
        (["--window", "32d"], 2),
        (["--sort", "name"], 2),
        (["extra"], 2),
        (["--control", "unix:/none"], 1),
    ],
)
def test_wrong_usage_and_no_gateway(control: Control, more: list[str], status: int) -> None:
    done = run_piped(control, *more)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("tailrace: ")


@pytest.fixture
def sockets() -> Iterator[str]:
    """A folder for the control socket, which outlives a restart."""
    with tempfile.TemporaryDirectory(prefix="tailrace-") as path:
        yield path


class Asking:
    """Requests to a path, some a second."""

    def __init__(self, gateway: Gateway, path: str, rate: float) -> None:
        self.url, self.pace, self.stopped = gateway.base + path, rate, threading.Event()
        self.answered, self.began = 0, time.monotonic()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        """Until stop()."""
        while not self.stopped.wait(1 / self.pace):
            try:
                with urllib.request.urlopen(self.url, timeout=5) as answer:
                    answer.read()
                self.answered += 1
            except OSError:
                continue

    def rate(self) -> float:
        """Answers a second since the begin."""
        return self.answered / (time.monotonic() - self.began)

    def stop(self) -> None:
        """No more."""
        self.stopped.set()
        self.thread.join(10)


def rate_of(top: Terminal, path: str) -> float:
    """A route's requests/s on the screen; 0 where it is not there."""
    found = re.search(rf"GET {path}\s+(\d+\.\d)", top.text())
    return float(found[1]) if found else 0.0


def test_a_real_gateway_that_is_started_anew(
    gateway_factory: Callable[..., Gateway],
    uvicorn_factory: Callable[..., AppServer],
    sockets: str,
) -> None:
    app = uvicorn_factory("alert_app:app", control=f"{sockets}/control.sock")
    gateway = gateway_factory(
        [app.address],
        control={"listeners": [{"address": f"unix:{sockets}/control.sock"}]},
        profile={"join_timeout_ms": 1000},
    )
    asking = [Asking(gateway, "/await", 20), Asking(gateway, "/loop", 5)]
    try:
        with terminal(command(gateway), 160) as top:
            top.wait_text("wait sleep alert_app:fetch_user", 30)
            top.wait(
                lambda _: abs(rate_of(top, "/await") / asking[0].rate() - 1) < 0.25,
                f"a rate near {asking[0].rate()}/s",
            )
            assert gateway.stop() == 0
            top.wait_text("no gateway answers at unix:")
            assert "GET /await" in top.text()
            again = start_again(gateway)
            try:
                top.wait(lambda text: "no gateway answers" not in text, "it is back", 20)
                top.wait(lambda _: rate_of(top, "/await") > 3, "and counts", 30)
            finally:
                again.stop()
            top.send("q")
            assert top.end() == 0 and top.is_restored()
    finally:
        for one in asking:
            one.stop()
