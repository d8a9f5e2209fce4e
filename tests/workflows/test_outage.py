"""A callback names a task while GET is away: it is asked for before each step that cannot be undone, and after it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.exceptions import ApplicationError

from activities.recover import IdentifyInput, IdentifyResult
from seedance_temporal.contract import SIGNAL_RETRY
from tests.support.jobs import detail_of
from tests.workflows.fakes import (
    LONG,
    NOT_YET,
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    TASK,
    Held,
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


async def test_last_answer_after_the_end_is_followed(skipping: Harness) -> None:
    """The run waits for names in question, but not for ever; then it asks for each once more."""
    asked = Counter[str]()

    async def answer(input: IdentifyInput) -> IdentifyResult:
        asked[input.task_id] += 1
        is_last = input.task_id == FIRST_TASK and asked[FIRST_TASK] > 3
        return OURS if is_last else NOT_YET

    skipping.fake.plan("read_ledger", adopt(), adopt(FIRST_TASK, attempt=1))
    skipping.fake.plan("get_task", waiting("running", 10), ending("failed", "provider"), to_store())
    skipping.fake.plan("write_end", as_written)
    skipping.fake.plan("store_video", RESULT)
    skipping.fake.always("identify_task", answer)
    skipping.fake.always("ask_later", None)
    job = await skipping.start_until_called("get_task")
    for number in range(6):
        await job.callback("queued", f"{OTHER_TASK}-{number}")
        await skipping.skip(30)
    await job.callback("queued", FIRST_TASK)
    assert await job.result() == RESULT
    shown = await job.state()
    assert (shown.phase, shown.error) == ("stored", None)
    assert [call.input.task_id for call in skipping.fake.of("get_task")] == [TASK, TASK, FIRST_TASK]
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
