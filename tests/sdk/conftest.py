"""One local Ark, as a process, for all tests with the provider's own SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dev.ark.control import ArkControl
from dev.process import running_ark


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[ArkControl]:
    limits = ("create_per_minute=null", "get_per_second=null", "delete_per_second=null", "list_per_second=null")
    switches = [word for limit in (*limits, "running_limit=1000", "callbacks=off") for word in ("--set", limit)]
    async with running_ark("--queued-seconds", "0", "--running-seconds", "0", *switches) as control:
        yield control


@pytest.fixture
async def ark(server: ArkControl) -> ArkControl:
    await server.clear_faults()
    return server
