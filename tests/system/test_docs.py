"""The documents against the tree, and the checker against documents that are wrong."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from harness import ROOT

DOCS = ROOT / "docs"


def module(name: str, path: Path) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


check_docs = module("check_docs", ROOT / "scripts" / "check_docs.py")
check_register = check_docs.check_register


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The demo's modules."""
    monkeypatch.syspath_prepend(str(ROOT / "demo"))
    yield
    for name in ("run", "replay", "flame_svg", "headline"):
        sys.modules.pop(name, None)


def test_the_documents_say_what_is_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["check_docs.py"])
    assert check_docs.main() == 0


GOOD = """# A heading, `code`

[docs](README.md#a-heading-code) `store.keep_slowest` `tailrace_requests_total` `TAILRACE_TOKEN`
`tailrace requests --slowest` `make demo` `/api/v1/requests/{trace_id}` `docs/api.md`
`TAILRACE_CONF__WORKER__SHUTDOWN_TIMEOUT_MS=5` <!--d:store.keep_slowest-->10<!--/d-->

```sh
make && sudo make install
curl -s http://127.0.0.1:9000/api/v1/routes | python3 -m json.tool
```

```json
"limits": {"connections": 5}
```

<!-- drawing -->
```
a --> b
```
"""


@pytest.mark.parametrize(
    ("readme", "references", "fault"),
    [
        ("It is so.", ["make test", "word", f"{__name__}.py::none"], f"no {__name__}.py::none"),
        ("It is so.", ["tests/system/test_docs.py::test_a_sentence_has_its_check"], None),
        ("It is so.", ["tests/unit/test_phase.c::test_random_lives"], None),
        ("It is so.", ["tests/unit/test_phase.c::test_nothing"], "there is no tests/unit"),
        ("It is so.", ["make nothing"], "there is no target nothing"),
        ("It is so.", ["certain"], "neither a test nor one of"),
        ("It is so.", [], "nothing checks: It is so."),
        ("It is so. It is not.", ["word"], "README.md:1: not in docs/claims.json"),
        ("# It is so.\n\n- Not so", ["word"], "README.md:3: not in docs/claims.json"),
        ("| a |\n| --- |\n| It is so. |", ["word"], "what checks it? | It is so. |"),
        ("", ["word"], "no longer in README.md: It is so."),
        ("```\nIt was.\n```\n\nIt is\nso.", ["word"], None),
    ],
)
def test_a_sentence_has_its_check(
    tmp_path: Path, readme: str, references: list[str], fault: str | None
) -> None:
    (tmp_path / "README.md").write_text(readme + "\n")
    (tmp_path / "claims.json").write_text(json.dumps({"It is so.": references}))
    faults = list(check_register(tmp_path / "README.md", tmp_path / "claims.json"))
    assert (faults == []) if fault is None else any(fault in one for one in faults), faults


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("", None),
        ("[x](nowhere.md)", "no such file"),
        ("[x](#nothing)", "no such heading"),
        ("![x](other.png)", "no such file"),
        ("`store.keep_fastest`", "no configuration key"),
        ("`tailrace_wrong_total`", "nothing in the sources is named"),
        ("`TAILRACE_NONE`", "no environment variable"),
        ("`TAILRACE_CONF__WORKER__NONE`", "names no configuration key"),
        ("`tailrace request --slowest`", "has no command request"),
        ("`tailrace requests --fastest`", "has no option --fastest"),
        ("`make nothing`", "has no target nothing"),
        ("`/api/v1/nothing`", "docs/api.md has no"),
        ("`docs/nothing.md`", "no file docs/nothing.md"),
        ("<!--d:store.keep_slowest-->11<!--/d-->", "is 10, not 11"),
        ("<!--m:nothing-->11<!--/m-->", "has no nothing"),
        ("<!--c:ROUTES_MAX-->1000<!--/c--> <!--n:asyncio.of-->61<!--/n-->", None),
        ("<!--c:ROUTES_MAX-->1001<!--/c-->", "ROUTES_MAX is 1000, not 1001"),
        ("<!--c:ROUTES_LEAST-->1<!--/c-->", "a header has no ROUTES_LEAST"),
        ("<!--n:asyncio.cProfile-->61<!--/n-->", "asyncio.cProfile is 4, not 61"),
        ("<!--n:curio.cProfile-->61<!--/n-->", "docs/comparison.md has no curio.cProfile"),
        ("`idle_timeout_ms` (4 s), `store.keep_slowest` (10)", None),
        ("`idle_timeout_ms` (5 s)", "idle_timeout_ms is 4000"),
        ("| `limits.head_timeout_ms` | 10000 | x |", None),
        ("| `limits.head_timeout_ms` | 9000 | x |", "limits.head_timeout_ms is 10000 by default"),
        ("502 `upstream_closed`, `upstream_reset`", None),
        ("502 `upstream_closed`, `upstream_down`", "upstream_down is answered with 503, not 502"),
        ("`tailrace.wrap(app)` or `tailrace.Hook`", None),
        ("`tailrace.warp(app)`", "no tailrace.warp"),
        ("`app.add_middleware(tailrace.Hooks)`", None),
        ("```python\napp = tailrace.warp(app)\n```", "no tailrace.warp"),
        ("tailrace_9.9.9_amd64.deb", "the version is "),
        ("| the CLI: `no gateway answers at …` | x |", None),
        ("| the CLI: `no gateway listens at …` | x |", "no program says `no gateway listens at`"),
        ("```\nGET /async 200\n```", "is no program"),
        ("```\nmake nothing\n```", "has no target nothing"),
        ("```json\n{]\n```", "no JSON"),
        ('```json\n{"limits": {"conections": 5}}\n```', "no key limits.conections"),
        ("```python\ndef:\n```", "no Python"),
        ("<!-- made: docs/none.txt -->\n```\n```", "no file docs/none.txt"),
        ("<!-- made: docs/headline.txt -->\n```\nmine\n```", "is not docs/headline.txt as it is"),
        ("<!-- made: docs/headline.txt lines 9999 -->\n```\n```", "lines 9999 of a file of"),
        ("<!-- made: LICENSE -->\n```\n```", "which script wrote it?"),
    ],
)
def test_what_is_wrong_is_found(tmp_path: Path, line: str, fault: str | None) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"{GOOD}\n{line}\n")
    faults = list(check_docs.check_document(path))
    if fault is None:
        assert faults == []
    else:
        assert any(fault in one for one in faults), faults


