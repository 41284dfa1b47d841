"""Checks the house rules that only need the text of the tree: layers, sizes, lone headers.

Prints one line per breach, exit status 1 if there is any.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYERS = {"base": 0, "model": 2, "proxy": 3, "collector": 4}
PROGRAMS = 5
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
LINE_COLUMNS_MAX = 100
HEADER_CHECK = ["gcc", "-std=c17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]
HEADER_CHECK += ["-fsyntax-only", "-Iinclude", "-Ibuild/llhttp"]
SOURCES = ("*.c", "*.h", "*.def", "*.py", "*.js")


def tracked(*patterns: str) -> list[Path]:
    """Files git knows (or would add) that match ``patterns``."""
    out = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in out.stdout.splitlines() if (ROOT / line).is_file()]


def layer_of(include: str) -> int:
    """Layer of an include path such as ``proxy/ring.h``; programs' headers have no folder."""
    return LAYERS.get(include.split("/")[0], PROGRAMS)


def check_layers() -> list[str]:
    """A module includes only its own layer or one further down (docs/internals.md)."""
    faults = []
    for path in tracked("gateway/*.c", "include/*.h"):
        relative = path.relative_to(ROOT)
        own = LAYERS.get(relative.parts[1], PROGRAMS)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.match(r'\s*#\s*include "([^"]+)"', line)
            if found and found[1] != "llhttp.h" and layer_of(found[1]) > own:
                faults.append(f"{relative}:{number}: includes {found[1]}, a layer further up")
    return faults


def check_sizes() -> list[str]:
    """Files of at most 600 lines, C functions of at most 70, lines of at most 100 columns."""
    faults = []
    for path in tracked(*SOURCES):
        relative = path.relative_to(ROOT)
        lines = path.read_text().splitlines()
        if len(lines) > FILE_LINES_MAX:
            faults.append(f"{relative}: {len(lines)} lines, at most {FILE_LINES_MAX}")
        start = None
        for number, line in enumerate(lines, 1):
            if len(line.expandtabs(8)) > LINE_COLUMNS_MAX and path.suffix in (".c", ".py", ".js"):
                faults.append(f"{relative}:{number}: over {LINE_COLUMNS_MAX} columns")
            if path.suffix != ".c":
                continue
            if line == "{":
                start = number
            elif line == "}" and start is not None:
                if number - start - 1 > FUNCTION_LINES_MAX:
                    faults.append(f"{relative}:{start}: function of {number - start - 1} lines")
                start = None
    return faults


def check_headers() -> list[str]:
    """Every header compiles alone."""
    flags = shlex.split(
        subprocess.run(
            ["pkg-config", "--cflags", "libevent_core", "jansson", "sqlite3"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    faults = []
    for path in tracked("include/*.h"):
        done = subprocess.run(
            [*HEADER_CHECK, *flags, "-x", "c", str(path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0 and "pragma once in main file" not in done.stderr:
            faults.append(f"{path.relative_to(ROOT)}: not self-contained:\n{done.stderr}")
    return faults


def main() -> int:
    """Runs every check."""
    faults = check_layers() + check_sizes() + check_headers()
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
