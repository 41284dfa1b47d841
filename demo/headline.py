"""`make headline`: the README's headline example, made anew.

A real gateway and a real uvicorn with demo/shop.py. When the gateway has learned what is normal,
version v42 of the shop is started in place of v41; the gateway notices, and says by which frame.
What it said is written to docs/headline*: the incident as JSON, as `tailrace incidents ID` prints
it, its flame graph as JSON, as `tailrace flame` prints it, and as a picture. Three minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flame_svg import draw
from run import BINARY, FOLDER, ROOT, DemoError, UnixConnection, free_port, is_ready, running

ROUTE = "GET /checkout/{cart}"
RATE = 12  # requests a second, of each of two routes
#: Short windows, so that an example takes minutes; the defaults are told in docs/alerts.md.
ALERTS = {
    **{"window_ms": 1000, "min_duration_s": 10, "reference_s": 60, "reference_gap_s": 10},
    **{"min_effect": 0.3, "min_effect_ms": 10, "receivers": {"log": {"type": "log"}}},
}
LEARN_S, FIRE_S, CAUSE_S = 240, 120, 120
BY = "make headline"


def wait(what: Callable[[], Any], seconds: float, message: str) -> Any:
    """The first true answer of `what`. DemoError after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = what()
        if value:
            return value
        time.sleep(0.5)
    raise DemoError(f"not within {seconds:.0f} s: {message}")


class Shoppers:
    """Requests, some of them a second, until stop()."""

    def __init__(self, base: str) -> None:
        self.urls = [f"{base}/checkout/7", f"{base}/products"]
        self.paused = threading.Event()
        self.stopped = threading.Event()
        self.failed = 0
        self.threads = [
            threading.Thread(target=self.run, args=(url,), daemon=True)
            for url in self.urls
            for _ in range(2)
        ]
        for thread in self.threads:
            thread.start()

    def run(self, url: str) -> None:
        """One shopper."""
        while not self.stopped.wait(2 / RATE):
            if self.paused.is_set():
                continue
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    answer.read()
            except OSError:
                self.failed += 1

    def stop(self) -> None:
        """No more requests."""
        self.stopped.set()
        for thread in self.threads:
            thread.join(15)


