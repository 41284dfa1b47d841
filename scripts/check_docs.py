"""Checks what the documents claim against the tree: links, options, commands, samples, figures.

``scripts/check_docs.py`` prints a line per fault and ends with 1 if there is any. ``--write`` puts
made blocks and figures in, as their sources are now; ``--strict`` also finds pictures stale whose
sources changed since they were taken (make release); ``--made FILE --by "make x"`` records that a
script wrote a file (docs/made.json), with ``--of FOLDER`` for the sources that a picture shows.
The markers are told in docs_text.py, and in CONTRIBUTING.md.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import hashlib
import json
import platform
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from docs_claims import COMPARISON, check_claims, figure
from docs_register import check_register
from docs_text import (
    CODE,
    FIGURE,
    HTML_PICTURE,
    LINK,
    Block,
    Document,
    parse,
    select,
)

ROOT = Path(__file__).resolve().parent.parent
MADE = "docs/made.json"
MEASURED = "docs/measured.json"
SCHEMA = "conf/tailrace.schema.json"
FIGURES_OF = {"m": MEASURED, "d": SCHEMA, "c": "a header", "n": COMPARISON}
#: Where the figures of speed and size must be measured ones: what is shown to newcomers.
STRICT_FIGURES = ("README.md",)
#: What only a measurement can say.
BARE_FIGURE = re.compile(r"\d[\d.,]*\s?(?:µs|us\b|requests/s|req/s|exchanges/s|instructions)")
PROGRAMS = {
    "apt", "apt-get", "cat", "cd", "chmod", "curl", "docker", "echo", "eval", "export", "git",
    "gunicorn", "hypercorn", "journalctl", "kill", "kubectl", "make", "man", "openssl", "pip",
    "podman", "python", "python3", "source", "ssh", "sudo", "systemctl", "systemd-sysusers",
    "tailrace", "usermod", "uvicorn", "wget", "xdg-open",
}  # fmt: skip
ENVIRONMENT = {"https_proxy", "http_proxy", "no_proxy"}  # libcurl's own


def sha256(data: bytes) -> str:
    """The checksum of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def folder_sha256(folder: str) -> str:
    """The checksum of a folder's sources, names included."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / folder).rglob("*")):
        if path.is_file() and path.suffix in (".js", ".css", ".html", ".py", ".c"):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def short(path: Path) -> str:
    """A path from the tree's root, where it is in the tree."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def load(name: str) -> dict[str, Any]:
    """A JSON file of the tree; an empty object where it is not there."""
    path = ROOT / name
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


# --- what the tree knows ---------------------------------------------------


@cache
def sources() -> str:
    """All text of programs, hook, page, tests' apps and configuration, to look words up in."""
    parts = []
    folders = ("gateway", "include", "hook", "dashboard", "conf", "demo", "scripts", "tests")
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.name == "test_docs.py":
                continue  # it names what is not there
            if path.suffix in (".c", ".h", ".def", ".py", ".js", ".json", ".yml", ".service"):
                parts.append(path.stem)
                parts.append(path.read_text(encoding="utf-8", errors="replace"))
    parts.append((ROOT / "Makefile").read_text())
    return "\n".join(parts)


@cache
def source_words() -> set[str]:
    """Every identifier of them."""
    return set(re.findall(r"\w+", sources()))


@cache
def make_targets() -> set[str]:
    """The Makefile's targets."""
    found: set[str] = set()
    for line in (ROOT / "Makefile").read_text().splitlines():
        names = re.match(r"([a-z][\w -]*):(?!=)", line)
        if names:
            found |= set(names[1].split())
    return found


@cache
def commands() -> dict[str, set[str]]:
    """The options of each command of tailrace(8), as its synopsis has them."""
    found: dict[str, set[str]] = {}
    text = (ROOT / "docs" / "tailrace.8").read_text()
    synopsis = text[text.index(".Sh SYNOPSIS") : text.index(".Sh DESCRIPTION")].replace("\\-", "-")
    for part in synopsis.split(".Nm\n")[1:]:
        words = re.findall(r"^\.(?:Op )?Cm (\w+)", part, re.M) or [""]
        options = set(re.findall(r"Fl (-?[\w-]+)|\| (-[\w-]+)", part))
        flat = {f"-{one or other}" for one, other in options}
        for word in words:
            found.setdefault(word, {"--help", "-h"}).update(flat)
    return found


