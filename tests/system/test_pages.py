"""The dashboard's files, as the control listener serves them."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator

import pytest
from harness import ROOT, Gateway, start_gateway

#: `make test` brings the dashboard's packages; a build without them says so instead.
BUILT = (ROOT / "build" / "web" / "deps").exists()
FIRST_VIEW_BYTES_MAX = 150_000


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose app is not there: pages need none."""
    gateway = start_gateway(tmp_path_factory.mktemp("pages"), ["127.0.0.1:9"])
    yield gateway
    gateway.stop()


def test_pages_or_why_there_are_none(gateway: Gateway) -> None:
    """All that the first view needs, gzipped, under a policy that allows nothing foreign."""
    status, _, body = gateway.api("/")
    if not BUILT:
        assert status == 404
        assert json.loads(body)["error"]["code"] == "no_dashboard"
        return
    size = 0
    for path in ("/", "/app.js", "/style.css", "/icon.svg"):
        status, fields, body = gateway.api(path)
        assert status == 200 and fields["content-encoding"] == "gzip"
        assert fields["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in fields["content-security-policy"]
        assert fields["x-content-type-options"] == "nosniff"
        size += len(body)
        text = gzip.decompress(body).decode()
        if path == "/":
            assert 'src="/app.js"' in text and "<script>" not in text and "style=" not in text
        again = gateway.api(path, headers={"If-None-Match": fields["etag"]})
        assert again[0] == 304 and again[2] == b""
        head = gateway.api(path, method="HEAD")
        assert head[0] == 200 and head[2] == b""
        assert int(head[1]["content-length"]) == len(body)
    assert size < FIRST_VIEW_BYTES_MAX


@pytest.mark.skipif(not BUILT, reason="built without the dashboard")
def test_speedscope_and_licences(gateway: Gateway) -> None:
    """speedscope's files with theirs beside them; its page alone may have inline styles."""
    status, fields, body = gateway.api("/speedscope/")
    assert status == 200
    policy = fields["content-security-policy"]
    assert "script-src 'self';" in policy and "unsafe-eval" not in policy
    page = gzip.decompress(body).decode()
    assert "<script>" not in page and "://" not in page
    for name in re.findall(r'(?:src|href)="([^"]+\.(?:js|css))"', page):
        assert gateway.api(f"/speedscope/{name}")[0] == 200, name
    licence = gzip.decompress(gateway.api("/speedscope/LICENSE.txt")[2]).decode()
    assert "MIT" in licence and "Jamie Wong" in licence
    licences = gzip.decompress(gateway.api("/licences.txt")[2]).decode()
    for name in ("preact", "htm", "uplot", "d3-flame-graph"):
        assert f"== {name} ==" in licences


def test_pages_take_no_other_method(gateway: Gateway) -> None:
    """What is no GET falls through to the table of endpoints."""
    assert gateway.api("/", method="POST", body=b"")[0] == 404
