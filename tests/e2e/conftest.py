"""One embedded stack for all end-to-end tests; at its end, the invariants that no test may have broken."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dev.stack import Stack, running_stack
from tests.e2e.invariants import check_invariants


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[Stack]:
    """The whole stack, with a worker of each route: ``byteplus`` receives callbacks, ``volcengine`` only polls."""
    # 60 times as fast as the real provider: a task runs for two seconds.
    async with running_stack(speed=60) as stack:
        await stack.start_worker("worker-polling", ARK_ROUTE="volcengine", SEEDANCE_CALLBACK_URL="")
        yield stack
        await check_invariants(stack)
