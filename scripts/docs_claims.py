"""What the documents say in passing, against the tree: names of the Python package, defaults in
brackets, constants, statuses of the gateway's own answers, the version, messages of the log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COMPARISON = "docs/comparison.md"
TOOLS = ("tailrace", "pyinstrument", "cProfile")
#: Of a unit in a document: how many of the key's own unit it is, by the key's end.
UNITS = {
    "ms": {"_ms": 1.0},
    "s": {"_ms": 1000.0, "_s": 1.0},
    "min": {"_ms": 60_000.0, "_s": 60.0},
    "µs": {"_us": 1.0},
    "KiB": {"_bytes": 1024.0, "bytes": 1024.0},
    "MiB": {"_bytes": 1024.0**2, "bytes": 1024.0**2},
    "GiB": {"_bytes": 1024.0**3, "bytes": 1024.0**3},
    "%": {"": 0.01},
    "": {"": 1.0},
}
BRACKET = re.compile(r"`([a-z_]+(?:\.[a-z_]+)*)` \((\d+(?:\.\d+)?)[  ]?(ms|s|min|µs|[KMG]iB|%)?\)")
STATUS = re.compile(r"\b([1-5]\d\d) (`[a-z_]+`(?:, `[a-z_]+`)*)")
VERSION = re.compile(r"\btailrace[_ :-](\d+\.\d+\.\d+)(?!\.?\d)")
PYTHON_NAME = re.compile(r"(?<![\w/.-])tailrace\.(\w+)\s*\(|^tailrace\.([A-Z]\w+)$")
TABLE_DEFAULT = re.compile(r"^\| `([a-z_.]+)` \| (\d+)(?: \((?:off|ms)\)| ms)? \|")
MESSAGE_CELL = re.compile(r"^\|\s*(?:the app's log|the CLI|the log): (.+?)\s*\|")


@cache
def exported() -> set[str]:
    """What the Python package offers."""
    text = (ROOT / "hook/src/tailrace/__init__.py").read_text()
    found = re.search(r"__all__ = \[(.*?)\]", text, re.S)
    return set(re.findall(r'"(\w+)"', found[1])) if found else set()


@cache
def reasons() -> dict[str, int]:
    """The status of each close reason that is answered."""
    text = (ROOT / "include/model/close_reasons.def").read_text()
    return {
        name: int(status)
        for name, status in re.findall(r'^CLOSE_REASON\(\w+, "(\w+)", (\d+),', text, re.M)
    }


@cache
def version() -> str:
    """The tree's."""
    found = re.search(r"^VERSION := (\S+)", (ROOT / "Makefile").read_text(), re.M)
    return found[1] if found else ""


def leaves(schema: dict[str, Any], place: str = "") -> Iterator[tuple[str, float]]:
    """Every key with a number as its default, dotted from the top."""
    for name, value in schema.get("properties", {}).items():
        here = f"{place}.{name}" if place else name
        if isinstance(value.get("default"), (int, float)):
            yield here, float(value["default"])
        yield from leaves(value, here)
    for deeper in ("items", "additionalProperties"):
        if isinstance(schema.get(deeper), dict):
            yield from leaves(schema[deeper], place)


@cache
def defaults() -> list[tuple[str, float]]:
    """Those of the configuration."""
    return list(leaves(json.loads((ROOT / "conf/tailrace.schema.json").read_text())))


@cache
def messages() -> str:
    """All string literals of gateway and hook, pieces that follow each other joined."""
    texts = []
    for pattern in ("gateway/**/*.c", "hook/src/**/*.py", "hook/src/**/*.c"):
        texts += [path.read_text(errors="replace") for path in sorted(ROOT.glob(pattern))]
    return re.sub(r'"\s*\n?\s*f?"', "", "\n".join(texts))


def constant(name: str) -> str | None:
    """The number that a #define or an enum of the sources gives this name."""
    for folder in ("include", "gateway", "hook/src"):
        for path in sorted((ROOT / folder).rglob("*.[ch]")):
            found = re.search(rf"\b{name}\b(?: =)? \(?(\d+)", path.read_text(errors="replace"))
            if found:
                return found[1]
    return None


def comparison(key: str) -> str | None:
    """`asyncio.tailrace`: how many of the situations a tool has right there; `asyncio.of`: of how
    many. Counted in the table, not taken from its last line.
    """
    loop, _, tool = key.partition(".")
    parts = (ROOT / COMPARISON).read_text().split("\n## ")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for part in parts
        if part.splitlines()[0].strip() == loop
        for line in part.splitlines()
        if line.startswith("| ") and not re.match(r"\| (scenario|---|\*\*right)", line)
    ]
    if not rows or tool not in (*TOOLS, "of"):
        return None
    if tool == "of":
        return str(len(rows))
    return str(sum("**" in row[2 + TOOLS.index(tool)] for row in rows))


def check_defaults(line: str) -> Iterator[str]:
    """`key` (5 s) is its default, of each key of that name; brackets may tell one of several."""
    for found in BRACKET.finditer(line):
        name, number, unit = found[1], float(found[2]), found[3] or ""
        known = [(key, value) for key, value in defaults() if f".{key}".endswith(f".{name}")]
        ends = UNITS[unit]
        fits = [
            number * factor == value
            for key, value in known
            for end, factor in ends.items()
            if key.endswith(end)
        ]
        if known and not any(fits):
            told = ", ".join(f"{value:g}" for _, value in known)
            yield f"{name} is {told} by default, not {found[2]} {unit}".rstrip()


def check_table(line: str) -> Iterator[str]:
    """A row | `key` | 5 | … tells the key's default in its own unit."""
    found = TABLE_DEFAULT.match(line)
    name = found[1] if found else ""
    known = [value for key, value in defaults() if found and f".{key}".endswith(f".{name}")]
    if found and known and float(found[2]) not in known:
        yield f"{name} is {known[0]:g} by default, not {found[2]}"


def check_statuses(line: str) -> Iterator[str]:
    """A code of the gateway's own answers stands behind its status."""
    for found in STATUS.finditer(line):
        for code in re.findall(r"`(\w+)`", found[2]):
            known = reasons().get(code)
            if known is not None and known != int(found[1]):
                yield f"{code} is answered with {known}, not {found[1]}"


def check_messages(line: str) -> Iterator[str]:
    """What a table says one sees in a log is what the programs write; … stands for what varies."""
    cell = MESSAGE_CELL.match(line)
    for text in re.findall(r"`([^`]+)`", cell[1]) if cell else []:
        for piece in re.split(r"\s*…[:\s]*|\s\d+\s", text):
            if len(piece) > 3 and piece not in messages() and piece not in SYSTEM:
                yield f"no program says `{piece}`"


#: strerror(3), which the system says.
SYSTEM = {"No such file or directory", "Permission denied"}


def check_claims(line: str, code: bool = False) -> Iterator[str]:
    """One line of prose, or of a block (`code`)."""
    for found in PYTHON_NAME.finditer(line):
        name = found[1] or found[2]
        if name not in exported():
            yield f"the Python package has no tailrace.{name}"
    for told in VERSION.findall(line):
        if told != version():
            yield f"the version is {version()}, not {told}"
    if code:
        return
    for piece in re.findall(r"`([^`]+)`", line):
        if not PYTHON_NAME.search(line):
            yield from check_claims(piece, code=True)
    yield from check_defaults(line)
    yield from check_table(line)
    yield from check_statuses(line)
    yield from check_messages(line)


def figure(kind: str, key: str) -> str | None:
    """What a marked number says: of a constant (c), or counted in the comparison (n)."""
    return constant(key) if kind == "c" else comparison(key)
