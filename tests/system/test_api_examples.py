"""The examples of docs/api.md, asked of a real gateway in front of the demo app.

A request is a block of `curl --unix-socket`; the next block is its answer. Trace IDs, routes'
numbers, incidents' IDs and times are replaced by the running gateway's.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from harness import ROOT, Gateway, start_gateway, start_uvicorn, wait_for

API = (ROOT / "docs" / "api.md").read_text()
OPEN = "…"  # a key that says: there are more
RULE = {"name": "slow", "metric": "p99", "route": "GET /async", "above_ms": 50}
#: Endpoints that another test and another document speak for.
ELSEWHERE = {"GET /api/v1/live"}


@dataclass
class Example:
    """A request of the document and the answer it shows."""

    method: str
    target: str
    body: bytes | None
    language: str
    answer: str

    @property
    def name(self) -> str:
        """For the test's name."""
        return f"{self.method} {self.target}"


def read_curl(command: str) -> tuple[str, str, bytes | None]:
    """Method, target and body of a curl command."""
    words = shlex.split(command)[1:]
    method, target, body = "GET", "", None
    while words:
        word = words.pop(0)
        if word == "--unix-socket":
            words.pop(0)
        elif word == "-X":
            method = words.pop(0)
        elif word == "-d":
            method, body = "POST", words.pop(0).encode()
        elif word.startswith("http://tailrace/"):
            target = word.removeprefix("http://tailrace")
        else:
            raise AssertionError(f"{command}: what is {word}?")
    return method, target, body


def examples() -> list[Example]:
    """All of the document, in order."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", API, re.M | re.S)
    found = []
    for (language, text), (next_language, answer) in itertools.pairwise(blocks):
        if language == "sh" and text.startswith("curl --unix-socket") and next_language != "sh":
            found.append(Example(*read_curl(text), next_language, answer))
    return found


EXAMPLES = examples()


@dataclass
class Running:
    """The gateway with something of everything in it."""

    gateway: Gateway
    trace: str
    route: int
    incident: str

    def target(self, text: str) -> str:
        """The example's target with this gateway's own IDs and times."""
        text = re.sub(r"\b[0-9a-f]{32}\b", self.trace, text)
        text = re.sub(r"(?<=/routes/)\d+", str(self.route), text)
        text = re.sub(r"(?<=/incidents/)[0-9a-f]{16}", self.incident, text)
        now = int(time.time())
        times = {"baseline_from": now - 7200, "baseline_to": now - 3600}
        times |= {"from": now - 3600, "to": now + 10}
        return re.sub(r"\b(baseline_from|baseline_to|from|to)=\d+",
                      lambda found: f"{found[1]}={times[found[1]]}", text)  # fmt: skip


def get(gateway: Gateway, path: str) -> str:
    """A request through the gateway; its trace ID."""
    with urllib.request.urlopen(gateway.base + path, timeout=20) as response:
        response.read()
        return str(response.headers["X-Trace-Id"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway in front of the demo, with an incident that a rule made."""
    folder = tmp_path_factory.mktemp("examples")
    sockets = tempfile.mkdtemp(prefix="tailrace-examples-")
    control = f"{sockets}/control.sock"
    app = start_uvicorn(folder, "app:app", app_dir=ROOT / "demo", control=control)
    gateway = start_gateway(
        folder,
        [app.address],
        control={"listeners": [{"address": f"unix:{control}", "role": "admin"}]},
        profile={"join_timeout_ms": 500},
        store={"keep_slowest": 1000, "keep_random": 1000},  # all that this test sends
        alerts={
            "window_ms": 1000,
            "min_duration_s": 10,
            "rules": [{**RULE, "for_s": 10, "min_requests": 1}],
        },
    )
    try:
        get(gateway, "/async")
        order = json.dumps({"route": "GET /async", "count": 1}).encode()
        headers = {"Content-Type": "application/json"}
        assert gateway.api("/api/v1/deep", "POST", order, headers)[0] == 200
        get(gateway, "/gather")

        def incident() -> str | None:
            get(gateway, "/async")
            found = gateway.json("/api/v1/incidents")["incidents"]
            return str(found[0]["id"]) if found else None

        identity = wait_for(incident, 60, "an incident of the rule")
        trace = get(gateway, "/async")
        gateway.wait_profile(trace)
        routes = {r["route"]: r["id"] for r in gateway.json("/api/v1/routes")["routes"]}
        yield Running(gateway, trace, routes["GET /async"], identity)
    finally:
        gateway.stop()
        app.stop()
        shutil.rmtree(sockets, ignore_errors=True)


