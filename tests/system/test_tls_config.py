"""What `tailrace check` and the start say of certificates and keys."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import BINARY, ROOT, Gateway, clean_env, wait_for
from proxy_tools import OK, always, get
from tls_tools import Authority, TLSConnection, days_from_now, listen


def check(tmp_path: Path, *, listener: Any = None, upstream: Any = None) -> list[str]:
    """Return the error lines of `tailrace check`, without the file's name; none: it is good."""
    config = {
        "listeners": [{"address": "127.0.0.1:1", **(listener or {})}],
        "upstreams": {"app": {"servers": ["127.0.0.1:2"], **(upstream or {})}},
        "control": {"listeners": [{"address": f"unix:{tmp_path}/c.sock"}]},
        "store": {"path": f"{tmp_path}/t.db"},
    }
    path = tmp_path / "tailrace.json"
    path.write_text(json.dumps(config))
    done = subprocess.run(
        [str(BINARY), "check", "-c", str(path)],
        capture_output=True,
        text=True,
        env=clean_env(),
        timeout=20,
        check=False,
    )
    lines = [line.removeprefix(f"{path}: ") for line in done.stderr.splitlines()]
    assert done.returncode == (78 if lines else 0)
    return lines


def test_good(tmp_path: Path, authority: Authority) -> None:
    """Good certificates of both kinds of keys are good."""
    pair = [authority.issue("a.example"), authority.issue("a.example", rsa=True)]
    assert check(tmp_path, listener=listen(*pair, client_ca_file=str(authority.ca_file))) == []
    assert check(tmp_path, upstream={"tls": {"ca_file": str(authority.ca_file)}}) == []


def test_each_fault(tmp_path: Path, authority: Authority) -> None:
    """Every fault is told with its place and in words, all of them at once."""
    good, other = authority.issue("a.example"), authority.issue("b.example")
    expired = authority.issue(
        "a.example", not_before=days_from_now(-9), not_after=days_from_now(-1)
    )
    early = authority.issue("a.example", not_before=days_from_now(1))
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    encrypted = tmp_path / "encrypted.key"
    subprocess.run(
        [
            *("openssl", "pkey", "-in", good["key_file"], "-aes256", "-passout", "pass:x"),
            *("-out", str(encrypted)),
        ],
        check=True,
        capture_output=True,
    )
    certificates = [
        {**good, "certificate_file": f"{tmp_path}/missing.pem"},
        {**good, "certificate_file": str(empty)},
        {**good, "certificate_file": good["key_file"]},
        {**good, "key_file": f"{tmp_path}/missing.key"},
        {**good, "key_file": str(empty)},
        {**good, "key_file": other["key_file"]},
        {**good, "key_file": str(encrypted)},
        expired,
        early,
    ]
    at = "/listeners/0/tls/certificates"
    lines = check(tmp_path, listener=listen(*certificates, client_ca_file=str(empty)))
    assert lines[:7] == [
        f"{at}/0/certificate_file: No such file or directory",
        f"{at}/1/certificate_file: holds no certificate in PEM",
        f"{at}/2/certificate_file: holds no certificate in PEM",
        f"{at}/3/key_file: No such file or directory",
        f"{at}/4/key_file: holds no private key in PEM",
        f"{at}/5/key_file: the key is not that of certificate_file",
        f"{at}/6/key_file: the key is encrypted: nobody is there to type its password",
    ]
    assert lines[7].startswith(f"{at}/7/certificate_file: the certificate expired ")
    assert lines[8].startswith(f"{at}/8/certificate_file: the certificate holds only from ")
    assert lines[9] == "/listeners/0/tls/client_ca_file: holds no certificate in PEM"
    assert len(lines) == 10


def test_upstream_authorities(tmp_path: Path) -> None:
    """The authorities of an upstream are looked at too."""
    lines = check(tmp_path, upstream={"tls": {"ca_file": f"{tmp_path}/none.pem"}})
    assert lines == ["/upstreams/app/tls/ca_file: No such file or directory"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop rights")
def test_keys_before_rights_are_dropped(
    gateway_factory: Callable[..., Gateway], authority: Authority
) -> None:
    """A key that only root can read serves a worker that runs as nobody."""
    certificate = authority.issue("app.example")
    os.chmod(certificate["key_file"], 0o400)
    gateway = gateway_factory(
        ["127.0.0.1:9"], listener=listen(certificate), process={"user": "nobody"}
    )
    (worker,) = gateway.worker_pids()
    assert os.stat(f"/proc/{worker}").st_uid != 0
    with TLSConnection(gateway.port, authority.client_context()) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.answer().status == 502


def test_example(tmp_path: Path, authority: Authority) -> None:
    """The example is good once its files are there."""
    text = (ROOT / "conf" / "tls.json").read_text().replace('"user": "tailrace"', "")
    for name in ("site", "wildcard", "internal"):
        pair = authority.issue(f"{name}.example")
        text = text.replace(f"/etc/tailrace/{name}.pem", pair["certificate_file"])
        text = text.replace(f"/etc/tailrace/{name}.key", pair["key_file"])
    token = tmp_path / "token"
    token.write_text("x")
    text = text.replace("/etc/tailrace/internal-ca.pem", str(authority.ca_file))
    text = text.replace("/etc/tailrace/token", str(token)).replace("app.internal", "localhost")
    path = tmp_path / "tls.json"
    path.write_text(text)
    command = [str(BINARY), "check", "-c", str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=clean_env(), timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_renewal(
    gateway_factory: Callable[..., Gateway], authority: Authority, stub_factory: Callable[..., Any]
) -> None:
    """HUP reads renewed files; sessions go on; what is wrong with new ones changes nothing."""
    stub = stub_factory(always(OK))
    certificate = authority.issue("app.example", "old.example")
    gateway = gateway_factory([stub.address], listener=listen(certificate))
    context = authority.client_context()

    def visit(session: Any = None) -> tuple[set[str], Any, bool | None]:
        with TLSConnection(gateway.port, context, session=session) as client:
            client.send(get())
            assert client.answer().status == 200
            found: Any = client.sock.getpeercert()
            names = {value for _, value in found["subjectAltName"]}
            return names, client.sock.session, client.sock.session_reused

    names, session, _ = visit()
    assert "old.example" in names
    for name, source in authority.issue("app.example", "new.example").items():
        shutil.copy(source, certificate[name])
    gateway.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "new.example" in visit()[0], 15, "the renewed certificate")
    assert visit(session)[2]
    shutil.copy(authority.issue("other.example")["key_file"], certificate["key_file"])
    gateway.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "the key is not that of certificate_file" in gateway.log(), 15, "refusal")
    assert "new.example" in visit()[0]
