"""TLS on control listeners: token, API, profiles, limits; and the clients of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from harness import BINARY, ROOT, AppServer, Gateway, StubServer, clean_env, free_port, wait_for
from proxy_tools import OK, always, ask, get
from tls_tools import Authority, RecordClient, listen, raw_connection

TOKEN = "0123456789abcdef"
Control = tuple[Gateway, int]


@pytest.fixture
def control(
    gateway_factory: Callable[..., Gateway],
    stub_factory: Callable[..., StubServer],
    authority: Authority,
    tmp_path: Path,
) -> Control:
    """Return a gateway with an admin listener by TLS, beyond loopback, and its port."""
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    port = free_port()
    certificate = authority.issue("localhost", "127.0.0.1")
    listeners = [
        {"address": f"unix:{tmp_path}/control.sock"},
        {"address": f"0.0.0.0:{port}", "token_file": str(token), **listen(certificate)},
    ]
    stub = stub_factory(always(OK))
    return gateway_factory([stub.address], control={"listeners": listeners}), port


def call(
    port: int, authority: Authority, method: str, path: str, body: bytes | None = None, **more: Any
) -> tuple[int, bytes]:
    """Ask over TLS with the token."""
    context = authority.client_context()
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    try:
        headers = {"Authorization": f"Bearer {more.get('token', TOKEN)}"}
        headers["Content-Type"] = "application/json"
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_api(control: Control, authority: Authority) -> None:
    """The API answers by TLS with the token only; large answers and bodies come whole."""
    gateway, port = control
    for _ in range(30):
        assert ask(gateway.port, get("/" + "x" * 900)).status == 200
    time.sleep(0.5)
    assert call(port, authority, "GET", "/healthz")[0] == 200
    assert call(port, authority, "GET", "/healthz", token="wrong")[0] == 401
    status, body = call(port, authority, "GET", "/metrics")
    assert status == 200 and len(body) > 10_000
    status, body = call(port, authority, "GET", "/api/v1/requests?limit=30")
    assert status == 200 and len(json.loads(body)["requests"]) == 30
    status, body = call(port, authority, "POST", "/v1/profiles", b"x" * 1_000_000)
    assert status == 400, body
    status, body = call(port, authority, "POST", "/v1/profiles", b"x" * 1_500_000)
    assert status == 413, body


def test_kept_alive_and_split(control: Control, authority: Authority) -> None:
    """Requests in a record per byte, and several in one segment."""
    _, port = control
    client = RecordClient(port, authority.client_context(), "localhost")
    request = f"GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    wire = b"".join(client.record(request[at : at + 1]) for at in range(len(request)))
    for at in range(0, len(wire), 53):
        client.raw.sendall(wire[at : at + 53])
    assert client.read().startswith(b"HTTP/1.1 200")
    client.raw.sendall(client.record(request) + client.record(request))
    data = b""
    while data.count(b"HTTP/1.1 200") < 2:
        data += client.read()
    client.close()


def test_no_clear_text(control: Control) -> None:
    """A request in clear gets nothing."""
    _, port = control
    with raw_connection(port) as raw:
        raw.sendall(f"GET /metrics HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := raw.recv(4096):
                data += chunk
    assert b"tailrace" not in data and b"HTTP" not in data


def test_silent_handshake_is_fenced(control: Control) -> None:
    """Who says nothing, or stops within the handshake, is closed after ten seconds."""
    _, port = control
    start = time.monotonic()
    socks = [raw_connection(port, 20) for _ in range(2)]
    socks[1].sendall(b"\x16\x03\x01\x02\x00\x01")
    for sock in socks:
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(100):
                pass
        sock.close()
    assert 8 < time.monotonic() - start < 14


def test_wrong_authority(control: Control, tmp_path: Path) -> None:
    """A client that does not trust the certificate never sends its token."""
    _, port = control
    stranger = Authority(tmp_path / "stranger", "stranger")
    with pytest.raises(ssl.SSLCertVerificationError):
        call(port, stranger, "GET", "/healthz")


def command(
    port: int, ca_file: Path | None, *arguments: str, host: str = "127.0.0.1"
) -> subprocess.CompletedProcess[str]:
    """Run a client command over TLS."""
    env = {"TAILRACE_TOKEN": TOKEN, **({"TAILRACE_CA": str(ca_file)} if ca_file else {})}
    return subprocess.run(
        [str(BINARY), *arguments, "--control", f"https://{host}:{port}", "--json"],
        capture_output=True,
        text=True,
        env=clean_env(env),
        timeout=20,
        check=False,
    )


def test_commands(control: Control, authority: Authority, tmp_path: Path) -> None:
    """Commands ask by TLS, by name and by address, and only a gateway that proves who it is."""
    gateway, port = control
    for _ in range(20):
        assert ask(gateway.port, get("/" + "x" * 900)).status == 200
    wait_for(lambda: gateway.json("/api/v1/requests?limit=50")["requests"][19:], 10, "20 kept")
    for host in ("127.0.0.1", "localhost"):
        done = command(port, authority.ca_file, "requests", host=host)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["requests"]) == 20
    done = command(port, None, "requests")
    assert done.returncode == 1 and "certificate" in done.stderr
    done = command(port, Authority(tmp_path / "other", "other").ca_file, "requests")
    assert done.returncode == 1 and "certificate" in done.stderr
    plain = urlsplit(gateway.base).port
    assert plain is not None
    assert command(plain, authority.ca_file, "requests").returncode == 1


def test_hook(
    authority: Authority,
    gateway_factory: Callable[..., Gateway],
    uvicorn_factory: Callable[..., AppServer],
    tmp_path: Path,
) -> None:
    """A hook posts its profiles by TLS, and they are joined."""
    token = tmp_path / "hook-token"
    token.write_text(TOKEN)
    port = free_port()
    env = {"TAILRACE_CALLBACK": f"https://127.0.0.1:{port}", "TAILRACE_TOKEN": TOKEN}
    env["TAILRACE_CA"] = str(authority.ca_file)
    app = uvicorn_factory("app:app", app_dir=ROOT / "demo", env=env)
    ingest = {"address": f"127.0.0.1:{port}", "role": "ingest", "token_file": str(token)}
    listeners = [
        {"address": f"unix:{tmp_path}/hook.sock"},
        {**ingest, **listen(authority.issue("127.0.0.1"))},
    ]
    gateway = gateway_factory([app.address], control={"listeners": listeners})
    for _ in range(3):
        trace = ask(gateway.port, get("/async")).trace_id
        assert gateway.wait_profile(trace)["profile"]["engine"] == "steps"


def _names(port: int, authority: Authority) -> set[str]:
    context = authority.client_context()
    context.check_hostname = False
    with raw_connection(port) as raw, context.wrap_socket(raw) as sock:
        found: Any = sock.getpeercert()
        return {value for _, value in found["subjectAltName"]}


@pytest.mark.parametrize("user", [None, "nobody"])
def test_renewal(
    authority: Authority,
    gateway_factory: Callable[..., Gateway],
    tmp_path: Path,
    user: str | None,
) -> None:
    """HUP reads renewed files, also where the collector became another user; others stay."""
    if user and os.geteuid() != 0:
        pytest.skip("only root can drop rights")
    token = tmp_path / "token"
    token.write_text(TOKEN)
    ports = [free_port(), free_port()]
    first, second = authority.issue("first.example"), authority.issue("second.example")
    keys = {"role": "ingest", "token_file": str(token)}
    gateway = gateway_factory(
        ["127.0.0.1:9"],
        control={
            "listeners": [
                {"address": f"unix:{tmp_path}/renewed.sock"},
                {"address": f"127.0.0.1:{ports[0]}", **keys, **listen(first)},
                {"address": f"127.0.0.1:{ports[1]}", **keys, **listen(second)},
            ]
        },
        **({"process": {"user": user}} if user else {}),
    )
    assert _names(ports[0], authority) == {"first.example"}
    for name, source in authority.issue("renewed.example").items():
        shutil.copy(source, first[name])
    # one listener goes: the others keep their own certificates
    config = json.loads(gateway.config_path.read_text())
    del config["control"]["listeners"][0]
    config["control"]["listeners"][0:0] = [{"address": f"unix:{tmp_path}/moved.sock"}]
    gateway.config_path.write_text(json.dumps(config))
    gateway.process.send_signal(signal.SIGHUP)

    def renewed() -> bool:
        with contextlib.suppress(OSError):
            return _names(ports[0], authority) == {"renewed.example"}
        return False

    wait_for(renewed, 20, "the renewed certificate")
    assert _names(ports[1], authority) == {"second.example"}
