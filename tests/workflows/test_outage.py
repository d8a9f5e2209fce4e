"""A callback names a task while GET is away: it is asked for before each step that cannot be undone, and after it."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.exceptions import ApplicationError

from activities.recover import IdentifyResult
from seedance_temporal.contract import SIGNAL_RETRY, SIGNAL_TASK_CHANGED, NamedTask
from tests.support.jobs import detail_of
from tests.workflows.fakes import (
    LONG,
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    TASK,
    Held,
    a_listing,
    adopt,
    as_written,
    claim,
    ending,
    not_sent,
    recover,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, Job, noted
from workflows import policies

FIRST_TASK = "cgt-20261126-named-last"
CONTINUED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
AWAY = ApplicationError("500 the provider is away", type="ProviderUnavailable")


async def name_in_outage(skipping: Harness, job: Job, task_id: str = TASK) -> None:
    """Name a task of the first attempt while GET is away, until it is asked for every five minutes only."""
    skipping.fake.always("identify_task", AWAY)
    await job.callback("running", task_id, attempt=1)
    await skipping.skip(120)
    assert "task_not_checked callback" in await job.noted()


async def test_end_of_outage_is_noticed_before_next_create(skipping: Harness) -> None:
    skipping.fake.plan("read_ledger", claim(2), claim(3), adopt(TASK, attempt=1))
    skipping.fake.plan("create_task", not_sent(200))
    skipping.fake.finish()
    job = await skipping.start_until_state(phase="waiting")
    await name_in_outage(skipping, job)
    skipping.fake.always("identify_task", OURS)
    assert await job.result() == RESULT
    assert len(skipping.fake.of("create_task")) == 1
    at = {event.event: event.at for event in detail_of(await job.state()).timeline}
    assert at["task_found"] - at["not_sent"] < timedelta(seconds=230), "not only after the pause of five minutes"


async def test_last_answer_after_the_end_is_followed(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run waits for names in question, but not for ever; it hears the answer that is under way then."""
    monkeypatch.setattr(policies, "LISTEN_AT_MOST", timedelta(seconds=0.5))
    answer, poll = Held(OURS), Held(ending("failed", "provider"))
    unsandboxed.fake.plan("read_ledger", adopt(), adopt(FIRST_TASK, attempt=1))
    unsandboxed.fake.plan("get_task", poll, to_store())
    unsandboxed.fake.plan("write_end", as_written)
    unsandboxed.fake.plan("store_video", RESULT)
    unsandboxed.fake.plan("identify_task", answer)
    job = await unsandboxed.start_until(poll)
    await job.callback("queued", FIRST_TASK)
    await answer.reached.wait()
    poll.release()
    await job.until_state(phase="failed")
    answer.release()
    assert await job.result() == RESULT
    shown = await job.state()
    assert (shown.phase, shown.error) == ("stored", None)
    assert [call.input.task_id for call in unsandboxed.fake.of("get_task")] == [TASK, FIRST_TASK]
    assert "ended" in {event.event for event in detail_of(shown).timeline}


async def test_task_is_asked_for_after_the_end(skipping: Harness) -> None:
    skipping.fake.plan("read_ledger", adopt())
    skipping.fake.plan("get_task", waiting("running", 600), ending("failed", "provider"))
    skipping.fake.plan("write_end", as_written)
    skipping.fake.plan("ask_later", None)
    job = await skipping.start_until_called("get_task")
    await name_in_outage(skipping, job, OTHER_TASK)
    assert (await job.failed()).failure_class == "provider"
    (later,) = skipping.fake.input("ask_later").named
    assert (later.task_id, later.attempt) == (OTHER_TASK, 1)