@cache
def api_paths() -> list[str]:
    """The paths docs/api.md has a heading for."""
    text = (ROOT / "docs" / "api.md").read_text()
    return re.findall(r"`(?:(?:GET|POST), )*(?:GET|POST) (/[^`?\s]*)", text)


def schema_nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The object schemas a value may have: itself, its items', its alternatives'."""
    yield schema
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from schema_nodes(schema[word])
    for word in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(word, []):
            yield from schema_nodes(one)


def schema_at(path: list[str]) -> dict[str, Any] | None:
    """The schema of a configuration key such as limits.connections; null where there is none."""
    nodes = [load(SCHEMA)]
    for word in path:
        inner = [node for outer in nodes for node in schema_nodes(outer)]
        nodes = [node["properties"][word] for node in inner if word in node.get("properties", {})]
        if not nodes:
            return None
    return nodes[0]


def unknown_keys(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    """Keys of a configuration that its schema does not have, and words it does not allow."""
    nodes = list(schema_nodes(schema))
    if isinstance(value, list):
        for one in value:
            yield from unknown_keys(one, schema, where)
    elif isinstance(value, dict):
        for key, one in value.items():
            known = [node["properties"][key] for node in nodes if key in node.get("properties", {})]
            free = [
                node["additionalProperties"]
                for node in nodes
                if isinstance(node.get("additionalProperties"), dict)
            ]
            if known or free:
                yield from unknown_keys(one, (known or free)[0], f"{where}.{key}")
            else:
                yield f"no key {where}.{key}".replace(" .", " ")
    elif isinstance(value, str):
        allowed = [word for node in nodes for word in node.get("enum", [])]
        plain = [node for node in nodes if node.get("type") == "string" and "enum" not in node]
        if allowed and not plain and value not in allowed:
            yield f"{where[1:]} is one of {', '.join(map(str, allowed))}"


# --- blocks ----------------------------------------------------------------


def without_comments(text: str) -> str:
    """JSON without its // comments."""
    return re.sub(r'("(?:\\.|[^"\\])*")|//[^\n]*', lambda found: found[1] or "", text)


def check_json(block: Block) -> Iterator[str]:
    """It is JSON (perhaps the inside of an object); a configuration has known keys only."""
    text = without_comments("\n".join(block.text))
    try:
        value = json.loads(text)
    except ValueError as error:
        try:
            value = json.loads("{" + text + "}")
        except ValueError:
            yield f"no JSON: {error}"
            return
    schema = load(SCHEMA)
    if isinstance(value, dict) and value and set(value) <= set(schema["properties"]):
        yield from unknown_keys(value, schema, "")


def check_python(block: Block) -> Iterator[str]:
    """It compiles."""
    try:
        ast.parse("\n".join(block.text))
    except SyntaxError as error:
        yield f"no Python: {error}"


def command_lines(block: Block) -> Iterator[str]:
    """The commands of a block: continued lines joined, prompts and answers left out."""
    lines = "\n".join(block.text).replace("\\\n", " ").splitlines()
    prompts = any(line.startswith("$ ") for line in lines)
    for line in lines:
        if prompts and not line.startswith("$ "):
            continue
        bare = line.removeprefix("$ ").strip()
        if bare and not bare.startswith("#"):
            yield re.split(r"\s+#\s", bare)[0]


def program_of(part: str) -> str:
    """The program that a simple command runs."""
    words = part.split()
    while words and (re.match(r"\w+=", words[0]) or words[0] in ("sudo", "!", "exec")):
        words.pop(0)
    return words[0].rpartition("/")[2] if words else ""


def check_commands(block: Block) -> Iterator[str]:
    """Programs are known ones; make's targets, tailrace's commands and options, the API exist."""
    for line in command_lines(block):
        for part in re.split(r"\s*(?:&&|\|\||;|\|)\s*", line):
            program = program_of(part)
            local = any((ROOT / part.split()[0]).exists() for _ in [0] if part.split())
            if program and program not in PROGRAMS and not local:
                yield (
                    f"`{program}` is no program; a sample of output stands behind "
                    "<!-- made: FILE -->, a drawing behind <!-- drawing -->"
                )
                return
        yield from check_command_text(line)


