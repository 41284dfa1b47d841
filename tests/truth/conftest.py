"""One gateway with one uvicorn behind it, per app and event loop, for a whole test module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT
from truth_pair import Pair, start_pair

LOOPS = ["uvloop", "asyncio"]


@pytest.fixture(scope="module", params=LOOPS)
def demo(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Pair]:
    """The demo app behind a gateway."""
    folder = tmp_path_factory.mktemp("demo")
    yield from start_pair(folder, "app:app", ROOT / "demo", request.param)


@pytest.fixture(scope="module", params=LOOPS)
def truth(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Pair]:
    """The app of truth_app.py behind a gateway."""
    folder = tmp_path_factory.mktemp("truth")
    yield from start_pair(folder, "truth_app:app", Path(__file__).parent, request.param)
