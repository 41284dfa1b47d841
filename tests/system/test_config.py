"""The command line around configurations: check, exit statuses, schema, manual, overrides."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import BINARY, ROOT, clean_env, free_port

MINIMAL = ROOT / "conf" / "minimal.json"


def tailrace(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BINARY), *args], capture_output=True, text=True, env=clean_env(env), timeout=20
    )


@pytest.mark.parametrize("name", ["minimal.json", "tailrace.json", "alerts.json"])
def test_shipped_configurations_are_good(name: str) -> None:
    done = tailrace("check", "-c", str(ROOT / "conf" / name))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(": good\n")


def test_example_holds_the_defaults() -> None:
    """What the commented example says is the default must be the schema's default."""
    schema = json.loads(tailrace("check", "--schema").stdout)
    text = (ROOT / "conf" / "tailrace.json").read_text()
    lines = [line.split("//")[0] for line in text.splitlines()]
    example = json.loads("\n".join(lines))
    seen = 0

    def compare(value: Any, rule: dict[str, Any], where: str) -> None:
        nonlocal seen
        if isinstance(value, dict):
            for key, inner in value.items():
                known = rule.get("properties", {}).get(key)
                compare(inner, known or rule["additionalProperties"], f"{where}/{key}")
            return
        for one in [rule, *rule.get("anyOf", [])]:
            if "default" in one:
                assert one["default"] == value, where
                seen += 1

    compare(example, schema, "")
    assert seen >= 20


def test_schema_is_fresh() -> None:
    committed = (ROOT / "conf" / "tailrace.schema.json").read_text()
    assert tailrace("check", "--schema").stdout == committed, "run: make schema"


def test_manual_page_is_fresh() -> None:
    committed = (ROOT / "docs" / "tailrace.json.5").read_text()
    assert tailrace("check", "--man").stdout == committed, "run: make schema"


def test_manual_page_holds_every_key() -> None:
    """Each key of the schema stands under its object's heading, with help, bounds, default."""
    schema = json.loads(tailrace("check", "--schema").stdout)
    page = tailrace("check", "--man").stdout.replace("\\-", "-")
    objects = dict(part.split("\n", 1) for part in page.split("\n.Ss ")[1:])
    seen = 0

    def below(rule: dict[str, Any], path: str) -> None:
        nonlocal seen
        heading = path.removeprefix(".") or "Top level"
        entries = dict(part.split("\n", 1) for part in objects[heading].split("\n.It Cm ")[1:])
        own = {key: value for key, value in rule["properties"].items() if key != "$schema"}
        assert set(entries) == set(own), heading
        for key, value in own.items():
            text = entries[key].split("\n.El")[0]
            assert value["description"].replace("\\", "\\e") in text, key
            assert ("required." in text) == (key in rule.get("required", [])), key
            for bound in ("minimum", "maximum", "minItems", "maxItems", "maxLength"):
                if 0 < value.get(bound, 0) < 2**63 - 1:
                    assert str(value[bound]) in text, (key, bound)
            for one in [value, *value.get("anyOf", [])]:
                assert "default" not in one or json.dumps(one["default"]) in text, key
                assert all(f'"{choice}"' in text for choice in one.get("enum", [])), key
            seen += 1
            items = value.get("items", {})
            for inner, mark in (
                (value if "properties" in value else None, ""),
                (value.get("additionalProperties") or None, ".NAME"),
                *((one, "[]") for one in [items, *items.get("anyOf", [])]),
            ):
                if inner and "properties" in inner:
                    below(inner, f"{path}.{key}{mark}")

    below(schema, "")
    assert seen >= 50


def test_all_semantic_errors_are_printed(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(
        """{
          "listeners": [{"address": "127.0.0.1"}], // no port
          "upstreams": {"app": {"servers": ["no such host.invalid:1"], "tls": 5}},
          "limits": {"headers": 100000, "header": 1},
          "worker": {"threads": 9}
        }"""
    )
    done = tailrace("check", "-c", str(file))
    assert done.returncode == 78
    pointers = [line.split(": ")[1] for line in done.stderr.splitlines()]
    assert sorted(pointers) == [
        "/limits/header",
        "/limits/headers",
        "/listeners/0/address",
        "/upstreams/app/servers/0",
        "/upstreams/app/tls",
        "/worker/threads",
    ]
    assert all(line.startswith(f"{file}: ") for line in done.stderr.splitlines())
    assert "found 100000, allowed: an integer from 1 to 256" in done.stderr
    assert tailrace("run", "-c", str(file)).returncode == 78


def test_first_syntax_error_has_its_place(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text('{\n  // a comment with a "\n  "limits": {},\n  "limits": {}\n}')
    done = tailrace("check", "-c", str(file))
    assert done.returncode == 78
    assert done.stderr.startswith(f"{file}:4:10: duplicate object key")
    assert len(done.stderr.splitlines()) == 1


def test_missing_file(tmp_path: Path) -> None:
    done = tailrace("check", "-c", str(tmp_path / "none.json"))
    assert done.returncode == 78
    assert "cannot be read: No such file or directory" in done.stderr


def test_environment_overrides_and_unknown_ones() -> None:
    bad = tailrace(
        "check",
        "-c",
        str(MINIMAL),
        env={
            "TAILRACE_CONF__LIMITS__HEADERS": "none",
            "TAILRACE_CONF__UPSTREAMS__APP__RETRIES": "9",
            "TAILRACE_CONF__LIMIT__HEADERS": "1",
            "TAILRACE_CONTROL": "unix:/nowhere",
        },
    )
    assert bad.returncode == 78
    lines = sorted(bad.stderr.splitlines())
    assert len(lines) == 3, bad.stderr
    assert "(set by TAILRACE_CONF__LIMITS__HEADERS)" in bad.stderr
    assert "(set by TAILRACE_CONF__UPSTREAMS__APP__RETRIES)" in bad.stderr
    assert "environment: TAILRACE_CONF__LIMIT__HEADERS: no scalar key" in bad.stderr
    good = tailrace("check", "-c", str(MINIMAL), env={"TAILRACE_CONF__LIMITS__HEADERS": "5"})
    assert good.returncode == 0


def test_token_file_must_hold_a_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    file = tmp_path / "token.json"
    config = json.loads(MINIMAL.read_text())
    listener = {"address": f"127.0.0.1:{free_port()}", "token_file": str(token)}
    config["control"] = {"listeners": [listener]}
    file.write_text(json.dumps(config))
    missing = tailrace("check", "-c", str(file))
    assert missing.returncode == 78
    assert "/control/listeners/0/token_file: No such file" in missing.stderr
    token.write_text("")
    assert "the file is empty" in tailrace("check", "-c", str(file)).stderr
    token.write_text("secret\n")
    assert tailrace("check", "-c", str(file)).returncode == 0


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("bogus",),
        ("run",),
        ("run", "-c"),
        ("run", "-x", "file"),
        ("check",),
        ("worker", "1", "3,4,5,6,7", "8"),
        ("collector",),
    ],
)
def test_wrong_usage(args: tuple[str, ...]) -> None:
    done = tailrace(*args)
    assert done.returncode == 2
    assert "usage: tailrace" in done.stderr


def test_version_and_help() -> None:
    version = tailrace("--version")
    assert version.returncode == 0
    for part in ("tailrace 0.", "llhttp 9.", "libevent 2.", "OpenSSL ", "SQLite 3."):
        assert part in version.stdout
    usage = tailrace("--help")
    assert (usage.returncode, usage.stderr) == (0, "")
    assert "show TRACE_ID" in usage.stdout
