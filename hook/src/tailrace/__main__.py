"""``python -m tailrace uvicorn app:app …`` runs uvicorn with the app wrapped, no code changed.

The arguments are uvicorn's own. It is given ``tailrace.wrapped:app`` to import instead, so that
``--reload`` and ``--workers``, which import the app in processes of their own, work too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tailrace.wrapped import APP_VARIABLE, FACTORY_VARIABLE

USAGE = (
    "usage: python -m tailrace uvicorn APP [uvicorn's options]\n"
    "       python -m tailrace export TRACE_ID [--format FORMAT] [--output FILE]\n"
)
WRAPPED = "tailrace.wrapped:app"
EXIT_USAGE = 2


def replace_app(args: Sequence[str], app: str) -> list[str]:
    """Return `args` with the positional argument `app` replaced by the wrapped one.

    The last one that equals it is taken. Where none does, uvicorn has it from UVICORN_APP.
    """
    if app not in args:
        return [WRAPPED, *args]
    at = len(args) - 1 - list(reversed(args)).index(app)
    return [*args[:at], WRAPPED, *args[at + 1 :]]


def run_uvicorn(args: Sequence[str]) -> int:
    """Hand over to uvicorn's command line; it ends the process itself."""
    try:
        from uvicorn.main import main as uvicorn_main
    except ImportError as error:
        sys.stderr.write(f"tailrace: uvicorn cannot be imported: {error}\n")
        return 1
    # Parsed twice: here to learn which argument is the app, then by uvicorn itself.
    context = uvicorn_main.make_context("uvicorn", list(args), resilient_parsing=True)
    app = context.params.get("app")
    if isinstance(app, str) and app != WRAPPED:
        os.environ[APP_VARIABLE] = app
        os.environ[FACTORY_VARIABLE] = "1" if context.params.get("factory") else ""
        args = replace_app(args, app)
    uvicorn_main(args=list(args), prog_name="uvicorn")
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the program named first. Returns the exit status."""
    if argv and argv[0] == "export":
        from tailrace.export import main as export_main

        return export_main(argv[1:])
    if len(argv) < 2 or argv[0] != "uvicorn":
        sys.stderr.write(USAGE)
        return EXIT_USAGE
    return run_uvicorn(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
