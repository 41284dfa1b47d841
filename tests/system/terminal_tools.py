"""A terminal for programs under test: a pty, with pyte as what stands at its other end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyte

WAIT_S = 20.0


class Terminal:
    """A program on a terminal of its own."""

    def __init__(
        self,
        command: Sequence[str],
        columns: int = 120,
        rows: int = 24,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, as the leader of a session whose terminal this is."""
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = bytearray()
        self.master, slave = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(slave)
        clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TAILRACE_CONTROL")}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**clean, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", **(env or {})},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.slave = slave

    def resize(self, columns: int, rows: int) -> None:
        """Change the size, as a window's frame does."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def read(self, timeout_s: float = 0.05) -> bool:
        """Take what the program wrote; whether there was something."""
        if not select.select([self.master], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError as error:
            if error.errno == errno.EIO:
                return False
            raise
        self.raw += data
        self.stream.feed(data)
        return bool(data)

    def lines(self) -> list[str]:
        """The screen."""
        return [line.rstrip() for line in self.screen.display]

    def text(self) -> str:
        """The screen as one text."""
        return "\n".join(self.lines())

    def wait(self, what: Callable[[str], object], message: str, timeout_s: float = WAIT_S) -> str:
        """The screen's text once `what` of it is true. AssertionError with the screen."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self.read()
            text = self.text()
            if what(text):
                return text
        raise AssertionError(f"not within {timeout_s} s: {message}; on the screen:\n{self.text()}")

    def wait_text(self, wanted: str, timeout_s: float = WAIT_S) -> str:
        """The screen's text once `wanted` is in it."""
        return self.wait(lambda text: wanted in text, repr(wanted), timeout_s)

    def send(self, keys: str) -> None:
        """Type."""
        os.write(self.master, keys.encode())

    def end(self, timeout_s: float = 10) -> int:
        """The exit status, once it has ended by itself; negative for a signal."""
        end = time.monotonic() + timeout_s
        while self.process.poll() is None and time.monotonic() < end:
            self.read()
        status = self.process.wait(0.1)
        while self.read():
            pass
        return status

    def is_restored(self) -> bool:
        """Whether modes are as before, the cursor is there and the alternate screen is left."""
        modes = termios.tcgetattr(self.slave)
        enter, leave = self.raw.rfind(b"\x1b[?1049h"), self.raw.rfind(b"\x1b[?1049l")
        return modes == self.before and enter < leave and not self.screen.cursor.hidden

    def close(self) -> None:
        """End it whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)
        os.close(self.master)
        os.close(self.slave)


@contextlib.contextmanager
def terminal(
    command: Sequence[str],
    columns: int = 120,
    rows: int = 24,
    env: Mapping[str, str] | None = None,
) -> Iterator[Terminal]:
    """A program on a terminal, ended at the end."""
    made = Terminal(command, columns, rows, env)
    try:
        yield made
    finally:
        made.close()
