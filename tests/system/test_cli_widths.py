"""The client commands on terminals of any width, with what strangers may send; progress."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import BINARY, ROOT
from terminal_tools import terminal
from test_cli import TRACE, Control, make_exchange, run, serve
from wcwidth import wcswidth

DOCS = ROOT / "docs"
COLORS = re.compile(r"\x1b\[[0-9;]*m")
BAD = "GET /\x1b[2J\x07\u202e\x9b" + "漢字" * 60 + "e\u0301" * 40


def load(name: str) -> Any:
    """A sample of the documents."""
    return json.loads((DOCS / name).read_text())


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """A scripted gateway: real answers, with names of a stranger in between."""
    made = Control(str(tmp_path / "c.sock"))
    flame, incident, request = map(
        load, ("headline-flame.json", "headline.json", "headline-request.json")
    )
    numbers = {"requests": 123456, "errors": 3, "p50_ns": 204_000_000, "p95_ns": 205_000_000}
    numbers |= {"p99_ns": 1_200_000_000, "max_ns": 3_200_000_000, "joined_ratio": 0.99}
    names = [(flame["id"], flame["route"]), (98, BAD)]
    routes = [{"id": number, "route": name, **numbers} for number, name in names]
    made.answers["/api/v1/routes"] = [(200, {"routes": routes})]
    made.answers[f"/api/v1/routes/{flame['id']}/flame"] = [(200, flame)]
    bad_incident = {**incident, "title": BAD, "text": BAD + " " + BAD, "status": "resolved"}
    made.answers["/api/v1/incidents"] = [(200, {"incidents": [incident, bad_incident]})]
    made.answers["/api/v1/incidents/" + "0" * 16] = [(200, bad_incident)]
    made.answers["/api/v1/incidents/" + "1" * 16] = [(200, incident)]
    bad_request = {**request, "route": BAD, "path": BAD}
    made.answers["/api/v1/requests"] = [(200, {"requests": [request, bad_request]})]
    made.answers["/api/v1/requests/" + "a" * 32] = [(200, request)]
    yield made
    made.close()


COMMANDS = [
    ["routes"],
    ["requests"],
    ["incidents"],
    ["incidents", "0" * 16],
    ["incidents", "1" * 16],
    ["flame", "GET /checkout/{cart}", "--baseline", "30m"],
    ["show", "a" * 32],
]


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(control: Control, columns: int) -> None:
    for command in COMMANDS if columns >= 60 else COMMANDS[:3]:  # below, only lists fit
        words = [str(BINARY), *command, "--control", control.address]
        with terminal(words, columns, 80) as shown:
            assert shown.end() == 0
            raw = bytes(shown.raw).decode().replace("\r", "")
        lines = COLORS.sub("", raw).split("\n")
        assert not [c for c in COLORS.sub("", raw) if c != "\n" and not c.isprintable()]
        widest = max(map(wcswidth, lines))
        assert widest <= columns, f"{command}: {max(lines, key=wcswidth)}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_pipes_get_neither_colour_nor_control_bytes(control: Control, command: list[str]) -> None:
    done = subprocess.run(
        [BINARY, *command, "--control", control.address],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not [c for c in done.stdout if c != "\n" and not c.isprintable()]
    json.loads(
        subprocess.run(
            [BINARY, *command, "--json", "--control", control.address],
            capture_output=True,
            check=True,
            timeout=20,
        ).stdout
    )


def test_small_rows_of_an_incident_are_counted_not_shown(control: Control) -> None:
    done = subprocess.run(
        [BINARY, "incidents", "1" * 16, "--control", control.address],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        timeout=20,
    )
    rows = load("headline.json")["cause"]["rows"]
    shown = [row for row in rows if abs(row["share"]) >= 0.005]
    assert done.stdout.count(" %\n") == len(shown) + (len(shown) < len(rows))
    assert f"{len(rows) - len(shown)} more, each under 0.5 %" in done.stdout


def test_a_flame_is_not_compared_with_nothing(control: Control) -> None:
    """In the first half hour of a gateway all of a route would have grown."""
    (place,) = [path for path in control.answers if path.endswith("/flame")]
    ((status, flame),) = control.answers[place]
    control.answers[place] = [(status, {**flame, "baseline": {**flame["baseline"], "requests": 0}})]
    words = ["flame", "GET /checkout/{cart}", "--baseline", "30m", "--control", control.address]
    done = subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=20, check=True)
    first, *more = done.stdout.splitlines()
    assert first.endswith("; no request before: nothing to compare")
    assert len(more) > 5 and not [line for line in more if " +" in line or "MADE" in line]


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1000, "1.00 µs"),
        (9994, "9.99 µs"),
        (9995, "10.0 µs"),
        (99_949, "99.9 µs"),
        (99_950, "100 µs"),
        (999_499, "999 µs"),
        (999_500, "1.00 ms"),
        (99_994_999, "99.99 ms"),
        (99_995_000, "100.0 ms"),
        (999_949_999, "999.9 ms"),
        (999_950_000, "1.000 s"),
        (59_994_999_999, "59.99 s"),
        (59_995_000_000, "1 min 0 s"),
        (123_456_000_000, "2 min 3 s"),
        (2**62, "76861433 min 38 s"),
    ],
)
def test_durations_keep_three_digits_and_never_1000_of_a_unit(
    control: Control, ns: int, text: str
) -> None:
    exchange = make_exchange()
    exchange |= {"total_ns": ns, "phases": [], "profile": None, "profile_missing": "no_hook"}
    serve(control, exchange)
    title = run(control, "show", TRACE).stdout.splitlines()[0]
    assert title.startswith(f"GET /async?q=1  200  {text}  ")


@pytest.fixture
def ticks(tmp_path: Path) -> Path:
    """Ticks that take the detector a second on a fast machine."""
    path = tmp_path / "ticks.jsonl"
    latencies = json.dumps([[20 + cell / 7, 3] for cell in range(60)])
    with path.open("w") as out:
        for tick in range(50_000):
            at, route = 1_000_000 + 10 * (tick // 4), tick % 4
            out.write(f'{{"t": {at}, "route": "GET /{route}", "latency_ms": {latencies}}}\n')
    return path


def backtest(ticks: Path, out: Path) -> list[str]:
    """The command, its output into a file."""
    return ["sh", "-c", f'"{BINARY}" backtest --every-tick < "{ticks}" > "{out}"']


def test_export_tells_how_much_came(control: Control, tmp_path: Path) -> None:
    """On the terminal, of what comes slowly, while the answer goes elsewhere or to the end."""
    path = "/api/v1/requests/" + "a" * 32 + "/profile"
    control.answers[path] = [(200, b" " * (5 << 20))]
    control.pieces = 5
    words = [str(BINARY), "export", "a" * 32, "--control", control.address]
    with terminal([*words, "-o", str(tmp_path / "out")]) as shown:
        shown.wait(lambda text: re.search(r"tailrace: export: [2-4]\.\d MiB", text), "progress")
        assert shown.end() == 0
        assert "export" not in shown.text()  # the line is taken away
    assert (tmp_path / "out").stat().st_size == 5 << 20
    done = subprocess.run(words, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, b"", 5 << 20)


def test_progress_is_for_terminals(ticks: Path, tmp_path: Path) -> None:
    with terminal(backtest(ticks, tmp_path / "out")) as shown:
        shown.wait(lambda text: re.search(r"backtest: \d+ lines, \d+ % of", text), "progress")
        assert shown.end(60) == 0
        assert "backtest" not in shown.text()  # the line is taken away
    with terminal(backtest(ticks, tmp_path / "out"), env={"TERM": "dumb"}) as shown:
        assert shown.end(60) == 0 and shown.raw == b""
    done = subprocess.run(backtest(ticks, tmp_path / "out"), stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
