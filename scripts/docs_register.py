"""Every sentence of README.md, and what checks it: docs/claims.json names it, this looks it up.

A sentence that is not in the register, one that is there but no longer in the README, and a test
or target that does not exist are faults: who changes a sentence looks at what checks it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from docs_text import parse

ROOT = Path(__file__).resolve().parent.parent
README = "README.md"
REGISTER = "docs/claims.json"
#: What need not be checked by a test, and why.
CLASSES = {
    "link": "where to read on; the link itself is checked",
    "word": "says what a word means here, or asks a question",
    "scope": "what the project does not mean to be, or leaves out",
}
FIGURE = re.compile(r"<!--(\w+:[\w.]+)-->.*?<!--/\w+-->")
SENTENCE_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z`*\[])")
LIST_MARK = re.compile(r"^\s*(?:[-*]|\d+\.)\s+")
RULE = re.compile(r"^\|[-| :]+\|$")


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """(line, sentence) of the prose: paragraphs and list items cut at their ends, and table rows.

    A measured or looked-up figure stands as its key.
    """
    paragraph: list[str] = []
    begun = previous = 0

    def cut() -> Iterator[tuple[int, str]]:
        text = LIST_MARK.sub("", " ".join(paragraph))
        for sentence in SENTENCE_END.split(text) if text else ():
            yield begun, sentence
        paragraph.clear()

    prose = [(n, FIGURE.sub(r"{\1}", line.strip())) for n, line in parse(path).prose]
    rules = {number for number, line in prose if RULE.match(line)}
    for number, line in prose:
        is_row = line.startswith("|")
        is_apart = not line or is_row or line.startswith(("#", "<!--")) or LIST_MARK.match(line)
        if is_apart or number != previous + 1:
            yield from cut()
        previous = number
        if is_row and number not in rules and number + 1 not in rules:
            yield number, line
        elif line and not is_row and not line.startswith(("#", "<!--")):
            begun = begun if paragraph else number
            paragraph.append(line)
    yield from cut()


@cache
def names_in(file: str) -> set[str]:
    """The functions of a Python file, or of a C file; empty where there is none."""
    path = ROOT / file
    if not path.is_file():
        return set()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        nodes = ast.walk(ast.parse(text))
        return {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}
    return set(re.findall(r"^(\w+)\(", text, re.M))


@cache
def make_targets() -> set[str]:
    """What the Makefile makes."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+(?: [a-z-]+)*):", text, re.M))


def check_reference(reference: str) -> str | None:
    """What is wrong with one, or None: FILE::FUNCTION, `make TARGET`, or a word of CLASSES."""
    file, colons, function = reference.partition("::")
    if colons:
        return None if function in names_in(file) else f"there is no {reference}"
    if reference.startswith("make "):
        there = any(reference[5:] in targets.split() for targets in make_targets())
        return None if there else f"there is no target {reference[5:]}"
    return (
        None if reference in CLASSES else f"{reference!r} is neither a test nor one of {[*CLASSES]}"
    )


def check_register(readme: Path = ROOT / README, register: Path = ROOT / REGISTER) -> Iterator[str]:
    """All faults, as FILE:LINE: fault where there is a line."""
    known: dict[str, list[str]] = json.loads(register.read_text(encoding="utf-8"))
    found = dict.fromkeys(known, False)
    for line, sentence in sentences(readme):
        if sentence not in known:
            yield f"{README}:{line}: not in {REGISTER}, what checks it? {sentence}"
        found[sentence] = True
    for sentence, references in known.items():
        if not found[sentence]:
            yield f"{REGISTER}: no longer in {README}: {sentence}"
        if not references:
            yield f"{REGISTER}: nothing checks: {sentence}"
        for fault in filter(None, map(check_reference, references)):
            yield f"{REGISTER}: {fault}: {sentence}"
