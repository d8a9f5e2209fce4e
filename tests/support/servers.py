"""Real Temporal servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from dev.stack import SERVER_OPTIONS
from seedance_temporal.contract import SEARCH_ATTRIBUTES

_BIN = Path(__file__).parents[2] / ".venv/bin"


@asynccontextmanager
async def dev_server(*options: str, attributes: Collection[Any] = SEARCH_ATTRIBUTES) -> AsyncIterator[Client]:
    """Run a server, with these options of its command line."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(_BIN / "temporal"),
        dev_server_log_level="error",
        dev_server_extra_args=[*SERVER_OPTIONS, *options],
        data_converter=pydantic_data_converter,
        search_attributes=tuple(attributes),
    ) as environment:
        yield environment.client


@asynccontextmanager
async def skipping_server() -> AsyncIterator[Client]:
    """Run a server whose clock jumps while a result is awaited. It knows no search attributes of ours."""
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(_BIN / "temporal-test-server"), data_converter=pydantic_data_converter
    ) as environment:
        yield environment.client
