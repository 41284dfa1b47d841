"""What the sender needs of the engine that times requests."""

from __future__ import annotations

from types import CodeType
from typing import Any, Protocol

from tailrace.frames import Stack


class Engine(Protocol):
    """What the sender needs of ``tailrace._engine``."""

    def take(self, max_bytes: int, /) -> tuple[bytes, bytes, list[Stack]]:
        """Finished profile rows, tail rows, and the stacks that were not taken before."""

    def take_beside(self) -> tuple[bytes, bytes, bytes]:
        """What goes beside the profile rows taken so far: what their thread jobs took, what the
        jobs' results waited for the loop, and what held the loop before their ASGI calls."""

    def stacks(self) -> list[Stack]:
        """All stacks of this process."""

    def frame_in_app(self, code: CodeType, /) -> bool:
        """True for the app's own code."""

    def details_due(self) -> list[str]:
        """Keys whose detail is to be sent unasked."""

    def detail(self, key: str, /) -> bytes | None:
        """The detail row of this key; None where it is gone. It is given once."""

    def keep(self, route: str, over_ns: int, rate: float, /) -> None:
        """Sends detail unasked of requests that took `over_ns`, and of this share (0 to 1)."""

    def thresholds(self, wait_ns: int, stall_ns: int, /) -> None:
        """Sets from which waits and stalls on stacks are read."""

    def dropped(self) -> int:
        """How many profiles the engine lost to its own limits."""

    def limits(self) -> dict[str, Any]:
        """The stage of the overhead guard, and what maxima cut so far."""

    def engine_name(self) -> str:
        """``steps``, ``drive`` or ``totals``."""

    def loop_name(self) -> str:
        """``asyncio``, ``uvloop``, ``trio`` or the loop's class name."""

    def after_fork(self) -> None:
        """Forgets what is the parent's."""
