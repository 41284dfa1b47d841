"""Autobahn's fuzzing client against a WebSocket echo app: direct, and through the tunnel.

The verdicts of all cases must be the same. The client needs Python 2.7, in which it is installed
once, under build/autobahn; where there is none, that is said in one line and the exit status is 1.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "system"))

from harness import start_gateway, start_uvicorn  # noqa: E402

PACKAGES = ROOT / "build" / "autobahn"
#: The last versions that run on Python 2.7 together.
PINNED = [
    "autobahntestsuite==25.10.1",
    "Automat==22.10.0",
    "Jinja2==2.11.3",
    "MarkupSafe==1.1.1",
    "Twisted==19.10.0",
    "Werkzeug==1.0.1",
    "attrs==21.4.0",
    "cffi==1.15.1",
    "constantly==15.1.0",
    "cryptography==3.3.2",
    "hyperlink==21.0.0",
    "idna==2.10",
    "incremental==16.10.1",
    "klein==17.10.0",
    "pyOpenSSL==19.1.0",
    "service_identity==18.1.0",
    "ujson==2.0.3",
    "wsaccel==0.6.6",
    "zope.interface==4.6.0",
]
#: Cases of hundreds of megabytes are for `ALL=1`.
EXCLUDED = [] if os.environ.get("ALL") else ["9.*", "12.*", "13.*"]
TIMEOUT_S = 1800
REPEATS = 5


def find_python() -> str | None:
    """Return a Python 2.7 that runs, with pip."""
    found = [os.environ.get("PYTHON27"), shutil.which("python2.7"), shutil.which("python2")]
    found += [str(p) for p in Path.home().glob(".pyenv/versions/2.7*/bin/python2.7")]
    for program in found:
        if program is None:
            continue
        test = [program, "-c", "import sys, pip; sys.exit(sys.version_info[:2] != (2, 7))"]
        if subprocess.run(test, capture_output=True).returncode == 0:
            return program
    return None


def install(python: str) -> None:
    """Put the client into build/autobahn, once."""
    if (PACKAGES / "autobahntestsuite").is_dir():
        return
    print("installing Autobahn's test suite", flush=True)
    command = [python, "-m", "pip", "install", "-q", "--target", str(PACKAGES), *PINNED]
    subprocess.run(command, check=True)
    (PACKAGES / "zope" / "__init__.py").touch()  # a namespace package, outside site-packages


Verdicts = dict[str, tuple[str, str]]


def verdicts(python: str, folder: Path, name: str, port: int, cases: list[str]) -> Verdicts:
    """Run cases against a port; return behaviour and behaviour of the close per case."""
    report = folder / name
    spec = {
        "outdir": str(report),
        "servers": [{"agent": name, "url": f"ws://127.0.0.1:{port}/"}],
        "cases": cases,
        "exclude-cases": EXCLUDED,
        "exclude-agent-cases": {},
    }
    file = folder / f"{name}.json"
    file.write_text(json.dumps(spec))
    code = "import sys; sys.argv[0] = 'wstest'; from autobahntestsuite import wstest; wstest.run()"
    command = [python, "-c", code, "-m", "fuzzingclient", "-s", str(file)]
    env = {**os.environ, "PYTHONPATH": str(PACKAGES)}
    log = (folder / f"{name}.log").open("w")
    subprocess.run(
        command, check=True, env=env, cwd=folder, stdout=log, stderr=log, timeout=TIMEOUT_S
    )
    told = json.loads((report / "index.json").read_text())[name]
    return {case: (found["behavior"], found["behaviorClose"]) for case, found in told.items()}


def unlike(run: Callable[[str, list[str]], Verdicts], cases: list[str]) -> list[str]:
    """Return those of `cases` that are told apart in every one of REPEATS more runs of both.

    The app answers some from another task than it fails them from, so that the verdict depends on
    whether two frames come in one read.
    """
    left = cases
    for _ in range(REPEATS):
        if not left:
            break
        direct, through = run("direct", left), run("tunnel", left)
        left = [case for case in left if direct.get(case) != through.get(case)]
    return left


def main() -> int:
    """Compare. 0 where all verdicts are the same, else 1."""
    python = find_python()
    if python is None:
        print("NOT TESTED: Autobahn's fuzzing client needs Python 2.7 with pip, and none is found")
        return 1
    install(python)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        app = start_uvicorn(folder, "ws_app:app", args=["--ws-max-size", "67108864"])
        gateway = start_gateway(folder, [app.address])
        try:
            ports = {"direct": app.port, "tunnel": gateway.port}

            def run(name: str, cases: list[str]) -> Verdicts:
                return verdicts(python, folder, name, ports[name], cases)

            wanted = sys.argv[1:] or ["*"]
            direct, through = run("direct", wanted), run("tunnel", wanted)
            told_apart = [case for case in direct if through.get(case) != direct[case]]
            different = unlike(run, told_apart)
        finally:
            gateway.stop()
            app.stop()
    for case in told_apart:
        verdict = "always" if case in different else "not always"
        print(f"case {case}, {verdict}: direct {direct[case]}, tunnel {through.get(case)}")
    print(
        f"{len(direct)} cases: {len(different)} with another verdict through the tunnel, "
        f"{len(told_apart) - len(different)} whose verdict depends on timing"
    )
    complete = set(direct) == set(through) and (len(direct) > 200 or bool(sys.argv[1:]))
    return 0 if complete and not different else 1


if __name__ == "__main__":
    sys.exit(main())