class Gateway:
    """Questions to the control socket, by the API and by the commands."""

    def __init__(self, control: str) -> None:
        self.control = control

    def json(self, path: str) -> Any:
        """A GET of the API."""
        connection = UnixConnection(self.control)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != 200:
            raise DemoError(f"{path}: {answer.status} {body!r}")
        return json.loads(body)

    def command(self, *arguments: str) -> str:
        """What a client command prints into a pipe."""
        done = subprocess.run(
            [str(BINARY), *arguments, "--control", f"unix:{self.control}"],
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        if done.returncode != 0:
            raise DemoError(f"tailrace {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def state(self) -> str:
        """The detector's state of the route."""
        for route in self.json("/api/v1/routes")["routes"]:
            if route["route"] == ROUTE:
                return str(route["state"])
        return ""

    def incident(self) -> dict[str, Any] | None:
        """The incident, once its cause is named."""
        for one in self.json("/api/v1/incidents")["incidents"]:
            if ROUTE in one["routes"] and one["cause"]["rows"]:
                found: dict[str, Any] = self.json(f"/api/v1/incidents/{one['id']}")
                return found
        return None


Look = Callable[[Gateway, dict[str, Any]], Any]


@contextlib.contextmanager
def shop(version: str, port: int, stock_port: int, control: str) -> Iterator[None]:
    """The shop under uvicorn, of this version."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")}
    env |= {"TAILRACE_CALLBACK": f"unix:{control}", "TAILRACE_APP_VERSION": version}
    env |= {"STOCK_PORT": str(stock_port)}
    command = [sys.executable, "-m", "uvicorn", "shop:app", "--app-dir", "demo", "--loop", "uvloop"]
    command += ["--http", "httptools", "--port", str(port), "--no-access-log"]
    with running(f"shop-{version}", command, env):
        wait(lambda: is_ready(control, port), 30, f"the shop {version} serves")
        yield


def config_of(control: str, port: int, shop_port: int, store: Path) -> Path:
    """The gateway's configuration, written."""
    path = FOLDER / "headline.json"
    config = {
        "listeners": [{"address": f"127.0.0.1:{port}"}],
        "upstreams": {"shop": {"servers": [f"127.0.0.1:{shop_port}"]}},
        "control": {"listeners": [{"address": f"unix:{control}", "role": "admin"}]},
        "store": {"path": str(store)},
        "profile": {"join_timeout_ms": 1000},
        "alerts": ALERTS,
    }
    path.write_text(json.dumps(config, indent=2) + "\n")
    return path


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"headline: {text}", file=sys.stderr, flush=True)


def tell_story(
    gateway: Gateway, base: str, app: Callable[[str], Any], look: Look, strict: bool
) -> Any:
    """v41 until it is known, then v42; what ``look`` makes of the gateway and the incident."""
    with contextlib.ExitStack() as first:
        first.enter_context(app("v41"))
        shoppers = Shoppers(base)
        say("v41 serves; the gateway learns what is normal (a minute and a half)")
        wait(lambda: gateway.state() == "ok", LEARN_S, "the route is compared")
        shoppers.paused.set()
        time.sleep(1)
    with app("v42"):
        shoppers.paused.clear()
        say("v42 serves")
        wait(lambda: gateway.state() in ("pending", "firing"), FIRE_S, "something is noticed")
        say("something is noticed; evidence is gathered")
        found = wait(gateway.incident, FIRE_S + CAUSE_S, "the incident with its cause")
        shoppers.stop()
        if shoppers.failed:
            raise DemoError(f"{shoppers.failed} requests failed")
        if strict:
            check_story(found)
        return look(gateway, found)


def check_story(incident: dict[str, Any]) -> None:
    """It is worth showing. DemoError where the machine did other things meanwhile."""
    before, after = incident["quantiles"]["p95"]
    share = incident["cause"]["rows"][0]["share"]
    if after < 1.4 * before or not 0.9 <= share <= 1.05:
        raise DemoError(f"a busy machine: p95 {before} to {after} ms, share {share}; once more")


def files_of(gateway: Gateway, incident: dict[str, Any]) -> dict[str, Any]:
    """What is written, by the file's name."""
    flame = gateway.json(incident["links"]["flame"])
    trace = incident["exemplars"]["after"][0]
    return {
        "headline.json": incident,
        "headline-flame.json": flame,
        "headline-request.json": gateway.json(f"/api/v1/requests/{trace}"),
    }


def redraw(files: dict[str, Any]) -> dict[str, str]:
    """The texts and the picture of the answers, by the commands of today."""
    from replay import printed  # it needs the answers only

    incident = files["headline.json"]
    return {
        "headline-alert.txt": wrapped(incident["text"]),
        "headline.txt": printed(files, "incidents", incident["id"]),
        "headline-flame.txt": printed(files, "flame", ROUTE, "--baseline", "30m"),
        "headline-request.txt": printed(files, "show", incident["exemplars"]["after"][0]),
        "headline.svg": draw(files["headline-flame.json"]),
    }


def redraw_samples() -> None:
    """The waterfalls of docs/samples as `tailrace show` draws them today, from their answers."""
    from replay import printed

    for path in sorted((ROOT / "docs" / "samples").glob("*.json")):
        exchange = json.loads(path.read_text())
        text = printed({"request": exchange}, "show", exchange["trace_id"])
        if text != path.with_suffix(".txt").read_text():
            save(f"samples/{path.stem}.txt", text, "make samples")


def wrapped(text: str) -> str:
    """The alert's text in lines of 100 columns."""
    import textwrap

    return "\n".join(textwrap.wrap(text, 100)) + "\n"


def payload(incident: dict[str, Any]) -> dict[str, Any]:
    """The incident as receivers are sent it: without its history and distributions."""
    kept = {k: v for k, v in incident.items() if k not in ("history", "distributions")}
    return kept


def save(name: str, text: str, by: str = BY) -> None:
    """Write docs/NAME, and note that this script did."""
    path = ROOT / "docs" / name
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "scripts/check_docs.py", "--made", f"docs/{name}", "--by", by]
    subprocess.run(command, check=True, cwd=ROOT)


def run_story(look: Look, strict: bool = True) -> Any:
    """Start everything, tell the story, return what ``look`` makes of it, stop everything.

    Strict: DemoError where the machine was too busy for numbers worth showing.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    port, shop_port, stock_port = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="tailrace-") as folder:
        control = f"{folder}/control.sock"
        config = config_of(control, port, shop_port, Path(folder) / "tailrace.db")
        env = {k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")}
        stock = [sys.executable, "demo/stock.py", str(stock_port)]
        with (
            running("stock", stock, env),
            running("gateway", [str(BINARY), "run", "-c", str(config)], env),
        ):
            gateway = Gateway(control)

            def app(version: str) -> Any:
                return shop(version, shop_port, stock_port, control)

            return tell_story(gateway, f"http://127.0.0.1:{port}", app, look, strict)


def main() -> int:
    """Make everything anew, or with --redraw only the texts of the answers that are there."""
    try:
        if "--redraw" in sys.argv[1:]:
            names = ("headline.json", "headline-flame.json", "headline-request.json")
            files = {name: json.loads((ROOT / "docs" / name).read_text()) for name in names}
            redraw_samples()
        else:
            files = run_story(files_of)
            for name, value in files.items():
                save(name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
        for name, text in redraw(files).items():
            save(name, text)
            print(f"docs/{name}")
        shown = json.dumps(payload(files["headline.json"]), indent=1, ensure_ascii=False)
        save("headline-alert.json", shown + "\n")
    except DemoError as error:
        print(f"headline: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