def kind_of(value: Any) -> str:
    """JSON's word for a value's type."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return {str: "text", list: "list", dict: "object"}[type(value)]


def differences(example: Any, answer: Any, where: str) -> Iterator[str]:
    """What an answer has that its example has not, and the other way round."""
    if example is None or answer is None:
        return
    if kind_of(example) != kind_of(answer):
        yield f"{where}: {kind_of(example)} in the document, {kind_of(answer)} in the answer"
    elif isinstance(example, dict):
        for key in sorted((example.keys() - answer.keys()) - {OPEN}):
            yield f"{where}/{key}: only in the document"
        for key in sorted(answer.keys() - example.keys() if OPEN not in example else ()):
            yield f"{where}/{key}: only in the answer"
        for key in example.keys() & answer.keys():
            yield from differences(example[key], answer[key], f"{where}/{key}")
    elif isinstance(example, list) and example:
        several = [one for one in example if one is not None] or [None]
        if any(isinstance(one, list) for one in example) or len(example) == len(answer):
            pairs = list(zip(example, answer, strict=False))
        else:
            pairs = [(several[0], one) for one in answer]
        for index, (left, right) in enumerate(pairs):
            yield from differences(left, right, f"{where}/{index}")


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_example_is_what_the_gateway_answers(running: Running, example: Example) -> None:
    headers = {"Content-Type": "application/json"} if example.body else {}
    target = running.target(example.target)
    status, _, body = running.gateway.api(target, example.method, example.body, headers)
    answer = body.decode()
    if example.language == "json":
        shown = json.loads(example.answer)
        assert (status >= 400) == ("error" in shown), answer
        faults = list(differences(shown, json.loads(answer), ""))
        assert not faults, "\n".join([*faults, answer[:4000]])
        return
    assert status == 200, answer
    for line in example.answer.splitlines():
        words, _, number = line.rpartition(" ")
        if number.isdigit():
            begin, _, rest = words.partition(";")
            pattern = re.escape(begin) + ".*" + ".*".join(map(re.escape, rest.split(";")))
            assert re.search(rf"^{pattern} \d+$", answer, re.M), line
        else:
            assert line in answer.splitlines()


def test_every_endpoint_has_an_example() -> None:
    asked = {(e.method, e.target.partition("?")[0]) for e in EXAMPLES}
    headings = re.findall(r"^## (.*)$", API, re.M)
    offered = [
        (method, path)
        for heading in headings
        for methods, path in re.findall(r"`((?:GET|POST)(?:, (?:GET|POST))*) (/[^`?]*)", heading)
        for method in methods.split(", ")
    ]
    assert len(offered) >= 16
    for method, path in offered:
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))
        told = any(m == method and re.fullmatch(pattern, target) for m, target in asked)
        assert told or f"{method} {path}" in ELSEWHERE, f"{method} {path} has no example"


def test_differences_are_found() -> None:
    example = {"a": 1, "b": [{"c": None}], "d": {"e": "x"}}
    assert not list(differences(example, {"a": 2, "b": [], "d": {"e": "y"}}, ""))
    assert list(differences(example, {"a": "2", "b": [], "d": {"e": "y"}}, ""))
    assert list(differences(example, {"a": 2, "b": [{}], "d": {"e": "y"}}, ""))
    assert list(differences(example, {"a": 2, "b": [], "d": {"e": "y", "f": 1}}, ""))
    assert not list(differences({"a": 1, OPEN: 0}, {"a": 1, "b": 2}, ""))
