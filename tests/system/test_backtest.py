"""``tailrace backtest``: against the slow reference on the same streams, states, and bad input."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import BINARY

STREAMS = Path(__file__).resolve().parent.parent / "streams"
sys.path.insert(0, str(STREAMS))
import latency_streams as streams  # noqa: E402

START_S = streams.START_S
HOUR_TICKS, DAY_TICKS = 360, streams.TICKS_PER_DAY
EARLY_SEEDS = [28, 6, 26]  # of seeds 0 to 39: those whose change comes early on day 3
ROUTES_MAX = 1001
LINE_MAX = 1 << 20


def text_of(lines: Iterable[dict[str, Any]]) -> str:
    out = io.StringIO()
    streams.write(lines, out)
    return out.getvalue()


def backtest(text: str | bytes, *options: str) -> list[dict[str, Any]]:
    done = run(text, *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    return [json.loads(line) for line in done.stdout.splitlines()]


def run(text: str | bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    data = text.encode() if isinstance(text, str) else text
    command = [BINARY, "backtest", *options]
    return subprocess.run(command, input=data, capture_output=True, timeout=60)


def reference(text: str) -> list[dict[str, Any]]:
    command = [sys.executable, STREAMS / "f2_reference.py", "--every-tick"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def states(lines: list[dict[str, Any]], *wanted: str) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("state") in wanted and "note" not in line]


def agree_until_firing(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> int:
    """Same evidence at every tick up to the first firing, and the same firing. How many ticks."""
    first = [states(lines, "firing")[:1] for lines in (ours, theirs)]
    assert len(first[0]) == len(first[1])
    end = math.inf
    if first[0]:
        end = first[0][0]["t"]
        for key in ("t", "route", "since", "quantile", "deploy"):
            assert first[0][0].get(key) == first[1][0].get(key), key
        assert first[0][0]["evidence_nats"] == pytest.approx(first[1][0]["evidence_nats"], abs=2e-3)
    ticks = [[x for x in lines if "tick" in x and x["t"] <= end] for lines in (ours, theirs)]
    assert len(ticks[0]) == len(ticks[1])
    for mine, yours in zip(*ticks, strict=True):
        assert {**mine, "evidence_nats": 0} == {**yours, "evidence_nats": 0}
        # Hours of day are kept in 1 024ths of a request: 4e-4 nats were seen, of the 13 that fire.
        expected = pytest.approx(yours["evidence_nats"], rel=1e-5, abs=2e-3)
        assert mine["evidence_nats"] == expected, mine["t"]
    return len(ticks[0])


@pytest.mark.parametrize(
    ("kind", "mode", "size", "seed"),
    [
        ("logn", "all", 0.5, EARLY_SEEDS[0]),
        ("pareto", "tail", 1.0, EARLY_SEEDS[1]),
        ("bimodal", "upper", 0.5, EARLY_SEEDS[2]),
    ],
)
def test_agrees_with_the_reference_tick_by_tick(
    kind: str, mode: str, size: float, seed: int
) -> None:
    begin = streams.change_tick(seed)
    days = (begin + 4 * HOUR_TICKS) / DAY_TICKS
    counts = streams.stream(kind, seed, days, 5, mode, size, begin)
    text = text_of(streams.ticks_of(counts, "GET /stream"))
    ours, theirs = backtest(text, "--every-tick"), reference(text)
    assert agree_until_firing(ours, theirs) > DAY_TICKS
    fired = states(ours, "firing")
    assert len(fired) == 1
    change_s = START_S + begin * streams.TICK_S
    assert fired[0]["t"] >= change_s
    assert abs(fired[0]["since"] - change_s) <= 1800
    assert not states(ours, "resolved")  # it is still slow


def test_agrees_at_low_traffic_and_through_an_outage() -> None:
    """0.05 requests/s: mostly empty windows, static rules only by night, a gap of 30 h."""
    counts = streams.stream("pareto", 3, 5, 0.05)
    counts[3 * DAY_TICKS : int(4.25 * DAY_TICKS)] = 0
    text = text_of(streams.ticks_of(counts, "GET /quiet"))
    ours, theirs = backtest(text, "--every-tick"), reference(text)
    assert agree_until_firing(ours, theirs) > 1000
    assert states(ours, "no_data")


def two_routes_and_a_deploy(size: float) -> str:
    """A day of two routes; one gets slower with the deploy v42 half an hour before its end."""
    ticks = DAY_TICKS + HOUR_TICKS
    begin = ticks - HOUR_TICKS // 2
    lines: list[dict[str, Any]] = [{"t": START_S + begin * 10, "deploy": "v42"}]
    for seed, mode in ((70, None), (71, "all")):
        counts = streams.stream("logn", seed, ticks / DAY_TICKS, 5, mode, size, begin)
        lines += streams.ticks_of(counts, f"GET /{seed}")
    lines.sort(key=lambda line: (line["t"], "route" in line, line.get("route")))
    return text_of(lines)


def test_a_deploys_twin_prints_p() -> None:
    text = two_routes_and_a_deploy(0.9)
    ours, theirs = backtest(text, "--every-tick"), reference(text)
    assert agree_until_firing(ours, theirs) > DAY_TICKS
    fired, expected = states(ours, "firing"), states(theirs, "firing")
    assert [line["route"] for line in fired] == ["GET /71"]
    assert fired[0]["deploy"] == "v42"
    assert 0 < fired[0]["p"] <= 0.001
    assert fired[0]["p"] == pytest.approx(expected[0]["p"], rel=0.01)


# --- states -----------------------------------------------------------------


def test_recovers_and_is_not_ended_by_a_median_that_never_rose() -> None:
    seed = EARLY_SEEDS[0]
    begin = streams.change_tick(seed)
    end = begin + 3 * HOUR_TICKS
    counts = streams.stream(
        "logn", seed, (end + 2 * HOUR_TICKS) / DAY_TICKS, 5, "tail", 1.5, begin, end
    )
    lines = backtest(text_of(streams.ticks_of(counts, "GET /stream")))
    fired, ended = states(lines, "firing"), states(lines, "resolved")
    assert len(fired) == len(ended) == 1
    end_s = START_S + end * streams.TICK_S
    assert fired[0]["quantile"] >= 0.95
    assert end_s <= ended[0]["t"] <= end_s + 3600
    assert ended[0]["evidence_nats"] >= math.log(100) - 1e-3
    # `resolved` passes into `ok` once a new firing would no longer reopen the incident.
    after = [x for x in lines if x["t"] > ended[0]["t"] and x["state"] == "ok"]
    assert after
    assert after[0]["t"] >= ended[0]["t"] + 1800


def steady(ticks: int, slow: Iterable[tuple[int, int, float]] = (), rps: float = 5) -> np.ndarray:
    """A plain log-normal route, 40 ms in the middle, times a factor from tick to tick."""
    rng = np.random.default_rng(7)
    n = rng.poisson(streams.TICK_S * rps, ticks)
    at = np.repeat(np.arange(ticks), n)
    x = np.log(40) + 0.3 * rng.standard_normal(at.size)
    for begin, end, factor in slow:
        x[(at >= begin) & (at < end)] += np.log(factor)
    bucket = np.clip((x / streams.LOG_GAMMA).astype(int) + 1, 0, streams.BUCKETS - 1)
    counts = np.bincount(at * streams.BUCKETS + bucket, minlength=ticks * streams.BUCKETS)
    return counts.reshape(ticks, streams.BUCKETS)


def test_a_blip_of_20_s_does_not_page() -> None:
    blips = [(at, at + 2, 3.0) for at in range(3 * HOUR_TICKS, 12 * HOUR_TICKS, 120)]
    lines = backtest(text_of(streams.ticks_of(steady(12 * HOUR_TICKS, blips), "GET /blip")))
    assert not states(lines, "firing")


def test_states_in_order_and_a_firing_soon_after_reopens() -> None:
    hour = HOUR_TICKS
    slow = [(4 * hour, 4 * hour + 60, 2.0), (4 * hour + 240, 4 * hour + 300, 2.0)]
    lines = backtest(text_of(streams.ticks_of(steady(9 * hour, slow), "GET /flap")))
    names = [line["state"] for line in states(lines, "learning", "firing", "resolved")]
    assert names == ["learning", "firing", "resolved", "firing", "resolved"]
    first, second = states(lines, "firing")
    assert "reopened" not in first
    assert second["reopened"] is True
    assert second["since"] == first["since"]
    assert abs(first["since"] - (START_S + 4 * hour * 10)) <= 30
    assert lines[0] == {
        "t": START_S,
        "route": "GET /flap",
        "state": "learning",
        "since": START_S,
        "evidence_nats": 0.0,
        "quantile": None,
        "baseline": "learning",
    }
    assert lines[1]["state"] == "ok"
    assert lines[1]["t"] == START_S + 4200  # reference_s + reference_gap_s
    before = [x["state"] for x in lines if x["t"] <= first["t"]]
    assert before[-2:] == ["pending", "firing"]


def test_accepted_after_seven_days() -> None:
    days = 10
    counts = steady(days * DAY_TICKS, [(2 * DAY_TICKS, days * DAY_TICKS, 2.0)], rps=0.1)
    lines = backtest(text_of(streams.ticks_of(counts, "GET /new")))
    fired, accepted = states(lines, "firing"), states(lines, "accepted")
    assert len(fired) == len(accepted) == 1
    assert accepted[0]["t"] - fired[0]["t"] == pytest.approx(7 * 86400, abs=300)
    # The new level is the baseline now.
    assert [x["state"] for x in lines if x["t"] > accepted[0]["t"]][:1] == ["ok"]


def test_an_improvement_is_noted_once_and_never_pages() -> None:
    counts = steady(9 * HOUR_TICKS, [(5 * HOUR_TICKS, 9 * HOUR_TICKS, 0.5)])
    lines = backtest(text_of(streams.ticks_of(counts, "GET /better")))
    assert not states(lines, "firing")
    noted = [line for line in lines if line.get("note") == "improved"]
    assert len(noted) == 1
    assert noted[0]["state"] == "ok"
    assert abs(noted[0]["since"] - (START_S + 5 * HOUR_TICKS * 10)) <= 60


def test_no_data_is_its_own_state_and_ends_nothing() -> None:
    hour = HOUR_TICKS
    counts = steady(12 * hour, [(4 * hour, 12 * hour, 2.0)])
    counts[5 * hour : 8 * hour] = 0
    lines = [
        *streams.ticks_of(counts, "GET /gone"),
        *streams.ticks_of(steady(12 * hour), "GET /on"),
    ]
    lines.sort(key=lambda line: line["t"])
    out = [line for line in backtest(text_of(lines)) if line["route"] == "GET /gone"]
    silent = states(out, "no_data")
    assert len(silent) == 1
    assert silent[0]["t"] == pytest.approx(START_S + 6 * 3600, abs=600)
    back = out[out.index(silent[0]) + 1]
    assert back["state"] == "firing"  # as it was
    assert back["since"] == states(out, "firing")[0]["since"]
    assert back["t"] == pytest.approx(START_S + 8 * 3600, abs=60)
    assert not states(out, "resolved")


# --- bad input --------------------------------------------------------------

GOOD = '{"t": 100, "route": "a", "latency_ms": [[1.5, 2]]}'


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ('{"t": 99, "route": "a", "latency_ms": [[1.5, 2]]}', "out of order"),
        ('{"t": 99, "deploy": "v1"}', "out of order"),
        (GOOD, "duplicate"),
        ('{"t": -1, "route": "a", "latency_ms": []}', '"t" is negative'),
        ('{"t": 1e300, "route": "a", "latency_ms": []}', "after the year 9999"),
        ('{"t": "110", "route": "a", "latency_ms": []}', '"t" is not a number'),
        ('{"route": "a", "latency_ms": []}', '"t" is missing'),
        ('{"t": 110, "route": "a"}', '"latency_ms" is missing'),
        ('{"t": 110, "route": "a", "latency_ms": 3}', "not a list"),
        ('{"t": 110, "latency_ms": []}', 'neither "route" nor "deploy"'),
        ('{"t": 110, "route": "a", "deploy": "b", "latency_ms": []}', "a tick or a deploy"),
        ('{"t": 110, "route": "", "latency_ms": []}', "empty"),
        ('{"t": 110, "route": 7, "latency_ms": []}', "not a text"),
        ('{"t": 110, "deploy": ""}', "empty"),
        (json.dumps({"t": 110, "route": "a" * 513, "latency_ms": []}), "longer than 512"),
        ('{"t": 110, "route": "a", "latency_ms": [[-1, 2]]}', "latency -1 is negative"),
        ('{"t": 110, "route": "a", "latency_ms": [[1, -2]]}', "count -2 is negative"),
        ('{"t": 110, "route": "a", "latency_ms": [[1, 2.5]]}', "not a whole number"),
        ('{"t": 110, "route": "a", "latency_ms": [[1e10, 2]]}', "larger than 1e+09 ms"),
        ('{"t": 110, "route": "a", "latency_ms": [[1, 1000000001]]}', "larger than 1000000000"),
        ('{"t": 110, "route": "a", "latency_ms": [[1, 1e400]]}', "overflow"),
        ('{"t": 110, "route": "a", "latency_ms": [[1, 99999999999999999999]]}', "too big"),
        ('{"t": 110, "route": "a", "latency_ms": [[NaN, 2]]}', "NaN"),
        ('{"t": 110, "route": "a", "latency_ms": [[Infinity, 2]]}', "Infinity"),
        ('{"t": NaN, "route": "a", "latency_ms": []}', "NaN"),
        ('{"t": 110, "route": "a", "latency_ms": [[1, 2], [3]]}', "latency_ms[1] is not a pair"),
        ('{"t": 110, "route": "a", "latency_ms": [[1, 2, 3]]}', "latency_ms[0] is not a pair"),
        ('{"t": 110, "t": 111, "route": "a", "latency_ms": []}', "duplicate"),
        ('{"t": 110, "route": "a", "latency_ms": []} x', "end of file expected"),
        ('{"t": 0110, "route": "a", "latency_ms": []}', "column"),
        ('{"t": 110, "route": "a", "latency_ms": [', "column"),
        ('["t"]', "not a JSON object"),
        ("", "empty line"),
        ("\0", "zero byte"),
    ],
)
def test_bad_lines_are_named(bad: str, words: str) -> None:
    done = run(f"{GOOD}\n{bad}\n" + '{"t": 120, "route": "a", "latency_ms": []}\n')
    assert done.returncode == 1
    message = done.stderr.decode()
    assert message.startswith("tailrace: line 2: "), message
    assert words in message
    assert message.count("\n") == 1
    assert b'"learning"' in done.stdout  # what came before is not lost


def test_bytes_that_are_no_utf8_are_named() -> None:
    done = run(b'{"t": 1, "route": "\xff", "latency_ms": []}\n')
    assert done.returncode == 1
    assert done.stderr.startswith(b"tailrace: line 1: ")


def test_odd_but_right_lines_mean_the_same() -> None:
    """Escapes, exponents, other keys, order of keys, no last line feed: read by the slow path."""
    counts = steady(2 * HOUR_TICKS)
    plain = list(streams.ticks_of(counts, "GET /ä"))
    odd = []
    for line in plain:
        pairs = ", ".join(f"[{value:.17e}, {count}]" for value, count in line["latency_ms"])
        odd.append(
            f'{{"route": "GET /\\u00e4", "latency_ms": [{pairs}], "x": null, "t": {line["t"]}.9}}'
        )
    expected = backtest(text_of(plain), "--every-tick")
    assert len(expected) > HOUR_TICKS // 2
    assert backtest("\n".join(odd), "--every-tick") == expected


def test_limits_of_a_line_and_of_routes() -> None:
    def padded(size: int) -> str:
        line = '{"t": 1, "route": "a", "latency_ms": []'
        return line + " " * (size - len(line) - 1) + "}\n"

    assert run(padded(LINE_MAX)).returncode == 0
    done = run(padded(LINE_MAX + 1))
    assert done.returncode == 1
    assert b"line 1: longer than 1 MiB" in done.stderr

    def routes(count: int) -> str:
        return text_of({"t": 1, "route": f"r{i}", "latency_ms": [[1, 1]]} for i in range(count))

    assert len(backtest(routes(ROUTES_MAX))) == ROUTES_MAX
    done = run(routes(ROUTES_MAX + 1))
    assert done.returncode == 1
    assert f"line {ROUTES_MAX + 1}: more than {ROUTES_MAX} routes".encode() in done.stderr


def test_usage_and_a_full_disk() -> None:
    for wrong in (["--no-such"], ["--routes"], ["--routes", "0"], ["--routes", "3x"]):
        assert run("", *wrong).returncode == 2
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [BINARY, "backtest"], input=GOOD.encode(), stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert b"standard output: No space left on device" in done.stderr


def test_no_lines_no_states() -> None:
    done = run("")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"tailrace: standard input: no ticks\n"


def test_settings_of_a_file(tmp_path: Path) -> None:
    """`-c`: 1 s windows and a minute of reference find a change within seconds, no blip."""
    config = {
        "listeners": [{"address": "127.0.0.1:8080"}],
        "upstreams": {"app": {"servers": ["127.0.0.1:8000"]}},
        "alerts": {
            **{"window_ms": 1000, "min_duration_s": 10},
            **{"reference_s": 60, "reference_gap_s": 10},
        },
    }
    file = tmp_path / "tailrace.json"
    file.write_text(json.dumps(config))
    start, lines = 1800000000, []
    for second in range(600):
        slow = 150 <= second < 200 or 560 <= second < 565
        values = [[(66.0 if slow else 22.0) + 0.1 * i, 1] for i in range(25)]
        lines.append({"t": start + second, "route": "GET /a", "latency_ms": values})
    text = "".join(json.dumps(line) + "\n" for line in lines)

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [str(BINARY), "backtest", *args]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)

    states = [json.loads(line) for line in run("-c", str(file)).stdout.splitlines()]
    at = {one["state"]: one["t"] - start for one in states}
    assert (at["ok"] >= 70 and at["ok"] < 80) or "pending" in at
    fired = [one for one in states if one["state"] == "firing"]
    assert len(fired) == 1
    assert 150 + 9 <= fired[0]["t"] - start <= 150 + 20
    assert 148 <= fired[0]["since"] - start <= 151
    assert 200 < at["resolved"] < 500
    assert run().stdout.count("firing") == 0, "the defaults need hours"
    config["alerts"] = {"window_ms": 1}
    file.write_text(json.dumps(config))
    bad = run("-c", str(file))
    assert bad.returncode == 78 and "/alerts/window_ms" in bad.stderr
