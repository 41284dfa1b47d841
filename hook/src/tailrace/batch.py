"""What goes into one post, docs/protocol.md §2, in pieces that are quick to copy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from tailrace.frames import Breather

TAKEN = ("profiles", "tails", "threads", "returns", "holds")
PIECE_BYTES = 32 * 1024  # joined at once: some ten microseconds with the GIL

_ROW = re.compile(rb'\["[0-9a-f]{32}-[0-9a-f]{16}",')
_ROW_BYTES = 53

Rows = tuple[bytes, ...]  # JSON rows, joined by commas within a piece; none is empty


class Batch(NamedTuple):
    """One post to be. Copied into one text it would keep the GIL for too long, so it never is."""

    stacks: Rows = ()
    profiles: Rows = ()
    tails: Rows = ()
    details: Rows = ()
    gone: Rows = ()
    threads: Rows = ()
    returns: Rows = ()
    holds: Rows = ()

    @property
    def size(self) -> int:
        """Bytes it takes in a body and in the buffer."""
        return sum(len(piece) + 1 for rows in self for piece in rows)

    def with_rows(self, *rows: bytes) -> Batch:
        """This and what the engine gave at one call, in the order of TAKEN."""
        given = {
            name: (*getattr(self, name), new) for name, new in zip(TAKEN, rows, strict=False) if new
        }
        return self._replace(**given)


def count_rows(rows: Rows, breather: Breather) -> int:
    """How many profile rows are in `rows`: each begins with its key, which no other text does."""
    total = 0
    step = 16 * 1024
    for piece in rows:
        for begin in range(0, len(piece), step):
            total += len(_ROW.findall(piece, begin, begin + step + _ROW_BYTES - 1))
            breather.tick()
    return total


def in_pieces(parts: Iterable[bytes], breather: Breather) -> Rows:
    """Joins rows, not empty, to pieces of PIECE_BYTES or of one row that is larger."""
    pieces: list[bytes] = []
    piece: list[bytes] = []
    size = 0
    for part in parts:
        if piece and size + len(part) > PIECE_BYTES:
            pieces.append(b",".join(piece))
            piece, size = [], 0
            breather.tick()
        piece.append(part)
        size += len(part) + 1
    if piece:
        pieces.append(b",".join(piece))
    breather.tick()
    return tuple(pieces)
