"""A long run continues as new, and no signal or update of the old run is lost."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.api.enums.v1 import EventType

from seedance_temporal.contract import SEEDANCE_ATTENTION, SEEDANCE_PHASE, SEEDANCE_TASK_ID
from tests.replay.replaying import replay
from tests.support.jobs import detail_of
from tests.support.polling import until
from tests.workflows.conftest import SUGGESTED_FROM
from tests.workflows.fakes import (
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    TASK,
    TOO_LATE,
    Held,
    adopt,
    claim,
    created,
    not_sent,
    recover,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, Job


@pytest.fixture
def harness(renewing: Harness) -> Harness:
    return renewing


async def noise(job: Job, until_events: int = SUGGESTED_FROM + 5) -> None:
    """Make the history long, by callbacks that change nothing."""
    for _ in range(until_events):
        await job.callback("running")


async def was_continued(job: Job) -> bool:
    return (await job.events())[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW


async def test_long_wait_continues_with_timeline(harness: Harness) -> None:
    held = Held(waiting("running"))
    harness.fake.plan("read_ledger", claim(), adopt())
    harness.fake.plan("create_task", created(seconds=0))
    harness.fake.plan("get_task", held, waiting("running"), to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until(held)
    before = (await job.detail()).timeline
    await noise(job)
    held.release()
    await until(lambda: was_continued(job), "the run continues as new")
    await harness.fake.called("get_task", 2)
    now = job.newest()
    shown = await now.until_state(phase="running")
    assert detail_of(shown).timeline[: len(before)] == before
    assert (shown.task_id, shown.attempt) == (TASK, 1)
    assert harness.fake.names() == ["read_ledger", "create_task", "get_task", "read_ledger", "get_task"]
    await now.callback("succeeded")
    assert await now.result() == RESULT
    found = await now.attributes()
    assert (found.get(SEEDANCE_PHASE), found.get(SEEDANCE_TASK_ID)) == ("stored", TASK)
    assert await replay(job) == 2


async def test_long_search_continues_with_cancel_request(harness: Harness) -> None:
    held = Held(recover(seconds=0))
    harness.fake.plan("read_ledger", recover(), recover())
    harness.fake.plan("ask_lister", held, adopt())
    harness.fake.cancel()
    harness.fake.always("identify_task", OTHER)
    job = await harness.start_until(held)
    await job.cancel()
    # Within one activation, signals come before a cancel that was sent before them.
    await job.until_noted("cancel_requested")
    await noise(job)
    held.release()
    assert (await job.newest().failed()).failure_class == "cancelled"
    assert await was_continued(job)
    assert harness.fake.of("create_task") == []
    # By the new run, which was never asked itself.
    assert harness.fake.names().count("read_ledger") == 2
    assert len(harness.fake.of("cancel_task")) == 1
    assert (await job.newest().noted())[0] == "cancel_requested"


async def test_no_new_run_during_create(harness: Harness) -> None:
    times = 4
    harness.fake.plan("read_ledger", *[claim(number) for number in range(1, times + 2)], adopt())
    harness.fake.plan("create_task", *[not_sent(seconds=0)] * times, created())
    harness.fake.finish()
    job = await harness.start()
    assert await job.newest().result() == RESULT
    first = await job.events()
    assert first[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
    assert len(first) > SUGGESTED_FROM + 20
    assert harness.fake.names() == [
        *["read_ledger", "create_task"] * (times + 1),
        "read_ledger",
        "get_task",
        "store_video",
    ]


async def test_unhandled_callback_survives_new_run(harness: Harness) -> None:
    held = Held(waiting("running"))
    harness.fake.plan("read_ledger", adopt(), adopt())
    harness.fake.plan("get_task", held)
    harness.fake.always("get_task", waiting("running"))
    harness.fake.plan("identify_task", OURS)
    job = await harness.start_until(held)
    await noise(job)
    await job.callback("succeeded", OTHER_TASK)
    held.release()
    await harness.fake.called("identify_task")
    assert harness.fake.input("identify_task").task_id == OTHER_TASK
    await until(lambda: was_continued(job), "the job continues in a new run")


async def test_callback_during_search_is_handled(harness: Harness) -> None:
    held = Held(recover(seconds=0))
    harness.fake.plan("read_ledger", recover(), adopt(), adopt())
    harness.fake.plan("ask_lister", held)
    harness.fake.plan("identify_task", OTHER, OURS)
    harness.fake.finish()
    job = await harness.start_until(held)
    for _ in range(SUGGESTED_FROM):
        await job.callback("running", OTHER_TASK, attempt=1)
    await job.callback("running", TASK, attempt=1)
    held.release()
    assert await job.newest().result() == RESULT
    assert [call.input.task_id for call in harness.fake.of("identify_task")] == [OTHER_TASK, TASK]


async def test_waiting_cancel_is_answered_before_new_run(harness: Harness) -> None:
    """An update keeps its run open; the run handles all signals until then."""
    held = Held(waiting("running"))
    harness.fake.plan("read_ledger", adopt(), adopt())
    harness.fake.plan("get_task", held)
    harness.fake.always("get_task", waiting("running"))
    harness.fake.plan("cancel_task", TOO_LATE)
    job = await harness.start_until(held)
    await noise(job)
    update = await job.start_cancel_update()
    held.release()
    assert (await asyncio.wait_for(update.result(), 5)).outcome == "running_will_finish"


async def test_fixed_attention_is_cleared_in_new_run(harness: Harness) -> None:
    held = Held(waiting("", attention="credentials", note="401"))
    harness.fake.plan("read_ledger", adopt(), adopt())
    harness.fake.plan("get_task", waiting("", 0, attention="credentials", note="401"), held, waiting("running"))
    job = await harness.start_until(held)
    assert (await job.state()).attention == "credentials"
    await noise(job)
    held.release()
    now = job.newest()
    await harness.fake.called("get_task", 3)
    assert (await now.until_state(phase="running")).attention is None
    await now.until_unset(SEEDANCE_ATTENTION)
