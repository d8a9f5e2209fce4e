"""Places through the whole stack: the limit holds while workers die, and each user has a share."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from temporalio.client import WorkflowQueryFailedError

from dev.stack import running_stack
from seedance_temporal.contract import Queues
from tests.e2e.crowd import crowded, place_counts
from tests.e2e.requests import a_request, until_created
from tests.support.polling import until


@pytest.mark.timeout(600)
async def test_crowd_keeps_limit_and_shares() -> None:
    """The same with a thousand jobs is a fault test."""
    async with running_stack(speed=60, workers=False) as stack:
        await stack.start_relay()
        crowd = await crowded(stack, many=14, few=1, at_4k=1, places=2, trouble_every=5, seconds=400, kind_to_few=True)
    # Those that took a place before the job asked for its own, and while it was created.
    assert crowd.created_before <= 4


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_limit_set_again_counts_tasks() -> None:
    """While a worker had no limit, no job asked for a place."""
    limit, queue = {"SEEDANCE_TASKS_AT_ONCE": "2"}, Queues("byteplus").create
    async with running_stack(speed=2, workers=False) as stack:
        await stack.start_relay()
        worker = await stack.start_worker("worker", **limit)
        first = await stack.jobs.submit(a_request())
        await until_created(stack, first.id)
        await worker.stop()
        worker = await stack.start_worker("worker")
        unlimited = [await stack.jobs.submit(a_request()) for _ in range(3)]
        await asyncio.gather(*(until_created(stack, job.id) for job in unlimited))
        await worker.stop()
        await stack.start_worker("worker", **limit)
        await stack.jobs.submit(a_request())

        async def all_counted() -> bool:
            with suppress(WorkflowQueryFailedError):  # it read ahead
                return await place_counts(stack, queue) == (4, 1)
            return False

        await until(all_counted, "all four tasks have a place, and the fifth job waits", seconds=40)
