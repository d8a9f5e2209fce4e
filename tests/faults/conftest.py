"""The fault tests. Without ``-m faults`` only a smoke of them runs; ``make faults`` runs them all.

``FAULTS_REPORT`` names the file that gets the tables.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.cases import Harness, started_harness
from tests.faults.report import AddRow, Report

_ROW = "faults: "
_TABLES = Report()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the rows from the reports of tests, so that tests may run in several processes."""
    if report.when == "teardown":
        for name, row in report.user_properties:
            if name.startswith(_ROW):
                _TABLES.add(name.removeprefix(_ROW), row)  # type: ignore[arg-type]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _TABLES.rows:
        terminalreporter.write_line("\n" + _TABLES.markdown())
    # One of several processes has the rows of its own tests only.
    if _TABLES.rows and (path := os.environ.get("FAULTS_REPORT")) and "PYTEST_XDIST_WORKER" not in os.environ:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(_TABLES.markdown())


@pytest.fixture
def report(request: pytest.FixtureRequest) -> AddRow:
    """Add a row to a table of the report, by the table's title; its keys are the columns."""

    def add(title: str, row: dict[str, object]) -> None:
        request.node.user_properties.append((_ROW + title, {name: str(value) for name, value in row.items()}))

    return add


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def harness() -> AsyncIterator[Harness]:
    """A stack for the tests of one module; the invariants are checked at its end."""
    async with started_harness() as harness:
        yield harness
        await harness.check()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served() -> AsyncIterator[Harness]:
    """The same, with a worker and a relay for the default namespace."""
    async with started_harness() as harness:
        await harness.stack.start_worker()
        await harness.stack.start_relay()
        yield harness
        await harness.check()
