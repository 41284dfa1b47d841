"""Installing: what `make install`, `make uninstall` and `make deb` put where, and that it runs."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from harness import ROOT, clean_env

MAKE_TIMEOUT_S = 300  # it builds first where something changed
ALWAYS = {
    "opt/tr/sbin/tailrace",
    "opt/tr/share/man/man8/tailrace.8",
    "opt/tr/share/man/man5/tailrace.json.5",
    "opt/tr/share/bash-completion/completions/tailrace",
    "opt/tr/share/zsh/site-functions/_tailrace",
    "opt/tr/share/fish/vendor_completions.d/tailrace.fish",
    "opt/tr/share/tailrace/tailrace.schema.json",
    "opt/tr/share/doc/tailrace/tailrace.json",
    "opt/tr/share/doc/tailrace/minimal.json",
    "opt/tr/share/doc/tailrace/tls.json",
    "opt/tr/share/doc/tailrace/alerts.json",
    "opt/tr/share/doc/tailrace/prometheus-rules.yml",
    "opt/tr/share/doc/tailrace/grafana-dashboard.json",
    "opt/tr/share/doc/tailrace/tailrace.socket",
    "opt/tr/share/doc/tailrace/LICENSE",
    "opt/tr/lib/systemd/system/tailrace.service",
    "opt/tr/lib/sysusers.d/tailrace.conf",
    "etc/tailrace/tailrace.json",
}
CONFIG = "etc/tailrace/tailrace.json"

# One at a time: both run make in the tree's own build folder.
pytestmark = pytest.mark.xdist_group("install")


def make(*args: str) -> str:
    """Run make at the root, without the options of a make around us; its output."""
    env = {k: v for k, v in clean_env(None).items() if k not in ("MAKEFLAGS", "MFLAGS", "MODE")}
    done = subprocess.run(
        ["make", "--no-print-directory", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=env,
        timeout=MAKE_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> set[str]:
    """Paths of all files below ``folder``, relative to it."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}


def run(*args: str | Path) -> str:
    """Output of a program that must end with status 0."""
    return subprocess.run(
        args, capture_output=True, text=True, check=True, env=clean_env(None), timeout=60
    ).stdout


def test_install_and_uninstall(tmp_path: Path) -> None:
    options = (f"DESTDIR={tmp_path}", "PREFIX=/opt/tr")
    make("install", *options)
    found = files(tmp_path)
    assert found - {"opt/tr/share/doc/tailrace/LICENSE.llhttp"} == ALWAYS

    binary = tmp_path / "opt/tr/sbin/tailrace"
    assert os.access(binary, os.X_OK)
    assert run(binary, "--version").startswith("tailrace 0.")
    assert run(binary, "check", "-c", tmp_path / CONFIG).endswith(": good\n")
    schema = '"$schema": "/opt/tr/share/tailrace/tailrace.schema.json"'
    assert schema in (tmp_path / CONFIG).read_text()
    json.loads((tmp_path / "opt/tr/share/tailrace/tailrace.schema.json").read_text())

    unit = (tmp_path / "opt/tr/lib/systemd/system/tailrace.service").read_text()
    assert "ExecStart=/opt/tr/sbin/tailrace run -c /etc/tailrace/tailrace.json\n" in unit

    (tmp_path / CONFIG).write_text("{}")
    make("install", *options)
    assert (tmp_path / CONFIG).read_text() == "{}", "a changed configuration was overwritten"
    make("uninstall", *options)
    assert files(tmp_path) == {CONFIG}, "all but the changed configuration goes"

    (tmp_path / CONFIG).unlink()
    make("install", *options)
    make("uninstall", *options)
    assert files(tmp_path) == set()


def test_unit_fits_the_program() -> None:
    """Each key once where it must be one, and what the supervisor relies on."""
    unit = configparser.RawConfigParser(strict=True, delimiters=("=",), comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(ROOT / "conf" / "tailrace.service")
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "78"
    assert int(service["WatchdogSec"]) > 2 * 10, "a heartbeat may be 10 s old"
    schema = json.loads((ROOT / "conf" / "tailrace.schema.json").read_text())
    worker = schema["properties"]["worker"]["properties"]
    drain_s = worker["shutdown_timeout_ms"]["default"] / 1000
    assert int(service["TimeoutStopSec"]) > drain_s + 15, "worker's grace and collector's end"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["LogsDirectory"] == "tailrace"
    assert service["User"] == "tailrace"
    assert re.search(r"^u tailrace ", (ROOT / "conf" / "tailrace.sysusers").read_text(), re.M)


def test_debian_package(tmp_path: Path) -> None:
    package = ROOT / make("deb").splitlines()[-1]
    fields = run("dpkg-deb", "--field", package)
    assert "\nVersion: 0." in fields
    depends = re.search(r"^Depends: (.*)$", fields, re.M)
    assert depends is not None
    for library in ("libc6 ", "libevent-core-", "libjansson4 ", "libsqlite3-0", "zlib1g "):
        assert library in depends[1]
    run("dpkg-deb", "--control", package, tmp_path / "control")
    assert (tmp_path / "control" / "conffiles").read_text() == f"/{CONFIG}\n"
    for script in ("postinst", "prerm", "postrm"):
        run("sh", "-n", tmp_path / "control" / script)

    run("dpkg-deb", "--extract", package, tmp_path / "root")
    found = files(tmp_path / "root")
    assert {
        CONFIG,
        "usr/sbin/tailrace",
        "usr/lib/systemd/system/tailrace.service",
        "usr/lib/sysusers.d/tailrace.conf",
        "usr/share/man/man8/tailrace.8.gz",
        "usr/share/man/man5/tailrace.json.5.gz",
        "usr/share/doc/tailrace/copyright",
    } <= found
    listed = (tmp_path / "control" / "md5sums").read_text().splitlines()
    assert {line.split("  ")[1] for line in listed} == found - {CONFIG}
    assert run(tmp_path / "root/usr/sbin/tailrace", "--version").startswith("tailrace 0.")
