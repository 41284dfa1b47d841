"""Exports of deep profiles: what pstats, callgrind's readers and pyinstrument make of them."""

from __future__ import annotations

import io
import json
import marshal
import pstats
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tailrace import export

MS = 1_000_000


def frame(name: str, module: str = "app", file: str = "app.py", line: int = 1) -> dict[str, Any]:
    """A frame as the API shows it."""
    return {"module": module, "function": name, "file": file, "line": line, "in_app": True}


#: root > handler > parent > sleep ×10, parent > child > sleep ×10; handler > fib > fib
NODES = [
    [-1, -1, 0, 1 * MS, 0, 1 * MS],
    [0, 0, 1, 2 * MS, 0, 2 * MS],
    [1, 1, 1, 3 * MS, 0, 1 * MS],
    [2, 3, 10, 1 * MS, 100 * MS, 1 * MS],
    [2, 2, 1, 1 * MS, 0, 0],
    [4, 3, 10, 1 * MS, 100 * MS, 1 * MS],
    [1, 4, 1, 1 * MS, 0, 1 * MS],
    [6, 4, 7, 2 * MS, 0, 2 * MS],
    [1, 5, 3, 4 * MS, 0, 0],
]
FUNCTIONS = [
    frame("handler", line=10),
    frame("parent", line=20),
    frame("child", line=30),
    frame("sleep", "asyncio.tasks", "asyncio/tasks.py", 627),
    frame("fib", line=40),
    {"module": "time", "function": "sleep", "file": "", "line": 0, "in_app": False},
]


def exchange(**changes: Any) -> dict[str, Any]:
    """An exchange with a deep profile."""
    deep = {
        "state": "ok",
        "truncated": False,
        "functions": FUNCTIONS,
        "lanes": [{"lane": 1, "root": 0}],
        "nodes": NODES,
        **changes,
    }
    lanes = [{"id": 1, "kind": "task", "name": "run_asgi"}]
    return {
        "trace_id": "ab" * 16,
        "route": "GET /async",
        "total_ns": 220 * MS,
        "profile": {"deep": deep, "lanes": lanes},
    }


def test_pstats_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_bytes(export.pstats_of(export.Tree(exchange())))
    stats = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]
    primitive, calls, own, total, callers = stats[("asyncio/tasks.py", 627, "sleep")]
    assert (primitive, calls) == (20, 20)
    assert own == pytest.approx(0.202) and total == pytest.approx(0.202)
    assert set(callers) == {("app.py", 20, "parent"), ("app.py", 30, "child")}
    assert stats[("app.py", 20, "parent")][:2] == (1, 1)
    assert stats[("app.py", 20, "parent")][3] == pytest.approx(0.206)
    primitive, calls, own, total, _ = stats[("app.py", 40, "fib")]
    assert (primitive, calls) == (1, 8)
    assert own == pytest.approx(0.003) and total == pytest.approx(0.003)
    assert ("~", 0, "<built-in method time.sleep>") in stats
    shown = io.StringIO()
    pstats.Stats(str(path), stream=shown).sort_stats("cumulative").print_stats()
    assert "app.py:20(parent)" in shown.getvalue()
    assert sum(row[2] for row in stats.values()) == pytest.approx(0.216)
    assert marshal.loads(path.read_bytes())


def test_callgrind_adds_up() -> None:
    lines = export.callgrind_of(export.Tree(exchange())).decode().splitlines()
    assert "events: Run Await Cpu" in lines
    own = [
        [int(x) for x in lines[i + 1].split()] for i, t in enumerate(lines) if t.startswith("fn=")
    ]
    assert sum(row[1] for row in own) == sum(n[3] for n in NODES)
    assert sum(row[2] for row in own) == 200 * MS
    called = lines.index("cfn=sleep asyncio/tasks.py:627")
    assert lines[called + 1].startswith("calls=10 ")


def test_html_is_one_page() -> None:
    pytest.importorskip("pyinstrument")
    page = export.html_of(export.Tree(exchange())).decode()
    assert page.lstrip().lower().startswith("<!doctype html") and "async" in page
    others = set(re.findall(r"https?://[^\s\"'`)]+", page)) - {"http://www.w3.org/2000/svg"}
    assert not others, "it loads nothing from elsewhere"


def test_without_a_deep_profile_the_reason_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for state, whole in (
        ("none was asked for", {**exchange(), "profile": {"deep": None, "lanes": []}}),
        ("busy", exchange(state="busy", nodes=[])),
        ("no profile: late", {**exchange(), "profile": None, "profile_missing": "late"}),
    ):
        path.write_text(json.dumps(whole))
        done = subprocess.run(
            [sys.executable, "-m", "tailrace", "export", "ab" * 16, "--input", str(path)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and state in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_the_command(tmp_path: Path) -> None:
    path, out = tmp_path / "x.json", tmp_path / "out"
    path.write_text(json.dumps(exchange()))
    assert export.main(["ab" * 16, "--input", str(path), "-o", str(out)]) == 0
    assert pstats.Stats(str(out)).total_calls > 20  # type: ignore[attr-defined]
    assert export.main(["ab" * 16, "--control", "unix:/nonexistent/s", "-o", str(out)]) == 1
    with pytest.raises(SystemExit):
        export.main(["xyz"])
