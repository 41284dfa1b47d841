"""Files shipped for alerts: they are good, and speak of metrics that exist."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from alert_tools import Failing, incidents
from handmade import HandApp
from harness import BINARY, ROOT, TOOLS, Gateway, clean_env, wait_for

PROMTOOL = TOOLS / "promtool"
METRIC = re.compile(r"\btailrace_[a-z_]+")


def known(gateway: Gateway) -> set[str]:
    """The families and samples of /metrics."""
    text = gateway.api("/metrics")[2].decode()
    names = set(re.findall(r"^# TYPE (\S+)", text, re.M)) | set(METRIC.findall(text))
    return names


def test_prometheus_rules(tmp_path: Path) -> None:
    """promtool takes the rules, and they fire where they should."""
    rules = ROOT / "conf" / "prometheus-rules.yml"
    done = subprocess.run([PROMTOOL, "check", "rules", rules], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "test.yml").write_text(
        f"""
rule_files: ['{rules}']
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'tailrace_incident_active{{route="GET /a"}}'
        values: '0x5 1x10'
      - series: 'tailrace_incident_active{{route="GET /b"}}'
        values: '0x15'
      - series: 'tailrace_alert_failures_total{{job="j", instance="i", receiver="ops"}}'
        values: '0+1x30'
      - series: 'tailrace_outbox_waiting{{job="j", instance="i"}}'
        values: '1x30'
    alert_rule_test:
      - eval_time: 10m
        alertname: TailraceIncident
        exp_alerts:
          - exp_labels: {{route: GET /a, severity: warning}}
            exp_annotations:
              summary: GET /a got slower or breaks a rule
              description: tailrace incidents says since when and why.
      - eval_time: 20m
        alertname: TailraceAlertsNotDelivered
        exp_alerts:
          - exp_labels: {{job: j, instance: i, receiver: ops, severity: critical}}
            exp_annotations:
              summary: ops does not take the gateway's alerts