async def test_task_named_in_last_step_is_not_forgotten(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the run hands over a task that is in question, a callback names another, and a listing a third."""
    monkeypatch.setattr(policies, "IDENTIFY_PAUSES", (timedelta(seconds=0.1),) * 2)
    handing_over = Held(None)
    unsandboxed.fake.plan("read_ledger", adopt())
    copying = Held(ending("failed", "provider"))
    unsandboxed.fake.plan("get_task", copying)
    unsandboxed.fake.plan("write_end", as_written)
    unsandboxed.fake.always("identify_task", AWAY)
    unsandboxed.fake.plan("ask_later", handing_over, None)
    job = await unsandboxed.start_until(copying)
    await job.listed(a_listing(task_id=OTHER_TASK))
    await unsandboxed.fake.called("identify_task", 3)
    copying.release()
    await handing_over.reached.wait()
    await job.callback("queued", FIRST_TASK)
    handing_over.release()
    assert (await job.failed()).failure_class == "provider"
    named = [[each.task_id for each in call.input.named] for call in unsandboxed.fake.of("ask_later")]
    assert named == [[OTHER_TASK], [FIRST_TASK]]
    assert [each.source for each in unsandboxed.fake.of("ask_later")[0].input.named] == ["list"]


async def test_task_that_was_identified_as_the_run_ends_is_followed(skipping: Harness) -> None:
    """The small workflow that asks later can find the task of a run that is about to end: it reads the ledger again."""
    handing_over = Held(None)
    skipping.fake.plan("read_ledger", adopt(), adopt(FIRST_TASK))
    skipping.fake.plan("get_task", waiting("running", 600), ending("failed", "provider"))
    skipping.fake.plan("write_end", as_written)
    skipping.fake.always("identify_task", AWAY)
    skipping.fake.plan("ask_later", handing_over)
    skipping.fake.finish()
    job = await skipping.start_until_called("get_task")
    await job.listed(a_listing(task_id=FIRST_TASK))
    await skipping.skip(120)
    await job.callback("failed")
    await handing_over.reached.wait()
    identified = NamedTask(task_id=FIRST_TASK, status="", attempt=1, source="ledger")
    await job.signal(SIGNAL_TASK_CHANGED, identified)
    handing_over.release()
    assert await job.result() == RESULT
    assert [call.input.task_id for call in skipping.fake.of("get_task")] == [TASK, TASK, FIRST_TASK]


async def test_task_named_in_outage_is_asked_for_by_new_run(skipping: Harness) -> None:
    skipping.fake.always("read_ledger", recover())
    skipping.fake.always("ask_lister", recover(seconds=120))
    job = await skipping.start_until_called("ask_lister")
    await name_in_outage(skipping, job)
    for _ in range(policies.MOST_EVENTS):
        await job.callback("running", TASK, attempt=1)
    await skipping.skip(700)
    assert (await job.events())[-1].event_type == CONTINUED

    async def found(_: object) -> IdentifyResult:
        skipping.fake.always("read_ledger", adopt(TASK, attempt=1))
        return OURS

    skipping.fake.always("identify_task", found)
    skipping.fake.finish()
    await skipping.skip(600)
    await job.newest().until_state(phase="stored")


async def test_retries_keep_no_step_silent(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "PATIENCE", timedelta(seconds=6))
    monkeypatch.setattr(policies, "ONE_TRY", timedelta(seconds=2))
    unsandboxed.fake.plan("read_ledger", adopt())
    unsandboxed.fake.always("get_task", AWAY)
    job = await unsandboxed.start_until_called("get_task")
    asked = time.monotonic()
    while (await job.state()).attention is None and time.monotonic() - asked < 60:
        await job.signal(SIGNAL_RETRY)
        await asyncio.sleep(1)
    shown = await job.state()
    assert shown.attention == "provider"
    assert "500 the provider is away" in (detail_of(shown).advice or "")
    unsandboxed.fake.finish()
    assert await job.result() == RESULT


async def test_made_up_ends_hide_no_real_one(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt())
    held = Held(waiting("running", LONG))
    harness.fake.plan("get_task", held, to_store())
    harness.fake.plan("store_video", RESULT)
    harness.fake.always("identify_task", OTHER)
    job = await harness.start_until(held)
    await job.callback("failed")
    for number in range(policies.MOST_CALLBACKS + 5):
        await job.callback("succeeded", f"{OTHER_TASK}-{number}")
    held.release()
    assert await job.result() == RESULT
    assert "stored" in noted(await job.state())
