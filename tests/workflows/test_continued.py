"""A long story goes on in a new run, and nothing that was said to the old one is lost."""

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
from tests.workflows.conftest import QUEUES, hold_to_account
from tests.workflows.scripted import (
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    TASK,
    Handle,
    Held,
    Stage,
    as_written,
    begin_to_cancel,
    callback,
    dev_server,
    ending,
    events,
    failed,
    noted,
    shows,
    state,
    to_store,
    until,
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
async def long(impatient: Client, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Stage]:
    stage = Stage(impatient)
    await stage.serve(*QUEUES)
    yield stage
    await stage.close()
    await hold_to_account(stage, caplog)


async def noise(job: Handle, until_events: int = SUGGESTED_FROM + 5) -> None:
    """Makes the history long, by callbacks that change nothing."""
    for _ in range(until_events):
        await callback(job, "running")


async def was_continued(job: Handle) -> bool:
    return (await events(job))[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW


def latest(stage: Stage, job: Handle) -> Handle:
    return stage.client.get_workflow_handle(job.id, result_type=type(RESULT))


async def test_a_long_wait_goes_on_in_a_new_run_with_its_timeline(long: Stage) -> None:
    stage = long
    held = Held(waiting("running"))
    stage.script.plan("read_ledger", stage.claim(), stage.adopt())
    stage.script.plan("create_task", stage.created(again=0))
    stage.script.plan("get_task", held, waiting("running"), to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await held.reached.wait()
    before = detail_of(await state(job)).timeline
    await noise(job)
    held.let_go()
    await until(lambda: was_continued(job), "the story goes on in a new run")
    await stage.script.called("get_task", 2)
    now = latest(stage, job)
    shown = await shows(now, phase="running")
    assert detail_of(shown).timeline[: len(before)] == before
    assert (shown.task_id, shown.attempt) == (TASK, 1)
    assert stage.script.names() == ["read_ledger", "create_task", "get_task", "read_ledger", "get_task"]
    await callback(now, "succeeded")
    assert await now.result() == RESULT
    found = (await now.describe()).typed_search_attributes
    assert (found.get(SEEDANCE_PHASE), found.get(SEEDANCE_TASK_ID)) == ("stored", TASK)
    assert await replay(job) == 2


async def test_a_long_search_goes_on_in_a_new_run_and_the_wish_to_cancel_with_it(long: Stage) -> None:
    stage = long
    held = Held(stage.recover(again=0))
    stage.script.plan("read_ledger", stage.recover(), stage.recover())
    stage.script.plan("ask_lister", held, stage.adopt())
    stage.script.plan("cancel_task", CancelResult(outcome="cancelled", status="cancelled"))
    stage.script.plan("get_task", ending("cancelled", "cancelled"))
    stage.script.plan("write_end", as_written)
    stage.script.always("identify_task", OTHER)
    job = await stage.start()
    await held.reached.wait()
    await job.cancel()

    async def is_wished() -> bool:
        return "cancel_requested" in noted(await state(job))

    # Within one activation, signals come before a cancel that was sent before them.
    await until(is_wished, "the run has heard of the cancel")
    await noise(job)
    held.let_go()
    assert (await failed(latest(stage, job))).failure_class == "cancelled"
    assert await was_continued(job)
    assert stage.script.of("create_task") == []
    # By the new run, which was never asked itself.
    assert stage.script.names().count("read_ledger") == 2
    assert len(stage.script.of("cancel_task")) == 1
    assert noted(await state(latest(stage, job)))[0] == "cancel_requested"


async def test_a_story_does_not_go_on_in_a_new_run_while_it_creates(long: Stage) -> None:
    stage = long
    times = 4
    stage.script.plan("read_ledger", *[stage.claim(number) for number in range(1, times + 2)], stage.adopt())
    stage.script.plan("create_task", *[stage.not_sent(again=0)] * times, stage.created())
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    assert await latest(stage, job).result() == RESULT
    first = await events(job)
    assert first[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
    assert len(first) > SUGGESTED_FROM + 20
    assert stage.script.names() == [
        *["read_ledger", "create_task"] * (times + 1),
        "read_ledger",
        "get_task",
        "store_video",
    ]


async def test_a_callback_that_is_not_looked_at_yet_is_not_lost(long: Stage) -> None:
    stage = long
    held = Held(waiting("running"))
    stage.script.plan("read_ledger", stage.adopt(), stage.adopt())
    stage.script.plan("get_task", held)
    stage.script.always("get_task", waiting("running"))
    stage.script.plan("identify_task", OURS)
    job = await stage.start()
    await held.reached.wait()
    await noise(job)
    await callback(job, "succeeded", OTHER_TASK)
    held.let_go()
    await stage.script.called("identify_task")
    assert stage.script.order("identify_task").task_id == OTHER_TASK
    await until(lambda: was_continued(job), "the story goes on in a new run")


async def test_a_callback_during_a_search_is_not_lost(long: Stage) -> None:
    stage = long
    held = Held(stage.recover(again=0))
    stage.script.plan("read_ledger", stage.recover(), stage.adopt(), stage.adopt())
    stage.script.plan("ask_lister", held)
    stage.script.plan("identify_task", OTHER, OURS)
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await held.reached.wait()
    for _ in range(SUGGESTED_FROM):
        await callback(job, "running", OTHER_TASK, attempt=1)
    await callback(job, "running", TASK, attempt=1)
    held.let_go()
    assert await latest(stage, job).result() == RESULT
    assert [call.order.task_id for call in stage.script.of("identify_task")] == [OTHER_TASK, TASK]


async def test_a_cancel_that_waits_for_its_answer_gets_it_and_later_wishes_are_kept(long: Stage) -> None:
    """An update keeps its run open; what is said to the run until then belongs to the story as well."""
    stage = long
    held = Held(waiting("running"))
    stage.script.plan("read_ledger", stage.adopt(), stage.adopt())
    stage.script.plan("get_task", held)
    stage.script.always("get_task", waiting("running"))
    stage.script.plan("cancel_task", CancelResult(outcome="running_will_finish", status="running"))
    job = await stage.start()
    await held.reached.wait()
    await noise(job)
    update = await begin_to_cancel(job)
    held.let_go()
    assert (await asyncio.wait_for(update.result(), 5)).outcome == "running_will_finish"


async def test_an_attention_that_was_mended_meanwhile_is_taken_back_in_the_new_run(long: Stage) -> None:
    stage = long
    held = Held(waiting("", attention="credentials", note="401"))
    stage.script.plan("read_ledger", stage.adopt(), stage.adopt())
    stage.script.plan("get_task", waiting("", 0, attention="credentials", note="401"), held, waiting("running"))
    job = await stage.start()
    await held.reached.wait()
    assert (await state(job)).attention == "credentials"
    await noise(job)
    held.let_go()
    now = latest(stage, job)
    await stage.script.called("get_task", 3)
    assert (await shows(now, phase="running")).attention is None

    async def unset() -> bool:
        return (await now.describe()).typed_search_attributes.get(SEEDANCE_ATTENTION) is None

    await until(unset, "the search attribute of the old run is taken back", 5)
