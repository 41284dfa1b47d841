"""Completion in real shells, and the one table of commands against its manual."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import BINARY, ROOT
from terminal_tools import Terminal, terminal
from test_cli import TRACE, Control

ROUTES = ["GET /items/{id}", "GET /it's", "POST /items", "GET /\x1b[31m"]


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """A scripted gateway that knows routes, requests and an incident."""
    made = Control(str(tmp_path / "c.sock"))
    routes = [{"id": n, "route": name, "state": "ok"} for n, name in enumerate(ROUTES, 1)]
    made.answers["/api/v1/routes"] = [(200, {"routes": routes})]
    made.answers["/api/v1/requests"] = [(200, {"requests": [{"trace_id": TRACE, "route": "x"}]})]
    made.answers["/api/v1/incidents"] = [(200, {"incidents": [{"id": "ab" * 8, "title": "t"}]})]
    yield made
    made.close()


def environment(control: Control | None) -> dict[str, str]:
    """One in which `tailrace` is the binary under test."""
    env = {**os.environ, "PATH": f"{BINARY.parent}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    env["TAILRACE_CONTROL"] = control.address if control else "unix:/none"
    return env


def candidates(control: Control | None, *words: str) -> list[str]:
    """What `tailrace complete` offers for the last word."""
    done = subprocess.run(
        [BINARY, "complete", *words],
        capture_output=True,
        text=True,
        env=environment(control),
        timeout=10,
    )
    assert done.returncode == 0 and done.stderr == ""
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


def test_words_come_from_the_table(control: Control) -> None:
    names = candidates(None, "")
    assert {"run", "check", "top", "show", "completion"} <= set(names)
    assert candidates(None, "re") == ["requests"]
    assert candidates(None, "requests", "--s") == ["--slowest"]
    assert candidates(None, "top", "--sort", "") == ["time", "rate", "p95", "errors"]
    assert candidates(None, "export", TRACE, "--format", "c") == [
        "collapsed",
        "chrome",
        "callgrind",
    ]
    assert candidates(None, "completion", "") == ["bash", "zsh", "fish"]
    assert candidates(None, "run", "-c", "") == [":file"]
    assert candidates(None, "-c", "") == [":file"]
    assert candidates(None, "nothing", "") == []
    assert "--upgrade" not in candidates(None, "run", "--")


def test_names_come_from_the_gateway(control: Control) -> None:
    assert candidates(control, "flame", "GET /i") == ["GET /items/{id}", "GET /it's"]
    assert candidates(control, "show", "4b") == [TRACE]
    assert candidates(control, "incidents", "") == ["ab" * 8]
    assert candidates(control, "flame", "GET /items/{id}", "") == candidates(None, "flame", "--")
    named = candidates(None, "requests", "--control", control.address, "--route", "POST")
    assert named == ["POST /items"]
    named = candidates(None, "requests", f"--control={control.address}", "--route", "POST")
    assert named == ["POST /items"]
    assert candidates(None, "flame", "GET") == []  # no gateway: nothing, at once


def bash(control: Control, *words: str) -> list[str]:
    """What bash would offer for the last word, as it would put it on the line."""
    script = 'source <(tailrace completion bash); shift; COMP_WORDS=(tailrace "$@")'
    script += "; COMP_CWORD=$#; _tailrace 2>&1; printf '%s\\n' \"${COMPREPLY[@]}\""
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", "shifted", *words],
        capture_output=True,
        text=True,
        env=environment(control),
        timeout=20,
    )
    return [line for line in done.stdout.splitlines() if line]


def test_bash_quotes_and_splits(control: Control, tmp_path: Path) -> None:
    assert bash(control, "fl") == ["flame"]
    assert bash(control, "flame", "GET") == [r"GET\ /items/\{id\}", r"GET\ /it\'s"]
    assert bash(control, "flame", r"GET\ /ite") == [r"GET\ /items/\{id\}"]
    assert bash(control, "flame", '"GET /ite') == ["GET /items/{id}"]
    split = control.address.partition(":")
    assert bash(control, "flame", "--control", split[0], ":", split[2], "POST") == [r"POST\ /items"]
    (tmp_path / "tail.json").write_text("{}")
    assert bash(control, "run", "-c", f"{tmp_path}/tai") == [f"{tmp_path}/tail.json"]


def type_in(shell: Terminal, typed: str, wanted: str) -> None:
    """Types, presses Tab, and waits for what the shell makes of it."""
    shell.send("\x15" + typed + "\t")
    shell.wait(lambda text: wanted.rstrip() in text.replace("\n", ""), wanted)


def test_bash_at_its_prompt(control: Control) -> None:
    if shutil.which("bash") is None:
        pytest.fail("scripts/deps test brings bash")
    env = {**environment(control), "PS1": "ready> "}
    with terminal(["bash", "--norc", "-i"], 120, env=env) as shell:
        shell.wait_text("ready>")
        shell.send("source <(tailrace completion bash); echo do''ne\r")
        shell.wait_text("done")
        type_in(shell, "tailrace fla", "tailrace flame ")
        type_in(shell, "tailrace flame POST", r"tailrace flame POST\ /items ")
        type_in(shell, 'tailrace flame "POST', 'tailrace flame "POST /items" ')
        type_in(shell, "tailrace show 4b", f"tailrace show {TRACE} ")
        type_in(shell, "tailrace export --format spe", "--format speedscope ")


def test_zsh_at_its_prompt(control: Control, tmp_path: Path) -> None:
    env = {
        **environment(control),
        "PS1": "ready> ",
        "HOME": str(tmp_path),
        "ZDOTDIR": str(tmp_path),
    }
    with terminal(["zsh", "-f", "-i"], 120, env=env) as shell:
        shell.wait_text("ready>")
        shell.send("autoload -Uz compinit; compinit -u -D; source <(tailrace completion zsh)\r")
        shell.send("echo do''ne\r")
        shell.wait_text("\ndone")
        type_in(shell, "tailrace fla", "tailrace flame ")
        type_in(shell, "tailrace flame POST", r"tailrace flame POST\ /items")
        type_in(shell, "tailrace show 4b", f"tailrace show {TRACE}")
        type_in(shell, "tailrace export --format spe", "--format speedscope")


def test_fish(control: Control, tmp_path: Path) -> None:
    def fish(line: str) -> list[str]:
        script = f"tailrace completion fish | source; complete -C '{line}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script],
            capture_output=True,
            text=True,
            env={**environment(control), "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
            timeout=20,
        )
        assert done.returncode == 0, done.stderr
        return [found.partition("\t")[0] for found in done.stdout.splitlines()]

    assert fish("tailrace fl") == ["flame"]
    assert [one.replace("\\", "") for one in fish("tailrace flame POST")] == ["POST /items"]
    assert fish("tailrace show 4b") == [TRACE]
    assert fish("tailrace top --sort ") == ["time", "rate", "p95", "errors"]


def test_scripts_are_whole(tmp_path: Path) -> None:
    for shell, check in (("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")):
        script = subprocess.run(
            [BINARY, "completion", shell], capture_output=True, check=True, timeout=10
        ).stdout
        path = tmp_path / shell
        path.write_bytes(script)
        subprocess.run([check, "-n", path], check=True, timeout=10)
    assert subprocess.run([BINARY, "completion", "csh"], capture_output=True).returncode == 2


def test_the_manual_has_the_whole_table() -> None:
    text = (ROOT / "docs" / "tailrace.8").read_text().replace("\\-", "-")
    synopsis = text[text.index(".Sh SYNOPSIS") : text.index(".Sh DESCRIPTION")]
    described = text[text.index(".Sh DESCRIPTION") : text.index(".Sh SIGNALS")]
    for name in candidates(None, ""):
        parts = re.findall(rf"\.Nm\n\.(?:Op )?Cm {name}\n(.*?)(?=\.Nm|\Z)", synopsis, re.S)
        assert parts, f"the synopsis has no {name}"
        assert re.search(rf"^\.It (?:Oo )?Cm {name}\b", described, re.M), f"{name} is not told"
        for option in candidates(None, name, "--"):
            if option in ("--help", "--config"):
                continue
            wanted = option.removeprefix("-")
            assert f"Fl {wanted}" in " ".join(parts) or f"| {wanted}" in synopsis, (
                f"{name} {option}"
            )
            assert f".It Fl {wanted}" in described or f".It Cm {name} Fl {wanted}" in described
