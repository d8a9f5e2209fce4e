"""Limits per user and day, through the whole stack: by the provider's own ledger."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from dev.stack import Stack
from tests.e2e.operator import reset
from tests.e2e.requests import a_request, creates_of, entries_of, until_ended
from tests.support.jobs import found

LIMIT, SUBMITTED = 3, 12


@pytest.fixture
async def limited(stack: Stack) -> AsyncIterator[Stack]:
    """Two workers that keep to the limit, in place of the one without limits."""
    await stack.children["worker"].stop()
    limits = {"SEEDANCE_MAX_JOBS_PER_USER_DAY": str(LIMIT), "SEEDANCE_MAX_USD_PER_REQUEST": "0.25"}
    names = ["worker-limited-1", "worker-limited-2"]
    await asyncio.gather(*(stack.start_worker(name, **limits) for name in names))
    yield stack
    await asyncio.gather(*(stack.children[name].stop() for name in names))
    await stack.start_worker()


async def test_racing_submissions_keep_limit(limited: Stack) -> None:
    """Several requests of one user at once, some of them reset meanwhile; another user is not held up."""
    requests = [a_request(user_id="user-with-a-limit") for _ in range(SUBMITTED)]
    other = a_request(user_id="another-user")
    submitted = await asyncio.gather(*(limited.jobs.submit(request) for request in [*requests, other]))
    *job_ids, other_id = [job.id for job in submitted]
    ended = await asyncio.gather(*(until_ended(limited, job_id) for job_id in job_ids))

    assert Counter(job.phase for job in ended) == {"stored": LIMIT, "failed": SUBMITTED - LIMIT}
    errors = [job.error for job in ended if job.error is not None]
    assert {(error.code, error.failure_class, error.attempt) for error in errors} == {("over_limit", "invalid", None)}
    assert all(f"allows {LIMIT}" in error.message for error in errors)
    assert (await until_ended(limited, other_id)).phase == "stored"

    # After a Reset, a job with a quota entry goes on, and a refused one stays refused.
    stored = [job.job_id for job in ended if job.phase == "stored"]
    refused = [job.job_id for job in ended if job.phase == "failed"]
    for job_id in (stored[0], refused[0]):
        await reset(limited, job_id)
    assert (await until_ended(limited, stored[0])).phase == "stored"
    assert (await until_ended(limited, refused[0])).phase == "failed"
    # Submitted again, it is another run; the day is still over its limit.
    request = next(request for request, job_id in zip(requests, job_ids, strict=True) if job_id == refused[1])
    assert found(await limited.jobs.submit(request)).phase == "checking"
    assert (await until_ended(limited, refused[1])).phase == "failed"

    creates = [entry for request in requests for entry in await creates_of(limited, request)]
    assert len(creates) == LIMIT
    assert all(entry.committed for entry in creates)
    assert len(await entries_of(limited, [*job_ids, other_id])) == LIMIT + 1


async def test_expensive_request_is_refused_with_figures(limited: Stack) -> None:
    request = a_request(duration=15)
    job = await until_ended(limited, (await limited.jobs.submit(request)).id)
    assert job.error is not None
    assert job.error.code == "over_limit"
    assert re.search(r"up to 0\.5\d+ USD .* allows 0\.2500 USD", job.error.message)
    assert await creates_of(limited, request) == []
