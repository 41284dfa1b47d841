"""The hook for long: a million requests leave nothing; a gateway that is away, slow, refuses or
lies costs the app nothing."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import pytest
from hook_support import hook, new_loop, plain, request, run
from tailrace import _engine, sender
from tailrace.transport import parse_address

MILLION = 1_000_000
SECONDS = 40  # of each misbehaviour; twice that with the quiet beside it
P99_RATIO_MAX = 1.05
SLACK_S = 0.0003  # what a scheduler does to a quantile of milliseconds


FINE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def rss_kb() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_million_requests_leave_nothing(loop: str) -> None:
    async def handler() -> None:
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))

    async def main() -> tuple[int, int]:
        app = hook(plain(handler))

        async def block(count: int) -> tuple[int, int]:
            for _ in range(count // 20):
                await asyncio.gather(*(request(app) for _ in range(20)))
                _engine.take(1 << 20)
            gc.collect()
            return sys.getallocatedblocks(), rss_kb()

        await block(20_000)
        blocks, kb = await block(10_000)
        blocks_after, kb_after = await block(MILLION)
        return blocks_after - blocks, kb_after - kb

    blocks, kb = run(loop, main)
    assert blocks < 3000, "Python objects grew"
    assert kb < 4000, "memory grew"


class Gateway:
    """A socket that behaves as told, one connection after the other."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.path = tempfile.mkdtemp(prefix="tailrace-soak-") + "/s"
        self.socket = socket.socket(socket.AF_UNIX)
        if how != "down":
            self.socket.bind(self.path)
            self.socket.listen(4)
            threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        answers = {
            "refusing": b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\n{}",
            "full": b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}",
            "lying": b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n\xff\x00{[",
            "resending": b'HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{"stacks":"resend"}',
        }
        try:
            while peer.recv(1 << 20):
                if self.how == "slow":
                    time.sleep(3)
                peer.sendall(
                    answers.get(self.how, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                )
        except OSError:
            pass
        finally:
            peer.close()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = new_loop("uvloop")
    yield made
    made.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["down", "slow", "refusing", "full", "lying", "resending"])
def test_a_gateway_that_misbehaves_costs_nothing(loop: asyncio.AbstractEventLoop, how: str) -> None:
    """Blocks with profiles to send, and blocks without, in turn: the app's p99 is the same."""
    gateway = Gateway(how)
    posting = sender.Sender(_engine, parse_address("unix:" + gateway.path))
    app = hook(plain(lambda: asyncio.sleep(0.002)))

    async def block(seconds: float, header: bool) -> list[float]:
        took, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.perf_counter()
            await request(app, header=header)
            took.append(time.perf_counter() - begin)
        return took

    posting.start()
    with_profiles: list[float] = []
    without: list[float] = []
    for _ in range(SECONDS // 4):
        with_profiles += loop.run_until_complete(block(4, True))
        without += loop.run_until_complete(block(4, False))
    posting.close(2)
    quantiles = [sorted(x)[int(len(x) * 0.99)] for x in (with_profiles, without)]
    assert quantiles[0] <= quantiles[1] * P99_RATIO_MAX + SLACK_S, quantiles
