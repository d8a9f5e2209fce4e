"""Three workers of one account keep its rates, and one user's backlog delays nobody else."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from tests.e2e.fleets import (
    created_before_done,
    creates_by_second,
    fleet_stack,
    flood,
    most_over,
    requests_by_second,
    start_workers,
    submit_all,
)
from tests.e2e.requests import a_request
from workers.rates import GETS_PER_SECOND, LISTS_PER_SECOND

pytestmark = pytest.mark.timeout(400)
MODEL_4K = "dreamina-seedance-2-0-260128"
# After a pause, a queue gives out one second's worth at once: docs/how-to/limits.md.
MOST_GETS_AT_ONCE = 50


async def test_fleet_keeps_rates() -> None:
    creates, creates_4k = 120, 60
    settings = {
        "SEEDANCE_CREATES_PER_MINUTE": f"{creates}",
        "SEEDANCE_CREATES_PER_MINUTE_4K": f"{creates_4k}",
        "SEEDANCE_CREATE_TIMEOUT_SECONDS": "5",
        "SEEDANCE_RECOVERY_SECONDS": "20",
    }
    async with fleet_stack(**settings) as stack:
        # Each listing has five pages.
        await stack.ark.add_foreign("byteplus", count=2_100)
        requests = [a_request(user_id=f"user-{number % 7}") for number in range(50)]
        for request in requests[::10]:
            await stack.ark.fault("create", "lost_after_commit", contains=request.prompt)
        requests += [a_request(model=MODEL_4K, resolution="4k") for _ in range(15)]
        jobs = await submit_all(stack, requests)
        flooding = asyncio.create_task(flood(stack, polls=300, copies=60))
        await start_workers(stack, 3)
        await asyncio.gather(flooding, *(job.result() for job in jobs))
        for limit, is_4k in ((creates, False), (creates_4k, True)):
            # A claim takes a moment, more or less, so creates that were started evenly can arrive in one second.
            seconds = await creates_by_second(stack, is_4k=is_4k)
            assert most_over(seconds, limit / 60) <= limit / 10, seconds
        gets = await requests_by_second(stack, "get")
        assert gets.total() >= 360 + 2 * len(jobs)
        assert most_over(gets, GETS_PER_SECOND) <= MOST_GETS_AT_ONCE - GETS_PER_SECOND, gets
        lists = await requests_by_second(stack, "list")
        assert lists.total() >= 5
        assert max(lists.values()) <= LISTS_PER_SECOND
        print(list(gets.items()), list(lists.items()), [await creates_by_second(stack, is_4k=x) for x in (0, 1)])


async def test_backlog_of_one_user_delays_no_other() -> None:
    async with fleet_stack(SEEDANCE_CREATES_PER_MINUTE="90") as stack:
        mark = uuid.uuid4().hex
        await submit_all(stack, [a_request(user_id="busy", prompt=f"{mark} {number}") for number in range(300)])
        await start_workers(stack, 1)
        jobs = await submit_all(stack, [a_request(user_id="other") for _ in range(10)])
        await created_before_done(stack, mark, jobs, most=30)
