"""Limits per user and day, through the whole stack: by the provider's own ledger."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from dev.stack import Stack
from seedance_temporal import JobState
from tests.e2e.operator import reset_to_the_first_task
from tests.e2e.requests import a_request, creates_of
from tests.support.jobs import found

LIMIT, SUBMITTED = 10, 50


@pytest.fixture
async def limited(stack: Stack) -> AsyncIterator[Stack]:
    """Two workers that keep to the limit, in place of the one that knows none."""
    await stack.children["worker"].stop()
    limits = {"SEEDANCE_MAX_JOBS_PER_USER_DAY": str(LIMIT), "SEEDANCE_MAX_USD_PER_REQUEST": "0.25"}
    names = ["worker-limited-1", "worker-limited-2"]
    await asyncio.gather(*(stack.start_worker(name, **limits) for name in names))
    yield stack
    await asyncio.gather(*(stack.children[name].stop() for name in names))
    await stack.start_worker()


async def _end(stack: Stack, job_id: str) -> JobState:
    async for job in stack.jobs.job(job_id).follow():
        last = job
    return last


async def test_of_fifty_racing_submissions_ten_are_created(limited: Stack) -> None:
    """Several requests of one user at once, some of them reset meanwhile; nobody else is held up by it."""
    requests = [a_request(user_id="user-with-a-limit") for _ in range(SUBMITTED)]
    other = a_request(user_id="another-user")
    submitted = await asyncio.gather(*(limited.jobs.submit(request) for request in [*requests, other]))
    *job_ids, other_id = [job.id for job in submitted]
    ended = await asyncio.gather(*(_end(limited, job_id) for job_id in job_ids))

    assert Counter(job.phase for job in ended) == {"stored": LIMIT, "failed": SUBMITTED - LIMIT}
    errors = [job.error for job in ended if job.error is not None]
    assert {(error.code, error.failure_class, error.attempt) for error in errors} == {("over_limit", "invalid", None)}
    assert all(f"allows {LIMIT}" in error.message for error in errors)
    assert (await _end(limited, other_id)).phase == "stored"

    # What has had its place goes on after a Reset, and what was refused stays refused.
    stored = [job.job_id for job in ended if job.phase == "stored"]
    refused = [job.job_id for job in ended if job.phase == "failed"]
    for job_id in (stored[0], refused[0]):
        await reset_to_the_first_task(limited, job_id)
    assert (await _end(limited, stored[0])).phase == "stored"
    assert (await _end(limited, refused[0])).phase == "failed"
    # Asked for again, it is another run; the day is still over its limit.
    request = next(request for request, job_id in zip(requests, job_ids, strict=True) if job_id == refused[1])
    assert found(await limited.jobs.submit(request)).phase == "checking"
    assert (await _end(limited, refused[1])).phase == "failed"

    creates = [entry for request in requests for entry in await creates_of(limited, request)]
    assert len(creates) == LIMIT
    assert all(entry.committed for entry in creates)
    assert len([o for o in await limited.bucket.list("") if "/limits/" in o.name]) == LIMIT + 1


async def test_a_request_over_the_limit_for_one_is_refused_with_the_figures(limited: Stack) -> None:
    request = a_request(duration=15)
    job = await _end(limited, (await limited.jobs.submit(request)).id)
    assert job.error is not None
    assert job.error.code == "over_limit"
    assert re.search(r"up to 0\.5\d+ USD .* allows 0\.2500 USD", job.error.message)
    assert await creates_of(limited, request) == []
