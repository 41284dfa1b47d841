"""``python -m tailrace export``: a deep profile as pstats, callgrind or HTML.

What the gateway itself can write (json, speedscope, collapsed, chrome) is asked of it.
"""

from __future__ import annotations

import argparse
import json
import marshal
import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tailrace.transport import Address, parse_address

GATEWAY_FORMATS = ("json", "speedscope", "collapsed", "chrome")
DEEP_FORMATS = ("pstats", "callgrind", "html")
TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 64 << 20
NS_PER_S = 1e9
_FONTS = re.compile(r'"https?://fonts\.[^"]*"')  # which pyinstrument's page loads from elsewhere

Key = tuple[str, int, str]  # as pstats writes a function: file, line, name


class ExportError(Exception):
    """Why there is nothing to write, in one sentence."""


class Node(NamedTuple):
    """One function called from one other, in one lane. Times are nanoseconds."""

    parent: int
    function: int
    calls: int
    self_ns: int
    await_ns: int
    cpu_ns: int

    @property
    def own_ns(self) -> int:
        """What it ran itself and waited itself."""
        return self.self_ns + self.await_ns


class Tree:
    """The call trees of a deep profile, as the API shows them."""

    def __init__(self, exchange: dict[str, Any]) -> None:
        profile = exchange.get("profile")
        if not profile:
            raise ExportError(f"the exchange has no profile: {exchange.get('profile_missing')}")
        deep = profile.get("deep")
        if not deep or not deep["nodes"]:
            state = deep["state"] if deep else "none was asked for"
            raise ExportError(
                "this needs a deep profile, and there is none "
                f"({state}); ask for one: tailrace deep ROUTE, or the header X-Tailrace-Deep "
                "with the token of profile.deep.token_file"
            )
        self.exchange = exchange
        self.profile = profile
        self.functions: list[Any] = deep["functions"]
        self.nodes = [Node(*node) for node in deep["nodes"]]
        self.total_ns = [node.own_ns for node in self.nodes]
        for index in range(len(self.nodes) - 1, -1, -1):  # parents come first
            if self.nodes[index].parent >= 0:
                self.total_ns[self.nodes[index].parent] += self.total_ns[index]

    def key(self, node: Node) -> Key:
        """The node's function, as pstats names it."""
        if node.parent < 0:
            lanes = self.profile["lanes"]
            number = next(
                r["lane"] for r in self.profile["deep"]["lanes"] if self.nodes[r["root"]] is node
            )
            lane = lanes[number - 1] if number <= len(lanes) else {"kind": "lane", "name": None}
            return ("~", 0, f"<{lane['kind']} {number}: {lane['name'] or '?'}>")
        frame = self.functions[node.function] if node.function >= 0 else None
        if frame is None:
            return ("~", 0, "<unknown>")
        if not frame["file"]:
            module = f"{frame['module']}." if frame["module"] else ""
            return ("~", 0, f"<built-in method {module}{frame['function']}>")
        return (frame["file"], frame["line"], frame["function"])

    def is_outermost(self, index: int) -> bool:
        """Whether no caller up to the root is the same function: only these count cumulatively."""
        node = self.nodes[index]
        at = node.parent
        while at >= 0:
            if self.nodes[at].function == node.function and self.nodes[at].parent >= 0:
                return False
            at = self.nodes[at].parent
        return True


def pstats_of(tree: Tree) -> bytes:
    """What ``pstats.Stats(file)`` reads: per function primitive calls, calls, own time, cumulative
    time and callers; in seconds, waits included. Resumptions of coroutines are no calls."""
    stats: dict[Key, Any] = {}
    for index, node in enumerate(tree.nodes):
        key = tree.key(node)
        outermost = node.parent < 0 or tree.is_outermost(index)
        calls = 1 if node.parent < 0 else node.calls
        row = (
            calls if outermost else 0,
            calls,
            node.own_ns / NS_PER_S,
            tree.total_ns[index] / NS_PER_S if outermost else 0.0,
        )
        old = stats.setdefault(key, [0, 0, 0.0, 0.0, {}])
        for i in range(4):
            old[i] += row[i]
        if node.parent >= 0:
            caller = tree.key(tree.nodes[node.parent])
            before = old[4].get(caller, (0, 0, 0.0, 0.0))
            # pstats wants calls first here, as cProfile writes it
            add = (row[1], row[0], row[2], tree.total_ns[index] / NS_PER_S)
            old[4][caller] = tuple(a + b for a, b in zip(before, add, strict=True))
    return marshal.dumps({key: tuple(row) for key, row in stats.items()})