def check_command_text(text: str) -> Iterator[str]:
    """make, tailrace and curl in a piece of shell or inline code."""
    for found in re.finditer(r"\bmake((?:\s+[A-Z_]+=\S*)*)\s+([a-z][\w-]*)", text):
        if found[2] not in make_targets():
            yield f"make has no target {found[2]}"
    for found in re.finditer(r"(?:^|(?<!-m)[\s/(])tailrace((?:\s+[^\s|;&><]+)*)", text):
        yield from check_tailrace(found[1].split())
    for found in re.finditer(
        r"(?<![\w/])(/(?:api/v1|v1|metrics|healthz|readyz)\b[\w/{}-]*)(?!\.\w)", text
    ):
        yield from check_api_path(found[1])


def check_tailrace(words: list[str]) -> Iterator[str]:
    """A command and its options are in the manual."""
    if not words or words[0].startswith(("…", "$")) or not re.match(r"[-\w]", words[0]):
        return
    word = "" if words[0].startswith("-") else words[0]
    if word not in commands():
        if re.fullmatch(r"[a-z]+", word) and len(words) > 1:
            yield f"tailrace has no command {word}"
        return
    for option in words:
        if re.fullmatch(r"-[a-z]|--[a-z][\w-]*", option) and option not in commands()[word]:
            yield f"tailrace {word} has no option {option}"


def check_api_path(path: str) -> Iterator[str]:
    """A path of the API has a heading in docs/api.md."""
    path = path.rstrip("/.")
    pieces = path.split("/")
    for known in api_paths():
        pattern = [re.escape(p) if "{" not in p else "[^/]+" for p in known.split("/")]
        if re.fullmatch("/".join(pattern[: len(pieces)]), path):
            return
    yield f"docs/api.md has no {path}"


def check_made(block: Block) -> Iterator[str]:
    """The block is the file that a script wrote."""
    name, _, lines = block.argument.partition(" ")
    path = ROOT / name
    if not path.exists():
        yield f"no file {name}"
        return
    if name not in load(MADE):
        yield f"{name} is not in {MADE}: which script wrote it?"
    try:
        wanted = select(path.read_text(encoding="utf-8").splitlines(), lines.strip())
    except ValueError as error:
        yield str(error)
        return
    if wanted != block.text:
        yield f"is not {name} as it is (scripts/check_docs.py --write)"


def check_block(block: Block) -> Iterator[str]:
    """One fenced block."""
    if block.marker == "made":
        yield from check_made(block)
    elif block.marker in ("drawing", "sketch"):
        return
    elif block.language in ("json", "jsonc"):
        yield from check_json(block)
    elif block.language == "python":
        yield from check_python(block)
    elif block.language in ("", "sh", "bash", "console", "shell"):
        yield from check_commands(block)


# --- prose -----------------------------------------------------------------


def is_outside(target: str) -> bool:
    """Whether a link leads out of the tree."""
    return re.match(r"[a-z][a-z0-9+.-]*:", target) is not None


def check_link(document: Document, target: str) -> Iterator[str]:
    """A relative link leads to a file, and its anchor to a heading."""
    if is_outside(target):
        return
    name, _, anchor = target.partition("#")
    path = (document.path.parent / name).resolve() if name else document.path
    if not path.exists():
        yield f"link to {target}: no such file"
    elif anchor and path.suffix == ".md" and anchor not in parse(path).anchors:
        yield f"link to {target}: no such heading"


def check_picture(document: Document, target: str) -> Iterator[str]:
    """A picture of the tree was recorded by the script that made it."""
    if is_outside(target):
        return
    path = (document.path.parent / target.partition("#")[0]).resolve()
    name = short(path)
    if path.exists() and name not in load(MADE):
        yield f"{name} is not in {MADE}: which script made it?"


