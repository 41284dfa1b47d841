"""Batches in pieces: nothing is lost, split or copied together, and what is sent is in order."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from tailrace.batch import PIECE_BYTES, Batch, in_pieces
from tailrace.frames import Breather
from tailrace.transport import _send


@pytest.mark.parametrize("length", [1, 10, 1000, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1])
def test_rows_are_joined_to_pieces(length):
    parts = [b"%d" % (n % 10) * length for n in range(100)]
    pieces = in_pieces(parts, Breather())
    assert b",".join(pieces) == b",".join(parts)
    assert all(0 < len(p) <= max(PIECE_BYTES, length) + len(parts) for p in pieces)
    full = [len(p) > PIECE_BYTES // 2 for p in pieces[:-1]]
    assert all(full), "pieces are not smaller than they need be"


def test_no_rows_are_no_pieces():
    assert in_pieces([], Breather()) == ()
    assert Batch().with_rows(b"", b"", b"") == Batch()
    assert Batch().size == 0


def test_what_the_engine_gives_goes_on_after_what_there_was():
    first = Batch().with_rows(b"[1]", b"[2]", b"[3]", b"[4]", b"[5]")
    both = first.with_rows(b"[6]", b"", b"", b"[7]")
    assert both == Batch(
        profiles=(b"[1]", b"[6]"),
        tails=(b"[2]",),
        threads=(b"[3]",),
        returns=(b"[4]", b"[7]"),
        holds=(b"[5]",),
    )
    assert both.size == len(json.dumps([[n] for n in range(1, 8)]).replace(" ", "")) - 1


@pytest.mark.parametrize("cut", [1, 4095, 4096, 4097, 12_288, 100_000, 10_000_000])
def test_parts_arrive_whole_and_in_order_however_little_goes_at_once(cut):
    parts = [b"", b"a" * 4096, b"b", b"", b"c" * 100_000, b"d" * 4096, b"e" * 2_000_000, b"f"]
    ours, theirs = socket.socketpair()

    class Short:
        """The first call takes no more than `cut` bytes, as a socket whose buffer is full."""

        sendall = staticmethod(ours.sendall)

        @staticmethod
        def sendmsg(given: list[bytes]) -> int:
            return ours.send(b"".join(given)[:cut])

    got = bytearray()

    def read() -> None:
        while part := theirs.recv(65536):
            got.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    _send(Short(), parts)  # type: ignore[arg-type]
    ours.close()
    reader.join(10)
    theirs.close()
    assert bytes(got) == b"".join(parts)