def test_the_readme_has_no_figure_of_speed_that_nobody_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "README.md"
    path.write_text("costs 18 µs a request\n")
    monkeypatch.setattr(check_docs, "STRICT_FIGURES", (str(path),))
    assert "without its marker" in next(iter(check_docs.check_document(path)))
    path.write_text("costs <!--m:k-->18 µs<!--/m--> a request\n")
    assert "has no k" in next(iter(check_docs.check_document(path)))


def test_a_made_file_that_was_edited_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    made = json.loads((DOCS / "made.json").read_text())
    made["docs/headline.txt"]["sha256"] = "0" * 64
    monkeypatch.setattr(check_docs, "load", lambda name: made)
    assert any("was changed since" in one for one in check_docs.check_manifest(False))


def test_the_headline_is_what_the_commands_print(demo: None) -> None:
    headline = module("headline", ROOT / "demo" / "headline.py")
    names = ("headline.json", "headline-flame.json", "headline-request.json")
    files: dict[str, Any] = {name: json.loads((DOCS / name).read_text()) for name in names}
    for name, text in headline.redraw(files).items():
        assert (DOCS / name).read_text() == text, f"{name}: python headline.py --redraw in demo/"
    incident = files["headline.json"]
    assert json.loads((DOCS / "headline-alert.json").read_text()) == headline.payload(incident)
    top = incident["cause"]["rows"][0]
    assert (top["kind"], top["cause"], top["frame"]) == ("wait", "socket", "shop:fetch_prices")
    assert incident["deploy"]["version"] == "v42"
    fewer, more = top["waits_per_request"]
    assert fewer == pytest.approx(1, abs=0.2) and more == pytest.approx(5, abs=0.5)
    assert 0.9 <= top["share"] <= 1.1
    before, after = incident["quantiles"]["p95"]
    assert after > 1.4 * before


@pytest.mark.parametrize("name", ["async", "sync"])
def test_the_demos_waterfalls_are_what_show_prints(demo: None, name: str) -> None:
    replay = module("replay", ROOT / "demo" / "replay.py")
    exchange = json.loads((DOCS / "samples" / f"{name}.json").read_text())
    text = replay.printed({"request": exchange}, "show", exchange["trace_id"])
    assert (DOCS / "samples" / f"{name}.txt").read_text() == text
    assert sum(phase["ns"] for phase in exchange["phases"]) == exchange["total_ns"]
