"""The local Ark as a real process, one for each test file that asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dev.ark.control import ArkControl
from tests.support.jobs import as_new, local_ark


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ArkControl]:
    async with local_ark() as control:
        yield control


@pytest.fixture
async def ark(server: ArkControl) -> ArkControl:
    """Without the faults and switches of the test before."""
    return await as_new(server)
