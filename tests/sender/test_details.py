"""Detail on demand: what the gateway's answers ask for is sent, once, or said to be gone."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fake_gateway import OK, FakeEngine, FakeGateway, key, row
from tailrace import deep
from tailrace import sender as sending
from tailrace.transport import parse_address


@pytest.fixture
def pair(tmp_path: Any) -> Any:
    """A gateway whose answers a test writes, and a sender that runs."""
    gateway = FakeGateway(str(tmp_path / "s"))
    engine = FakeEngine()
    sender = sending.Sender(engine, parse_address(gateway.address))
    yield gateway, engine, sender
    sender.close()
    gateway.stop()


def answer(**more: Any) -> Any:
    """A 200 that asks for more."""
    return 200, {}, {**OK[2], **more}


def bodies(gateway: FakeGateway, member: str, count: int) -> list[Any]:
    """All entries of a member over all posts, once there are so many."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        with gateway.lock:
            found = [x for post in gateway.posts for x in post.body.get(member, ())]
        if len(found) >= count:
            return found
        time.sleep(0.005)
    raise AssertionError(f"{len(found)} of {count} {member}")


def detail(number: int) -> bytes:
    """A detail row as the engine writes it."""
    return b'["' + key(number).encode() + b'",0,[],[],null]'


def test_what_is_wanted_is_sent_at_once_and_the_rest_is_gone(pair: Any) -> None:
    gateway, engine, sender = pair
    gateway.script = [answer(want=[key(1), key(2)])]
    engine.details = {key(1): detail(1)}
    engine.put(row(1))
    sender.start()
    assert bodies(gateway, "details", 1) == [[key(1), 0, [], [], None]]
    assert bodies(gateway, "gone", 1) == [key(2)]
    assert len(gateway.posts) == 2


def test_what_was_kept_is_sent_unasked_and_not_twice(pair: Any) -> None:
    gateway, engine, sender = pair
    engine.details = {key(1): detail(1)}
    engine.due = [key(1)]
    gateway.script = [answer(want=[key(1)]), answer(want=[key(1)])]
    engine.put(row(1))
    sender.start()
    gateway.wait([key(1)])
    assert [d[0] for d in bodies(gateway, "details", 1)] == [key(1)]
    time.sleep(0.3)
    assert bodies(gateway, "gone", 0) == []


def test_rules_and_settings_reach_the_engine_once(pair: Any) -> None:
    gateway, engine, sender = pair
    rule = {"GET /a": {"keep_over_ns": 5, "keep_rate": 0.5}, "GET /b": {"keep_rate": 1}, "x": 3}
    settings = {"wait_threshold_us": 200, "stall_threshold_us": 9000}
    gateway.script = [answer(keep=rule, settings=settings), answer(keep=rule)]
    engine.put(row(1))
    sender.start()
    gateway.wait([key(1)])
    engine.put(row(2))
    gateway.wait([key(2)])
    time.sleep(0.05)
    assert engine.kept == [("GET /a", 5, 0.5), ("GET /b", (1 << 63) - 1, 1.0)]
    assert engine.set_thresholds == (200_000, 9_000_000)


def test_nonsense_in_an_answer_does_nothing(pair: Any) -> None:
    gateway, engine, sender = pair
    gateway.script = [answer(want=[1, None, {}], keep=[1], deep_key="x", settings={"a": 1})]
    engine.put(row(1))
    sender.start()
    gateway.wait([key(1)])
    engine.put(row(2))
    gateway.wait([key(2)])
    assert engine.kept == [] and sender.deep_key is None and not sender.broken


def test_a_greeting_learns_the_key(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, _, sender = pair
    gateway.script = [answer(deep_key="ab" * 32)]
    sender.start()
    sender.greet()
    gateway.wait_posts(1)
    until = time.monotonic() + 5
    while sender.deep_key is None and time.monotonic() < until:
        time.sleep(0.005)
    assert sender.deep_key == b"\xab" * 32
    sender.greet()  # at most one a second
    time.sleep(0.25)
    assert len(gateway.posts) == 1
    monkeypatch.setattr(sending, "process", sender)
    mac = deep.make_mac(sender.deep_key, key(1))
    assert deep.allow(key(1), mac) and deep.allow(key(1), mac + ";more")
    assert not deep.allow(key(2), mac) and not deep.allow(key(1), mac[:-1])


def test_large_details_go_in_batches_of_their_own(pair: Any) -> None:
    gateway, engine, sender = pair
    pad = '"' + "x" * 100_000 + '"'
    rows = {key(n): detail(n).replace(b"null", pad.encode()) for n in range(1, 9)}
    engine.details = dict(rows)
    gateway.script = [answer(want=list(rows))]
    engine.put(row(1))
    sender.start()
    assert {d[0] for d in bodies(gateway, "details", 8)} == set(rows)
    assert all(len(post.raw) < 1 << 20 for post in gateway.posts)