def callgrind_of(tree: Tree) -> bytes:
    """The format of KCachegrind: self cost (run, wait, CPU in nanoseconds) and calls."""
    lines = [
        "# callgrind format",
        "version: 1",
        "creator: tailrace",
        f"cmd: {tree.exchange.get('route')} {tree.exchange.get('trace_id')}",
        "positions: line",
        "event: Run : ran itself (ns)",
        "event: Await : waited itself (ns)",
        "event: Cpu : CPU of what it ran itself (ns)",
        "events: Run Await Cpu",
        "",
    ]
    sums = [[n.self_ns, n.await_ns, n.cpu_ns] for n in tree.nodes]
    for index in range(len(tree.nodes) - 1, -1, -1):
        parent = tree.nodes[index].parent
        if parent >= 0:
            sums[parent] = [a + b for a, b in zip(sums[parent], sums[index], strict=True)]
    children: dict[int, list[int]] = {}
    for index, node in enumerate(tree.nodes):
        children.setdefault(node.parent, []).append(index)
    for index, node in enumerate(tree.nodes):
        file, line, name = tree.key(node)
        lines += [f"fl={file}", f"fn={name} {file}:{line}"]
        lines.append(f"{line} {node.self_ns} {node.await_ns} {node.cpu_ns}")
        for child in children.get(index, ()):
            called_file, called_line, called = tree.key(tree.nodes[child])
            lines += [f"cfi={called_file}", f"cfn={called} {called_file}:{called_line}"]
            lines.append(f"calls={tree.nodes[child].calls} {called_line}")
            lines.append(" ".join(map(str, (line, *sums[child]))))
        lines.append("")
    return "\n".join(lines).encode()


def _frame_records(tree: Tree) -> Iterator[tuple[list[str], float]]:
    """Each node's own time below its callers, as pyinstrument's sessions hold samples."""
    stacks: list[list[str]] = []
    for node in tree.nodes:
        file, line, name = tree.key(node)
        stacks.append(
            [*(stacks[node.parent] if node.parent >= 0 else ()), f"{name}\0{file}\0{line}"]
        )
        if node.self_ns:
            yield stacks[-1], node.self_ns / NS_PER_S
        if node.await_ns:
            yield [*stacks[-1], "[await]\0<await>\x000"], node.await_ns / NS_PER_S


def html_of(tree: Tree) -> bytes:
    """One page that needs nothing else: pyinstrument's, of the call trees."""
    try:
        from pyinstrument.renderers import HTMLRenderer
        from pyinstrument.session import Session
    except ImportError as error:
        raise ExportError(f"html needs pyinstrument (pip install pyinstrument): {error}") from error
    cpu_ns = sum(node.cpu_ns for node in tree.nodes)
    duration_s = tree.exchange["total_ns"] / NS_PER_S
    records = list(_frame_records(tree))
    session = Session.from_json(
        {
            "start_time": 0.0,
            "duration": duration_s,
            "min_interval": 0.0,
            "max_interval": 0.0,
            "sample_count": len(records),
            "start_call_stack": records[0][0][:1] if records else ["?\0?\x000"],
            "target_description": f"{tree.exchange['route']} {tree.exchange['trace_id']}",
            "cpu_time": cpu_ns / NS_PER_S,
            "sys_path": sys.path,
            "sys_prefixes": [sys.prefix],
            "frame_records": records,
        }
    )
    return _FONTS.sub('"data:text/css,"', str(HTMLRenderer().render(session))).encode()


