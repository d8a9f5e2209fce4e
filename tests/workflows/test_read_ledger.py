"""What the ledger says decides what a run does."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import Resubmit
from seedance_temporal.job import Phase
from seedance_temporal.provider.task import FailureClass
from tests.support.jobs import detail_of
from tests.workflows.scripted import (
    OTHER_TASK,
    RESULT,
    TASK,
    Stage,
    failed,
    failure,
    noted,
    scheduled,
    state,
    to_store,
)


async def test_a_stored_video_is_returned_and_nothing_else_is_done(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.stored())
    job = await stage.start()
    assert await job.result() == RESULT
    assert stage.script.names() == ["read_ledger"]
    shown = await state(job)
    assert (shown.phase, shown.task_id, shown.result) == ("stored", TASK, RESULT)


@pytest.mark.parametrize(
    ("of", "task_id", "phase"),
    [
        ("moderation", None, "refused"),
        ("moderation", TASK, "failed"),
        ("provider", TASK, "failed"),
        ("expired", TASK, "expired"),
        ("cancelled", TASK, "cancelled"),
        ("lost", TASK, "lost"),
    ],
)
async def test_an_end_that_stands_is_raised_and_not_written_again(
    stage: Stage, of: FailureClass, task_id: str | None, phase: Phase
) -> None:
    error = failure(of, task_id=task_id)
    stage.script.plan("read_ledger", stage.ended(error))
    job = await stage.start()
    assert await failed(job) == error
    assert stage.script.names() == ["read_ledger"]
    shown = await state(job)
    assert (shown.phase, shown.error, shown.task_id, shown.attempt) == (phase, error, task_id, 1)


async def test_a_known_task_is_followed_without_a_create(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt(attempt=3))
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    assert await job.result() == RESULT
    assert stage.script.names() == ["read_ledger", "get_task", "store_video"]
    got, copied = stage.script.order("get_task"), stage.script.order("store_video")
    assert (got.job_id, got.task_id, got.attempt, got.polls) == (job.id, TASK, 3, 0)
    assert (copied.job_id, copied.task_id, copied.attempt) == (job.id, TASK, 3)


async def test_an_unknown_attempt_is_looked_for_without_a_create(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover(attempt=2))
    stage.script.plan("ask_lister", stage.adopt(attempt=2))
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    assert await job.result() == RESULT
    assert stage.script.names() == ["read_ledger", "ask_lister", "get_task", "store_video"]
    assert stage.script.order("ask_lister").attempt == 2


async def test_a_run_that_may_not_create_ends_unsettled_instead(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim(attempt=2))
    job = await stage.start(may_create=False)
    error = await failed(job)
    assert (error.failure_class, error.code, error.attempt) == ("unsettled", "may_not_create", None)
    assert stage.script.names() == ["read_ledger"]
    assert await scheduled(job, "create_task") == []
    assert (await state(job)).phase == "checking"


async def test_a_run_that_may_not_create_still_follows_what_is_there(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    assert await (await stage.start(may_create=False)).result() == RESULT


async def test_a_run_that_may_not_create_does_not_create_after_a_recovery(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover())
    stage.script.plan("ask_lister", stage.claim(2))
    stage.script.always("read_ledger", stage.claim(attempt=2))
    assert (await failed(await stage.start(may_create=False))).failure_class == "unsettled"
    assert stage.script.of("create_task") == []


async def test_each_look_is_told_the_job_and_the_wish_for_another_attempt(stage: Stage) -> None:
    wish = Resubmit(attempt=1, accept_second_charge=True)
    stage.script.plan("read_ledger", stage.claim(attempt=2), stage.stored())
    stage.script.plan("create_task", stage.not_sent(again=0))
    job = await stage.start(resubmit=wish)
    assert await job.result() == RESULT
    orders = [call.order for call in stage.script.of("read_ledger")]
    assert [order.resubmit for order in orders] == [wish, wish]
    assert {order.job_id for order in orders} == {job.id}
    assert orders[0].request.route == stage.route


async def test_a_ledger_that_cannot_be_read_is_waited_for(stage: Stage) -> None:
    stage.script.plan("read_ledger", ApplicationError("no bucket"), stage.stored())
    assert await (await stage.start()).result() == RESULT
    assert [call.tries for call in stage.script.of("read_ledger")] == [1, 2]


async def test_a_task_that_nobody_follows_is_shown(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.stored(second_task=OTHER_TASK))
    job = await stage.start()
    assert await job.result() == RESULT
    shown = await state(job)
    assert shown.attention == "second_task"
    assert OTHER_TASK in (detail_of(shown).advice or "")
    assert "attention_raised second_task" in noted(shown)
