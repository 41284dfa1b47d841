"""Explicit names: of parts of a function, and of the request that runs."""

from __future__ import annotations

import logging

try:
    from tailrace._engine import Span as span
    from tailrace._engine import trace_id
except ImportError:  # no compiler at install
    from tailrace._totals import Span as span  # type: ignore[assignment]
    from tailrace._totals import trace_id

__all__ = ["TraceFilter", "span", "trace_id"]


class TraceFilter(logging.Filter):
    """Puts ``trace_id`` into each log record: that of the request that logs, else ``-``.

    ``handler.addFilter(tailrace.TraceFilter())``, then ``%(trace_id)s`` in the handler's format.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record through."""
        record.trace_id = trace_id() or "-"
        return True
