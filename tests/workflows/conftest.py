"""Servers, and a stage for each test, whose histories are replayed when it is over."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from temporalio.client import Client

from tests.workflows.scripted import Stage, dev_server, skipping_server

QUEUES = ("workflows", "ledger", "create", "get", "list", "transfer")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal() -> AsyncIterator[Client]:
    async with dev_server() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def stage(temporal: Client, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Stage]:
    """A route with all its workers, on the real server."""
    stage = Stage(temporal)
    await stage.serve(*QUEUES)
    yield stage
    await stage.close()
    await hold_to_account(stage, caplog)


@pytest_asyncio.fixture(loop_scope="session")
async def still(temporal: Client, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Stage]:
    """A route without workers; the test starts those that it wants."""
    stage = Stage(temporal)
    yield stage
    await stage.close()
    await hold_to_account(stage, caplog)


@pytest_asyncio.fixture(loop_scope="session")
async def skipping(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Stage]:
    """A route with all its workers, on a server whose clock jumps."""
    async with skipping_server() as client:
        stage = Stage(client, search_attributes=())
        await stage.serve(*QUEUES)
        yield stage
        await stage.close()
        await hold_to_account(stage, caplog)


async def hold_to_account(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing outside the script happened, no workflow task failed, and all that happened can be replayed."""
    assert stage.script.unwritten == []
    logged = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    said = [(record.levelno, record.getMessage()) for record in logged if record.name.startswith("temporalio")]
    trouble = [text for level, text in said if level >= logging.ERROR or "Failed activation" in text]
    # The one thing that may be dropped is a signal that nobody can read.
    assert [text for text in trouble if not text.startswith("Failed deserializing signal input")] == []
    await stage.replay()
