"""Fixtures that start gateways, apps and scripted servers and stop all of them after the test."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import (
    AppServer,
    Gateway,
    Program,
    StubServer,
    start_gateway,
    start_stub,
    start_uvicorn,
)
from proxy_tools import OK, always
from tls_tools import Authority, listen

_REPORT = pytest.StashKey[pytest.TestReport]()
LOG_TAIL = 8000  # characters of a failed test's logs that are shown


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the report of the test's own phase, so that fixtures know whether it failed."""
    report = yield
    if report.when == "call":
        item.stash[_REPORT] = report
    return report


def _show_logs(request: pytest.FixtureRequest, programs: list[Any]) -> None:
    report = request.node.stash.get(_REPORT, None)
    if report is not None and not report.failed:
        return
    for program in programs:
        assert isinstance(program, Program)
        print(f"--- {program.log_path}\n{program.log()[-LOG_TAIL:]}")


@pytest.fixture
def gateway_factory(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[..., Gateway]]:
    """Return start_gateway() for this test; each must end with status 0 unless it was killed."""
    started: list[Gateway] = []

    def start(servers: list[str], **sections: Any) -> Gateway:
        started.append(start_gateway(tmp_path, servers, **sections))
        return started[-1]

    yield start
    statuses = []
    for gateway in started:
        running = gateway.process.poll() is None
        try:
            status = gateway.stop()
        except AssertionError:
            gateway.kill()
            status = -1
        statuses.append(status if running else 0)
    _show_logs(request, started)
    assert not any(statuses), f"exit statuses after SIGTERM: {statuses}"


@pytest.fixture
def gateway_starter(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[..., Gateway]]:
    """Return start_gateway() for a test that ends its gateways itself; what is left is killed."""
    started: list[Gateway] = []

    def start(servers: list[str], **sections: Any) -> Gateway:
        started.append(start_gateway(tmp_path, servers, **sections))
        return started[-1]

    yield start
    for gateway in started:
        gateway.kill()
        gateway.stop()
    _show_logs(request, started)


@pytest.fixture
def uvicorn_factory(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[..., AppServer]]:
    """Return start_uvicorn() for this test."""
    started: list[AppServer] = []

    def start(app: str, **options: Any) -> AppServer:
        started.append(start_uvicorn(tmp_path, app, **options))
        return started[-1]

    yield start
    for server in started:
        server.kill()
    _show_logs(request, started)


@pytest.fixture
def stub_factory() -> Iterator[Callable[..., StubServer]]:
    """Return start_stub() for this test."""
    started: list[StubServer] = []

    def start(handler: Callable[..., None]) -> StubServer:
        started.append(start_stub(handler))
        return started[-1]

    yield start
    for stub in started:
        stub.stop()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a certificate authority for all tests of a session."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def served(
    gateway_factory: Callable[..., Gateway],
    stub_factory: Callable[..., StubServer],
    authority: Authority,
) -> tuple[Gateway, Authority]:
    """Return a gateway that serves TLS with one certificate in front of a scripted app."""
    stub = stub_factory(always(OK))
    certificate = authority.issue("app.example")
    return gateway_factory([stub.address], listener=listen(certificate)), authority
