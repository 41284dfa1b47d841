"""Browsers at the control listeners: log-in by token, cookies, and requests other sites forge."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from handmade import metrics
from harness import Gateway, StubServer, free_port, wait_for
from proxy_tools import OK, always
from tls_tools import Authority, listen

TOKEN = "a-token-of-more-than-16-bytes"
DEPLOY = json.dumps({"version": "v1"}).encode()


@dataclass
class Door:
    """A gateway with an admin listener on TCP, and how to ask there."""

    gateway: Gateway
    port: int
    context: ssl.SSLContext | None = None
    source: str = "127.0.0.1"

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, body. Underscores of header names are hyphens."""
        kind: Any = http.client.HTTPSConnection if self.context else http.client.HTTPConnection
        more = {"context": self.context} if self.context else {}
        source = (self.source, 0)
        host = "localhost" if self.context else "127.0.0.1"
        connection = kind(host, self.port, timeout=10, source_address=source, **more)
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, fields)
            response = connection.getresponse()
            found = {k.lower(): v for k, v in response.getheaders()}
            return response.status, found, response.read()
        finally:
            connection.close()

    def log_in(self, token: str = TOKEN) -> tuple[int, dict[str, str], bytes]:
        """POST /login as the page does."""
        body = json.dumps({"token": token}).encode()
        return self.ask("POST", "/login", body, Content_Type="application/json")

    def cookie(self) -> str:
        """A session's cookie, as a browser sends it back."""
        status, headers, _ = self.log_in()
        assert status == 204
        return headers["set-cookie"].partition(";")[0]

    def origin(self) -> str:
        """What a browser says of a page of ours."""
        return f"http://127.0.0.1:{self.port}"


def code(body: bytes) -> str:
    """The code of an error."""
    return str(json.loads(body)["error"]["code"])


@pytest.fixture
def door(
    gateway_factory: Callable[..., Gateway],
    stub_factory: Callable[..., StubServer],
    tmp_path: Path,
) -> Door:
    """An admin listener on loopback in clear, beside the socket."""
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    port = free_port()
    listeners = [
        {"address": f"unix:{tmp_path}/control.sock"},
        {"address": f"127.0.0.1:{port}", "token_file": str(token)},
    ]
    stub = stub_factory(always(OK))
    return Door(gateway_factory([stub.address], control={"listeners": listeners}), port)


