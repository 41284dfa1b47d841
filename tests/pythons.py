"""Other CPythons on this machine, found by name, and the hook built for each without a network.

Their absence is no failure and never silent: whoever asks says which are missing. Run as a program
(`make deps-truth`) it makes an environment for each of them with what the demo needs, pinned and
hashed: event loops, frameworks and a database for the truth suite.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "hook" / "src" / "tailrace"
BASE = ROOT / "build" / "pythons"
REQUIREMENTS = ROOT / "requirements" / "demo.txt"
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
FLAGS = ["-std=c17", "-O2", "-g", "-fvisibility=hidden", "-fPIC", "-shared", "-pthread"]
WARN = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
ASK = (
    "import sys, sysconfig as s; print(sys.version_info[:2] == ({},{}),"
    " s.get_paths()['include'], s.get_config_var('EXT_SUFFIX'))"
)


def works(python: str, version: str) -> bool:
    """It is this version, and extensions can be built for it."""
    try:
        told = subprocess.run(
            [python, "-c", ASK.format(*version.split("."))],
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return False
    return len(told) == 3 and told[0] == "True" and Path(told[1], "Python.h").exists()


def candidates(version: str) -> list[str]:
    """Where a Python of this version may be: on the path, or among pyenv's (newest first)."""
    found = [sys.executable] if version == OWN else []
    found += filter(None, [shutil.which(f"python{version}")])
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    made = [p for p in pyenv.glob(f"{version}.*/bin/python") if re.search(r"\.\d+$", p.parts[-3])]
    return found + [str(p) for p in sorted(made, key=lambda p: -int(p.parts[-3].split(".")[-1]))]


def find() -> dict[str, str]:
    """Version → interpreter, of those of VERSIONS that are here."""
    found = {}
    for version in VERSIONS:
        for python in candidates(version):
            if works(python, version):
                found[version] = python
                break
    return found


def missing(found: dict[str, str]) -> list[str]:
    """Versions that are not here."""
    return [v for v in VERSIONS if v not in found]


def build(python: str, *flags: str, name: str = "plain") -> Path:
    """The hook built for this interpreter; the folder to put on its path.

    flags: more for the compiler. Built anew where sources or flags have changed.

    Raises:
        RuntimeError: the compiler's complaints.
    """
    script = (
        "import sysconfig as s; print(s.get_paths()['include'], s.get_config_var('EXT_SUFFIX'))"
    )
    include, suffix = subprocess.run(
        [python, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    sources = sorted(SOURCE.glob("_engine*.c"))
    digest = hashlib.sha256(repr((python, include, FLAGS, WARN, flags)).encode())
    for file in sorted(p for p in SOURCE.iterdir() if p.is_file()):
        digest.update(file.read_bytes())
    BASE.mkdir(parents=True, exist_ok=True)
    folder = BASE / f"{name}{suffix.removesuffix('.so')}"
    with (BASE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "stamp"
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return folder
        made = Path(tempfile.mkdtemp(dir=BASE))
        package = made / "tailrace"
        package.mkdir()
        for file in SOURCE.glob("*.py"):
            shutil.copy(file, package)
        command = [os.environ.get("CC", "gcc"), *FLAGS, *WARN, *flags, f"-I{include}"]
        command += [*map(str, sources), "-o", str(package / f"_engine{suffix}")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        (made / "stamp").write_text(digest.hexdigest())
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    return folder


def environment(version: str) -> Path:
    """The Python of the environment that make_environment() made for this version."""
    return BASE / f"venv-{version}" / "bin" / "python"


def make_environment(version: str, python: str) -> None:
    """Makes it anew where the requirements or the interpreter have changed."""
    made = environment(version)
    digest = hashlib.sha256(f"{python} {REQUIREMENTS.read_text()}".encode()).hexdigest()
    stamp = made.parent.parent / "stamp"
    if stamp.exists() and stamp.read_text() == digest:
        return
    print(f"deps: making {made.parent.parent.relative_to(ROOT)}", file=sys.stderr)
    pip = [made, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes"]
    subprocess.run([python, "-m", "venv", "--clear", stamp.parent], check=True)
    subprocess.run([*pip, "-r", REQUIREMENTS], check=True)
    stamp.write_text(digest)


if __name__ == "__main__":
    here = find()
    for version, python in here.items():
        if version != OWN:
            make_environment(version, python)
    if missing(here):
        print("deps: not on this machine: CPython", ", ".join(missing(here)), file=sys.stderr)
