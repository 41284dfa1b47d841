"""tailrace: where did the time of this request go?

``app = tailrace.wrap(app)`` puts the hook outermost round an ASGI app (the documented way);
``app.add_middleware(tailrace.Hook)`` puts it inside Starlette's error middleware.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tailrace.middleware import Hook
from tailrace.names import TraceFilter, span, trace_id
from tailrace.sender import HOOK_VERSION as __version__

__all__ = ["Hook", "TraceFilter", "__version__", "span", "trace_id", "wrap"]


def wrap(
    app: Any,
    *,
    callback: str | None = None,
    token: str | None = None,
    in_app: Sequence[str] = (),
    version: str | None = None,
) -> Hook:
    """Returns `app` with the hook round it; an app that is wrapped already is returned as it is.

    callback: the gateway's control listener, ``unix:/path`` or ``host:port``; default
        ``TAILRACE_CALLBACK``. Without either the hook passes requests through, said once.
    token: bearer token of a TCP listener; default ``TAILRACE_TOKEN``.
    in_app: module prefixes that count as the app's own code wherever they are installed.
    version: of the app, such as a tag or a commit; default ``TAILRACE_APP_VERSION``. Where it
        changes the gateway marks a deploy.
    """
    if isinstance(app, Hook):
        return app
    return Hook(app, callback=callback, token=token, in_app=in_app, version=version)