WRITERS = {"pstats": pstats_of, "callgrind": callgrind_of, "html": html_of}


def ask(address: Address, path: str, token: str | None) -> tuple[int, bytes]:
    """GET from the gateway's control listener: (status, body). Raises OSError."""
    if address.path is not None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(TIMEOUT_S)
        connection.connect(address.path)
    else:
        connection = socket.create_connection((address.host, address.port), TIMEOUT_S)
    with connection:
        head = f"GET {path} HTTP/1.0\r\nHost: localhost\r\n"
        head += f"Authorization: Bearer {token}\r\n" if token else ""
        connection.sendall(f"{head}\r\n".encode())
        data = b""
        while part := connection.recv(1 << 16):
            data += part
            if len(data) > ANSWER_BYTES_MAX:
                raise OSError("the answer is too long")
    line, _, rest = data.partition(b"\r\n")
    fields = line.split()
    if len(fields) < 2 or not fields[1].isdigit():
        raise OSError("this is no HTTP/1 answer")
    return int(fields[1]), rest.partition(b"\r\n\r\n")[2]


def _why(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"


def fetch(control: str, path: str) -> bytes:
    """The body of a 200. Raises ExportError."""
    if control.startswith("/"):
        control = f"unix:{control}"
    try:
        status, body = ask(parse_address(control), path, os.environ.get("TAILRACE_TOKEN"))
    except (OSError, ValueError) as error:
        raise ExportError(f"no gateway answers at {control}: {error}") from error
    if status != 200:
        raise ExportError(f"the gateway answers {status}: {_why(body)}")
    return body


def _default_control() -> str:
    found = os.environ.get("TAILRACE_CONTROL")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if found:
        return found
    if not os.path.exists("/run/tailrace/control.sock") and runtime:
        return f"unix:{runtime}/tailrace/control.sock"
    return "unix:/run/tailrace/control.sock"


def make(arguments: argparse.Namespace) -> bytes:
    """What is to be written. Raises ExportError."""
    path = f"/api/v1/requests/{arguments.trace.lower()}"
    if arguments.format in GATEWAY_FORMATS:
        if arguments.input:
            raise ExportError(f"{arguments.format} is made by the gateway, not of a file")
        return fetch(arguments.control, f"{path}/profile?format={arguments.format}")
    if arguments.input:
        try:
            text = Path(arguments.input).read_bytes()
        except OSError as error:
            raise ExportError(str(error)) from error
    else:
        text = fetch(arguments.control, path)
    try:
        exchange = json.loads(text)
    except ValueError as error:
        raise ExportError(f"not JSON: {error}") from error
    return WRITERS[arguments.format](Tree(exchange))


def main(argv: Sequence[str]) -> int:
    """Run the command. Returns the exit status: 1, the reason said, where nothing is written."""
    parser = argparse.ArgumentParser(prog="python -m tailrace export", description=__doc__)
    parser.add_argument("trace", help="trace ID, 32 hexadecimal digits")
    parser.add_argument("--format", choices=GATEWAY_FORMATS + DEEP_FORMATS, default="pstats")
    parser.add_argument("--control", default=_default_control(), help="the control listener")
    parser.add_argument("--input", help="read `tailrace show --json` from this file instead")
    parser.add_argument("--output", "-o", help="where to write; default: standard output")
    arguments = parser.parse_args(argv)
    if len(arguments.trace) != 32 or set(arguments.trace.lower()) - set("0123456789abcdef"):
        parser.error("a trace ID has 32 hexadecimal digits")
    if arguments.format == "pstats" and not arguments.output and sys.stdout.isatty():
        parser.error("pstats is binary: name a file with --output")
    try:
        data = make(arguments)
        if arguments.output:
            Path(arguments.output).write_bytes(data)
        else:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    except (ExportError, OSError) as error:
        sys.stderr.write(f"tailrace: {error}\n")
        return 1
    return 0
