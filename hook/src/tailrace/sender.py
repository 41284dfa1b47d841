"""Sends profiles to the gateway: one daemon thread per process, never in the app's way.

It takes finished rows from the engine, resolves stacks that were not sent yet, posts batches of
docs/protocol.md §2 and does what the answers of §3 ask for. Nothing here raises into the app.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import platform
import re
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tailrace.batch import Batch, Rows, count_rows, in_pieces
from tailrace.engine import Engine
from tailrace.frames import Breather, Frames, folders
from tailrace.transport import (
    TIMEOUT_S,
    Address,
    Answer,
    Connection,
    clock_identity,
    parse_address,
)

HOOK_VERSION = "0.1.0"
INTERVAL_S = 0.1
PIECE_BYTES = 64 * 1024  # at one call of the engine, without the GIL
TAKE_BYTES = 256 * 1024  # of a batch; keeps it under 4096 profiles: a row has over 100 bytes
TAKES_PER_TURN = 8
TAKES_PER_FLUSH = 64
BODY_BYTES_MAX = 1 << 20
VERSION_BYTES_MAX = 128  # of the app's version, in UTF-8
HEAD_BYTES = 4096  # what is left in a body for "process" and the brackets
STACK_BYTES = 512 * 1024
STACKS_PER_BATCH = 4096
BUFFER_BYTES_MAX = 8 << 20
DETAIL_BYTES = 256 * 1024  # of a batch of several; one alone may be larger
WANTED_MAX = 1024
GREET_PAUSE_S = 1.0
TURNS_TO_ASK = 2
NEVER_NS = (1 << 63) - 1
BACKOFF_S = (0.1, 5.0)
RETRY_AFTER_S = (1.0, 30.0)  # where the answer names none, and the most that is obeyed
RESENDS_MAX = 3  # of one batch; a gateway that forgets faster gets the next one
REFUSED_PAUSE_S = 5.0  # after 401, 403, 404: nothing changes within a second
FLUSH_S = 1.0
FAILURES_MAX = 20  # turns in a row that ended in an error of our own, then the sender ends

log = logging.getLogger("tailrace")

_DEEP_KEY = re.compile("[0-9a-f]{64}")


class _Lost(Exception):
    """The gateway does not take the batch now; try again after `pause_s`."""

    def __init__(self, pause_s: float) -> None:
        super().__init__()
        self.pause_s = pause_s


class Sender:
    """The state of one process's sending. Methods named `_…` run on its thread only."""

    def __init__(self, engine: Engine, address: Address, token: str | None = None) -> None:
        self.engine = engine
        self.address = address
        self.token = token
        self.dropped = 0  # profiles lost here; the engine counts its own
        self.broken = False  # too many errors of our own: this process sends no more
        self.deep_key: bytes | None = None  # of the gateway, as far as it has answered
        self._thread: threading.Thread | None = None
        self._begin()

    def _begin(self) -> None:
        """What is new in every process: also called in a forked child, where no thread runs."""
        self.running = False  # the thread, in this process; asked at every request
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._closing_at: float | None = None  # time.monotonic() by which all must be sent
        self._instance = secrets.token_hex(16)
        self._clock = clock_identity()
        self._process_of: tuple[str, str, int, dict[str, Any]] | None = None
        self._process_text = b""
        self._pending: deque[Batch] = deque()
        self._pending_bytes = 0
        self._breather = Breather()
        self._connection = Connection(self.address, self.token, self._breather)
        self._frames = Frames(self.engine.frame_in_app, self._breather)
        self._wanted: deque[str] = deque(maxlen=WANTED_MAX)
        self._sent: OrderedDict[str, None] = OrderedDict()  # whose detail was sent, oldest first
        self._keeps: dict[str, tuple[int, float]] = {}
        self._greeting = False  # a post without rows is due, for what its answer tells
        self._turns_to_ask = 0  # until one is due because the last profiles are joined by then
        self._greeted_at = -GREET_PAUSE_S
        self._stacks_owed = False  # the gateway asked for all stacks
        self._resends = 0  # of the batch at the head of the queue
        self._backoff_s = BACKOFF_S[0]
        self._not_before = 0.0
        self._state = "new"  # what was said last: each state is logged when it begins

    # --- from any thread ---------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread where none runs. Raises RuntimeError where no thread can start."""
        with self._lock:
            if self.running or self.broken or self._closing_at is not None:
                return
            thread = threading.Thread(target=self._live, name="tailrace-sender", daemon=True)
            self.running = True
            try:
                thread.start()
            except BaseException:
                self.running = False
                raise
            self._thread = thread

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Waits until what was finished before is sent; False where time ran out."""
        if not self.running:
            return True
        self._idle.clear()
        self._wake.set()
        return self._idle.wait(timeout_s) and not self._pending

    def greet(self) -> None:
        """Has a post sent soon, though there be no rows: its answer tells what the gateway wants
        and under which key it asks for deep profiles. At most one a second. Never raises."""
        now_s = time.monotonic()
        if now_s - self._greeted_at >= GREET_PAUSE_S:
            self._greeted_at = now_s
            self._greeting = True

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Sends what there is and ends the thread, within `timeout_s`."""
        with self._lock:
            self._closing_at = time.monotonic() + timeout_s
        self._wake.set()
        thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(timeout_s)

    def after_fork(self) -> None:
        """In the child: rows and thread are the parent's; start over under a new instance."""
        self._connection.close()
        self._thread = None
        self.dropped = 0
        self._begin()
        self.engine.after_fork()

    # --- the thread --------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            self._run()
        finally:
            self.running = False

    def _run(self) -> None:
        failures = 0
        delay_s = INTERVAL_S
        folders()  # known before the first function is named: it takes a slice of its own
        while failures < FAILURES_MAX:
            self._wake.wait(delay_s)
            self._breather.rested()
            flushing = self._wake.is_set()
            self._wake.clear()
            try:
                taken = self._collect(TAKES_PER_FLUSH if flushing else TAKES_PER_TURN)
                if (self._greeting or self._turns_to_ask == 1) and not self._pending:
                    self._keep(Batch())
                self._greeting = False
                self._turns_to_ask = max(0, self._turns_to_ask - 1)
                self._deliver(flushing)
                if self._wanted:  # asked for by the answers just now
                    self._collect_details(self._take_wanted())
                    self._deliver(flushing)
                failures = 0
            except Exception:
                taken = 0
                failures += 1
                if failures == 1:
                    log.exception("tailrace: an error in the sender; profiles may be lost")
            if flushing:
                self._idle.set()
            if self._closing_at is not None:
                return
            # At this rate 256 KiB wait after delay_s; a busy process is emptied more often.
            delay_s = max(0.01, INTERVAL_S * min(1.0, TAKE_BYTES / max(1, taken)))
        self.broken = True
        log.error("tailrace: %d errors in a row, no more profiles are sent", failures)

    def _collect(self, takes_max: int) -> int:
        """Moves rows from the engine into batches. Returns how many bytes of them there were."""
        taken = 0
        for _ in range(takes_max):
            rows, stacks = self._take()
            if not (rows.size or stacks):
                break
            taken += rows.size
            for batch in self._batches(rows, stacks):
                self._keep(batch)
                self._breather.tick()
            if takes_max == TAKES_PER_TURN and 0 < rows.size < TAKE_BYTES // 2:
                break  # what little may be left waits for the next turn
        self._breather.tick()
        due = self.engine.details_due()
        if due:
            self._collect_details(due)
        return taken

    def _take(self) -> tuple[Batch, list[bytes]]:
        """Rows for one batch, a piece at a time, and the stacks not taken before, resolved."""
        batch = Batch()
        stacks: list[bytes] = []
        for _ in range(TAKE_BYTES // PIECE_BYTES):
            if batch.size > TAKE_BYTES - PIECE_BYTES:  # one row may be larger than a piece
                break
            self._breather.tick()
            profiles, tails, more = self.engine.take(PIECE_BYTES)
            if not (profiles or tails or more):
                break
            self._breather.tick()
            beside = self.engine.take_beside() if profiles else ()
            batch = batch.with_rows(profiles, tails, *beside)
            self._breather.tick()
            stacks += map(self._frames.stack, more)
            self._breather.tick()
            if not more and len(profiles) < PIECE_BYTES // 2 > len(tails):
                break  # what is left is little
        return batch, stacks

    def _take_wanted(self) -> list[str]:
        wanted = list(self._wanted)
        self._wanted.clear()
        return wanted

    def _collect_details(self, keys: Sequence[str]) -> None:
        """Moves the detail of these requests into batches; says which are gone."""
        rows: list[bytes] = []
        gone: list[str] = []
        size = 0
        for key in keys:
            if key in self._sent:  # kept and sent unasked, before the gateway asked
                continue
            row = self.engine.detail(key)
            self._breather.tick()
            if row is None:
                gone.append(key)
                continue
            self._sent[key] = None
            if len(self._sent) > WANTED_MAX:
                self._sent.popitem(last=False)
            if rows and size + len(row) > DETAIL_BYTES:
                self._keep(Batch(details=in_pieces(rows, self._breather)))
                rows, size = [], 0
            rows.append(row)
            size += len(row) + 1
        if rows or gone:
            said = (json.dumps(gone)[1:-1].encode(),) if gone else ()
            self._keep(Batch(details=in_pieces(rows, self._breather), gone=said))

    def _batches(self, rows: Batch, stacks: Iterable[bytes]) -> Iterator[Batch]:
        """Cuts into posts: stacks that do not fit beside the profiles go ahead of them."""
        room = BODY_BYTES_MAX - HEAD_BYTES - rows.size
        if room < 0:
            lost = count_rows(rows.profiles, self._breather)
            self.dropped += lost
            log.warning("tailrace: %d profiles of %d bytes fit no batch", lost, rows.size)
            return
        last = Batch()
        for chunk in self._chunks(stacks):
            if last.stacks:
                yield last
            last = Batch(chunk)
        if last.size > room:
            yield last
        yield rows._replace(stacks=last.stacks if last.size <= room else ())

    def _chunks(self, stacks: Iterable[bytes]) -> Iterator[Rows]:
        """Resolved stacks, at most STACK_BYTES and STACKS_PER_BATCH each."""
        parts: list[bytes] = []
        size = 0
        for part in stacks:
            if parts and (size + len(part) > STACK_BYTES or len(parts) == STACKS_PER_BATCH):
                yield in_pieces(parts, self._breather)
                parts, size = [], 0
            parts.append(part)
            size += len(part) + 1
        if parts:
            yield in_pieces(parts, self._breather)

    def _keep(self, batch: Batch) -> None:
        self._pending.append(batch)
        self._pending_bytes += batch.size
        while self._pending_bytes > BUFFER_BYTES_MAX:
            self._forget(lost=True)

    def _forget(self, lost: bool) -> None:
        """Takes the oldest batch out of the buffer."""
        batch = self._pending.popleft()
        self._pending_bytes -= batch.size
        self._resends = 0
        if lost:
            self.dropped += count_rows(batch.profiles, self._breather)
            # Stacks lost with it are asked for by the gateway when a later row names them.

    def _deliver(self, flushing: bool) -> None:
        """Posts what waits, as long as the gateway takes it."""
        if not self._pending or (time.monotonic() < self._not_before and not flushing):
            return
        try:
            while self._pending:
                if self._stacks_owed:
                    self._send_all_stacks()
                self._handle(self._post(self._pending[0]))
        except _Lost as lost:
            self._not_before = time.monotonic() + lost.pause_s
        except OSError as error:
            self._say("away", logging.WARNING, "cannot reach the gateway at %s: %s", error)
            self._not_before = time.monotonic() + self._backoff_s
            self._backoff_s = min(self._backoff_s * 2, BACKOFF_S[1])

    def _send_all_stacks(self) -> None:
        for chunk in self._chunks(map(self._frames.stack, self.engine.stacks())):
            answer = self._post(Batch(chunk))
            if answer.status != 200:
                self._refused(answer)
                break
        self._stacks_owed = False

    def _handle(self, answer: Answer) -> None:
        """Acts on the answer to the batch at the head of the queue."""
        if answer.status != 200:
            self._refused(answer)
            self._forget(lost=True)
            return
        if answer.body.get("stacks") == "resend" and self._resends < RESENDS_MAX:
            self._resends += 1
            self._stacks_owed = True
            return
        self._say("ok", logging.INFO, "profiles are sent to the gateway at %s%s", "")
        self._breather.tick()
        if self._pending[0].profiles and "settings" in answer.body:
            self._turns_to_ask = TURNS_TO_ASK
        self._forget(lost=answer.body.get("stacks") == "resend")
        self._obey(answer.body)

    def _obey(self, body: dict[str, Any]) -> None:
        """Does what an answer asks for. What is not of its type is left alone."""
        want, keep = body.get("want"), body.get("keep")
        if isinstance(want, list):
            self._wanted.extend(key for key in want if isinstance(key, str))
        if isinstance(keep, dict):
            for route, rule in keep.items():
                self._obey_keep(route, rule)
                self._breather.tick()
        key = body.get("deep_key")
        if isinstance(key, str) and _DEEP_KEY.fullmatch(key):
            self.deep_key = bytes.fromhex(key)
        settings = body.get("settings")
        if isinstance(settings, dict):
            wait_us, stall_us = (settings.get(f"{k}_threshold_us") for k in ("wait", "stall"))
            if isinstance(wait_us, int) and isinstance(stall_us, int):
                self.engine.thresholds(wait_us * 1000, stall_us * 1000)

    def _obey_keep(self, route: str, rule: Any) -> None:
        if not isinstance(rule, dict):
            return
        over_ns, rate = rule.get("keep_over_ns"), rule.get("keep_rate")
        if over_ns is None:
            over_ns = NEVER_NS
        if not isinstance(over_ns, int) or not isinstance(rate, (int, float)):
            return
        asked = min(max(0, over_ns), NEVER_NS), min(max(0.0, float(rate)), 1.0)
        if self._keeps.get(route) != asked:
            self._keeps[route] = asked
            self.engine.keep(route, *asked)

    def _refused(self, answer: Answer) -> None:
        """A status other than 200: raises where the batch is to be kept, else it is dropped."""
        status, reason = answer.status, answer.reason
        if status in (429, 503):
            self._say("full", logging.WARNING, "the gateway at %s is full: %s", reason)
            pause_s = RETRY_AFTER_S[0] if answer.retry_after_s is None else answer.retry_after_s
            raise _Lost(min(max(pause_s, BACKOFF_S[0]), RETRY_AFTER_S[1]))
        if status >= 500:
            self._say("failing", logging.WARNING, "the gateway at %s fails: %s", reason)
            raise _Lost(BACKOFF_S[1])
        self._say(
            f"refused {status}", logging.WARNING, "the gateway at %s refuses profiles: %s", reason
        )
        if status in (401, 403, 404):
            self._forget(lost=True)
            raise _Lost(REFUSED_PAUSE_S)

    def _post(self, batch: Batch) -> Answer:
        timeout_s = TIMEOUT_S
        if self._closing_at is not None:
            timeout_s = min(TIMEOUT_S, max(0.05, self._closing_at - time.monotonic()))
        self._breather.tick()
        parts = [b'{"v":1,"process":', self._process()]
        for name, rows in zip(batch._fields, batch, strict=True):
            if rows or name in ("stacks", "profiles", "tails"):
                parts.append(b',"%s":[' % name.encode())
                for piece in rows:
                    parts += (piece, b",")
                parts[-1] = parts[-1].removesuffix(b",") + b"]"
        parts.append(b"}")
        self._breather.tick()
        answer = self._connection.post(parts, timeout_s)
        self._breather.tick()
        self._backoff_s = BACKOFF_S[0]
        return answer

    def _process(self) -> bytes:
        """The batch's "process", made anew where something in it has changed."""
        changing = (
            self.engine.loop_name(),
            self.engine.engine_name(),
            self.dropped + self.engine.dropped(),
            self.engine.limits(),
        )
        if changing != self._process_of:
            boot_id, namespace = self._clock
            self._process_of = changing
            self._process_text = json.dumps(
                {
                    "instance": self._instance,
                    "pid": os.getpid(),
                    "python": platform.python_version(),
                    "loop": changing[0],
                    "engine": changing[1],
                    "hook_version": HOOK_VERSION,
                    "boot_id": boot_id,
                    "time_namespace": namespace,
                    "dropped": changing[2],
                    "limits": changing[3],
                    **({"version": app_version} if app_version else {}),
                }
            ).encode()
        return self._process_text

    def _say(self, state: str, level: int, text: str, detail: object) -> None:
        """Logs `text` with address and detail where this state was not the last one said."""
        if state != self._state:
            if state != "ok" or self._state != "new":
                log.log(level, "tailrace: " + text, self.address.text, detail)
            else:
                log.debug("tailrace: " + text, self.address.text, detail)
            self._state = state


# --- the process's one sender ----------------------------------------------------------------

process: Sender | None = None
app_version: str | None = None
_guard = threading.Lock()
_said_off = False
unheard = False  # no address was given, and a request that came through a gateway would be news
_registered = False


def _version_of(given: str | None) -> str | None:
    """The app's version as it is told: one line, cut to VERSION_BYTES_MAX bytes."""
    text = (given or os.environ.get("TAILRACE_APP_VERSION") or "").strip()
    printable = "".join(c for c in text if c.isprintable())
    return printable.encode()[:VERSION_BYTES_MAX].decode(errors="ignore") or None


def hear(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Says aloud, once, that a request came through a gateway and nobody told us its address.

    Where no gateway is in front (in tests, at a desk) there is nothing to warn of.
    """
    global unheard
    if unheard and any(name == b"x-tailrace" for name, _ in headers):
        unheard = False
        log.warning(
            "tailrace: requests come through a gateway, but no profiles are collected: set "
            "TAILRACE_CALLBACK to its control address, such as unix:/run/tailrace/control.sock"
        )


def configure(
    callback: str | None = None, token: str | None = None, version: str | None = None
) -> bool:
    """Sets where profiles go: the arguments, else TAILRACE_CALLBACK and TAILRACE_TOKEN.

    version: of the app, else TAILRACE_APP_VERSION; the gateway marks a deploy where it changes.

    Returns True where there is a valid address. Without one the hook passes requests through,
    which is said once. The first address of a process stays; another one is refused and logged.
    """
    global process, app_version, unheard, _said_off
    app_version = _version_of(version) or app_version
    text = callback or os.environ.get("TAILRACE_CALLBACK") or ""
    token = (token or os.environ.get("TAILRACE_TOKEN") or "").strip() or None
    if token and not token.isprintable():
        log.error("tailrace: no profiles are collected: the token holds control characters")
        return False
    with _guard:
        if process is not None:
            if text and text != process.address.text:
                log.warning("tailrace: profiles go to %s, not to %s", process.address.text, text)
            return True
        try:
            address = parse_address(text) if text else None
        except ValueError as error:
            log.error("tailrace: no profiles are collected: callback %s", error)
            return False
        if address is None:
            if not _said_off:
                log.info("tailrace: TAILRACE_CALLBACK is not set, no profiles are collected")
                _said_off = True
                unheard = True
            return False
        engine: Any
        try:
            from tailrace import _engine as engine
        except ImportError:  # no compiler at install, or a build the extension does not support
            from tailrace import _totals as engine
        process = Sender(engine, address, token)
        unheard = False
        _register()
    return True


def _register() -> None:
    """Hooks into fork and exit of the interpreter, once."""
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_after_fork)
        atexit.register(_at_exit)


def ensure_started() -> None:
    """Starts the sending thread where none runs yet in this process. Cheap, never raises."""
    sender = process
    if sender is None or sender.running or sender.broken:
        return
    try:
        sender.start()
    except RuntimeError as error:
        log.error("tailrace: no profiles are sent: %s", error)


def greet() -> None:
    """Asks the gateway what it wants, before there are profiles. Cheap, never raises."""
    ensure_started()
    if process is not None:
        process.greet()


def deep_key() -> bytes | None:
    """The key under which the gateway asks for deep profiles, once it has told."""
    return process.deep_key if process is not None else None


def flush(timeout_s: float = FLUSH_S) -> bool:
    """Waits until all profiles finished so far are sent; False where time ran out.

    Blocks: call it where the app ends (the ASGI lifespan's shutdown), not on a busy loop.
    """
    sender = process
    return sender is None or sender.flush(timeout_s)


def _after_fork() -> None:
    global _guard
    _guard = threading.Lock()
    if process is not None:
        try:
            process.after_fork()
        except Exception:
            log.exception("tailrace: an error after fork; this process sends no profiles")


def _at_exit() -> None:
    if process is not None:
        process.close(FLUSH_S)