def test_log_in_and_out(door: Door) -> None:
    """The token makes a cookie that opens everything until the log-out; the bearer goes on."""
    assert door.ask("GET", "/api/v1/routes")[0] == 401
    assert json.loads(door.ask("GET", "/login")[2]) == {
        "needed": True,
        "in": False,
        "ends_in_s": None,
    }
    status, headers, body = door.log_in()
    assert status == 204 and body == b""
    cookie, *attributes = headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} < set(attributes)
    assert "Secure" not in attributes  # in clear, on loopback: browsers would not send it back
    assert TOKEN not in headers["set-cookie"]
    assert door.ask("GET", "/api/v1/routes", Cookie=cookie)[0] == 200
    assert door.ask("GET", "/api/v1/routes", Cookie=f"a=b; {cookie}; c=d")[0] == 200
    told = json.loads(door.ask("GET", "/login", Cookie=cookie)[2])
    assert told["needed"] and told["in"] and 43000 < told["ends_in_s"] <= 43200
    assert door.ask("GET", "/api/v1/routes", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert door.ask("POST", "/logout", b"", Cookie=cookie, X_Tailrace_Page="1")[0] == 204
    assert door.ask("GET", "/api/v1/routes", Cookie=cookie)[0] == 401
    assert metrics(door.gateway)['tailrace_logins_total{result="ok"}'] == 1


def test_a_form_logs_in_too(door: Door) -> None:
    """A plain form works as well; what is neither is refused."""
    body = f"token={TOKEN}".encode()
    form = "application/x-www-form-urlencoded"
    assert door.ask("POST", "/login", body, Content_Type=form)[0] == 204
    for bad in (b"", b"{", b"[]", b'{"token":1}', b"x" * 9000):
        status, _, answer = door.ask("POST", "/login", bad, Content_Type="application/json")
        assert status == 400 and code(answer) == "malformed"
    assert door.ask("PUT", "/login", b"")[0] == 405
    assert door.ask("GET", "/logout")[0] == 405


def test_wrong_cookies(door: Door) -> None:
    """Made up, cut, of another name; and a wrong bearer is not helped by a right cookie."""
    cookie = door.cookie()
    name, _, value = cookie.partition("=")
    flipped = ("0" if value[0] != "0" else "1") + value[1:]
    for wrong in (f"{name}={flipped}", f"{name}={value[:-1]}", f"x{cookie}", f"{name}=", value):
        assert door.ask("GET", "/api/v1/routes", Cookie=wrong)[0] == 401, wrong
    both = {"Cookie": cookie, "Authorization": "Bearer wrong"}
    assert door.ask("GET", "/api/v1/routes", **both)[0] == 401


def test_brute_force(door: Door) -> None:
    """Ten wrong tokens, then none is looked at for a while; other addresses go on."""
    for i in range(10):
        status, _, body = door.log_in(f"wrong{i}")
        assert status == 401 and code(body) == "wrong_token"
        assert door.log_in(f"wrong{i}")[0] == (401 if i < 9 else 429)  # told again: no guess
    status, headers, body = door.log_in()
    assert status == 429 and code(body) == "too_many_tries"
    assert 1 <= int(headers["retry-after"]) <= 6
    assert Door(door.gateway, door.port, source="127.0.0.2").log_in()[0] == 204
    status, headers, body = door.ask("GET", "/api/v1/routes", Authorization=f"Bearer {TOKEN}")
    assert status == 429 and code(body) == "too_many_tries" and headers["retry-after"]
    seen = metrics(door.gateway)
    assert seen['tailrace_logins_total{result="wrong_token"}'] == 19
    assert seen['tailrace_logins_total{result="too_many_tries"}'] == 2
    assert seen['tailrace_bearers_refused_total{reason="too_many_tries"}'] == 1
    assert re.search(r"log-in of 127\.0\.0\.1:\d+ refused: wrong_token", door.gateway.log())
    assert TOKEN not in door.gateway.log()
    wait_for(lambda: door.log_in()[0] == 204, 8, "may try again", every_s=0.5)


def test_brute_force_by_bearer(door: Door) -> None:
    """Headers count like log-ins, a hook's old token once; a session goes on."""
    cookie = door.cookie()
    for i in [0] * 30 + list(range(1, 10)):
        status, headers, body = door.ask("GET", "/healthz", Authorization=f"Bearer wrong{i}")
        assert status == 401 and code(body) == "unauthenticated"
        assert headers["www-authenticate"] == "Bearer"
    status, headers, body = door.ask("GET", "/healthz", Authorization=f"bearer {TOKEN}")
    assert status == 429 and code(body) == "too_many_tries"
    assert 1 <= int(headers["retry-after"]) <= 6
    assert door.log_in()[0] == 429
    assert door.ask("GET", "/healthz", Cookie=cookie)[0] == 200
    assert door.ask("GET", "/healthz", Authorization="Basic eDp5")[0] == 401  # no guess, no answer
    assert Door(door.gateway, door.port, source="127.0.0.2").log_in()[0] == 204
    seen = metrics(door.gateway)
    assert seen['tailrace_bearers_refused_total{reason="wrong_token"}'] == 39
    assert seen['tailrace_bearers_refused_total{reason="too_many_tries"}'] == 1
    assert re.search(r"bearer of 127\.0\.0\.1:\d+ refused: wrong_token", door.gateway.log())


def stream(door: Door, **headers: str) -> http.client.HTTPResponse:
    """An open stream of events, its first line read."""
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=10)
    connection.request("GET", "/api/v1/live", headers=headers)
    response = connection.getresponse()
    assert response.status == 200 and response.readline() == b"retry: 2000\n"
    return response


def test_streams_end_with_their_session(door: Door, tmp_path: Path) -> None:
    """A log-out and another token close what they let in, and nothing else."""
    one, two = door.cookie(), door.cookie()
    first, second = stream(door, Cookie=one), stream(door, Cookie=two)
    bearer = stream(door, Authorization=f"Bearer {TOKEN}")
    end = b'event: end\ndata: {"reason":"logged_out"}\n\n'
    assert door.ask("POST", "/logout", b"", Cookie=one, X_Tailrace_Page="1")[0] == 204
    assert first.read().endswith(end)
    assert second.readline() == b"\n" and second.readline() == b":\n"  # a ping: it is open
    (tmp_path / "token").write_text("another-token-of-16-bytes-or-so")
    door.gateway.process.send_signal(signal.SIGHUP)
    assert second.read().endswith(end) and bearer.read().endswith(end)
    assert metrics(door.gateway)['tailrace_live_closed_total{reason="logged_out"}'] == 3


FORGED = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
]


@pytest.mark.parametrize("forged", FORGED)
def test_forged_requests(door: Door, forged: dict[str, str]) -> None:
    """What a page of another site makes a browser send changes nothing, cookie or not."""
    cookie = door.cookie()
    ours = {"Cookie": cookie, "Content_Type": "application/json"}
    status, _, body = door.ask("POST", "/api/v1/deploys", DEPLOY, **ours, **forged)
    assert status == 403 and code(body) == "cross_site"
    assert door.ask("POST", "/logout", b"", Cookie=cookie, **forged)[0] == 403
    assert door.gateway.json("/api/v1/deploys")["deploys"] == []
    good = {"Origin": door.origin(), "Sec_Fetch_Site": "same-origin"}
    assert door.ask("POST", "/api/v1/deploys", DEPLOY, **ours, **good)[0] == 201
    assert metrics(door.gateway)["tailrace_control_foreign_total"] == 2


