"""Incidents reach their receivers: at least once, once per key that was taken, over restarts."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alert_tools import Failing, Sink, Traffic, incidents, restart, wait_incident
from handmade import metrics
from harness import TOOLS, Gateway, free_port, wait_for
from tls_tools import Authority, server_context

Start = Callable[..., Gateway]
ALERTMANAGER = TOOLS / "prometheus-alertmanager"
RULE = {"metric": "error_ratio", "above": 0.2, "for_s": 10, "name": "errors"}
FAST = {"window_ms": 1000, "min_duration_s": 10, "reference_s": 60, "reference_gap_s": 10}


@pytest.fixture
def app() -> Iterator[Failing]:
    server = Failing()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def sinks() -> Iterator[Callable[..., Sink]]:
    """Sinks that end with the test."""
    made: list[Sink] = []

    def make(*script: str, **options: Any) -> Sink:
        made.append(Sink(*script, **options))
        return made[-1]

    yield make
    for sink in made:
        sink.stop()


def sections(receivers: dict[str, Any], *rules: dict[str, Any]) -> dict[str, Any]:
    """Fast settings with these receivers."""
    return {
        "alerts": {**FAST, "rules": list(rules) or [RULE], "receivers": receivers},
        "profile": {"join_timeout_ms": 300},
    }


def test_a_bad_receiver_and_a_restart(
    app: Failing, gateway_factory: Start, sinks: Callable[..., Sink]
) -> None:
    """Cut off, 500, stalled, a restart in between: nothing lost, nothing taken twice."""
    sink = sinks("cut", "500", "stall", after="503")
    hook = {"type": "webhook", "url": sink.url, "timeout_ms": 500}
    gateway = gateway_factory([app.address], **sections({"hook": hook}))
    traffic = Traffic(gateway)
    first = wait_incident(gateway, 30)
    assert first["status"] == "firing" and first["rule"]["name"] == "errors"
    wait_for(lambda: len(sink.posts) >= 4, 30, "four attempts")
    assert [post.answer for post in sink.posts[:4]] == ["cut", "500", "stall", "503"]
    assert {post.key for post in sink.posts} == {f"{first['id']}-firing-1"}
    counted = metrics(gateway)
    assert counted['tailrace_alert_failures_total{receiver="hook"}'] >= 3
    assert counted['tailrace_alerts_delivered_total{receiver="hook"}'] == 0
    assert counted["tailrace_outbox_waiting"] >= 1
    assert counted['tailrace_incident_active{route="GET (no route)"}'] == 1

    gateway = restart(gateway)
    assert metrics(gateway)["tailrace_outbox_waiting"] == 1
    assert "alerts: 1 wait since the last run" in gateway.log()
    sink.after = "ok"
    wait_for(sink.taken, 30, "delivered after the restart")
    traffic.gateway = gateway
    app.fails = False
    ended = wait_incident(gateway, 40, lambda one: one["status"] == "resolved", "its end")
    wait_for(lambda: len(sink.taken()) >= 2, 10, "the end delivered")
    traffic.stop()
    assert gateway.stop() == 0
    keys = [post.key for post in sink.taken()]
    assert keys[0] == f"{first['id']}-firing-1"
    assert keys[-1] == f"{first['id']}-resolved-{ended['revision']}"
    assert len(set(keys)) == len(keys), "taken twice"
    told = sink.taken()[0].body
    assert told["schema"] == 1 and told["status"] == "firing" and told["id"] == first["id"]
    assert told["title"] == "100 % of GET (no route) fail (above 20 %) for 10 s"


def test_order_tokens_and_names(
    app: Failing, gateway_factory: Start, sinks: Callable[..., Sink], tmp_path: Path
) -> None:
    """A refused revision holds back the later ones of its incident, not other receivers."""
    (tmp_path / "token").write_text("s3cret\n")
    refusing, good, named = sinks(after="400"), sinks(), sinks()
    (tmp_path / "url").write_text(good.url + "\n")
    receivers = {
        "refusing": {"type": "webhook", "url": refusing.url},
        "good": {
            "type": "webhook",
            "url_file": str(tmp_path / "url"),
            "token_file": str(tmp_path / "token"),
        },
        "chat": {"type": "slack", "url": named.url},
    }
    rules = [RULE, {**RULE, "name": "only chat", "above": 0.3, "receivers": ["chat"]}]
    gateway = gateway_factory([app.address], **sections(receivers, *rules))
    traffic = Traffic(gateway)
    wait_for(lambda: len(incidents(gateway)) == 2, 30, "two incidents")
    app.fails = False
    wait_for(
        lambda: all(one["status"] == "resolved" for one in incidents(gateway)), 40, "their ends"
    )
    traffic.stop()
    wait_for(lambda: len(good.taken()) == 2 and len(named.taken()) == 4, 10, "delivered")
    assert [post.body["status"] for post in good.taken()] == ["firing", "resolved"]
    assert {post.headers["authorization"] for post in good.posts} == {"Bearer s3cret"}
    assert {post.body["rule"]["name"] for post in good.posts} == {"errors"}
    texts = [post.body["text"] for post in named.taken()]
    assert sum(text.startswith("*Resolved: ") for text in texts) == 2
    assert all(set(post.body) == {"text"} for post in named.posts)
    assert {post.body["status"] for post in refusing.posts} == {"firing"}


def test_https_is_verified(
    app: Failing, gateway_factory: Start, sinks: Callable[..., Sink], tmp_path: Path
) -> None:
    """A certificate of the CA that was named is taken, of another one not."""
    authority = Authority(tmp_path / "ca", "alerts")
    sink = sinks(tls=server_context(authority.issue("127.0.0.1")))
    trusting = {"type": "webhook", "url": sink.url, "ca_file": str(authority.ca_file)}
    receivers = {"trusting": trusting, "wary": {"type": "webhook", "url": sink.url}}
    gateway = gateway_factory([app.address], **sections(receivers))
    traffic = Traffic(gateway)
    wait_for(sink.taken, 30, "delivered to the trusted one")
    failures = 'tailrace_alert_failures_total{receiver="wary"}'
    wait_for(lambda: metrics(gateway)[failures] >= 1, 10, "the other one refused")
    traffic.stop()
    assert metrics(gateway)['tailrace_alerts_delivered_total{receiver="wary"}'] == 0
    assert len(sink.posts) == 1
    assert "wary is not reached" in gateway.log()
    # A rule that is not there any more goes on with nothing: its incident ends, at a time.
    gateway.config["alerts"]["rules"] = [{**RULE, "name": "another"}]
    gateway = restart(gateway)
    ended = wait_incident(gateway, 10, lambda one: one["status"] == "resolved", "its end")
    assert ended["ended"] > ended["fired"]
    assert f"Over since {ended['ended'][11:19]} UTC." in ended["text"], ended["text"]


def test_disk_full(
    app: Failing, gateway_factory: Start, sinks: Callable[..., Sink], tmp_path: Path
) -> None:
    """Without a store history is lost and counted; alerts still go out."""
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    sink = sinks("500")
    settings = sections({"hook": {"type": "webhook", "url": sink.url}})
    settings["store"] = {"path": str(blocker / "tailrace.db")}
    gateway = gateway_factory([app.address], **settings)
    traffic = Traffic(gateway)
    wait_for(sink.taken, 40, "delivered without a store")
    app.fails = False
    wait_for(lambda: len(sink.taken()) == 2, 40, "the end, too")
    traffic.stop()
    assert metrics(gateway)['tailrace_store_dropped_total{reason="error"}'] > 0
    assert metrics(gateway)["tailrace_store_writable"] == 0


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    """Debian's own, listening on a free port."""
    port = free_port()
    config = tmp_path / "alertmanager.yml"
    config.write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    command = [
        str(ALERTMANAGER),
        f"--config.file={config}",
        f"--storage.path={tmp_path / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    log = (tmp_path / "alertmanager.log").open("wb")
    process = subprocess.Popen(
        command,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=TOOLS.parent,  # its templates, see scripts/deps
    )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            with urllib.request.urlopen(url + "/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    try:
        wait_for(ready, 20, "alertmanager ready")
        yield url
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def alerts_of(url: str) -> list[dict[str, Any]]:
    """What an Alertmanager holds as active."""
    with urllib.request.urlopen(url + "/api/v2/alerts", timeout=5) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())
        return found


def test_alertmanager(app: Failing, gateway_factory: Start, alertmanager: str) -> None:
    """Debian's Alertmanager has the alert while it fires and not after its end."""
    receivers = {"am": {"type": "alertmanager", "url": alertmanager}}
    gateway = gateway_factory([app.address], **sections(receivers))
    traffic = Traffic(gateway)
    alert = wait_for(lambda: alerts_of(alertmanager), 30, "the alert")[0]
    incident = incidents(gateway)[0]
    assert alert["labels"] == {
        "alertname": "TailraceRule",
        "route": "GET (no route)",
        "incident": incident["id"],
        "rule": "errors",
        "severity": "warning",
    }
    assert alert["annotations"]["summary"] == incident["title"]
    assert alert["annotations"]["description"] == incident["text"]
    app.fails = False
    wait_for(lambda: not alerts_of(alertmanager), 40, "its end")
    traffic.stop()
    assert metrics(gateway)['tailrace_alert_failures_total{receiver="am"}'] == 0
