"""A long run continues as new, and no signal or update of the old run is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from activities.poll import CancelResult
from seedance_temporal.contract import SEEDANCE_ATTENTION, SEEDANCE_PHASE, SEEDANCE_TASK_ID
from tests.replay.replaying import replay
from tests.support.jobs import detail_of
from tests.workflows.conftest import QUEUES, check_harness
from tests.workflows.scripted import (
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    TASK,
    Handle,
    Harness,
    Held,
    as_written,
    begin_to_cancel,
    callback,
    dev_server,
    ending,
    events,
    failed,
    noted,
    state,
    to_store,
    until,
    until_state,
    waiting,
)

SUGGESTED_FROM = 40


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def impatient() -> AsyncIterator[Client]:
    """A server that suggests to continue as new after a few events."""
    option = f"limit.historyCount.suggestContinueAsNew={SUGGESTED_FROM}"
    async with dev_server("--dynamic-config-value", option) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def long(impatient: Client, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Harness]:
    harness = Harness(impatient)
    await harness.start_workers(*QUEUES)
    yield harness
    await harness.close()
    await check_harness(harness, caplog)


async def noise(job: Handle, until_events: int = SUGGESTED_FROM + 5) -> None:
    """Make the history long, by callbacks that change nothing."""
    for _ in range(until_events):
        await callback(job, "running")


async def was_continued(job: Handle) -> bool:
    return (await events(job))[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW


def latest(harness: Harness, job: Handle) -> Handle:
    return harness.client.get_workflow_handle(job.id, result_type=type(RESULT))


async def test_long_wait_continues_with_timeline(long: Harness) -> None:
    harness = long
    held = Held(waiting("running"))
    harness.fake.plan("read_ledger", harness.claim(), harness.adopt())
    harness.fake.plan("create_task", harness.created(seconds=0))
    harness.fake.plan("get_task", held, waiting("running"), to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start()
    await held.reached.wait()
    before = detail_of(await state(job)).timeline
    await noise(job)
    held.release()
    await until(lambda: was_continued(job), "the story goes on in a new run")
    await harness.fake.called("get_task", 2)
    now = latest(harness, job)
    shown = await until_state(now, phase="running")
    assert detail_of(shown).timeline[: len(before)] == before
    assert (shown.task_id, shown.attempt) == (TASK, 1)
    assert harness.fake.names() == ["read_ledger", "create_task", "get_task", "read_ledger", "get_task"]
    await callback(now, "succeeded")
    assert await now.result() == RESULT
    found = (await now.describe()).typed_search_attributes
    assert (found.get(SEEDANCE_PHASE), found.get(SEEDANCE_TASK_ID)) == ("stored", TASK)
    assert await replay(job) == 2


async def test_long_search_continues_with_cancel_request(long: Harness) -> None:
    harness = long
    held = Held(harness.recover(seconds=0))
    harness.fake.plan("read_ledger", harness.recover(), harness.recover())
    harness.fake.plan("ask_lister", held, harness.adopt())
    harness.fake.plan("cancel_task", CancelResult(outcome="cancelled", status="cancelled"))
    harness.fake.plan("get_task", ending("cancelled", "cancelled"))
    harness.fake.plan("write_end", as_written)
    harness.fake.always("identify_task", OTHER)
    job = await harness.start()
    await held.reached.wait()
    await job.cancel()

    async def is_requested() -> bool:
        return "cancel_requested" in noted(await state(job))

    # Within one activation, signals come before a cancel that was sent before them.
    await until(is_requested, "the run has heard of the cancel")
    await noise(job)
    held.release()
    assert (await failed(latest(harness, job))).failure_class == "cancelled"
    assert await was_continued(job)
    assert harness.fake.of("create_task") == []
    # By the new run, which was never asked itself.
    assert harness.fake.names().count("read_ledger") == 2
    assert len(harness.fake.of("cancel_task")) == 1
    assert noted(await state(latest(harness, job)))[0] == "cancel_requested"


async def test_no_new_run_during_create(long: Harness) -> None:
    harness = long
    times = 4
    harness.fake.plan("read_ledger", *[harness.claim(number) for number in range(1, times + 2)], harness.adopt())
    harness.fake.plan("create_task", *[harness.not_sent(seconds=0)] * times, harness.created())
    harness.fake.plan("get_task", to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start()
    assert await latest(harness, job).result() == RESULT
    first = await events(job)
    assert first[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
    assert len(first) > SUGGESTED_FROM + 20
    assert harness.fake.names() == [
        *["read_ledger", "create_task"] * (times + 1),
        "read_ledger",
        "get_task",
        "store_video",
    ]


async def test_unhandled_callback_survives_new_run(long: Harness) -> None:
    harness = long
    held = Held(waiting("running"))
    harness.fake.plan("read_ledger", harness.adopt(), harness.adopt())
    harness.fake.plan("get_task", held)
    harness.fake.always("get_task", waiting("running"))
    harness.fake.plan("identify_task", OURS)
    job = await harness.start()
    await held.reached.wait()
    await noise(job)
    await callback(job, "succeeded", OTHER_TASK)
    held.release()
    await harness.fake.called("identify_task")
    assert harness.fake.input("identify_task").task_id == OTHER_TASK
    await until(lambda: was_continued(job), "the job continues in a new run")


async def test_callback_during_search_is_handled(long: Harness) -> None:
    harness = long
    held = Held(harness.recover(seconds=0))
    harness.fake.plan("read_ledger", harness.recover(), harness.adopt(), harness.adopt())
    harness.fake.plan("ask_lister", held)
    harness.fake.plan("identify_task", OTHER, OURS)
    harness.fake.plan("get_task", to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start()
    await held.reached.wait()
    for _ in range(SUGGESTED_FROM):
        await callback(job, "running", OTHER_TASK, attempt=1)
    await callback(job, "running", TASK, attempt=1)
    held.release()
    assert await latest(harness, job).result() == RESULT
    assert [call.input.task_id for call in harness.fake.of("identify_task")] == [OTHER_TASK, TASK]


async def test_waiting_cancel_is_answered_before_new_run(long: Harness) -> None:
    """An update keeps its run open; the run handles all signals until then."""
    harness = long
    held = Held(waiting("running"))
    harness.fake.plan("read_ledger", harness.adopt(), harness.adopt())
    harness.fake.plan("get_task", held)
    harness.fake.always("get_task", waiting("running"))
    harness.fake.plan("cancel_task", CancelResult(outcome="running_will_finish", status="running"))
    job = await harness.start()
    await held.reached.wait()
    await noise(job)
    update = await begin_to_cancel(job)
    held.release()
    assert (await asyncio.wait_for(update.result(), 5)).outcome == "running_will_finish"


async def test_fixed_attention_is_cleared_in_new_run(long: Harness) -> None:
    harness = long
    held = Held(waiting("", attention="credentials", note="401"))
    harness.fake.plan("read_ledger", harness.adopt(), harness.adopt())
    harness.fake.plan("get_task", waiting("", 0, attention="credentials", note="401"), held, waiting("running"))
    job = await harness.start()
    await held.reached.wait()
    assert (await state(job)).attention == "credentials"
    await noise(job)
    held.release()
    now = latest(harness, job)
    await harness.fake.called("get_task", 3)
    assert (await until_state(now, phase="running")).attention is None

    async def unset() -> bool:
        return (await now.describe()).typed_search_attributes.get(SEEDANCE_ATTENTION) is None

    await until(unset, "the search attribute of the old run is cleared", 5)
