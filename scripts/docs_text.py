"""Markdown as the documents of this repository use it: blocks, links, inline code, markers.

Markers are HTML comments, so that a reader does not see them:

``<!-- made: FILE -->`` before a fenced block
    the block is that file, which a script wrote. ``<!-- made: FILE lines 1-2,5-9 -->`` shows those
    lines only, with a line ``…`` where some are left out.
``<!-- drawing -->`` before a fenced block
    a drawing that no script makes.
``<!-- sketch -->`` before a fenced block
    shows a shape, not something to copy: it is not checked.
``<!--m:KEY-->TEXT<!--/m-->``
    a measured figure, the ``text`` of KEY in docs/measured.json.
``<!--d:KEY-->TEXT<!--/d-->``
    the default of a configuration key, as the schema has it.
``<!--c:NAME-->TEXT<!--/c-->``
    the number that a ``#define`` or an enum of the sources gives that name.
``<!--n:LOOP.TOOL-->TEXT<!--/n-->``
    how many situations of docs/comparison.md a tool has right; ``LOOP.of``: of how many.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^(\s*)(```+|~~~+)\s*([\w+-]*)(.*)$")
MARKER = re.compile(r"^\s*<!--\s*(made:|drawing|sketch)\s*(.*?)\s*-->\s*$")
FIGURE = re.compile(r"<!--(m|d|c|n):([\w.-]+)-->(.*?)<!--/\1-->")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
HTML_PICTURE = re.compile(r"<(?:img|source)\b[^>]*?\b(?:src|srcset)=\"([^\"\s]+)")
CODE = re.compile(r"(`+)(.+?)\1")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$")


@dataclass
class Block:
    """A fenced block."""

    line: int  # of its opening fence, from 1
    language: str
    marker: str  # "made", "drawing", "sketch" or ""
    argument: str  # of the marker
    text: list[str] = field(default_factory=list)
    indent: str = ""


@dataclass
class Document:
    """One Markdown file, taken apart."""

    path: Path
    lines: list[str]
    blocks: list[Block] = field(default_factory=list)
    prose: list[tuple[int, str]] = field(default_factory=list)  # lines outside of blocks
    anchors: set[str] = field(default_factory=set)


def anchor_of(heading: str) -> str:
    """The anchor GitHub gives a heading."""
    plain = LINK.sub(lambda found: found[2], heading).replace("`", "")
    kept = re.sub(r"[^\w\- ]", "", plain.strip().lower())
    return kept.replace(" ", "-")


def add_anchor(document: Document, heading: str) -> None:
    """Adds a heading's anchor; a second one of the same text is numbered."""
    anchor = anchor_of(heading)
    number, unique = 0, anchor
    while unique in document.anchors:
        number += 1
        unique = f"{anchor}-{number}"
    document.anchors.add(unique)


def parse(path: Path) -> Document:
    """Takes a file apart. A block without an end goes to the end of the file."""
    document = Document(path, path.read_text(encoding="utf-8").splitlines())
    block: Block | None = None
    fence = ""
    marker = ("", "")
    for number, line in enumerate(document.lines, 1):
        found = FENCE.match(line)
        if block is not None:
            if found and line.strip() == fence:
                block = None
            else:
                block.text.append(line.removeprefix(block.indent))
            continue
        if found:
            block = Block(number, found[3], *marker, indent=found[1])
            fence = found[2]
            document.blocks.append(block)
            marker = ("", "")
            continue
        mark = MARKER.match(line)
        if mark:
            marker = (mark[1].rstrip(":"), mark[2])
        elif line.strip():
            marker = ("", "")
        document.prose.append((number, line))
        heading = HEADING.match(line)
        if heading:
            add_anchor(document, heading[1])
        for name in re.findall(r"<a (?:id|name)=\"([^\"]+)\"", line):
            document.anchors.add(name)
    return document


def select(lines: list[str], argument: str) -> list[str]:
    """The lines that ``lines 1-2,5-9`` names, with ``…`` for what is left out. ValueError."""
    if not argument:
        return lines
    found = re.fullmatch(r"lines\s+(\d+(?:-\d+)?(?:\s*,\s*\d+(?:-\d+)?)*)", argument)
    if not found:
        raise ValueError(f"not like `lines 1-2,5-9`: {argument}")
    chosen: list[str] = []
    done = 0
    for part in found[1].replace(" ", "").split(","):
        first, _, last = part.partition("-")
        begin, end = int(first), int(last or first)
        if not done < begin <= end <= len(lines):
            raise ValueError(f"lines {part} of a file of {len(lines)}")
        if begin > done + 1:
            chosen.append("…")
        chosen += lines[begin - 1 : end]
        done = end
    if done < len(lines):
        chosen.append("…")
    return chosen
