"""Detail of requests: posted by hand with every fault; by the real hook, in every way."""

from __future__ import annotations

import copy
import hashlib
import hmac
import http.client
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from handmade import HandApp, batch, metrics, post, row, wait_exchange
from harness import BINARY, ROOT, AppServer, Gateway, start_gateway, start_uvicorn, wait_for

TOKEN = "a token for deep profiles"
MS = 1_000_000


@pytest.fixture(scope="module")
def hand() -> Iterator[HandApp]:
    """A scripted app."""
    server = HandApp(delay_s=0.005).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def by_hand(hand: HandApp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose profiles the tests post."""
    gateway = start_gateway(tmp_path_factory.mktemp("details"), [hand.address])
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, AppServer]]:
    """The demo app with the hook behind a gateway that has a token for deep profiles."""
    folder = tmp_path_factory.mktemp("deep")
    (folder / "token").write_text(TOKEN + "\n")
    deep = {"token_file": str(folder / "token"), "max_per_minute": 60}
    # The app must know where to post before it starts, the gateway where the app is.
    port = start_gateway(folder / "first", ["127.0.0.1:1"])
    port.stop()
    gateway: Gateway | None = None
    app: AppServer | None = None
    try:
        app = start_uvicorn(folder, "app:app", app_dir=ROOT / "demo", control=port.control)
        gateway = start_gateway(
            folder,
            [app.address],
            profile={"deep": deep},
            control={"listeners": [{"address": f"unix:{port.control}"}]},
        )
        status = gateway.json
        wait_for(lambda: status("/api/v1/status")["hooks"], 10, "the hook knows the gateway's key")
        yield gateway, app
    finally:
        if gateway is not None:
            gateway.stop()
        if app is not None:
            app.kill()


def seen_by(gateway: Gateway, hand: HandApp) -> Any:
    """One request through the gateway, as the scripted app saw it."""
    before = len(hand.seen)
    with urllib.request.urlopen(gateway.base + "/x", timeout=10) as response:
        response.read()
    seen = wait_for(lambda: hand.seen[before:], 5, "the app saw it")[0]
    wait_for(lambda: seen.end_ns, 5, "the app answered it")
    return seen


def detail(key: str) -> list[Any]:
    """A true detail: a task that made a thread, and a call tree."""
    lanes = [
        [1, 0, "task", 0, 0, None, 10, 20, 30, [20, 1, -1, 0, 10, 0, 0, 0, 30, 2, 0, 2]],
        [2, 1, "thread", -1, 10, 40, 25, 5, 0, [5, 3, -1, 0, 25, 4, 0, 0]],
    ]
    path = [["run", None, 0, 10, 1], ["wait", "sleep", 0, 50, 0]]
    nodes = [-1, 1, 0, 5, 0, 5, 0, 0, 1, 7, 9, 7, 1, -2, 2, 3, 0, 1]
    return [key, 0, lanes, path, ["ok", 0, ["time.sleep"], nodes]]


def test_detail_is_shown_with_its_request(by_hand: Gateway, hand: HandApp) -> None:
    """Before or after its profile; times move to t0; stacks and functions are named."""
    for first in (True, False):
        seen = seen_by(by_hand, hand)
        posts = [batch(row(seen)), batch(details=[detail(seen.key)])]
        for body in reversed(posts) if first else posts:
            assert post(by_hand, body)[0] == 200
        exchange = wait_exchange(
            by_hand, seen.trace, lambda x: x["profile"] and x["profile"]["detail"] == "stored"
        )
        profile = exchange["profile"]
        enter = profile["enter_ns"]
        assert 0 < enter < exchange["total_ns"]
        one, two = profile["lanes"]
        assert (one["id"], one["parent"], one["kind"], one["name"]) == (1, None, "task", "sleep")
        assert (one["created_ns"], one["ended_ns"], one["run_ns"]) == (enter, None, 10)
        assert one["timeline"][2] == [enter + 30, enter + 60, "wait", 0, 2]
        assert (two["parent"], two["kind"], two["name"], two["ended_ns"]) == (
            1, "thread", None, enter + 40,
        )  # fmt: skip
        assert [f["function"] for f in profile["stacks"][0]] == ["async_root", "sleep"]
        assert profile["path"][1] == [enter + 10, enter + 60, "wait", "sleep", 0, False]
        deep = profile["deep"]
        assert deep["lanes"] == [{"lane": 1, "root": 0}]
        names = [f["function"] for f in deep["functions"]]
        assert [names[n[1]] for n in deep["nodes"][1:]] == ["sleep", "sleep"]
        assert deep["functions"][1]["module"] == "time"
        assert deep["nodes"][2] == [1, 1, 2, 3, 0, 1]


def changed(value: Any, *place: Any, to: Any) -> Any:
    """A copy with one place replaced."""
    whole = copy.deepcopy(value)
    at = whole
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = to
    return whole


def test_malformed_details_are_refused_whole(by_hand: Gateway, hand: HandApp) -> None:
    """The pointer names the first fault; nothing of the batch is taken."""
    seen = seen_by(by_hand, hand)
    good = detail(seen.key)
    cases = [
        (changed(good, 0, to="x"), "/details/0/0"),
        (changed(good, 1, to=2), "/details/0/1"),
        (good[:4], "/details/0"),
        (changed(good, 2, 0, 2, to="coroutine"), "/details/0/2/0/2"),
        (changed(good, 2, 0, 9, to=[1, 2, 3]), "/details/0/2/0/9"),
        (changed(good, 2, 0, 9, 1, to=5), "/details/0/2/0/9/1"),
        (changed(good, 2, 0, 9, 2, to=-2), "/details/0/2/0/9/2"),
        (changed(good, 2, 0, 9, 3, to=513), "/details/0/2/0/9/3"),
        (changed(good, 2, to=[good[2][0]] * 513), "/details/0/2"),
        (changed(good, 2, 0, 9, to=[0, 0, -1, 0] * 4097), "/details/0/2/0/9"),
        (changed(good, 3, 0, 1, to="coffee"), "/details/0/3/0/1"),
        (changed(good, 3, to=[good[3][0]] * 1025), "/details/0/3"),
        (changed(good, 4, 0, to="fine"), "/details/0/4/0"),
        (changed(good, 4, 2, to=["x"] * 1025), "/details/0/4/2"),
        (changed(good, 4, 3, to=[-1, 1, 0, 0, 0]), "/details/0/4/3"),
        (changed(good, 4, 3, to=[-1, 1, 0, 0, 0, 0] * 8193), "/details/0/4/3"),
    ]
    for wrong, pointer in cases:
        status, answer = post(by_hand, batch(details=[wrong]))
        assert (status, answer["error"]["pointer"]) == (400, pointer)
    assert post(by_hand, batch(details=[good] * 257))[0] == 400
    assert post(by_hand, batch(gone=["x"]))[1]["error"]["pointer"] == "/gone/0"
    status, answer = post(by_hand, batch(details=[changed(good, 2, 0, 3, to=99)]))
    assert (status, answer["stacks"]) == (200, "resend")


def test_impossible_details_are_refused_alone(by_hand: Gateway, hand: HandApp) -> None:
    """A sum that does not hold, an order that cannot be; at the limits they are taken."""
    seen = seen_by(by_hand, hand)
    good = detail(seen.key)
    refused, stored = (
        f'tailrace_details_total{{result="{name}"}}' for name in ("refused", "stored")
    )
    before = metrics(by_hand)
    wrong = [
        changed(good, 2, 0, 6, to=11),
        changed(good, 2, 1, 5, to=41),
        changed(good, 2, 0, 0, to=2),
        changed(good, 2, 0, 1, to=1),
        changed(good, 4, 3, 6, to=1),
        changed(good, 4, 3, 13, to=-3),
        changed(good, 4, 3, 1, to=0),
    ]
    assert post(by_hand, batch(details=wrong))[0] == 200
    task = [1, 0, "task", -1, 0, None, 0, 0, 0, []]
    most = [[i + 1, *task[1:]] for i in range(512)]
    most[0][6], most[0][9] = 4096, [1, 0, -1, 0] * 4096
    steps = [["run", None, -1, 1, 1]] * 1024
    nodes = [-1, 1, 0, 0, 0, 0] + [0, -2 - 1023, 1, 1, 0, 1] * 8191
    full = [seen.key, 0, most, steps, ["cut", 1, ["m.f"] * 1024, nodes]]
    assert post(by_hand, batch(row(seen)))[0] == 200
    assert post(by_hand, batch(details=[full]))[0] == 200
    after = metrics(by_hand)
    assert after[refused] - before[refused] == len(wrong)
    assert after[stored] - before[stored] == 1
    exchange = wait_exchange(
        by_hand, seen.trace, lambda x: x["profile"] and x["profile"]["detail"] == "stored"
    )
    assert len(exchange["profile"]["deep"]["nodes"]) == 8192
    for name in ("json", "speedscope", "collapsed", "chrome"):
        path = f"/api/v1/requests/{seen.trace}/profile?format={name}"
        assert by_hand.api(path)[0] == 200, name


def test_gone_is_said_and_does_not_take_away(by_hand: Gateway, hand: HandApp) -> None:
    seen = seen_by(by_hand, hand)
    post(by_hand, batch(row(seen), gone=[seen.key]))
    exchange = wait_exchange(by_hand, seen.trace, lambda x: x["profile"] is not None)
    assert exchange["profile"]["detail"] == "gone" and exchange["profile"]["lanes"] == []
    post(by_hand, batch(details=[detail(seen.key)]))
    post(by_hand, batch(gone=[seen.key]))
    wait_exchange(by_hand, seen.trace, lambda x: x["profile"]["detail"] == "stored")


# --- the real hook ---------------------------------------------------------------------------


def ask(gateway: Gateway, path: str, **headers: str) -> tuple[str, dict[str, Any]]:
    """One request, and its exchange once profile and detail are there."""
    request = urllib.request.Request(gateway.base + path, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        response.read()
        trace = response.headers["x-trace-id"]
    exchange = wait_exchange(
        gateway, trace, lambda x: x["profile"] and x["profile"]["detail"] == "stored"
    )
    return trace, exchange


def check_lanes(exchange: dict[str, Any]) -> None:
    """What must hold of every lane: its sums, no gaps, within the request."""
    for lane in exchange["profile"]["lanes"]:
        life = lane["run_ns"] + lane["ready_ns"] + lane["wait_ns"]
        at = lane["created_ns"]
        for begin, end, kind, stack, waker in lane["timeline"]:
            assert begin == at and end > begin
            assert kind in ("run", "ready", "wait", "thread_queue", "thread_run")
            assert -1 <= stack < len(exchange["profile"]["stacks"])
            assert waker is None or 0 < waker <= len(exchange["profile"]["lanes"])
            at = end
        assert at == lane["created_ns"] + life
        if lane["ended_ns"] is not None:
            assert lane["ended_ns"] == at


def test_lanes_of_a_gather(running: tuple[Gateway, AppServer]) -> None:
    """Three children, the slowest wakes the route; the path in order is what the breakdown sums."""
    gateway, _ = running
    _, exchange = ask(gateway, "/gather")
    check_lanes(exchange)
    profile = exchange["profile"]
    lanes = {lane["name"]: lane for lane in profile["lanes"]}
    slowest = lanes["slowest_child"]
    assert {"first_child", "third_child"} < set(lanes)
    assert slowest["wait_ns"] >= 290 * MS > 150 * MS > lanes["first_child"]["wait_ns"]
    parent = profile["lanes"][slowest["parent"] - 1]
    waits = [row for row in parent["timeline"] if row[2] == "wait" and row[1] - row[0] > 200 * MS]
    assert [row[4] for row in waits] == [slowest["id"]]
    path_ns = sum(end - begin for begin, end, *_ in profile["path"])
    assert path_ns == profile["app_ns"] + profile["app_stream_ns"] + profile["app_clipped_ns"]


def deep_of(exchange: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Calls, own time and waits of each function of the call trees."""
    deep = exchange["profile"]["deep"]
    assert deep is not None and deep["state"] == "ok", deep
    sums: dict[str, tuple[int, int, int]] = {}
    for _, function, calls, self_ns, await_ns, _ in deep["nodes"]:
        if function >= 0:
            frame = deep["functions"][function]
            name = f"{frame['module']}.{frame['function']}"
            old = sums.get(name, (0, 0, 0))
            sums[name] = (old[0] + calls, old[1] + self_ns, old[2] + await_ns)
    return sums


def test_a_client_with_the_token_gets_a_deep_profile(running: tuple[Gateway, AppServer]) -> None:
    gateway, _ = running
    _, exchange = ask(gateway, "/async", **{"X-Tailrace-Deep": TOKEN})
    functions = deep_of(exchange)
    slept = functions["asyncio.tasks.sleep"]
    assert slept[0] == 20 and slept[2] >= 190 * MS
    for name in ("async_root", "async_parent_function", "async_child_function"):
        assert functions[f"app.{name}"][0] == 1
    _, exchange = ask(gateway, "/sync", **{"X-Tailrace-Deep": TOKEN})
    functions = deep_of(exchange)
    slept = functions["time.sleep"]
    assert slept[0] == 20 and slept[1] >= 190 * MS
    assert functions["app.parent_function"][0] == functions["app.child_function"][0] == 1
    for headers in ({}, {"X-Tailrace-Deep": "wrong"}, {"X-Tailrace-Deep": TOKEN + "x"}):
        assert ask(gateway, "/async", **headers)[1]["profile"]["deep"] is None


def test_the_code_is_an_hmac_of_this_attempt(
    hand: HandApp, tmp_path: Path, gateway_factory: Any
) -> None:
    """What the app gets is what docs/protocol.md says, under the key the answers tell."""
    got: list[bytes] = []

    def answer(conn: Any, seen: Any) -> None:
        seen.start_ns = seen.end_ns = 1
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    app = HandApp(answer=answer)
    serve = app._serve

    def watch(conn: Any, index: int) -> None:
        class Watched:
            def recv(self, size: int) -> bytes:
                data = conn.recv(size)
                got.append(data)
                return data

            def sendall(self, data: bytes) -> None:
                conn.sendall(data)

        serve(Watched(), index)  # type: ignore[arg-type]

    app._serve = watch  # type: ignore[method-assign]
    app.start()
    (tmp_path / "token").write_text(TOKEN)
    gateway = gateway_factory(
        [app.address],
        profile={"deep": {"token_file": str(tmp_path / "token"), "max_per_minute": 1}},
    )
    request = urllib.request.Request(gateway.base + "/x", headers={"X-Tailrace-Deep": TOKEN})
    for _ in range(2):
        urllib.request.urlopen(request, timeout=5).read()
    app.stop()
    key = bytes.fromhex(post(gateway, batch())[1]["deep_key"])
    first, second = (s.key for s in app.seen)
    mac = hmac.new(key, first.encode(), hashlib.sha256).hexdigest()[:16]
    text = b"".join(got).lower()
    assert f"x-tailrace: 1;{first};deep;{mac}\r\n".encode() in text
    assert f"x-tailrace: 1;{second}\r\n".encode() in text  # one a minute
    assert TOKEN.encode() not in text


def command(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a client command against this gateway."""
    return subprocess.run(
        [str(BINARY), *arguments, "--control", f"unix:{gateway.control}"],
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_an_operator_orders_the_next_requests(running: tuple[Gateway, AppServer]) -> None:
    gateway, _ = running
    assert gateway.api("/api/v1/deep", "POST", b'{"route": "x"}')[0] == 400
    assert gateway.api("/api/v1/deep", "POST", b'{"route": "GET /x", "count": 0}')[0] == 400
    asking = subprocess.Popen(
        [
            str(BINARY), "deep", "GET /async", "--count", "2", "--wait", "20",
            "--control", f"unix:{gateway.control}",
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: gateway.json("/api/v1/deep")["orders"], 5, "the order")
    ask(gateway, "/sync")
    traces = [ask(gateway, "/async")[0] for _ in range(3)]
    output, _ = asking.communicate(timeout=30)
    assert asking.returncode == 0
    assert [line.split()[0] for line in output.splitlines()] == traces[:2]
    assert gateway.json("/api/v1/deep")["orders"] == []
    assert gateway.json(f"/api/v1/requests/{traces[2]}")["profile"]["deep"] is None
    late = command(gateway, "deep", "GET /nowhere", "--wait", "0")
    assert late.returncode == 0
    assert gateway.json("/api/v1/deep")["orders"][0]["left"] == 1


def test_exports(running: tuple[Gateway, AppServer], tmp_path: Path) -> None:
    """Each format is what its readers expect, and adds up."""
    gateway, _ = running
    trace, exchange = ask(gateway, "/gather", **{"X-Tailrace-Deep": TOKEN})
    profile = exchange["profile"]

    def export(name: str) -> str:
        done = command(gateway, "export", trace, "--format", name)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert json.loads(export("json"))["profile"]["lanes"] == profile["lanes"]
    scope = json.loads(export("speedscope"))
    frames = scope["shared"]["frames"]
    assert len(scope["profiles"]) == 1 + len(profile["lanes"]) + len(profile["deep"]["lanes"])
    for one in scope["profiles"]:
        assert one["type"] == "sampled" and one["unit"] == "nanoseconds"
        assert len(one["samples"]) == len(one["weights"])
        assert all(0 <= f < len(frames) for sample in one["samples"] for f in sample)
        assert sum(one["weights"]) <= one["endValue"]
    path = scope["profiles"][0]
    longest = path["samples"][path["weights"].index(max(path["weights"]))]
    assert "slowest_child" in [frames[f]["name"] for f in longest]
    lines = export("collapsed").splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == (
        profile["app_ns"] + profile["app_stream_ns"]
    )
    events = json.loads(export("chrome"))["traceEvents"]
    tracks = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert {"gateway: phases", "app: path that decided"} < tracks
    assert {e["ph"] for e in events} == {"M", "X", "s", "f"}
    done = command(gateway, "export", trace, "--format", "speedscope", "-o", str(tmp_path / "s"))
    assert done.returncode == 0 and json.loads((tmp_path / "s").read_text()) == scope
    assert command(gateway, "export", "x").returncode == 2
    assert command(gateway, "export", trace, "--format", "pdf").returncode == 2
    assert command(gateway, "export", "0" * 31 + "1").returncode == 1
    assert gateway.api(f"/api/v1/requests/{trace}/profile?format=x")[0] == 400


def test_show_draws_the_lanes(running: tuple[Gateway, AppServer]) -> None:
    gateway, _ = running
    with urllib.request.urlopen(gateway.base + "/gather", timeout=10) as response:
        trace = response.headers["x-trace-id"]
    text = command(gateway, "show", trace).stdout  # waits for profile and detail
    lanes = text[text.index("\nlanes ") :]
    for name in ("first_child", "slowest_child", "third_child"):
        assert name in lanes


@pytest.mark.parametrize(
    ("deep", "least", "most"),
    [
        ({}, 0, 0),
        ({"rate": 1.0, "max_per_minute": 7}, 7, 7),
        ({"rate": 0.25, "max_per_minute": 600}, 20, 85),  # 50 of 200, six standard deviations
    ],
    ids=["none", "all-but-limited", "a-quarter"],
)
def test_a_share_of_the_requests(
    gateway_factory: Any, stub_factory: Any, deep: dict[str, Any], least: int, most: int
) -> None:
    """`profile.deep.rate` draws requests by chance, under the limit a minute."""
    asked: list[bool] = []

    def answer(conn: Any, index: int) -> None:
        data = b""
        while chunk := conn.recv(65536):
            data += chunk
            while b"\r\n\r\n" in data:
                head, _, data = data.partition(b"\r\n\r\n")
                (line,) = [x for x in head.lower().split(b"\r\n") if x.startswith(b"x-tailrace:")]
                asked.append(b";deep;" in line)
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    gateway = gateway_factory([stub_factory(answer).address], profile={"deep": deep})
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    for _ in range(200):
        connection.request("GET", "/x")
        assert connection.getresponse().read() == b"ok"
    connection.close()
    assert len(asked) == 200
    assert least <= sum(asked) <= most
