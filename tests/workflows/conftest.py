"""Servers, and a harness for each test, whose histories are replayed at its end."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from temporalio.client import Client

from tests.workflows.scripted import Harness, dev_server, skipping_server

QUEUES = ("workflows", "ledger", "create", "get", "list", "transfer")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal() -> AsyncIterator[Client]:
    async with dev_server() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def harness(temporal: Client, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Harness]:
    """A route with all its workers, on the real server."""
    harness = Harness(temporal)
    await harness.start_workers(*QUEUES)
    yield harness
    await harness.close()
    await check_harness(harness, caplog)


@pytest_asyncio.fixture(loop_scope="session")
async def idle(temporal: Client, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Harness]:
    """A route without workers; the test starts those that it needs."""
    harness = Harness(temporal)
    yield harness
    await harness.close()
    await check_harness(harness, caplog)


@pytest_asyncio.fixture(loop_scope="session")
async def skipping(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Harness]:
    """A route with all its workers, on a server whose clock jumps."""
    async with skipping_server() as client:
        harness = Harness(client, search_attributes=())
        await harness.start_workers(*QUEUES)
        yield harness
        await harness.close()
        await check_harness(harness, caplog)


async def check_harness(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    """Assert that no unplanned activity was called, no workflow task failed, and all histories can be replayed."""
    assert harness.fake.unexpected == []
    logged = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    said = [(record.levelno, record.getMessage()) for record in logged if record.name.startswith("temporalio")]
    trouble = [text for level, text in said if level >= logging.ERROR or "Failed activation" in text]
    # Only a signal that cannot be decoded may be dropped.
    assert [text for text in trouble if not text.startswith("Failed deserializing signal input")] == []
    await harness.replay()
