"""What docs/guide.md tells a newcomer to do, done; its examples of containers."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import BINARY, ROOT, clean_env

DEPLOY = ROOT / "conf" / "deploy"
SOCKET = "unix:/run/tailrace/control.sock"


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The guide, ready to run in an empty folder."""
    monkeypatch.syspath_prepend(str(ROOT / "demo"))
    import guide as module

    ready = module.Guide(tmp_path)
    yield ready
    ready.stop()
    for name in ("run", "replay", "guide"):
        sys.modules.pop(name, None)


def slow_line(text: str) -> int:
    """The line of the guide's app that is said to be slow."""
    return next(n for n, line in enumerate(text.splitlines(), 1) if "asyncio.sleep" in line)


def test_a_newcomer_finds_the_slow_line(guide: Any) -> None:
    outcome = guide.run()
    line = slow_line((guide.folder / "app.py").read_text())
    assert f"`app.py:{line}`" in (ROOT / "docs" / "guide.md").read_text()
    shown = outcome.printed["tailrace show TRACE_ID"]
    assert re.search(rf"load_prices  app\.py:{line} ", shown), shown
    assert re.search(r"sleep  asyncio\.tasks\.sleep +×8 ", shown), shown
    assert "GET /cart/{user}" in outcome.printed["tailrace routes"]
    assert guide.trace in outcome.printed["tailrace requests --slowest"]
    waits = [r for r in outcome.exchange["profile"]["breakdown"] if r["cause"] == "sleep"]
    assert sum(row["ns"] for row in waits) >= 8 * 20_000_000
    log = (guide.folder / "gateway.log").read_text()
    assert re.search(r"ready: clients on \S+; control on unix:\S+; store \S+", log)


def check_config(text: str, folder: Path) -> None:
    """`tailrace check` has nothing against it, but for the places that only a container has."""
    path = folder / "tailrace.json"
    path.write_text(text.replace("/var/lib/tailrace", str(folder)))
    done = subprocess.run(
        [BINARY, "check", "-c", path], capture_output=True, text=True, env=clean_env()
    )
    assert done.returncode == 0, done.stderr


def stages(path: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in found]


@pytest.mark.parametrize("name", ["Dockerfile", "app.Dockerfile"])
def test_what_an_image_copies_is_there_and_its_user_is_one_number(name: str) -> None:
    instructions = stages(DEPLOY / name)
    assert instructions[0][0] == "FROM"
    for word, rest in instructions:
        if word == "COPY" and not rest.startswith("--from="):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), f"{name}: COPY {source}"
    assert [rest for word, rest in instructions if word == "USER"] == ["10001:10001"]
    assert instructions[-1][0] == "CMD"


def test_compose_example_fits_together(tmp_path: Path) -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    gateway, app = services["gateway"], services["app"]
    config = (DEPLOY / "tailrace.json").read_text()
    check_config(config.replace('"app:8000"', '"127.0.0.1:8000"'), tmp_path)
    assert gateway["depends_on"] == ["app"]  # a name that does not exist is a bad configuration
    assert app["environment"]["TAILRACE_CALLBACK"] == SOCKET
    assert f'"{SOCKET}"' in config
    assert "control:/run/tailrace" in gateway["volumes"] and app["volumes"] == [
        "control:/run/tailrace"
    ]
    for service in (gateway, app):
        context = (DEPLOY / service["build"]["context"]).resolve()
        assert (context / service["build"]["dockerfile"]).exists()
    command = dict(stages(DEPLOY / "app.Dockerfile"))["CMD"]
    assert '"--port", "8000"' in command and '"app:8000"' in config


def test_kubernetes_example_fits_together(tmp_path: Path) -> None:
    documents = {d["kind"]: d for d in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}
    config = documents["ConfigMap"]["data"]["tailrace.json"]
    check_config(config, tmp_path)
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    app, gateway = pod["containers"]
    mounts = {m["name"]: m["mountPath"] for m in gateway["volumeMounts"]}
    assert mounts["control"] == app["volumeMounts"][0]["mountPath"] == "/run/tailrace"
    assert {e["name"]: e["value"] for e in app["env"]}["TAILRACE_CALLBACK"] == SOCKET
    assert f'"{SOCKET}"' in config and SOCKET in gateway["readinessProbe"]["exec"]["command"]
    assert {v["name"] for v in pod["volumes"]} == set(mounts)
    assert (
        documents["Service"]["spec"]["selector"]
        == documents["Deployment"]["spec"]["selector"]["matchLabels"]
    )
    # The app outlives the gateway's drain, and the pod's time suffices for both.
    drain_s = 20 + int(gateway["lifecycle"]["preStop"]["exec"]["command"][1])
    app_s = int(app["lifecycle"]["preStop"]["exec"]["command"][1])
    assert drain_s < app_s < drain_s + 15 < pod["terminationGracePeriodSeconds"]
    assert '"shutdown_timeout_ms": 20000' in config


MATHEMATICS = (ROOT / "docs" / "alert-mathematics.md").read_text()


def test_thresholds_of_the_page_are_those_of_its_formula() -> None:
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) nats \|$", MATHEMATICS, re.M)
    assert len(rows) == 4
    for routes, nats in rows:
        assert abs(math.log(2_592_000 * int(routes) / 10) - float(nats)) < 0.06


def test_the_page_s_backtest_does_what_it_says(tmp_path: Path) -> None:
    found = re.search(r"^```python\n(.*?)^```$", MATHEMATICS, re.M | re.S)
    assert found is not None
    ticks = subprocess.run([sys.executable, "-c", found[1]], capture_output=True, check=True).stdout
    done = subprocess.run([BINARY, "backtest"], input=ticks, capture_output=True, check=True)
    states = [json.loads(line) for line in done.stdout.splitlines()]
    assert [s["state"] for s in states] == ["learning", "ok", "pending", "firing"]
    assert states[-1]["since"] == 1_800_000_000 + 10 * 8700
    assert states[-1]["evidence_nats"] > states[-1]["threshold_nats"]
