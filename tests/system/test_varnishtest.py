"""Scripts of varnishtest: client and app scripted to the byte by a program that is not ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ROOT, Gateway, free_port

GatewayFactory = Callable[..., Gateway]
SCRIPTS = sorted((ROOT / "tests" / "vtc").glob("*.vtc"))


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_script(gateway_factory: GatewayFactory, tmp_path: Path, script: Path) -> None:
    """Each script's expectations hold."""
    program = shutil.which("varnishtest")
    assert program, "varnishtest is missing: make deps-test (Debian's varnish)"
    app_port = free_port()
    gateway = gateway_factory([f"127.0.0.1:{app_port}"], upstream={"retries": 0})
    command = [program, "-t", "20", f"-Dgw_port={gateway.port}", f"-Dapp_port={app_port}"]
    done = subprocess.run(
        [*command, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout[-6000:]