def check_code(document: Document, code: str) -> Iterator[str]:
    """Inline code that looks like a key, a metric, a variable, a file or a command is one."""
    sections = load(SCHEMA)["properties"]
    dotted = re.fullmatch(r"[a-z_]+(?:\.[a-z_]+)+", code)
    path = code.split(".")
    is_key = dotted and path[0] in sections and path[-1] not in ("c", "h", "def", "json", "md")
    if is_key and schema_at(path) is None:
        yield f"no configuration key {code}"
    named = re.fullmatch(r"_?[a-z0-9]+(?:_[a-z0-9]+)+", code) and not code.endswith("_x")
    if named and code not in sources() and code not in ENVIRONMENT:
        yield f"nothing in the sources is named {code}"
    for name in re.findall(r"\bTAILRACE_[A-Z0-9_]+", code):
        if name.startswith("TAILRACE_CONF__"):
            key = name.removeprefix("TAILRACE_CONF__").lower().split("__")
            if key != [""] and schema_at(key) is None:
                yield f"{name} names no configuration key"
        elif name not in source_words():
            yield f"no environment variable {name}"
    file = re.fullmatch(r"((?:docs|conf|scripts|gateway|hook|tests|demo|dashboard)/[\w./-]+)", code)
    places = (ROOT, document.path.parent)
    if file and not any(list(place.glob(file[1] + end)) for place in places for end in ("", ".*")):
        yield f"no file {file[1]}"
    yield from check_command_text(code)


def figure_text(kind: str, key: str) -> str | None:
    """What a figure says, from its source."""
    if kind in ("c", "n"):
        return figure(kind, key)
    if kind == "m":
        entry = load(MEASURED).get("figures", {}).get(key)
        return entry["text"] if entry else None
    found = schema_at(key.split("."))
    return None if found is None or "default" not in found else str(found["default"])


def check_figures(document: Document, line: str) -> Iterator[str]:
    """Marked figures are those of their source; what only a measurement says is marked."""
    line = CODE.sub("", line)
    for found in FIGURE.finditer(line):
        kind, key, text = found[1], found[2], found[3]
        wanted = figure_text(kind, key)
        if wanted is None:
            yield f"{FIGURES_OF[kind]} has no {key}"
        elif re.sub(r"[\s\u202f\u00a0]", "", wanted) != re.sub(r"[\s\u202f\u00a0]", "", text):
            yield f"{key} is {wanted}, not {text} (scripts/check_docs.py --write)"
    if short(document.path) in STRICT_FIGURES:
        bare = BARE_FIGURE.search(FIGURE.sub("", line))
        if bare:
            yield f"{bare[0]}: a measured figure without its marker (<!--m:KEY-->)"


def check_line(document: Document, line: str) -> Iterator[str]:
    """One line outside of blocks."""
    plain = CODE.sub("``", line)
    for found in LINK.finditer(plain):
        yield from check_link(document, found[3])
        if found[1]:
            yield from check_picture(document, found[3])
    for target in HTML_PICTURE.findall(plain):
        yield from check_link(document, target)
        yield from check_picture(document, target)
    for _, code in CODE.findall(line):
        yield from check_code(document, code.strip())
    yield from check_figures(document, line)
    yield from check_claims(line)


# --- files of scripts ---------------------------------------------------------


def check_manifest(strict: bool) -> Iterator[str]:
    """Every file of docs/made.json is what its script wrote, by a script that is there."""
    for name, entry in load(MADE).items():
        path = ROOT / name
        if not path.exists():
            yield f"{MADE}: no file {name}"
        elif sha256(path.read_bytes()) != entry["sha256"]:
            yield f"{MADE}: {name} was changed since {entry['by']} wrote it"
        target = re.match(r"make ([\w-]+)", entry["by"])
        if target and target[1] not in make_targets():
            yield f"{MADE}: {name}: make has no target {target[1]}"
        if strict and "of" in entry and folder_sha256(entry["of"]) != entry["of_sha256"]:
            yield f"{MADE}: {name} is older than what it shows, {entry['of']}: {entry['by']}"


