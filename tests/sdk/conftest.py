"""One local Ark, as a process, for all tests with the provider's own SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dev.ark.control import ArkControl
from dev.process import running_ark
from tests.support.jobs import TODAY

_LIMITED = (("create", "minute"), ("get", "second"), ("delete", "second"), ("list", "second"))


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[ArkControl]:
    unlimited = ["create_per_minute_4k=null", *(f"{name}_per_{time}=null" for name, time in _LIMITED)]
    switches = [*unlimited, "running_limit=1000", "running_limit_4k=1000", "callbacks=off", TODAY]
    flags = [word for switch in switches for word in ("--set", switch)]
    async with running_ark("--queued-seconds", "0", "--running-seconds", "0", *flags) as control:
        yield control


@pytest.fixture
async def ark(server: ArkControl) -> ArkControl:
    await server.clear_faults()
    return server
