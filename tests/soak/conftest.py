"""The fixtures of the system tests, for what takes long."""

from __future__ import annotations

import importlib.util
import sys

from harness import ROOT

_spec = importlib.util.spec_from_file_location(
    "system_conftest", ROOT / "tests" / "system" / "conftest.py"
)
assert _spec is not None and _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules["system_conftest"] = _module
_spec.loader.exec_module(_module)

gateway_factory = _module.gateway_factory
gateway_starter = _module.gateway_starter
stub_factory = _module.stub_factory
uvicorn_factory = _module.uvicorn_factory