def check_measured() -> Iterator[str]:
    """Every figure tells its text, date, machine and the command that measures it."""
    found = load(MEASURED)
    for key, entry in found.get("figures", {}).items():
        missing = {"text", "date", "machine", "by"} - set(entry)
        if missing:
            yield f"{MEASURED}: {key} has no {', '.join(sorted(missing))}"
            continue
        if entry["machine"] not in found.get("machines", {}):
            yield f"{MEASURED}: {key}: no machine {entry['machine']}"
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"]):
            yield f"{MEASURED}: {key}: a date is like 2026-05-01"
        target = re.match(r"make ([\w-]+)", entry["by"])
        if not target or target[1] not in make_targets():
            yield f"{MEASURED}: {key}: not `make TARGET`: {entry['by']}"


def check_phases(document: Document) -> Iterator[str]:
    """README explains every phase of the gateway."""
    text = (ROOT / "include/model/phases.def").read_text()
    names = re.findall(r'^PHASE\(\w+,\s*"(\w+)"', text, re.M) or re.findall(
        r"^PHASE\((\w+)", text, re.M
    )
    shown = set(CODE.findall("\n".join(line for _, line in document.prose)))
    for name in names:
        if ("`", name.lower()) not in shown:
            yield f"does not explain the phase {name.lower()}"


def record(name: str, by: str, of: str | None) -> None:
    """Notes in docs/made.json that a script wrote this file just now."""
    made = load(MADE)
    entry = {"sha256": sha256((ROOT / name).read_bytes()), "by": by}
    entry["date"] = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    entry["machine"] = f"{platform.system()} {platform.machine()}"
    if of is not None:
        entry |= {"of": of, "of_sha256": folder_sha256(of)}
    made[name] = entry
    (ROOT / MADE).write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")


# --- the whole ---------------------------------------------------------------


def documents() -> list[Path]:
    """The Markdown files of the tree."""
    found = [*ROOT.glob("*.md")]
    for folder in ("docs/**", "hook", "examples"):
        found += ROOT.glob(f"{folder}/*.md")
    return sorted(path for path in found if not path.name.startswith("NOTICE"))


def check_document(path: Path) -> Iterator[str]:
    """All of one file, as FILE:LINE: fault."""
    document = parse(path)
    name = short(path)
    for block in document.blocks:
        for fault in check_block(block):
            yield f"{name}:{block.line}: {fault}"
        for number, line in enumerate(block.text, block.line + 1):
            for fault in check_claims(line, code=True) if block.marker == "" else ():
                yield f"{name}:{number}: {fault}"
    for number, line in document.prose:
        for fault in check_line(document, line):
            yield f"{name}:{number}: {fault}"


def rewrite(path: Path) -> None:
    """Puts made blocks and figures in as their sources are now."""
    document = parse(path)
    lines = list(document.lines)
    for block in reversed(document.blocks):
        name, _, chosen = block.argument.partition(" ")
        if block.marker == "made" and (ROOT / name).exists():
            text = (ROOT / name).read_text(encoding="utf-8").splitlines()
            new = [(block.indent + one).rstrip() for one in select(text, chosen.strip())]
            lines[block.line : block.line + len(block.text)] = new

    def figure(found: re.Match[str]) -> str:
        text = figure_text(found[1], found[2])
        return f"<!--{found[1]}:{found[2]}-->{text or found[3]}<!--/{found[1]}-->"

    lines = [FIGURE.sub(figure, line) for line in lines]
    if lines != document.lines:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{short(path)}: written")


def main() -> int:
    """Checks, or writes what scripts made."""
    parser = argparse.ArgumentParser(description="check the documents against the tree")
    parser.add_argument("--write", action="store_true", help="put made blocks and figures in")
    parser.add_argument("--strict", action="store_true", help="stale pictures are faults too")
    parser.add_argument("--made", metavar="FILE", help="record that a script wrote this file")
    parser.add_argument("--by", metavar="COMMAND", help="which: such as `make screenshots`")
    parser.add_argument("--of", metavar="FOLDER", help="the sources a picture shows")
    arguments = parser.parse_args()
    if arguments.made:
        if not arguments.by:
            parser.error("--made needs --by")
        record(arguments.made, arguments.by, arguments.of)
        return 0
    if arguments.write:
        for path in documents():
            rewrite(path)
    faults = [fault for path in documents() for fault in check_document(path)]
    faults += [*check_manifest(arguments.strict), *check_measured(), *check_register()]
    faults += [f"README.md: {fault}" for fault in check_phases(parse(ROOT / "README.md"))]
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
