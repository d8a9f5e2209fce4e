"""The account's budget through the whole stack: by the provider's own ledger."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from dev.stack import Stack
from seedance_temporal import JobState
from seedance_temporal.provider.rules import Rules
from tests.e2e.requests import a_request

VIDEOS, SUBMITTED, USERS, WORKERS = 10, 200, 50, 3


@pytest.fixture
async def budgeted(stack: Stack) -> AsyncIterator[Stack]:
    """Three workers that keep to a day's budget of so many videos, in place of the one without."""
    await stack.children["worker"].stop()
    budget = VIDEOS * (Rules().estimate(a_request()).usd or 0)
    names = [f"worker-budget-{number}" for number in range(WORKERS)]
    await asyncio.gather(*(stack.start_worker(name, SEEDANCE_MAX_USD_PER_DAY=f"{budget:.6f}") for name in names))
    yield stack
    await asyncio.gather(*(stack.children[name].stop() for name in names))
    await stack.start_worker()


@pytest.mark.timeout(500)
async def test_racing_users_share_one_budget(budgeted: Stack) -> None:
    requests = [a_request(user_id=f"user-with-budget-{number % USERS}") for number in range(SUBMITTED)]
    submitted = await asyncio.gather(*(budgeted.jobs.submit(request) for request in requests))
    ended = await asyncio.gather(*(_ended(budgeted, job.id) for job in submitted))

    assert Counter(job.phase for job in ended) == {"stored": VIDEOS, "failed": SUBMITTED - VIDEOS}
    errors = [job.error for job in ended if job.error is not None]
    assert {(error.code, error.failure_class, error.attempt) for error in errors} == {("over_budget", "invalid", None)}
    prompts = {str(request.prompt) for request in requests}
    creates = [entry for entry in await budgeted.ark.ledger() if any(prompt in str(entry.body) for prompt in prompts)]
    assert len(creates) == VIDEOS
    assert all(entry.committed for entry in creates)
    # Each entry has what its video was billed with.
    names = [stored.name for stored in await budgeted.bucket.list("") if "/limits/" in stored.name]
    assert Counter(name.split("/")[-2] for name in names) == {"log": VIDEOS, "actual": VIDEOS}


async def _ended(stack: Stack, job_id: str) -> JobState:
    """Return a job once it has ended; of hundreds at once, none is asked often."""
    states = [job async for job in stack.jobs.job(job_id).follow(every=2)]
    return states[-1]
