"""POST /v1/profiles against the real gateway: what is not whole, true, in time changes nothing."""

from __future__ import annotations

import json
import os
import socket
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from handmade import HandApp, batch, metrics, outcome, post, process, result, row, wait_exchange
from harness import Gateway, free_port, start_gateway, wait_for

FORGED = "ab" * 16 + "-" + "cd" * 8
BODY_MAX = 1 << 20


@pytest.fixture(scope="module")
def app() -> Iterator[HandApp]:
    """One scripted app for all tests here."""
    server = HandApp(delay_s=0.01).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def gateway(app: HandApp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all tests here; exchanges wait a minute for their profiles."""
    gateway = start_gateway(
        tmp_path_factory.mktemp("ingest"), [app.address], profile={"join_timeout_ms": 60000}
    )
    yield gateway
    gateway.stop()


def request(gateway: Gateway, app: HandApp) -> list[Any]:
    """Send one request through the gateway, return its true profile's row once the record is in."""
    before = len(app.seen)
    with urllib.request.urlopen(gateway.base + "/x", timeout=10) as response:
        assert response.read() == b"ok"
    seen = wait_for(lambda: app.seen[before:], 5, "the app saw it")[0]
    wait_for(lambda: seen.end_ns, 5, "the app answered it")
    wait_exchange(gateway, seen.trace, lambda _: True)
    return row(seen)


def changed(profile: list[Any], index: int, value: Any) -> list[Any]:
    """A copy of a row with one field replaced."""
    copy = list(profile)
    copy[index] = value
    return copy


def test_joins(gateway: Gateway, app: HandApp) -> None:
    """A true profile: the answer's shape, the split's sum, stacks as the API shows them."""
    profile = request(gateway, app)
    before = result(gateway, "ok")
    status, answer = post(gateway, batch(profile))
    assert status == 200
    deep_key = answer.pop("deep_key")
    assert len(bytes.fromhex(deep_key)) == 32
    # Kept, so its detail is wanted, unless its record was still on the way.
    assert answer.pop("want") in ([], [profile[0]])
    # Everything of a quiet route, nothing of one of which no exchange has ended with a profile yet.
    everything = {"keep_over_ns": 0, "keep_rate": 1.0}
    nothing = {"keep_over_ns": 2**63 - 1, "keep_rate": 0.0}
    assert answer.pop("keep")["GET /hand/{made}"] in (everything, nothing)
    assert answer.pop("settings") == {"wait_threshold_us": 100, "stall_threshold_us": 5000}
    assert answer == {"accepted": 1, "refused": 0, "stacks": "ok"}
    assert result(gateway, "ok") == before + 1
    exchange = wait_exchange(gateway, profile[0][:32], lambda x: x["profile"] is not None)
    keep = post(gateway, batch(request(gateway, app)))[1]["keep"]
    assert keep == {"GET /hand/{made}": everything}
    assert exchange["route"] == "GET /hand/{made}"
    got = exchange["profile"]
    phases = {phase["name"]: phase["ns"] for phase in exchange["phases"]}
    assert sum(phases.values()) == exchange["total_ns"]
    split = got["app_queue_ns"] + got["app_ns"] + got["app_out_ns"]
    assert split == phases["send"] + phases["wait"]
    assert sum(entry["ns"] for entry in got["breakdown"]) + got["unattributed_ns"] == got["app_ns"]
    assert got["clock"] == "shared"
    assert got["breakdown"][0]["stack"][0] == {
        "module": "app",
        "function": "async_root",
        "file": "app.py",
        "line": 31,
        "in_app": True,
    }
    # The scripted app sleeps 10 ms; what it did before the gateway saw its own write return is cut.
    assert got["breakdown"][0]["ns"] >= 5_000_000


def test_deflated(gateway: Gateway, app: HandApp) -> None:
    """The same, deflated; and deflated garbage, a cut stream, a bomb."""
    profile = request(gateway, app)
    headers = {"Content-Encoding": "deflate"}
    whole = zlib.compress(batch(profile))
    malformed, oversized = result(gateway, "malformed"), result(gateway, "oversized")
    for bad in (b"garbage", whole[:-3], whole + b"x", b""):
        status, answer = post(gateway, bad, headers)
        assert status == 400 and answer["error"]["code"] == "malformed", bad
    bomb = zlib.compress(b" " * (100 * BODY_MAX), 9)
    assert len(bomb) < BODY_MAX
    assert post(gateway, bomb, headers)[0] == 413
    assert post(gateway, zlib.compress(b" " * (BODY_MAX + 1)), headers)[0] == 413
    assert post(gateway, zlib.compress(b" " * BODY_MAX), headers)[0] == 400
    assert result(gateway, "malformed") == malformed + 5
    assert result(gateway, "oversized") == oversized + 2
    assert post(gateway, whole, headers)[1]["accepted"] == 1
    wait_exchange(gateway, profile[0][:32], lambda x: x["profile"] is not None)


def test_malformed(gateway: Gateway, app: HandApp) -> None:
    """Malformed batches name the first error's place, and nothing of them is taken."""
    profile = request(gateway, app)
    key = profile[0]
    cases: list[tuple[bytes, str]] = [
        (b"", ""),
        (b"{", ""),
        (batch(profile)[:-20], None),  # type: ignore[list-item]
        (b'{"v": 1, "v": 1}', "/v"),
        (batch(profile, v=2), "/v"),
        (batch(profile, process=process(pid="x")), "/process/pid"),
        (batch(profile, process=process(instance="x")), "/process/instance"),
        (batch(profile, stacks=[[0, [["m", "f", "p", 1]]]]), "/stacks/0/1/0"),
        (batch(profile, profile[:-1]), "/profiles/1"),
        (batch(profile, changed(profile, 0, key.upper())), "/profiles/1/0"),
        (batch(profile, changed(profile, 9, "maybe")), "/profiles/1/9"),
        (batch(profile, changed(profile, 5, -1)), "/profiles/1/5"),
        (batch(profile, changed(profile, 11, [["wait"]])), "/profiles/1/11/0"),
        (batch(profile, tails=[[key]]), "/tails/0"),
        (json.dumps([[[[[[[[[1]]]]]]]]]).encode(), "/0/0/0/0/0/0/0/0"),
    ]
    before = result(gateway, "malformed")
    for body, pointer in cases:
        status, answer = post(gateway, body)
        assert status == 400, body[:200]
        error = answer["error"]
        assert error["code"] == "malformed" and error["message"]
        if pointer is not None:
            assert error["pointer"] == pointer, body[:300]
    assert result(gateway, "malformed") == before + len(cases)
    exchange = wait_exchange(gateway, key[:32], lambda _: True)
    assert exchange["profile_missing"] == "pending"
    assert post(gateway, batch(profile))[1]["accepted"] == 1


def test_impossible(gateway: Gateway, app: HandApp) -> None:
    """What cannot be true is refused and counted; the exchange goes on waiting for the true one."""
    profile = request(gateway, app)
    refused = outcome(gateway, "refused")
    bad = [
        changed(profile, 5, profile[6] + 1),  # enter after start
        changed(profile, 7, profile[6] - 1),  # end before start
        changed(profile, 12, 1),  # sums do not hold
        changed(profile, 14, profile[14] + 1),
        changed(profile, 1, 3),  # a later part without its first
    ]
    for body in bad:
        assert post(gateway, batch(body))[0] == 200
    status, answer = post(gateway, batch(*bad[:4]))
    assert (status, answer["accepted"], answer["refused"]) == (200, 0, 4)
    # True on its own, but not of this exchange: an hour off, earlier and later.
    hour = 3600 * 10**9
    for shift in (-min(hour, profile[5] - 1), hour):
        moved = list(profile)
        for field in (5, 6, 7):
            moved[field] += shift
        assert post(gateway, batch(moved))[1]["accepted"] == 1
    assert outcome(gateway, "refused") == refused + 5 + 4 + 2
    assert wait_exchange(gateway, profile[0][:32], lambda _: True)["profile"] is None
    assert post(gateway, batch(profile))[1]["accepted"] == 1
    wait_exchange(gateway, profile[0][:32], lambda x: x["profile"] is not None)


def test_repeated(gateway: Gateway, app: HandApp) -> None:
    """The same profile again is counted and changes nothing."""
    profile = request(gateway, app)
    repeated = outcome(gateway, "repeated")
    assert post(gateway, batch(profile, profile))[1]["accepted"] == 2
    first = wait_exchange(gateway, profile[0][:32], lambda x: x["profile"] is not None)
    other = changed(profile, 11, [["run", None, -1, profile[6] - profile[5], 1, 1, 0, None, None]])
    post(gateway, batch(other))
    assert outcome(gateway, "repeated") == repeated + 2
    assert gateway.json(f"/api/v1/requests/{profile[0][:32]}") == first


def test_forged(gateway: Gateway, app: HandApp) -> None:
    """A key the gateway never gave out shows nowhere; a known trace with another span neither."""
    profile = request(gateway, app)
    trace = profile[0][:32]
    post(gateway, batch(changed(profile, 0, FORGED), changed(profile, 0, trace + "-" + "ef" * 8)))
    assert gateway.api(f"/api/v1/requests/{FORGED[:32]}")[0] == 404
    assert wait_exchange(gateway, trace, lambda _: True)["profile"] is None
    waiting = metrics(gateway)['tailrace_join_waiting{side="profile"}']
    assert waiting >= 2


def test_resend(gateway: Gateway, app: HandApp) -> None:
    """A stack that is not known: nothing is taken until all are sent again."""
    profile = request(gateway, app)
    other = process(instance="f" * 32)
    before = result(gateway, "resend")
    status, answer = post(gateway, batch(profile, stacks=[], process=other))
    assert (status, answer["stacks"], answer["accepted"]) == (200, "resend", 0)
    assert result(gateway, "resend") == before + 1
    assert wait_exchange(gateway, profile[0][:32], lambda _: True)["profile"] is None
    assert post(gateway, batch(profile, process=other))[1]["stacks"] == "ok"
    wait_exchange(gateway, profile[0][:32], lambda x: x["profile"] is not None)
    profile = request(gateway, app)  # now the stack is known
    assert post(gateway, batch(profile, stacks=[], process=other))[1]["accepted"] == 1
    exchange = wait_exchange(gateway, profile[0][:32], lambda x: x["profile"] is not None)
    assert exchange["profile"]["breakdown"][0]["stack"][1]["function"] == "sleep"


def raw(gateway: Gateway, data: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes to the control socket and read what comes before it closes (2 s)."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(2)
        sock.connect(gateway.control)
        answer = b""
        try:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                answer += data
        except OSError:
            pass
        return answer


HEAD = b"POST /v1/profiles HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
JSON = b"Content-Type: application/json\r\n"


def test_oversized(gateway: Gateway) -> None:
    """One byte over 1 MiB is 413 with the API's error; far over too, and neither is read whole."""
    before = result(gateway, "oversized")
    status, answer = post(gateway, b" " * BODY_MAX)
    assert (status, answer["error"]["code"]) == (400, "malformed")
    status, answer = post(gateway, b" " * (BODY_MAX + 1))
    assert (status, answer["error"]["code"]) == (413, "too_large")
    assert b" 413 " in raw(gateway, HEAD + JSON + b"Content-Length: 99999999\r\n\r\nx")[:20]
    assert result(gateway, "oversized") == before + 2


BAD = [
    (b"nonsense\r\n\r\n", 400, "bad_request"),
    (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "bad_request"),
    (b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", 501, "unknown_method"),
    (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n", 400, "bad_request"),
    (b"GET / HTTP/1.1\r\nx: " + b"a" * 20000 + b"\r\n\r\n", 400, "bad_request"),
    (HEAD + JSON + b"Content-Length: 99999999\r\n\r\nx", 413, "too_large"),
    (HEAD + b"Content-Length: 1\r\nExpect: tea\r\n\r\n", 417, "bad_expect"),
]


@pytest.mark.parametrize(("request_", "status", "code"), BAD)
def test_what_is_no_request(gateway: Gateway, request_: bytes, status: int, code: str) -> None:
    """Errors have one shape, those that the HTTP library finds too."""
    head, _, body = raw(gateway, request_).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"\r\nContent-Type: application/json\r\n" in head
    assert b"Content-Length: %d\r\n" % len(body) in head and b"Connection: close" in head
    error = json.loads(body)["error"]
    assert error["code"] == code and error["message"] and error["pointer"] is None


def test_unsupported(gateway: Gateway) -> None:
    """No length, other types and encodings: refused before anything is read as JSON."""
    before = result(gateway, "unsupported")
    body = batch()
    assert post(gateway, body, {"Content-Type": "text/plain"})[0] == 415
    assert post(gateway, body, {"Content-Encoding": "gzip"})[0] == 415
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    answer = raw(gateway, HEAD + JSON + b"Transfer-Encoding: chunked\r\n\r\n" + chunked)
    assert b" 411 " in answer[:20]
    assert b'"length_required"' in answer
    assert result(gateway, "unsupported") == before + 3
    assert post(gateway, body, {"Content-Type": "application/json; charset=utf-8"})[0] == 200


def test_truncated_body(gateway: Gateway, app: HandApp) -> None:
    """A body that ends before its length changes nothing."""
    profile = request(gateway, app)
    body = batch(profile)
    head = HEAD + JSON + b"Content-Length: %d\r\n\r\n" % len(body)
    assert b" 200 " not in raw(gateway, head + body[:-1], half_close=True)
    assert wait_exchange(gateway, profile[0][:32], lambda _: True)["profile"] is None
    assert b" 200 " in raw(gateway, head + body)[:20]
    wait_exchange(gateway, profile[0][:32], lambda x: x["profile"] is not None)


def test_late(app: HandApp, gateway_factory: Any, tmp_path: Path) -> None:
    """After the join timeout the exchange is written without; what comes then is late."""
    gateway = gateway_factory([app.address], profile={"join_timeout_ms": 200})
    joined, profile = request(gateway, app), request(gateway, app)
    post(gateway, batch(joined))  # so that the gateway knows that this server has a hook
    trace = profile[0][:32]
    exchange = wait_exchange(gateway, trace, lambda x: x["profile_missing"] != "pending")
    assert exchange["profile_missing"] in ("late", "no_hook")
    assert post(gateway, batch(profile))[1]["accepted"] == 1
    assert outcome(gateway, "late") == 1
    exchange = wait_exchange(gateway, trace, lambda x: x["profile_missing"] == "late")
    assert exchange["profile"] is None


def test_token(app: HandApp, gateway_factory: Any, tmp_path: Path) -> None:
    """On TCP the token is asked for, and only the right one will do."""
    token_file = tmp_path / "token"
    token_file.write_text("correct-horse-battery-staple-0123456789\n")
    port = free_port()
    gateway = gateway_factory(
        [app.address],
        control={
            "listeners": [
                {"address": f"unix:{tmp_path}/c.sock", "role": "admin"},
                {
                    "address": f"127.0.0.1:{port}",
                    "role": "ingest",
                    "token_file": str(token_file),
                },
            ]
        },
    )

    def ask(path: str, headers: dict[str, str]) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            data=batch() if path == "/v1/profiles" else None,
            headers={"Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            assert json.loads(error.read())["error"]["code"]
            return error.code

    right = {"Authorization": "Bearer correct-horse-battery-staple-0123456789"}
    assert ask("/v1/profiles", {}) == 401
    for wrong in ("", "Bearer", "Bearer x", right["Authorization"][:-1], "Basic eDp5"):
        assert ask("/v1/profiles", {"Authorization": wrong}) == 401
    assert ask("/v1/profiles", right) == 200
    assert ask("/api/v1/requests", right) == 404  # not on a listener for hooks
    assert ask("/metrics", right) == 404
    assert result(gateway, "unauthenticated") == 6
    assert result(gateway, "ok") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users: run as root")
def test_forbidden(app: HandApp, gateway_factory: Any, tmp_path: Path) -> None:
    """On a Unix socket the peer's user decides."""
    gateway = gateway_factory(
        [app.address],
        control={
            "listeners": [
                {"address": f"unix:{tmp_path}/c.sock", "role": "admin"},
                {"address": f"unix:{tmp_path}/n.sock", "role": "ingest", "allow_users": ["nobody"]},
            ]
        },
    )
    admin, gateway.control = gateway.control, f"{tmp_path}/n.sock"
    try:
        assert post(gateway, batch())[0] == 403
    finally:
        gateway.control = admin
    assert result(gateway, "forbidden") == 1


def test_fence(gateway: Gateway) -> None:
    """64 connections at most, 16 KiB of headers, 10 s for a request to arrive."""
    assert (
        b" 400 " in raw(gateway, b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 17000 + b"\r\n\r\n")[:20]
    )
    begin = time.monotonic()
    dripping = socket.socket(socket.AF_UNIX)
    dripping.connect(gateway.control)
    dripping.sendall(HEAD + JSON + b"Content-Length: 1000\r\n\r\n")
    idle = []
    for _ in range(70):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(gateway.control)  # beyond the limit they wait to be accepted
        idle.append(sock)
    idle[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    idle[-1].settimeout(0.5)
    with pytest.raises(TimeoutError):
        idle[-1].recv(100)
    for sock in idle[:10]:
        sock.close()
    idle[-1].settimeout(5)
    assert b" 200 " in idle[-1].recv(100)
    for sock in idle:
        sock.close()
    assert metrics(gateway)["tailrace_control_accept_pauses_total"] >= 1
    dripping.settimeout(0.25)
    while True:  # a byte now and then does not keep a connection
        try:
            dripping.sendall(b" ")
            if dripping.recv(100) == b"":
                break
        except TimeoutError:
            pass
        except OSError:
            break
        assert time.monotonic() - begin < 20, "a dripping request is never cut off"
    dripping.close()
    assert time.monotonic() - begin > 9
    assert metrics(gateway)["tailrace_control_timeouts_total"] == 1


def test_tcp_leaves_room(app: HandApp, tmp_path: Path) -> None:
    """Idle strangers on a probe listener never keep the hook and the admin out."""
    port = free_port()
    listeners = [
        {"address": f"unix:{tmp_path}/control.sock", "role": "admin"},
        {"address": f"127.0.0.1:{port}", "role": "probe"},
    ]
    gateway = start_gateway(tmp_path, [app.address], control={"listeners": listeners})
    try:
        idle = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(100)]
        time.sleep(0.2)
        begin = time.monotonic()
        assert post(gateway, batch())[0] == 200
        assert time.monotonic() - begin < 5, "waited for the strangers' time-out"
        for sock in idle:
            sock.close()
    finally:
        gateway.stop()
