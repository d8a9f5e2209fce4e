"""The fault tests. Without ``-m faults`` only a smoke of them runs; ``make faults`` runs them all.

``FAULTS_REPORT`` names the file that gets the tables.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.cells import Stage, staged
from tests.faults.report import Report

_REPORT = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: part of the full fault matrix, which takes minutes (make faults)")
    config.stash[_REPORT] = Report()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "faults" in (config.option.markexpr or ""):
        return
    full = [item for item in items if item.get_closest_marker("faults")]
    config.hook.pytest_deselected(items=full)
    items[:] = [item for item in items if item not in full]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash[_REPORT]
    if report.rows:
        terminalreporter.write_line("\n" + report.markdown())
    if report.rows and (path := os.environ.get("FAULTS_REPORT")):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(report.markdown())


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Report:
    return request.config.stash[_REPORT]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    """A stack for the tests of one module; at its end, the invariants that none of them may have broken."""
    async with staged() as stage:
        yield stage
        await stage.check()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served() -> AsyncIterator[Stage]:
    """The same, with a worker and a relay for the default namespace."""
    async with staged() as stage:
        await stage.stack.start_worker()
        await stage.stack.start_relay()
        yield stage
        await stage.check()
