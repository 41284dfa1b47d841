"""The client commands against a scripted control listener: what they print, ask and end with."""

from __future__ import annotations

import fcntl
import http.server
import json
import os
import pty
import socketserver
import struct
import subprocess
import termios
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import BINARY

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def frame(module: str, function: str, file: str, line: int, in_app: bool) -> dict[str, Any]:
    return {"module": module, "function": function, "file": file, "line": line, "in_app": in_app}


LIBRARY = [frame("uvicorn.protocols", "run_asgi", "uvicorn/protocols.py", 1, False)]
SLEEP = frame("asyncio.tasks", "sleep", "asyncio/tasks.py", 593, False)


def own(function: str, line: int) -> dict[str, Any]:
    return frame("app", function, "app.py", line, True)


def row(kind: str, cause: str | None, ns: int, count: int, stack: list[Any], **more: Any) -> Any:
    fields = {"exact": True, "samples": 0, "by": None, "stack": stack}
    return {"kind": kind, "cause": cause, "ns": ns, "count": count, **fields, **more}


def make_exchange() -> dict[str, Any]:
    phases = {"head": 12100, "admit": 3400, "queue": 0, "retry": 0, "connect": 154000}
    phases |= {"dispatch": 9000, "send": 41000, "wait": 204000000, "reply_head": 21000}
    phases |= {"reply": 9300, "stream": 15000, "drain": 0}
    root = [*LIBRARY, own("async_root", 58)]
    parent = [*root, own("parent", 22), SLEEP]
    child = [*root, own("parent", 24), own("child", 31), SLEEP]
    breakdown = [
        row("wait", "sleep", 101_250_000, 10, parent),
        row("wait", "sleep", 101_260_000, 10, child),
        row("run", None, 900_000, 22, root),
        row("ready", None, 80_000, 21, []),
    ]
    app = sum(r["ns"] for r in breakdown) + 20_000
    outside = phases["send"] + phases["wait"]
    stall = {"trace_id": "a" * 32, "route": "GET /block", "kind": "step", "state": "blocked"}
    stall |= {"ns": 12_000_000, "exact": True, "stack": [own("block", 77)]}
    profile = {
        "engine": "steps",
        "python": "3.11.7",
        "loop": "uvloop",
        "pid": 4242,
        "app_queue_ns": 93_000,
        "app_ns": app,
        "app_out_ns": outside - app - 93_000,
        "app_stream_ns": 0,
        "app_tail_ns": None,
        "truncated": False,
        "breakdown": breakdown,
        "unattributed_ns": 20_000,
        "stream_breakdown": [],
        "stream_unattributed_ns": 0,
        "stalls": [stall],
    }
    return {
        "trace_id": TRACE,
        "route": "GET /async",
        "method": "GET",
        "path": "/async?q=1",
        "status": 200,
        "start": "2026-11-23T10:00:00.123456789Z",
        "total_ns": sum(phases.values()),
        "died_in": None,
        "cause": None,
        "phases": [{"name": k, "ns": v} for k, v in phases.items()],
        "connection": {
            "client": "127.0.0.1:50000",
            "server": "127.0.0.1:8000",
            "server_reused": True,
            "attempts": 1,
        },
        "profile": profile,
    }


