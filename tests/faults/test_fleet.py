"""Three worker processes of one account keep its rates, and one user's backlog delays no other.

tests/integration/test_rates.py does the same on a smaller scale.
"""

from __future__ import annotations

import asyncio
import uuid

import pytest

from tests.e2e.requests import a_request
from tests.faults.fleets import (
    created_before_done,
    creates_by_second,
    fleet_stack,
    flood,
    most_over,
    requests_by_second,
    start_workers,
    submit_all,
)
from tests.faults.report import AddRow
from workers.rates import GETS_PER_SECOND, LISTS_PER_SECOND

TITLE = "A fleet's requests"
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
MODEL_4K = "dreamina-seedance-2-0-260128"
# After a pause, a queue gives out one second's worth at once: docs/how-to/rates.md.
MOST_GETS_AT_ONCE = 50
JOBS, JOBS_4K, LOST = 240, 20, 8
BACKLOG = 1_000


async def test_fleet_keeps_rates(report: AddRow) -> None:
    creates, creates_4k = 300, 60
    settings = {
        "SEEDANCE_CREATES_PER_MINUTE": f"{creates}",
        "SEEDANCE_CREATES_PER_MINUTE_4K": f"{creates_4k}",
        # More than the rate of copies, so that it is the rate that holds them.
        "SEEDANCE_COPIES_AT_ONCE": "20",
        "SEEDANCE_CREATE_TIMEOUT_SECONDS": "5",
        "SEEDANCE_RECOVERY_SECONDS": "20",
    }
    async with fleet_stack(**settings) as stack:
        # Each listing has five pages.
        await stack.ark.add_foreign("byteplus", count=2_100)
        requests = [a_request(user_id=f"user-{number % 7}") for number in range(JOBS)]
        for request in requests[:LOST]:
            await stack.ark.fault("create", "lost_after_commit", contains=request.prompt)
        requests += [a_request(model=MODEL_4K, resolution="4k") for _ in range(JOBS_4K)]
        jobs = await submit_all(stack, requests)
        flooding = asyncio.create_task(flood(stack, polls=300, copies=60))
        await start_workers(stack, 3)
        await asyncio.gather(flooding, *(job.result() for job in jobs))
        over = {}
        for limit, is_4k in ((creates, False), (creates_4k, True)):
            # A claim takes a moment, more or less, so creates that were started evenly can arrive in one second.
            seconds = await creates_by_second(stack, is_4k=is_4k)
            assert seconds.total() == (JOBS_4K if is_4k else JOBS)
            over[is_4k] = most_over(seconds, limit / 60)
            assert over[is_4k] <= limit / 10, seconds
        gets = await requests_by_second(stack, "get")
        assert gets.total() >= 360 + 2 * len(jobs)
        burst = most_over(gets, GETS_PER_SECOND)
        assert burst <= MOST_GETS_AT_ONCE - GETS_PER_SECOND, gets
        lists = await requests_by_second(stack, "list")
        assert lists.total() >= 5
        assert max(lists.values()) <= LISTS_PER_SECOND
    report(
        TITLE,
        {
            "what": f"{len(jobs)} jobs, 3 workers",
            "creates over 5 a second": f"{over[False]:.0f}",
            "creates at 4k over 1 a second": f"{over[True]:.0f}",
            "most GETs in a second": max(gets.values()),
            "most LISTs in a second": max(lists.values()),
        },
    )


async def test_backlog_of_one_user_delays_no_other(report: AddRow) -> None:
    async with fleet_stack(SEEDANCE_CREATES_PER_MINUTE="60") as stack:
        mark = uuid.uuid4().hex
        backlog = [a_request(user_id="busy", prompt=f"{mark} {number}") for number in range(BACKLOG)]
        await submit_all(stack, backlog)
        await start_workers(stack, 3)
        jobs = await submit_all(stack, [a_request(user_id="other") for _ in range(10)])
        created = await created_before_done(stack, mark, jobs, most=BACKLOG // 10)
    report("Turns of users", {"what": f"10 jobs behind {BACKLOG}", "created before they were stored": created})
