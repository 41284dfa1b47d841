"""Servers that fork, restart or bring another loop: each process sends its own profiles."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
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
import os
import sniffio
import tailrace
from fastapi import FastAPI
api = FastAPI()

async def named_wait():
    if sniffio.current_async_library() == "trio":
        import trio
        await trio.sleep(0.02)
    else:
        await asyncio.sleep(0.02)

@api.get("/wait")
async def wait():
    await named_wait()
    return os.getpid()

@api.get("/thread")
def thread():
    import time
    time.sleep(0.02)
    return os.getpid()

app = tailrace.wrap(api)
"""
SERVERS = {
    "uvicorn-workers": ["uvicorn", "app:app", "--port", "{port}", "--workers", "2"],
    "gunicorn": [
        "gunicorn", "app:app", "-b", "127.0.0.1:{port}", "-w", "2",
        "-k", "uvicorn_worker.UvicornWorker",
    ],
    "gunicorn-preload": [
        "gunicorn", "app:app", "-b", "127.0.0.1:{port}", "-w", "2", "--preload",
        "-k", "uvicorn_worker.UvicornWorker",
    ],
    "hypercorn": ["hypercorn", "app:app", "-b", "127.0.0.1:{port}"],
    "hypercorn-uvloop": ["hypercorn", "app:app", "-b", "127.0.0.1:{port}", "-k", "uvloop"],
    "hypercorn-trio": ["hypercorn", "app:app", "-b", "127.0.0.1:{port}", "-k", "trio"],
}  # fmt: skip
FORKING = {"uvicorn-workers": 2, "gunicorn": 2, "gunicorn-preload": 2}
ENGINES = {"hypercorn-trio": ("drive", "trio"), "hypercorn": ("steps", "asyncio")}


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    folder = tempfile.mkdtemp(prefix="tailrace-servers-")
    made = FakeGateway(f"{folder}/c.sock")
    yield made
    made.stop()
    shutil.rmtree(folder)


class Served:
    """A server with the app above, and what it said."""

    def __init__(self, tmp_path: Path, gateway: FakeGateway, command: list[str]) -> None:
        (tmp_path / "app.py").write_text(APP)
        port = free_port()
        self.base = f"http://127.0.0.1:{port}"
        self.log = tmp_path / "log"
        env = clean_env({"TAILRACE_CALLBACK": gateway.address, "PYTHONPATH": str(tmp_path)})
        command = [part.format(port=port) for part in command]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=env, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_for(self.answers, 30, "the server answers", every_s=0.1)

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(self.base + "/openapi.json", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def get(self, path: str, number: int) -> tuple[str, int]:
        """The key of the profile to come and the process that answered."""
        key = f"{number:032x}-{number:016x}"
        headers = {"x-tailrace": f"1;{key}", "connection": "close"}
        answer = httpx.get(self.base + path, headers=headers, timeout=10)
        assert answer.status_code == 200, self.log.read_text()
        return key, int(answer.text)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


@pytest.mark.parametrize("name", SERVERS)
def test_each_process_sends_its_own(tmp_path: Path, gateway: FakeGateway, name: str) -> None:
    served = Served(tmp_path, gateway, SERVERS[name])
    keys, pids = [], set()
    try:
        for number in range(1, 200):
            for path in ("/wait", "/thread"):
                key, pid = served.get(path, 2 * number + (path == "/thread"))
                keys.append(key)
                pids.add(pid)
            if number >= 4 and len(pids) >= FORKING.get(name, 1):
                break
        gateway.wait(keys)
    finally:
        served.stop()
    rows, instances = {}, {}
    sent: dict[str, set[int]] = {}  # stacks, by instance
    for post in gateway.posts:
        process = post.body["process"]
        instances[process["instance"]] = process
        stacks = sent.setdefault(process["instance"], set())
        stacks.update(number for number, _ in post.body["stacks"])
        for row in post.body["profiles"]:
            rows[row[0]] = row
            assert {part[2] for part in row[11] if part[2] >= 0} <= stacks
    assert {p["pid"] for p in instances.values()} >= pids
    assert len(instances) == len({p["pid"] for p in instances.values()})
    if name in ENGINES:
        told = {(p["engine"], p["loop"]) for p in instances.values()}
        assert told == {ENGINES[name]}
    for key in keys:
        row = rows[key]
        assert row[3] in ("GET /wait", "GET /thread") and row[9] == "response"
        waited = sum(part[3] for part in row[11] if part[0] in ("wait", "thread_run"))
        assert waited >= 15_000_000, row
        assert row[12] <= 1_000_000, row
        kinds = {part[0] for part in row[11]}
        assert "thread_run" in kinds or row[3] == "GET /wait", row
    assert "Traceback" not in served.log.read_text()


def test_reload_begins_anew(tmp_path: Path, gateway: FakeGateway) -> None:
    command = ["uvicorn", "app:app", "--port", "{port}", "--reload", "--reload-dir", str(tmp_path)]
    served = Served(tmp_path, gateway, command)
    try:
        first, pid = served.get("/wait", 1)
        gateway.wait([first])
        time.sleep(1.1)
        (tmp_path / "app.py").write_text(APP + "\n# changed\n")

        def is_new() -> bool:
            try:
                return served.get("/wait", 2)[1] != pid
            except httpx.HTTPError:
                return False

        wait_for(is_new, 30, "the app is loaded again", every_s=0.2)
        second, _ = served.get("/wait", 3)
        gateway.wait([second])
    finally:
        served.stop()
    pids = {json.dumps(post.body["process"]["pid"]) for post in gateway.posts}
    assert len(pids) == 2 and re.search("eload", served.log.read_text())