class Control:
    """Answers GETs from `answers`: path → list of (status, body), the last one repeated."""

    def __init__(self, path: str | None) -> None:
        control = self
        self.answers: dict[str, list[tuple[int, Any]]] = {}
        self.asked: list[str] = []
        self.tokens: list[str | None] = []
        self.pieces = 1  # of an answer, with pauses before each

        class Handler(http.server.BaseHTTPRequestHandler):
            def address_string(self) -> str:
                return "client"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                control.asked.append(self.path)
                control.tokens.append(self.headers["Authorization"])
                answers = control.answers.get(self.path.partition("?")[0], [])
                missing = (404, {"error": {"code": "not_found", "message": "no such thing"}})
                status, body = answers[0] if answers else missing
                if len(answers) > 1:
                    answers.pop(0)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data) + getattr(control, "lie", 0)))
                self.end_headers()
                pieces = control.pieces
                for i in range(pieces):
                    time.sleep(0.12 if pieces > 1 else 0)
                    self.wfile.write(data[i * len(data) // pieces : (i + 1) * len(data) // pieces])

        class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        if path is None:
            tcp = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            self.address = f"127.0.0.1:{tcp.server_address[1]}"
            self.server: socketserver.BaseServer = tcp
        else:
            self.server = Unix(path, Handler)
            self.address = "unix:" + path
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control(str(tmp_path / "c.sock"))
    yield made
    made.close()


def run(
    control: Control | str, *args: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    address = control if isinstance(control, str) else control.address
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TAILRACE_CONTROL")}
    return subprocess.run(
        [BINARY, *args, "--control", address],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=30,
        env={**clean, "LC_ALL": "C.UTF-8", **(env or {})},
    )


def run_on_terminal(columns: int, env: dict[str, str], *args: str) -> str:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    clean = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    process = subprocess.Popen(
        [BINARY, *args],
        stdout=slave,
        stderr=slave,
        env={**clean, "LC_ALL": "C.UTF-8", "TERM": "xterm", **env},
    )
    os.close(slave)
    data = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        data += part
    os.close(master)
    assert process.wait(10) == 0
    return data.decode().replace("\r\n", "\n")


def serve(control: Control, exchange: dict[str, Any]) -> None:
    control.answers[f"/api/v1/requests/{TRACE}"] = [(200, exchange)]


def line_with(text: str, start: str) -> str:
    found = [line for line in text.splitlines() if line.strip().startswith(start)]
    assert found, f"no line begins with {start!r} in:\n{text}"
    return found[0]


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def test_show_draws_phases_and_the_apps_part(control: Control) -> None:
    serve(control, make_exchange())
    done = run(control, "show", TRACE)
    assert (done.returncode, done.stderr) == (0, "")
    out = done.stdout
    title = out.splitlines()[0]
    assert title.startswith("GET /async?q=1  200  204.3 ms")
    assert title.endswith("trace " + TRACE)
    assert "2026-11-23 10:00:00.123 UTC" in out
    assert "127.0.0.1:50000 → 127.0.0.1:8000 (kept alive)" in out
    assert max(map(len, out.splitlines())) <= 100
    assert "\x1b" not in out
    assert "204.0 ms  99.9%" in line_with(out, "wait")
    assert line_with(out, "0 ns:").strip() == "0 ns: queue, retry, drain"
    assert "uvloop, Python 3.11.7, pid 4242" in line_with(out, "app ")
    assert "GET /block held the loop for 12.00 ms, blocked  in block app.py:77" in out
    names = ["head", "admit", "connect", "dispatch", "send", "wait", "reply_head", "reply"]
    names += ["stream", "app_queue", "app  ASGI", "run", "ready", "unattributed", "app_out"]
    at = [out.index("\n" + " " * indent(line_with(out, n)) + n) for n in names]
    assert at == sorted(at)


def test_show_unfolds_waits_into_the_apps_own_frames(control: Control) -> None:
    serve(control, make_exchange())
    out = run(control, "show", TRACE).stdout
    waits = out[out.index("    wait ") :].splitlines()
    assert "×20" in waits[0]
    assert [line.split()[0] for line in waits[1:6]] == [
        "async_root",
        "parent",
        "sleep",
        "child",
        "sleep",
    ]
    assert [indent(line) for line in waits[1:6]] == [6, 8, 10, 10, 12]
    assert "app.py:22,24" in waits[2]
    assert waits[3].split()[:3] == ["sleep", ":22", "asyncio.tasks.sle…"]
    assert waits[5].split()[1] == "asyncio.tasks.sleep", "its frame has one line, and tells it"
    assert "×10" in waits[3]
    assert "101.3 ms  49.6%" in waits[5]
    assert "run_asgi" not in out


def test_bars_lie_on_one_axis(control: Control) -> None:
    serve(control, make_exchange())
    out = run(control, "show", TRACE).stdout.splitlines()
    axis = next(line for line in out if line.startswith("gateway"))
    begin = axis.rindex(" 0 ") + 1
    wait = next(line for line in out if line.startswith("  wait"))
    assert wait[begin:] == "█" * (100 - begin)
    sleeps = [line for line in out if line.strip().startswith("sleep")]
    assert sleeps[0][begin] == "▒"
    gap = len(sleeps[1][begin:]) - len(sleeps[1][begin:].lstrip())
    assert abs(gap - (100 - begin) / 2) <= 1


def test_terminal_gets_colour_and_its_width(control: Control) -> None:
    serve(control, make_exchange())
    args = ("show", TRACE, "--control", control.address)
    out = run_on_terminal(140, {}, *args)
    assert "\x1b[32m200\x1b[0m" in out
    plain = run_on_terminal(140, {"NO_COLOR": "1"}, *args)
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) == 140
    narrow = run_on_terminal(20, {"NO_COLOR": "1"}, *args)
    table = [line for line in narrow.splitlines()[3:] if "stall" not in line]
    assert max(map(len, table)) <= 60
    assert "\x1b" not in run_on_terminal(100, {"TERM": "dumb"}, *args)


def test_other_locales_get_ascii(control: Control) -> None:
    exchange = make_exchange()
    exchange["profile"]["breakdown"][0]["stack"] = [own("größe", 3)]
    serve(control, exchange)
    done = run(control, "show", TRACE, env={"LC_ALL": "C"})
    assert done.stdout.isascii()
    assert "x20" in done.stdout
    assert " us " in done.stdout
    assert "####" in done.stdout
    assert "gr\\xc3\\xb6\\xc3\\x9fe" in done.stdout


@pytest.mark.parametrize("length", range(4070, 4100, 3))
def test_colours_end_where_a_text_fills_its_line(control: Control, length: int) -> None:
    serve(control, make_exchange() | {"path": "/" + "x" * length})
    text = run_on_terminal(100, {}, "show", TRACE, "--control", control.address)
    title = text.splitlines()[0]
    assert "\x1b[1mGET /xxx" in title
    assert title.endswith("\x1b[0m")


def test_requests_stand_below_their_headings(control: Control) -> None:
    one = {"trace_id": TRACE, "route": "GET /a", "status": 200, "total_ns": 345_000_000}
    one |= {"start": "2026-11-23T10:00:00.123456789Z", "has_profile": True}
    control.answers["/api/v1/requests"] = [(200, {"requests": [one]})]
    for columns in (70, 100):
        text = run_on_terminal(columns, {"NO_COLOR": "1"}, "requests", "--control", control.address)
        heading, row = text.splitlines()
        assert heading.index("STATUS") + 6 == row.index(" 200 ") + 4
        assert heading.index("TOTAL") + 5 == row.index("345.0 ms") + 8
        assert heading.index("ROUTE") == row.index("GET /a")


def test_nothing_from_outside_reaches_the_terminal_raw(control: Control) -> None:
    exchange = make_exchange()
    exchange["path"] = "/a\x1b[31m\n\x07\u202e\u009bb"
    exchange["route"] = "GET \x1b]0;title\x07"
    exchange["profile"]["breakdown"][0]["stack"] = [own("f\x1b[2J", 3)]
    serve(control, exchange)
    out = run(control, "show", TRACE).stdout
    assert not [c for c in out if c != "\n" and not c.isprintable()]
    assert "\\x1b[31m\\x0a\\x07\\xe2\\x80\\xae\\xc2\\x9bb" in out
    control.answers["/api/v1/routes"] = [(200, {"routes": [{"route": "GET \x1b[31m"}]})]
    assert "\\x1b" in run(control, "routes").stdout


def test_json_is_handed_through(control: Control) -> None:
    serve(control, make_exchange())
    done = run(control, "show", TRACE, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == make_exchange()


def test_pending_profile_is_waited_for(control: Control) -> None:
    pending = make_exchange()
    pending["profile"] = None
    control.answers[f"/api/v1/requests/{TRACE}"] = [
        (404, {}),
        (200, pending),
        (200, pending),
        (200, make_exchange()),
    ]
    done = run(control, "show", TRACE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "async_root" in done.stdout
    assert len(control.asked) == 4


@pytest.mark.parametrize("reason", [{}, {"profile_missing": "pending"}])
def test_profile_that_never_comes_is_said(control: Control, reason: dict[str, str]) -> None:
    pending = make_exchange()
    pending["profile"] = None
    pending |= reason
    serve(control, pending)
    done = run(control, "show", TRACE)
    assert done.returncode == 0
    assert "no profile came within 3 s" in done.stderr
    assert "  wait " in done.stdout
    assert "the profile has not come yet" in done.stdout


@pytest.mark.parametrize("reason", ["no_hook", "late", "dropped", "refused"])
def test_known_reason_of_a_missing_profile_is_told_at_once(control: Control, reason: str) -> None:
    exchange = make_exchange()
    exchange |= {"profile": None, "profile_missing": reason}
    serve(control, exchange)
    done = run(control, "show", TRACE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "profile" in done.stdout.splitlines()[-1]
    assert "not come yet" not in done.stdout
    assert len(control.asked) == 1


def test_exchange_that_died_says_where_and_why(control: Control) -> None:
    exchange = make_exchange()
    exchange |= {"status": None, "died_in": "wait", "cause": "client_abort", "profile": None}
    exchange |= {"profile_missing": "no_hook"}
    serve(control, exchange)
    out = run(control, "show", TRACE).stdout
    assert "nothing sent" in out.splitlines()[0]
    assert "ended in wait: client_abort" in out
    exchange["phases"] = [{"name": "connect", "ns": 9}]
    serve(control, exchange)
    out += run(control, "show", TRACE).stdout
    assert "no profile came" in out and out.endswith("\nnothing was sent to the app\n")


def test_thread_runs_and_streams_are_drawn(control: Control) -> None:
    exchange = make_exchange()
    profile = exchange["profile"]
    below = [own("sync_root", 11), own("below", 30)]
    profile["breakdown"] = [
        row("thread_queue", "executor", 1_000_000, 1, []),
        row("thread_run", None, 149_000_000, 1, [own("sync_root", 9)], exact=False, samples=11),
        row("thread_run", None, 1_000_000, 1, below, exact=False, samples=1),
        row("wait", "lock", 30_000_000, 1, [own("sync_root", 4)], by={"route": "GET /lock"}),
    ]
    profile |= {"app_stream_ns": 2_000_000, "app_tail_ns": 9_000_000}
    profile["stream_breakdown"] = [row("wait", "client_send", 1_500_000, 3, [own("body", 5)])]
    profile["truncated"] = True
    serve(control, exchange)
    out = run(control, "show", TRACE).stdout
    assert "1.00 ms" in line_with(out, "thread queue")
    assert "150.0 ms" in line_with(out, "thread run")
    assert "sync_root  app.py:9,11" in out
    assert "~150.0 ms" in line_with(out[out.index("thread run") :], "sync_root")
    assert line_with(out, "itself").split()[1:3] == [":9", "~149.0"], "the line that is slow"
    assert "woken by GET /lock" in out
    assert "client_send" in out[out.index("app_stream") :]
    assert "9.00 ms" in line_with(out, "app_tail")
    assert "detail is cut" in out


def test_largest_profile_is_drawn(control: Control) -> None:
    exchange = make_exchange()
    deep = [[own(f"f{n % 50}_{d}", d) for d in range(64)] for n in range(1024)]
    exchange["profile"]["breakdown"] = [
        row("wait", "sleep", 190_000, 1, [*stack, SLEEP]) for stack in deep
    ]
    serve(control, exchange)
    done = run(control, "show", TRACE)
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "f49_63" in done.stdout


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["show", "5" * 32], 1),
        (["show", "xyz"], 2),
        (["show"], 2),
        (["show", TRACE, TRACE], 2),
        (["show", TRACE, "--span", "12"], 2),
        (["requests", "--limit", "0"], 2),
        (["requests", "--limit", "1001"], 2),
        (["requests", "--what"], 2),
        (["routes", "extra"], 2),
        (["flame"], 2),
        (["flame", "GET /async", "--baseline", "tomorrow"], 2),
        (["flame", "GET /async", "--window", "1w"], 2),
        (["routes"], 1),
    ],
)
def test_exit_status_and_a_reason(control: Control, args: list[str], status: int) -> None:
    done = run(control, *args)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith(("tailrace: ", "usage: "))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "-xc"], "unknown option: -x"),
        (["run", "-hc"], "--config needs a value: FILE"),
        (["routes", "--foo"], "unknown option, or short for several: --foo"),
        (["routes", "--json=3"], "--json takes no value"),
        (["requests", "--limit"], "--limit needs a value: N"),
    ],
)
def test_what_is_wrong_with_an_option(words: list[str], said: str) -> None:
    done = subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"tailrace: {said}\n\nusage: tailrace {words[0]}")


