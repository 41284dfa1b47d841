"""trio's tasks of driven requests: children are driven too, and who wakes whom is told.

An instrument of trio's own (``trio.abc.Instrument``, by its method names): trio calls it where a
task is made and where one is made due, in the step that does it. Replaced is only what hands a
function to one of trio's worker threads.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any

from tailrace import _engine

log = logging.getLogger("tailrace")

_roots: dict[Any, Any] = {}  # the task an app was called in: what drives it there


class Tasks:
    """The instrument; one for each run of trio's. trio drops one that raises, and says so."""

    def task_spawned(self, task: Any) -> None:
        """A task is made, by the step that runs now: where that is driven, so is the task."""
        task.coro = _engine.drive_child(task.coro)

    def task_scheduled(self, task: Any) -> None:
        """It is due from now on: by the task that runs or has just ended, or by trio itself."""
        try:
            waker = sys.modules["trio"].lowlevel.current_task()
        except RuntimeError:  # a deadline, a socket
            _engine.drive_woken(_driven(task), None)
        else:
            _engine.drive_woken(_driven(task), _driven(waker))


def _driven(task: Any) -> Any:
    return _roots.get(task) or task.coro


def watch() -> None:
    """Puts the instrument on the trio loop that runs now, and sees its worker threads' jobs."""
    sys.modules["trio"].lowlevel.add_instrument(Tasks())
    try:
        _watch_threads(sys.modules["trio._threads"])
    except (KeyError, AttributeError) as error:
        log.warning("tailrace: jobs of trio's worker threads are not seen: %s", error)


def _watch_threads(module: Any) -> None:
    """``trio.to_thread.run_sync``, however it was imported: it hands its thread a closure over the
    app's function. In that one's place comes a job, which is timed."""
    start = module.start_thread_soon
    if hasattr(start, "__wrapped__"):
        return

    @functools.wraps(start)
    def start_thread_soon(fn: Any, *args: Any, **options: Any) -> Any:
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=False):
            if name == "sync_fn" and not _is_anyios(cell.cell_contents):
                cell.cell_contents = _engine.wrap_job(cell.cell_contents)
        return start(fn, *args, **options)

    module.start_thread_soon = start_thread_soon


def _is_anyios(function: Any) -> bool:
    """What anyio hands on to trio: the function in it is a job already."""
    return getattr(function, "__module__", None) == "anyio._backends._trio"


def enter(driven: Any) -> Any:
    """What drives an app is awaited by the running task, from here to leave()."""
    trio = sys.modules.get("trio")
    if trio is None or not trio.lowlevel.in_trio_task():
        return None
    task = trio.lowlevel.current_task()
    _roots[task] = driven
    return task


def leave(task: Any) -> None:
    """The end of that; task is what enter() returned."""
    _roots.pop(task, None)
