"""An operator's word goes into the ledger, and the story reads it there."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import UPDATE_CANCEL, UPDATE_RESOLVE, Resolve, ResolveAnswer
from tests.support.jobs import detail_of
from tests.workflows.scripted import (
    OTHER_TASK,
    RESULT,
    TASK,
    Handle,
    Held,
    Stage,
    a_listing,
    callback,
    listed,
    noted,
    resolve,
    shows,
    state,
    to_store,
    until,
    waiting,
)

ADOPT = Resolve(attempt=2, action="adopt", task_id=TASK)


async def _asks_for_a_person(stage: Stage, job: Handle) -> None:
    """Once a listing has come that does not show the task."""
    await stage.script.called("ask_lister")
    await listed(job, a_listing(2, complete=False))
    await shows(job, attention="unknown_create")


async def test_an_accepted_word_is_followed_by_a_look_at_once(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover(attempt=2), stage.adopt(attempt=2))
    stage.script.plan("ask_lister", stage.recover(attempt=2, needs_operator=True))
    stage.script.plan("resolve_attempt", ResolveAnswer(accepted=True, message="adopted"))
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await _asks_for_a_person(stage, job)
    assert await resolve(job, ADOPT) == ResolveAnswer(accepted=True, message="adopted")
    assert await job.result() == RESULT
    assert stage.script.names() == [
        "read_ledger",
        "ask_lister",
        "resolve_attempt",
        "read_ledger",
        "get_task",
        "store_video",
    ]
    order = stage.script.order("resolve_attempt")
    assert (order.job_id, order.resolution) == (job.id, ADOPT)
    assert "attention_raised unknown_create" in noted(order.timeline)
    (event,) = [e for e in detail_of(await state(job)).timeline if e.event == "resolution_accepted"]
    assert (event.source, event.detail, event.attempt) == ("operator", "adopt", ADOPT.attempt)


async def test_a_refused_word_is_answered_and_changes_nothing(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover(attempt=2))
    stage.script.plan("ask_lister", stage.recover(attempt=2, needs_operator=True))
    stage.script.plan("resolve_attempt", ResolveAnswer(accepted=False, message="no such task"))
    job = await stage.start()
    await _asks_for_a_person(stage, job)
    assert await resolve(job, ADOPT) == ResolveAnswer(accepted=False, message="no such task")
    await asyncio.sleep(0.2)
    assert len(stage.script.of("ask_lister")) == 1
    shown = await state(job)
    assert (shown.phase, shown.attention, shown.task_id) == ("recovering", "unknown_create", None)


async def test_a_word_that_cannot_be_checked_is_not_accepted(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover(attempt=2))
    stage.script.plan("ask_lister", stage.recover(attempt=2, needs_operator=True))
    stage.script.plan("resolve_attempt", *[ApplicationError("the provider is down")] * 2)
    job = await stage.start()
    await _asks_for_a_person(stage, job)
    answer = await resolve(job, ADOPT)
    assert not answer.accepted
    assert "Nothing was written" in answer.message
    assert "the provider is down" in answer.message
    assert len(stage.script.of("ask_lister")) == 1


async def test_a_word_during_a_listing_is_not_forgotten(stage: Stage) -> None:
    """What the listing answers can be older than what the operator wrote."""
    held = Held(stage.recover(attempt=2))
    stage.script.plan("read_ledger", stage.recover(attempt=2), stage.adopt(attempt=2))
    stage.script.plan("ask_lister", held)
    stage.script.plan("resolve_attempt", ResolveAnswer(accepted=True, message="adopted"))
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await held.reached.wait()
    assert (await resolve(job, ADOPT)).accepted
    held.let_go()
    assert await job.result() == RESULT


async def test_a_word_on_a_job_that_is_not_unknown_disturbs_nothing(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", waiting("running"), to_store())
    stage.script.plan("resolve_attempt", ResolveAnswer(accepted=False, message="it is settled"))
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await shows(job, phase="running")
    assert not (await resolve(job, Resolve(attempt=1, action="lost"))).accepted
    assert len(stage.script.of("get_task")) == 1
    await callback(job, "succeeded")
    assert await job.result() == RESULT


async def test_the_job_ends_when_the_word_is_answered(stage: Stage) -> None:
    """A run that closes takes the answers of unfinished updates with it."""
    word, copy = Held(ResolveAnswer(accepted=False, message="late")), Held(RESULT)
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store())
    stage.script.plan("resolve_attempt", word)
    stage.script.plan("store_video", copy)
    job = await stage.start()
    await copy.reached.wait()
    answer = asyncio.create_task(resolve(job, Resolve(attempt=1, action="adopt", task_id=OTHER_TASK)))
    await word.reached.wait()
    copy.let_go()
    await asyncio.sleep(0.5)
    # What the operator adopts may be a task to follow, so the run does not end over it.
    assert (await state(job)).phase == "storing"
    assert not answer.done()
    word.let_go()
    assert (await answer).message == "late"
    assert await job.result() == RESULT


@pytest.mark.parametrize(
    "odd", [[], [None], ["adopt"], [{}], [{"attempt": 1, "action": "explode"}], [{"attempt": 1, "action": "lost"}, 1]]
)
async def test_a_word_that_is_none_is_refused_and_stops_no_job(stage: Stage, odd: list[object]) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", waiting("running"), to_store())
    stage.script.plan("store_video", RESULT)
    stage.script.always("resolve_attempt", ResolveAnswer(accepted=False, message="no"))
    job = await stage.start()
    await shows(job, phase="running")
    update = asyncio.create_task(_refused(job.execute_update(UPDATE_RESOLVE, args=odd)))
    await callback(job, "succeeded")
    assert await asyncio.wait_for(job.result(), 10) == RESULT
    assert await asyncio.wait_for(update, 10)


async def _refused(update: object) -> bool:
    try:
        answer = await update  # type: ignore[misc]
    except WorkflowUpdateFailedError:
        return True
    return not answer["accepted"]


async def test_a_cancel_with_an_argument_stops_no_job(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.always("get_task", waiting("running"))
    stage.script.always("cancel_task", {"outcome": "running_will_finish", "status": "running"})
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await shows(job, phase="running")
    update = asyncio.create_task(job.execute_update(UPDATE_CANCEL, {"reason": "x"}))
    await asyncio.wait({update}, timeout=1)
    stage.script.always("get_task", to_store())
    await callback(job, "succeeded")
    assert await asyncio.wait_for(job.result(), 10) == RESULT
    await until(update.done, "the update is answered")
    update.exception()
