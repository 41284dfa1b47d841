"""Code objects to the frames of docs/protocol.md, off the request and in small slices."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any

STRING_BYTES_MAX = 512
FILE_BYTES_MAX = 1024
STACK_FRAMES_MAX = 64
NAMES_DEPTH_MAX = 4  # classes inside classes searched for a qualified name

Stack = tuple[int, Sequence[tuple[CodeType, int]]]


_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class Breather:
    """Gives the GIL away in time: a thread that only computes would keep it for 5 ms."""

    SLICE_NS = 20_000  # and what the piece under way still takes

    def __init__(self) -> None:
        self._since_ns = time.monotonic_ns()

    def rested(self) -> None:
        """The GIL was given away until now: a new slice begins."""
        self._since_ns = time.monotonic_ns()

    def tick(self) -> None:
        """Sleeps for a moment where the current slice has lasted long enough."""
        if time.monotonic_ns() - self._since_ns >= self.SLICE_NS:
            time.sleep(0.00002)
            self._since_ns = time.monotonic_ns()


def clean(text: str, bytes_max: int, keep_end: bool = False) -> str:
    """`text` as strict UTF-8 without NUL, at most `bytes_max` bytes long."""
    data = text.replace("\0", "?").encode("utf-8", "replace")
    if len(data) > bytes_max:
        data = data[-bytes_max:] if keep_end else data[:bytes_max]
    return data.decode("utf-8", "ignore")


class Frames:
    """Resolves code objects, each once. Code objects must stay alive as long as this does: they
    are keyed by address, since hashing one hashes its whole code."""

    def __init__(self, in_app: Callable[[CodeType], bool], breather: Breather) -> None:
        self._in_app = in_app
        self._breather = breather
        self._known: dict[int, tuple[str, str]] = {}
        self._modules: dict[str, str] = {}  # file → module name
        self._modules_seen = -1
        self._names: dict[str, dict[int, tuple[CodeType, str]]] = {}  # by module and id(code)

    def stack(self, stack: Stack) -> bytes:
        """The JSON of one stack: ``[id, [frame, …]]``; the innermost frames win beyond 64."""
        number, frames = stack
        texts = []
        for code, line in frames[-STACK_FRAMES_MAX:]:
            texts.append(self._frame(code, line))
            self._breather.tick()
        return f"[{number},[{','.join(texts)}]]".encode()

    def _frame(self, code: CodeType, line: int | None) -> str:
        parts = self._known.get(id(code))
        if parts is None:
            parts = self._known[id(code)] = self._resolve(code)
        return f"{parts[0]}{max(0, line or 0)}{parts[1]}"

    def _resolve(self, code: CodeType) -> tuple[str, str]:
        file = shorten(code.co_filename)
        self._breather.tick()
        module = self._module(code.co_filename) or module_of(file)
        function = getattr(code, "co_qualname", None) or self._qualname(module, code)
        self._breather.tick()
        head = _ENCODE(
            [
                clean(module, STRING_BYTES_MAX),
                clean(function, STRING_BYTES_MAX),
                clean(file, FILE_BYTES_MAX, keep_end=True),
            ]
        )
        return head[:-1] + ",", f",{int(bool(self._in_app(code)))}]"

    def _module(self, file: str) -> str | None:
        name = self._modules.get(file)
        if name is None and self._modules_seen != len(sys.modules):
            self._modules_seen = len(sys.modules)
            self._breather.tick()
            for key in list(sys.modules):
                path = getattr(sys.modules.get(key), "__file__", None)
                if isinstance(path, str):
                    self._modules.setdefault(path, key)
                self._breather.tick()
            name = self._modules.get(file)
        return name

    def _qualname(self, module: str, code: CodeType) -> str:
        """CPython 3.10 keeps no qualified name in the code: look the function up in its module."""
        names = self._names.get(module)
        if names is None:
            names = self._names[module] = {}
            found = sys.modules.get(module)
            if isinstance(found, ModuleType):
                for function in functions_of(vars(found), module, NAMES_DEPTH_MAX):
                    code_of = function.__code__
                    names[id(code_of)] = (code_of, function.__qualname__)
                    self._breather.tick()
        found_name = names.get(id(code))
        return found_name[1] if found_name else code.co_name


def functions_of(namespace: Any, module: str, depth: int) -> Iterator[FunctionType]:
    """The Python functions a module or class defines, those inside its classes too."""
    for value in list(namespace.values()):
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        value = getattr(value, "__wrapped__", value)
        if isinstance(value, FunctionType):
            yield value
        elif isinstance(value, type) and value.__module__ == module and depth > 0:
            yield from functions_of(vars(value), module, depth - 1)


_folders: tuple[list[str], list[str]] = ([], [])  # sys.path as it was, and its folders


def folders() -> list[str]:
    """The folders of sys.path, the longest first, each with a separator at its end. Asked for at
    every function's first time: made anew only where sys.path is another."""
    global _folders
    if _folders[0] != sys.path:
        entries = list(sys.path)
        made = {os.path.abspath(entry or ".").rstrip(os.sep) + os.sep for entry in entries}
        _folders = entries, sorted(made, key=len, reverse=True)
    return _folders[1]


def shorten(file: str) -> str:
    """`file` relative to the longest entry of sys.path it lies under, else as it is."""
    for folder in folders():
        if file.startswith(folder):
            return file[len(folder) :]
    return file


def module_of(file: str) -> str:
    """The module a shortened file would be: ``asyncio/tasks.py`` is ``asyncio.tasks``."""
    if file.startswith("<frozen ") and file.endswith(">"):
        return file[8:-1]
    if not file.endswith(".py"):
        return file
    name = file[:-3].strip(os.sep).replace(os.sep, ".")
    return name.removesuffix(".__init__")
