"""The order of activities in their queues, by Temporal's priority keys: a lower one goes first."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from temporalio.common import Priority

from seedance_temporal.contract import BATCH, INTERACTIVE, priority_of
from tests.support.jobs import a_request
from tests.support.polling import until
from tests.workflows.fakes import OTHER_TASK, OURS, RESULT, adopt, created, to_store, waiting
from tests.workflows.harness import Harness, Job
from workflows import policies

HOUR = timedelta(hours=1).total_seconds()


async def keys(job: Job, name: str) -> list[int]:
    """Return the priority keys that the run gave an activity; 0 where it has the job's."""
    return [event.priority.priority_key for event in await job.scheduled(name)]


async def test_announced_poll_goes_before_routine_polls(harness: Harness) -> None:
    """The polls of three jobs are due, and wait in the queue, when a callback announces the end of a fourth task."""
    harness.fake.always("read_ledger", adopt())
    harness.fake.always("store_video", RESULT)
    harness.fake.always("get_task", waiting("running", seconds=HOUR))
    announced = await harness.start(take=4)
    await announced.until_waiting()
    await harness.stop("get")
    routine = [await harness.start(take=take) for take in (1, 2, 3)]
    for job in routine:
        await until(partial(job.scheduled, "get_task"), "its poll waits")
    await announced.callback("failed")

    async def waits_too() -> bool:
        return len(await announced.scheduled("get_task")) == 2

    await until(waits_too, "the poll after the callback waits")
    harness.fake.calls.clear()
    harness.fake.always("get_task", to_store())
    await harness.start_workers("get")
    for job in (announced, *routine):
        assert await job.result() == RESULT
    assert await keys(announced, "get_task") == [0, 2]
    assert [await keys(job, "get_task") for job in routine] == [[0]] * 3


@pytest.mark.parametrize(("left", "key"), [(5 * HOUR, 1), (7 * HOUR, 0)])
async def test_copy_whose_url_ends_soon_goes_first(harness: Harness, left: float, key: int) -> None:
    harness.fake.follow(to_store(left))
    harness.fake.plan("store_video", RESULT)
    job = await harness.start()
    assert await job.result() == RESULT
    assert await keys(job, "store_video") == [key]


async def test_named_task_is_asked_for_before_routine_polls(harness: Harness) -> None:
    harness.fake.create(created(seconds=0.2), attempt=2)
    harness.fake.plan("identify_task", OURS)
    harness.fake.always("read_ledger", adopt())
    harness.fake.finish()
    job = await harness.start()
    await job.callback("running", OTHER_TASK)
    assert await job.result() == RESULT
    assert await keys(job, "identify_task") == [2]


def test_keys_keep_their_order() -> None:
    assert [policies.BEFORE_URL_ENDS.priority_key, policies.ASKED_FOR.priority_key, INTERACTIVE, BATCH] == [1, 2, 3, 4]


def test_priority_stays_within_users_share() -> None:
    plain = priority_of(a_request(user_id="user-42"))
    first = priority_of(a_request(user_id="user-42", priority=9))
    other = priority_of(a_request(user_id="user-43", priority=9))
    assert plain.priority_key == first.priority_key == INTERACTIVE, "no user goes before another by it"
    assert len({plain.fairness_key, first.fairness_key, other.fairness_key}) == 3
    assert priority_of(a_request(user_id="user-42"), batch=True) == Priority(
        priority_key=BATCH, fairness_key=plain.fairness_key
    )
    assert all(len(str(each.fairness_key)) <= 64 for each in (plain, first)), "the server takes no longer key"
