"""Code objects to frames, addresses, and counting rows."""

from __future__ import annotations

import asyncio.tasks
import json
import os
import sys

import pytest
from fake_gateway import row
from tailrace.batch import count_rows
from tailrace.frames import Breather, Frames, clean, functions_of, module_of, shorten
from tailrace.transport import parse_address


class Outer:
    class Inner:
        def method(self) -> None:
            pass

        @staticmethod
        def static() -> None:
            pass

        @property
        def prop(self) -> int:
            return 1


def frame_of(code, line=1):
    [_, [frame]] = json.loads(Frames(lambda code: True, Breather()).stack((0, [(code, line)])))
    return frame


def test_library_frame():
    frame = frame_of(asyncio.tasks.sleep.__code__, 627)
    assert frame == ["asyncio.tasks", "sleep", "asyncio/tasks.py", 627, 1]


def test_frozen_and_made_up_files():
    code = compile("def f(): pass", "<string>", "exec").co_consts[0]
    assert frame_of(code)[:3] == ["<string>", "f", "<string>"]
    assert module_of("<frozen importlib._bootstrap>") == "importlib._bootstrap"
    assert module_of("asyncio/__init__.py") == "asyncio"


def test_line_that_is_not_known_is_zero():
    assert frame_of(frame_of.__code__, None)[3] == 0
    assert frame_of(frame_of.__code__, -1)[3] == 0


def test_names_the_wire_cannot_carry_are_cleaned():
    code = frame_of.__code__.replace(
        co_name="a\0b\udc80" + "é" * 600, co_filename="/x/" + "y" * 2000
    )
    if hasattr(code, "co_qualname"):
        code = code.replace(co_qualname=code.co_name)
    _, function, file, _, _ = frame_of(code)
    assert function.startswith("a?b?é")
    assert len(function.encode()) <= 512
    assert len(file) == 1024
    assert clean("é", 1) == ""


def test_longest_path_entry_wins(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "lib"), ""])
    monkeypatch.chdir(tmp_path / "..")
    assert shorten(str(tmp_path / "lib" / "a" / "b.py")) == "a/b.py"
    assert shorten(str(tmp_path / "library.py")) == "library.py"
    assert shorten("/elsewhere/c.py") == "/elsewhere/c.py"
    assert shorten(os.path.join(os.getcwd(), "d.py")) == "d.py"


def test_qualified_names_are_found_without_co_qualname():
    frames = Frames(lambda code: True, Breather())
    for function, name in [
        (Outer.Inner.method, "Outer.Inner.method"),
        (Outer.Inner.static, "Outer.Inner.static"),
        (Outer.Inner.prop.fget, "Outer.Inner.prop"),
        (frame_of, "frame_of"),
    ]:
        assert frames._qualname(__name__, function.__code__) == name
    nested = compile("def f(): pass", "x", "exec").co_consts[0]
    assert frames._qualname(__name__, nested) == "f"
    assert list(functions_of({"a": 1}, __name__, 1)) == []


@pytest.mark.parametrize("count", [0, 1, 100, 1000])
def test_rows_are_counted_across_slices(count):
    rows = b",".join(row(n, pad='["' + "a" * (n % 97)) for n in range(count))
    assert count_rows((rows,), Breather()) == len(json.loads(b"[" + rows + b"]")) == count


@pytest.mark.parametrize(
    ("text", "path", "host", "port", "local"),
    [
        ("unix:/run/t.sock", "/run/t.sock", "", 0, True),
        ("127.0.0.1:80", None, "127.0.0.1", 80, True),
        ("[::1]:65535", None, "::1", 65535, True),
        ("localhost:1", None, "localhost", 1, True),
        ("gateway.example:9000", None, "gateway.example", 9000, False),
        ("10.0.0.1:9000", None, "10.0.0.1", 9000, False),
    ],
)
def test_addresses(text, path, host, port, local):
    address = parse_address(text)
    assert (address.path, address.host, address.port, address.is_local) == (path, host, port, local)


@pytest.mark.parametrize(
    "text", ["", "unix:", "host", ":80", "h:", "h:0", "h:65536", "h:x", "::1:80", "h:\u0663"]
)
def test_bad_addresses(text):
    with pytest.raises(ValueError, match=":"):
        parse_address(text)
