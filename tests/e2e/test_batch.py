"""A batch through the whole stack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dev.stack import Stack
from tests.e2e.batches import interrupted_and_run_again


@pytest.fixture
async def quick(stack: Stack) -> AsyncIterator[Stack]:
    """A worker and a provider that accept many creates in a few seconds."""
    usual = await stack.ark.configure()
    await stack.ark.configure(create_per_minute=None, running_limit=1_000)
    await stack.children["worker"].stop()
    await stack.start_worker("worker-quick", SEEDANCE_CREATES_PER_MINUTE="60000")
    yield stack
    await stack.children["worker-quick"].stop()
    await stack.start_worker()
    await stack.ark.configure(**{name: usual[name] for name in ("create_per_minute", "running_limit")})


@pytest.mark.faults
async def test_interrupted_batch_is_run_again(quick: Stack, tmp_path: Path) -> None:
    """The same with 1,000 lines is a fault test."""
    await interrupted_and_run_again(quick, tmp_path, good=60, seconds=200)