def test_empty_lists_say_so(control: Control) -> None:
    control.answers["/api/v1/routes"] = [(200, {"routes": []})]
    control.answers["/api/v1/requests"] = [(200, {"requests": []})]
    control.answers["/api/v1/incidents"] = [(200, {"incidents": []})]
    assert "no request came in this time" in run(control, "routes").stdout
    assert "no request is kept\n" in run(control, "requests").stdout
    assert "no request is kept of this route" in run(control, "requests", "--route", "x").stdout
    assert run(control, "incidents").stdout == "no incidents\n"


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_output_that_cannot_be_written(control: Control, more: list[str]) -> None:
    control.answers["/api/v1/incidents"] = [(200, {"incidents": []})]
    words = [BINARY, "incidents", *more, "--control", control.address]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, timeout=30)
    reason = b"tailrace: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, reason)


def test_ids_in_upper_case(control: Control) -> None:
    run(control, "show", TRACE.upper(), "--span", "A" * 16)
    run(control, "export", TRACE.upper())
    run(control, "incidents", "ABCDEF0123456789")
    assert control.asked[0] == f"/api/v1/requests/{TRACE}?span={'a' * 16}"
    assert control.asked[-2:] == [
        f"/api/v1/requests/{TRACE}/profile?format=json",
        "/api/v1/incidents/abcdef0123456789",
    ]


