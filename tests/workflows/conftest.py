"""Servers, and a harness for each test, whose histories are replayed at its end."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from temporalio.client import Client

from tests.replay.record import record
from tests.support.servers import dev_server, skipping_server
from tests.workflows.harness import Harness

SUGGESTED_FROM = 40


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def temporal() -> AsyncIterator[Client]:
    async with dev_server() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def idle(temporal: Client, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Harness]:
    """A route without workers, on the real server; the test starts those that it needs."""
    async with checked_harness(temporal, caplog) as harness:
        yield harness


@pytest_asyncio.fixture(loop_scope="session")
async def harness(idle: Harness) -> Harness:
    """A route with all its workers, on the real server."""
    await idle.start_workers()
    return idle


@pytest_asyncio.fixture(loop_scope="session", params=[False, True], ids=["this SDK", "coming SDK"])
async def both_orders(request: pytest.FixtureRequest, idle: Harness) -> Harness:
    """The same, once in each order in which SDKs deliver what arrives at once."""
    idle.single_batch = request.param
    await idle.start_workers()
    return idle


@pytest_asyncio.fixture(loop_scope="session")
async def unsandboxed(monkeypatch: pytest.MonkeyPatch, idle: Harness) -> Harness:
    """The same, for a test that patches ``policies``: the patches still hold in the replay at the end."""
    idle.sandboxed = False
    await idle.start_workers()
    return idle


@pytest_asyncio.fixture(loop_scope="session")
async def skipping(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Harness]:
    """A route with all its workers, on a server whose clock jumps."""
    async with skipping_server() as client, checked_harness(client, caplog) as harness:
        harness.fake.search_attributes = ()
        await harness.start_workers()
        yield harness


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def renewing_server() -> AsyncIterator[Client]:
    """A server that suggests to continue as new after a few events."""
    async with dev_server(
        "--dynamic-config-value", f"limit.historyCount.suggestContinueAsNew={SUGGESTED_FROM}"
    ) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def renewing(renewing_server: Client, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Harness]:
    """A route with all its workers, whose runs soon continue as new."""
    async with checked_harness(renewing_server, caplog) as harness:
        await harness.start_workers()
        yield harness


@asynccontextmanager
async def checked_harness(client: Client, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Harness]:
    """Return a harness, and check at the end that all went as planned.

    Raises:
        AssertionError: An unplanned activity was called, a workflow task failed, or a history cannot be replayed.
    """
    harness = Harness(client)
    yield harness
    await harness.close()
    assert harness.fake.unexpected == []
    logged = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    # On a busy machine a step can take the two seconds after which the SDK begins it anew. One that hangs never ends.
    logged = [record for record in logged if not (record.exc_info and "[TMPRL1101]" in str(record.exc_info[1]))]
    messages = [(record.levelno, record.getMessage()) for record in logged if record.name.startswith("temporalio")]
    trouble = [text for level, text in messages if level >= logging.ERROR or "Failed activation" in text]
    # Only a signal that cannot be decoded may be dropped.
    assert [text for text in trouble if not text.startswith("Failed deserializing signal input")] == []
    await harness.replay()
    await record(harness)