def test_a_form_with_a_cookie_changes_nothing(door: Door) -> None:
    """Without JSON or our header, though the browser said nothing of its origin."""
    cookie = door.cookie()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        status, _, body = door.ask(
            "POST", "/api/v1/deploys", DEPLOY, Cookie=cookie, Content_Type=kind
        )
        assert status == 403 and code(body) == "cross_site"
    page = {"Cookie": cookie, "X_Tailrace_Page": "1"}
    assert door.ask("POST", "/api/v1/deploys", DEPLOY, **page)[0] == 201
    bearer = {"Authorization": f"Bearer {TOKEN}", "Content_Type": "text/plain"}
    assert door.ask("POST", "/api/v1/deploys", DEPLOY, **bearer)[0] == 201


def test_the_socket_needs_no_login_and_no_stranger(door: Door) -> None:
    """A forwarded socket is open to its user's browser, but not to other sites in it."""
    gateway = door.gateway
    assert json.loads(gateway.api("/login")[2]) == {"needed": False, "in": True, "ends_in_s": None}
    assert gateway.api("/login", "POST", b"{}")[0] == 204
    for forged in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert gateway.api("/api/v1/deploys", "POST", DEPLOY, forged)[0] == 403
        assert gateway.api("/v1/profiles", "POST", b"{}", forged)[0] == 403
    for name, status in {
        "localhost:9": 200,
        "tailrace": 200,
        "127.0.0.1:9": 200,
        "[::1]:9": 200,
        "x.localhost": 200,
        "evil.example": 403,  # made to lead to 127.0.0.1 (DNS rebinding)
        "127.0.0.1.evil.example:9": 403,
    }.items():
        assert gateway.api("/api/v1/routes", headers={"Host": name})[0] == status, name


def test_name_of_the_dashboard(
    gateway_factory: Callable[..., Gateway], stub_factory: Callable[..., StubServer]
) -> None:
    """alerts.dashboard_url is a name of ours."""
    stub = stub_factory(always(OK))
    url = "https://dash.example/tailrace"
    gateway = gateway_factory([stub.address], alerts={"dashboard_url": url})
    assert gateway.api("/api/v1/routes", headers={"Host": "dash.example"})[0] == 200
    assert gateway.api("/api/v1/routes", headers={"Host": "dash.example.org"})[0] == 403


def test_sessions_end(door: Door, tmp_path: Path) -> None:
    """Another token ends the sessions got with the old one; so does the collector's end."""
    cookie = door.cookie()
    (tmp_path / "token").write_text("another-token-of-16-bytes-or-so")
    door.gateway.process.send_signal(signal.SIGHUP)
    wait_for(lambda: door.ask("GET", "/api/v1/routes", Cookie=cookie)[0] == 401, 10, "ended")
    status, headers, _ = door.log_in("another-token-of-16-bytes-or-so")
    assert status == 204
    cookie = headers["set-cookie"].partition(";")[0]
    assert door.ask("GET", "/api/v1/routes", Cookie=cookie)[0] == 200
    old = door.gateway.collector_pid()
    os.kill(old, signal.SIGKILL)

    def other() -> bool:
        try:
            return door.gateway.collector_pid() != old and door.ask("GET", "/healthz")[0] == 401
        except (OSError, AssertionError, http.client.HTTPException):
            return False

    wait_for(other, 15, "another collector")
    assert door.ask("GET", "/api/v1/routes", Cookie=cookie)[0] == 401


def test_by_tls(
    gateway_factory: Callable[..., Gateway],
    stub_factory: Callable[..., StubServer],
    authority: Authority,
    tmp_path: Path,
) -> None:
    """Over TLS the cookie is Secure and of this host alone."""
    token = tmp_path / "token"
    token.write_text("short")
    port = free_port()
    certificate = authority.issue("localhost", "127.0.0.1")
    listeners = [
        {"address": f"unix:{tmp_path}/control.sock"},
        {"address": f"0.0.0.0:{port}", "token_file": str(token), **listen(certificate)},
    ]
    stub = stub_factory(always(OK))
    gateway = gateway_factory([stub.address], control={"listeners": listeners})
    door = Door(gateway, port, authority.client_context())
    status, headers, _ = door.log_in("short")
    assert status == 204
    cookie, *attributes = headers["set-cookie"].split("; ")
    assert cookie.startswith("__Host-tailrace_") and "Secure" in attributes
    assert door.ask("GET", "/api/v1/routes", Cookie=cookie)[0] == 200
    assert door.ask("GET", "/api/v1/routes", Cookie=cookie.removeprefix("__Host-"))[0] == 401
    assert "can be guessed" in gateway.log()