def test_no_gateway_and_broken_answers_end_with_1(control: Control, tmp_path: Path) -> None:
    done = run(f"unix:{tmp_path}/none", "routes")
    assert done.returncode == 1
    assert "no gateway answers at unix:" in done.stderr
    control.answers["/api/v1/routes"] = [(200, b"not JSON")]
    assert run(control, "routes").returncode == 1
    control.answers["/api/v1/routes"] = [(200, b"[]")]
    assert run(control, "routes").returncode == 1
    control.answers["/api/v1/routes"] = [(200, {"routes": []})]
    assert run(control, "routes").returncode == 0
    control.lie = 5  # announces more than it sends
    assert run(control, "routes").returncode == 1


def test_help_is_no_error(control: Control) -> None:
    done = run(control, "show", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "tailrace show TRACE_ID" in done.stdout


def test_requests_asks_and_lists(control: Control) -> None:
    listed = {"trace_id": TRACE, "route": "GET /async", "status": 200, "total_ns": 204_265_000}
    listed |= {"start": "2026-11-23T10:00:00.123456789Z", "has_profile": True}
    failed = {**listed, "status": None, "has_profile": False, "total_ns": 900}
    control.answers["/api/v1/requests"] = [(200, {"requests": [listed, failed]})]
    done = run(control, "requests", "--route", "GET /a b&c", "--slowest", "--limit", "7")
    assert done.returncode == 0
    asked = urllib.parse.urlsplit(control.asked[0])
    assert urllib.parse.parse_qs(asked.query) == {
        "sort": ["slowest"],
        "limit": ["7"],
        "route": ["GET /a b&c"],
    }
    head, first, second = done.stdout.splitlines()
    assert first.split() == [TRACE, "10:00:00.123", "200", "204.3", "ms", "*", "GET", "/async"]
    assert second.split() == [TRACE, "10:00:00.123", "-", "900", "ns", "GET", "/async"]
    assert first.index("GET") == head.index("ROUTE")
    run(control, "requests")
    assert "sort=latest" in control.asked[1]


def test_routes_lists(control: Control) -> None:
    route = {"id": "1", "route": "GET /async", "requests": 12345, "errors": 3, "p50_ns": 204e6}
    route |= {"p50_ns": 204_000_000, "p95_ns": 205_000_000, "p99_ns": 1_200_000_000}
    route |= {"max_ns": 3_200_000_000, "joined_ratio": 0.99}
    control.answers["/api/v1/routes"] = [(200, {"routes": [route, {"route": "GET /x"}]})]
    lines = run(control, "routes").stdout.splitlines()
    expected = ["GET", "/async", "12345", "3", "204.0", "ms", "205.0", "ms", "1.200", "s"]
    assert lines[1].split() == [*expected, "3.200", "s", "99%"]
    assert lines[2].split() == ["GET", "/x", "0", "0", "-", "-", "-", "-"]


def test_tcp_and_token(make_tcp: Callable[[], Control]) -> None:
    control = make_tcp()
    control.answers["/api/v1/routes"] = [(200, {"routes": []})]
    done = run(control, "routes", env={"TAILRACE_TOKEN": "abc"})
    assert done.returncode == 0
    assert control.tokens == ["Bearer abc"]


@pytest.fixture
def make_tcp() -> Iterator[Callable[[], Control]]:
    made: list[Control] = []

    def maker() -> Control:
        made.append(Control(None))
        return made[-1]

    yield maker
    for control in made:
        control.close()


def test_default_address_comes_from_the_environment(control: Control) -> None:
    control.answers["/api/v1/routes"] = [(200, {"routes": []})]
    env = {**os.environ, "TAILRACE_CONTROL": control.address}
    assert subprocess.run([BINARY, "routes"], env=env, timeout=20).returncode == 0
    folder = Path(control.address.removeprefix("unix:")).parent
    relative = ["routes", "--control", "unix:c.sock"]
    assert subprocess.run([BINARY, *relative], cwd=folder, timeout=20).returncode == 0
    assert len(control.asked) == 2
