"""The package: a wheel without a compiler lacks only the extension; the sources are whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

HOOK = Path(__file__).resolve().parents[2] / "hook"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the package to build in."""
    folder = tmp_path / "hook"
    shutil.copytree(HOOK, folder, ignore=shutil.ignore_patterns("build", "*.egg-info", "*.so"))
    return folder


def test_without_a_compiler_it_builds(sources: Path, tmp_path: Path) -> None:
    env = {**os.environ, "CC": "/bin/false", "CXX": "/bin/false"}
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-q"]
    done = subprocess.run(
        [*command, "-w", str(tmp_path), str(sources)], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "tailrace/_totals.py" in names and "tailrace/py.typed" in names
    assert "tailrace/_engine.pyi" in names
    assert not [n for n in names if n.endswith(".so")]


def test_the_source_distribution_is_whole(sources: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "sdist", "-d", str(tmp_path)],
        cwd=sources,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {Path(n).name for n in tar.getnames()}
    wanted = {p.name for p in (HOOK / "src" / "tailrace").iterdir() if p.suffix in (".c", ".h")}
    wanted |= {"py.typed", "setup.py", "pyproject.toml", "LICENSE", "README.md"}
    assert wanted <= names, wanted - names
