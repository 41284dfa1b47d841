"""The app named in the environment, wrapped: what ``python -m tailrace`` makes uvicorn import."""

from __future__ import annotations

import os
from typing import Any

import tailrace

APP_VARIABLE = "TAILRACE_WRAPPED_APP"
FACTORY_VARIABLE = "TAILRACE_WRAPPED_FACTORY"


def load() -> Any:
    """Return the wrapped app, or a factory of it where uvicorn was told ``--factory``."""
    from uvicorn.importer import import_from_string

    found = import_from_string(os.environ[APP_VARIABLE])
    if not os.environ.get(FACTORY_VARIABLE):
        return tailrace.wrap(found)
    return lambda: tailrace.wrap(found())


def __getattr__(name: str) -> Any:
    """Load the app when uvicorn asks for it, not when this module is imported."""
    if name != "app":
        raise AttributeError(name)
    try:
        return load()
    except AttributeError as error:
        # Python would take it for "this module has no app" and hide where it came from.
        raise RuntimeError(f"{os.environ[APP_VARIABLE]}: {error}") from error