"""
    )
    done = subprocess.run(
        [PROMTOOL, "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_dashboard(tmp_path: Path) -> None:
    """Prometheus reads every expression; panels and variables are what an import needs."""
    board = json.loads((ROOT / "conf" / "grafana-dashboard.json").read_text())
    panels = board["panels"]
    assert board["uid"] == "tailrace" and len({panel["id"] for panel in panels}) == len(panels)
    variables = {one["name"] for one in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels)))
    assert used <= variables | {"__rate_interval"}
    rules = []
    for panel in panels:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24 and panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$route", ".*")
            rules.append({"record": f"panel:{panel['id']}:{target['refId']}", "expr": expression})
    file = tmp_path / "panels.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([PROMTOOL, "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_metrics_exist(gateway_factory: Callable[..., Gateway]) -> None:
    """Every metric of the rules, the dashboard and docs/alerts.md is one of ours."""
    app = HandApp().start()
    gateway = gateway_factory([app.address], profile={"join_timeout_ms": 100})
    with urllib.request.urlopen(gateway.base + "/x", timeout=10) as answer:
        answer.read()
    files = ["conf/prometheus-rules.yml", "conf/grafana-dashboard.json", "docs/alerts.md"]
    used = {name: set(METRIC.findall((ROOT / name).read_text())) for name in files}
    late = {"tailrace_incident_active", "tailrace_request_duration_seconds_bucket"}
    wait_for(lambda: late <= known(gateway), 10, "metrics", every_s=0.3)
    there = known(gateway)
    for name, metrics in used.items():
        assert metrics and not metrics - there, f"{name}: {metrics - there}"
    app.stop()


def blocks(name: str) -> list[str]:
    """The JSON examples of a page."""
    return re.findall(r"```json\n(.*?)```", (ROOT / name).read_text(), re.S)


def test_examples_of_settings(tmp_path: Path) -> None:
    """What docs/alerts.md shows is a good configuration."""
    found = blocks("docs/alerts.md")
    assert len(found) == 2
    for secret in ("ops.token", "slack.url"):
        (tmp_path / secret).write_text("x\n")
    for block in found:
        text = (
            '{"listeners": [{"address": "127.0.0.1:8080"}],'
            ' "upstreams": {"app": {"servers": ["127.0.0.1:8000"]}}, ' + block + "}"
        )
        file = tmp_path / "tailrace.json"
        file.write_text(text.replace("/etc/tailrace", str(tmp_path)))
        command = [str(BINARY), "check", "-c", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, env=clean_env())
        assert done.returncode == 0, done.stderr


def tailrace(gateway: Gateway, *args: str) -> subprocess.CompletedProcess[str]:
    """A client command."""
    command = [str(BINARY), *args, "--control", f"unix:{gateway.control}"]
    return subprocess.run(command, capture_output=True, text=True, env=clean_env(), timeout=20)


def test_commands(gateway_factory: Callable[..., Gateway]) -> None:
    """Deploys and incidents on the command line and in the API, with what is wrong named."""
    app = Failing().start()
    gateway = gateway_factory(
        [app.address],
        alerts={
            "window_ms": 1000,
            "rules": [{"metric": "error_ratio", "above": 0.1, "for_s": 10, "min_requests": 5}],
        },
        profile={"join_timeout_ms": 100},
    )
    done = tailrace(gateway, "deploy", "v42", "--at", "2020-01-01T00:00:00Z")
    assert done.returncode == 1 and "more than 31 days ago" in done.stderr
    done = tailrace(gateway, "deploy", "v42")
    assert done.returncode == 0 and done.stdout.startswith("deploy of v42 marked at 20")
    done = tailrace(gateway, "deploy", "v43", "--json")
    assert json.loads(done.stdout)["version"] == "v43"
    assert tailrace(gateway, "deploy").returncode == 2
    deploys = gateway.json("/api/v1/deploys")["deploys"]
    assert [one["version"] for one in deploys] == ["v42", "v43"]
    assert gateway.json(f"/api/v1/deploys?from={int(time.time()) + 60}")["deploys"] == []
    for body, pointer in [
        (b"{}", "/version"),
        (b'{"version": ""}', "/version"),
        (b'{"version": "v1", "at": "yesterday"}', "/at"),
        (b'{"version": "v1", "of": 1}', ""),
        (b"[]", ""),
        (b"{", ""),
    ]:
        status, _, answer = gateway.api("/api/v1/deploys", "POST", body)
        assert status == 400 and json.loads(answer)["error"]["pointer"] == pointer, body

    assert tailrace(gateway, "incidents").stdout == "no incidents\n"
    assert gateway.api("/api/v1/incidents?status=wrong")[0] == 400
    assert gateway.api("/api/v1/incidents?limit=501")[0] == 400
    assert gateway.api("/api/v1/incidents/0123456789abcdef")[0] == 404
    assert gateway.api("/api/v1/incidents/0123456789abcdef", "POST")[0] == 405

    def fired() -> bool:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(gateway.base + "/x", timeout=10)
        return bool(incidents(gateway))

    wait_for(fired, 40, "the rule fired", every_s=0.1)
    listed = incidents(gateway, "?status=firing&route=GET%20(no%20route)")[0]
    one = gateway.json(f"/api/v1/incidents/{listed['id']}")
    assert set(one) - set(listed) == {"history", "distributions"}
    example = next(json.loads(b) for b in blocks("docs/api.md") if '"schema"' in b)
    assert set(example) <= set(one), "docs/api.md shows keys that are not there"
    assert set(one) - set(example) <= {"load", "merged_into"}
    assert set(example["cause"]) <= set(one["cause"])
    shown = tailrace(gateway, "incidents")
    assert one["id"] in shown.stdout and "firing" in shown.stdout
    shown = tailrace(gateway, "incidents", one["id"])
    assert one["title"] in shown.stdout and shown.returncode == 0
    as_json = json.loads(tailrace(gateway, "incidents", one["id"], "--json").stdout)
    assert as_json["history"][0]["status"] == "firing" and as_json["id"] == one["id"]
    accepted = tailrace(gateway, "incidents", one["id"], "--accept")
    assert accepted.returncode == 0 and "Accepted: " in accepted.stdout
    again = tailrace(gateway, "incidents", one["id"], "--accept")
    assert again.returncode == 1 and "over already" in again.stderr
    assert tailrace(gateway, "incidents", "xyz").returncode == 2
    assert gateway.json("/api/v1/incidents?status=accepted")["incidents"][0]["id"] == one["id"]
    app.stop()
