"""`python -m tailrace uvicorn`: the app's code unchanged; and nothing is lost when uvicorn ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fake_gateway import FakeGateway
from harness import clean_env, free_port, wait_for

APP = """
import asyncio
from fastapi import FastAPI
app = FastAPI()

async def named_wait():
    await asyncio.sleep(0.02)

@app.get("/wait")
async def wait():
    await named_wait()

def make():
    return app
"""
KEY = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b{}"


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    folder = tempfile.mkdtemp(prefix="tailrace-run-")
    made = FakeGateway(f"{folder}/c.sock")
    yield made
    made.stop()
    shutil.rmtree(folder)


def start(tmp_path: Path, gateway: FakeGateway, *args: str) -> tuple[subprocess.Popen[bytes], str]:
    (tmp_path / "plain_app.py").write_text(APP)
    port = free_port()
    env = clean_env({"TAILRACE_CALLBACK": gateway.address})
    command = [sys.executable, "-m", "tailrace", "uvicorn", "--port", str(port), *args]
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log)
    base = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        try:
            return httpx.get(base + "/openapi.json").status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(answers, 20, "uvicorn answers", every_s=0.1)
    return process, base


@pytest.mark.parametrize(
    "args",
    [
        ["plain_app:app"],
        ["plain_app:make", "--factory"],
        ["--workers", "2", "plain_app:app"],
    ],
)
def test_app_is_wrapped_without_a_change(
    tmp_path: Path, gateway: FakeGateway, args: list[str]
) -> None:
    process, base = start(tmp_path, gateway, *args)
    try:
        keys = [KEY.format(n) for n in range(8)]
        for key in keys:
            headers = {"x-tailrace": f"1;{key}"}
            assert httpx.get(base + "/wait", headers=headers).status_code == 200
        gateway.wait(keys)
    finally:
        process.terminate()
        process.wait(20)
    rows = [row for post in gateway.posts for row in post.body["profiles"]]
    assert {row[3] for row in rows} == {"GET /wait"}
    names = {f[1] for post in gateway.posts for _, stack in post.body["stacks"] for f in stack}
    assert {"wait", "named_wait"} <= names
    assert "tailrace" not in (tmp_path / "log").read_text()


def test_what_finished_last_is_sent_when_uvicorn_is_terminated(
    tmp_path: Path, gateway: FakeGateway
) -> None:
    process, base = start(tmp_path, gateway, "plain_app:app")
    try:
        headers = {"x-tailrace": f"1;{KEY.format(0)}"}
        httpx.get(base + "/wait", headers=headers)
        gateway.wait([KEY.format(0)])
        time.sleep(0.02)
        headers = {"x-tailrace": f"1;{KEY.format(1)}"}
        httpx.get(base + "/wait", headers=headers)
    finally:
        process.terminate()
        process.wait(20)
    gateway.wait([KEY.format(1)], 1)


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        ([], 2, "usage: python -m tailrace uvicorn APP"),
        (["gunicorn", "x:y"], 2, "usage:"),
        (["uvicorn", "no_such_module:app"], 3, 'Could not import module "no_such_module"'),
        (["uvicorn", "plain_app:nothing"], 3, 'Attribute "nothing" not found'),
        (["uvicorn", "--help"], 0, "Usage: uvicorn"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, args: list[str], status: int, words: str) -> None:
    (tmp_path / "plain_app.py").write_text(APP)
    done = subprocess.run(
        [sys.executable, "-m", "tailrace", *args],
        cwd=tmp_path,
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, words in done.stdout + done.stderr) == (status, True), done
