"""Does what docs/guide.md says: its files, its commands, in its order, in an empty folder.

A fenced block's language is followed by what it is: a file's name, `gateway` or `app` (a program
that goes on running), `client` (commands that end). `once` is what a machine needs once: building
and installing, which `make` and build/venv have done here. Ports and paths of /tmp are replaced.

Alone (`make samples`) it also writes the waterfall that the guide shows.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run import BINARY, ROOT, DemoError, free_port, save, show

GUIDE = ROOT / "docs" / "guide.md"
START_S = 20.0


@dataclass
class Step:
    """One block of the guide."""

    kind: str  # a file's name, "gateway", "app" or "client"
    text: str


@dataclass
class Outcome:
    """What came of the guide."""

    printed: dict[str, str]  # by command, without its arguments' values replaced
    exchange: dict[str, Any]  # of the guide's request


def steps(path: Path = GUIDE) -> list[Step]:
    """The blocks that are to be done, in order."""
    found = re.findall(r"^```(\w+) (\S+)\n(.*?)^```$", path.read_text(), re.M | re.S)
    return [Step(kind, text) for _, kind, text in found if kind != "once"]


def wait_for(port: int, program: subprocess.Popen[bytes], log: Path) -> None:
    """Return when somebody listens. DemoError where the program ends instead."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and program.poll() is None:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise DemoError(f"nobody listens at {port}:\n{log.read_text()}")


class Guide:
    """One run in a folder of its own."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        """Choose ports."""
        self.folder = folder
        self.ports = {"8080": free_port(), "8000": free_port()}
        self.programs: list[subprocess.Popen[bytes]] = []
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")}
        self.env["PATH"] = f"{BINARY.parent}:{self.env['PATH']}"
        self.python = python
        self.printed: dict[str, str] = {}
        self.trace = ""

    def here(self, text: str) -> str:
        """The same with this run's ports, paths and trace."""
        for port, ours in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(ours), text)
        # The guide's own /tmp first: this Python may itself be below there.
        text = re.sub(r"(?<![\w./])/tmp/", f"{self.folder}/", text)
        return text.replace("venv/bin/python", self.python).replace("TRACE_ID", self.trace)

    def start(self, kind: str, text: str) -> None:
        """Start a program that goes on running, and wait until it listens."""
        log = self.folder / f"{kind}.log"
        with log.open("wb") as out:
            program = subprocess.Popen(
                ["bash", "-c", f"exec env {self.here(text)}"],
                cwd=self.folder,
                env=self.env,
                stdout=out,
                stderr=out,
            )
        self.programs.append(program)
        wait_for(self.ports["8080" if kind == "gateway" else "8000"], program, log)

    def ask(self, line: str) -> None:
        """Run a command that ends; `export` holds for those after it."""
        if line.startswith("export "):
            name, _, value = self.here(line.removeprefix("export ")).partition("=")
            self.env[name] = value
            return
        done = subprocess.run(
            shlex.split(self.here(line)),
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=30,
        )
        if done.returncode != 0:
            raise DemoError(f"{line}: exit status {done.returncode}: {done.stderr}")
        self.printed[line] = done.stdout
        found = re.search(r"^x-trace-id: (\w{32})", done.stdout, re.M | re.I)
        if found:
            self.trace = found[1]

    def run(self) -> Outcome:
        """Do all steps."""
        for step in steps():
            if step.kind in ("gateway", "app"):
                self.start(step.kind, step.text.strip())
            elif step.kind == "client":
                for line in step.text.strip().splitlines():
                    self.ask(line)
            else:
                (self.folder / step.kind).write_text(self.here(step.text))
        exchange = show(self.trace, self.env["TAILRACE_CONTROL"].removeprefix("unix:"))
        return Outcome(self.printed, exchange)

    def stop(self) -> None:
        """End what was started, the app before the gateway."""
        for program in reversed(self.programs):
            program.terminate()
            program.wait(20)


def main() -> int:
    """Run the guide, save its waterfall where $SAMPLES says."""
    with tempfile.TemporaryDirectory(prefix="tailrace-guide-") as folder:
        guide = Guide(Path(folder))
        try:
            save(guide.run().exchange, "guide")
        except DemoError as error:
            print(f"guide: {error}", file=sys.stderr)
            return 1
        finally:
            guide.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
