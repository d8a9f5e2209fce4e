"""One embedded stack, with one stored video, for everything that the pages show."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dev.stack import API_KEYS, Stack, running_stack
from seedance_temporal.request import VideoRequest
from tests.docs.pages import ROOT


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[Stack]:
    async with running_stack(speed=60) as stack:
        yield stack


@pytest.fixture(scope="session")
async def stored_job(stack: Stack) -> str:
    """The job id for JOB: that of the example, stored."""
    request = VideoRequest.from_json((ROOT / "examples" / "product-shot.json").read_bytes())
    submitted = await stack.jobs.submit(request)
    await submitted.result()
    return submitted.id


@pytest.fixture(scope="session")
def shell_environment(stack: Stack) -> dict[str, str]:
    """What the pages' commands run with: this interpreter is ``python``, and everything leads to the stack."""
    commands = Path(sys.executable).parent
    return stack.environment | {
        "PATH": f"{commands}:{stack.environment['PATH']}",
        "ARK_API_KEY": API_KEYS["byteplus"],
        "ARK_BASE_URL": stack.ark.base_url("byteplus"),
    }
