"""docs/phases.md against the tables it explains, and its pictures against their script."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from types import ModuleType

import pytest
from harness import ROOT
from test_docs import module

PAGE = (ROOT / "docs" / "phases.md").read_text()


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    """The script."""
    return module("phase_pictures", ROOT / "scripts" / "phase_pictures.py")


def test_every_phase_and_kind_is_explained(drawing: ModuleType) -> None:
    explained = {name for cell in re.findall(r"^\| (`[^|]+) \|", PAGE, re.M)
                 for name in re.findall(r"`(\w+)`", cell)}  # fmt: skip
    phases = [name for name, _ in drawing.phases()]
    assert len(phases) == 12 and set(phases) <= explained
    protocol = (ROOT / "docs" / "protocol.md").read_text()
    said = re.search(
        r"^`kind`: (.+?)\. `cause`: .+? else one of\n(.+?)\. `stack`", protocol, re.M | re.S
    )
    assert said is not None
    for words in said.groups():
        names = set(re.findall(r"`(\w+)`", words))
        assert len(names) >= 5 and names <= explained, names - explained


def test_pictures_are_those_of_the_script(drawing: ModuleType) -> None:
    drawn = drawing.pictures()
    assert drawn.keys() == {path.name for path in (ROOT / "docs" / "pictures").glob("*.svg")}
    for name, svg in drawn.items():
        assert f"(pictures/{name})" in PAGE
        assert (ROOT / "docs" / "pictures" / name).read_text() == svg, "make pictures"
        ET.fromstring(svg)


def test_the_first_picture_has_every_phase_in_order(drawing: ModuleType) -> None:
    words = re.findall(r">([^<>]+)</text>", drawing.pictures()["phases.svg"])
    phases = [name for name, _ in drawing.phases()]
    assert [word for word in words if word in phases] == phases
