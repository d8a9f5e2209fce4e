"""Ends without a video: written once with the story, and raised as the end that stands."""

from __future__ import annotations

import json

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError

from activities.ledger import EndInput, EndResult
from activities.poll import CancelResult, Observation
from seedance_temporal.contract import SEEDANCE_ATTENTION, SEEDANCE_COST_USD, SEEDANCE_TOKENS
from seedance_temporal.job import Attention, Phase
from seedance_temporal.provider.task import FailureClass, Usage
from tests.support.jobs import detail_of
from tests.workflows.scripted import (
    RESULT,
    TASK,
    Held,
    Stage,
    as_written,
    begin_to_cancel,
    callback,
    cancel,
    ending,
    events,
    failed,
    failure,
    noted,
    shows,
    state,
    to_store,
    waiting,
)

ENDS: list[tuple[str, FailureClass, Phase]] = [
    ("failed", "provider", "failed"),
    ("failed", "moderation", "failed"),
    ("failed", "invalid", "failed"),
    ("expired", "expired", "expired"),
    ("cancelled", "cancelled", "cancelled"),
    ("lost", "lost", "lost"),
]


@pytest.mark.parametrize(("status", "of", "phase"), ENDS)
async def test_an_end_is_written_and_raised_by_its_class(
    stage: Stage, status: str, of: FailureClass, phase: Phase
) -> None:
    stage.script.plan("read_ledger", stage.claim(2))
    stage.script.plan("create_task", stage.created(again=0))
    error = failure(of, code=status, attempt=2)
    usage = Usage(total_tokens=42)
    stage.script.plan("get_task", Observation(next="end", status=status, error=error, usage=usage, cost_usd=0.25))
    stage.script.plan("write_end", as_written)
    job = await stage.start()
    assert await failed(job) == error
    assert stage.script.names() == ["read_ledger", "create_task", "get_task", "write_end"]
    order = stage.script.order("write_end")
    assert (order.job_id, order.error, order.usage, order.cost_usd) == (job.id, error, usage, 0.25)
    assert noted(order.timeline) == ["task_created 2", f"status {status}"]
    shown = await state(job)
    assert (shown.phase, shown.error, shown.task_id, shown.attempt) == (phase, error, TASK, 2)
    assert (detail_of(shown).next_poll_at, shown.result) == (None, None)
    assert noted(shown)[-1] == f"ended {status} ({of})"
    run = await job.describe()
    assert run.status is WorkflowExecutionStatus.FAILED
    spent = [run.typed_search_attributes.get(key) for key in (SEEDANCE_TOKENS, SEEDANCE_COST_USD)]
    assert spent == ([42, 0.25] if of == "lost" else [None, None]), "only a task that succeeded is billed"


async def test_what_an_old_end_cost_is_shown_by_a_later_run_as_well(stage: Stage) -> None:
    """The run that saw it may be deleted, or out of its retention."""
    stage.script.plan("read_ledger", stage.ended(failure("lost"), usage=Usage(total_tokens=42), cost_usd=0.25))
    job = await stage.start()
    await failed(job)
    shown = (await job.describe()).typed_search_attributes
    assert (shown.get(SEEDANCE_TOKENS), shown.get(SEEDANCE_COST_USD)) == (42, 0.25)


async def test_the_end_that_stands_is_the_one_that_is_raised(stage: Stage) -> None:
    """Another run of the same job may have written it first."""
    standing = failure("expired", code="expired")
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", ending("failed", "provider"))
    stage.script.plan("write_end", EndResult(error=standing))
    job = await stage.start()
    assert await failed(job) == standing
    assert (await state(job)).phase == "expired"


async def test_an_end_that_was_written_meanwhile_is_raised_and_not_written_again(stage: Stage) -> None:
    error = failure("expired")
    stage.script.plan("read_ledger", stage.adopt(), stage.ended(error))
    stage.script.plan("get_task", waiting("running", 0), Observation(next="ended", status="expired", error=error))
    job = await stage.start()
    assert await failed(job) == error
    assert stage.script.names() == ["read_ledger", "get_task", "get_task", "read_ledger"]


async def test_an_end_that_was_followed_by_another_attempt_is_not_the_job_s(stage: Stage) -> None:
    """A Reset of an older run, while the attempt after its own is under way."""
    old = Observation(next="ended", status="expired", error=failure("expired"))
    stage.script.plan("read_ledger", stage.adopt(), stage.adopt(2 * TASK, attempt=2))
    stage.script.plan("get_task", old, to_store())
    stage.script.plan("store_video", RESULT)
    assert await (await stage.start()).result() == RESULT
    assert [call.order.task_id for call in stage.script.of("get_task")] == [TASK, 2 * TASK]


async def test_an_end_waits_for_the_ledger(skipping: Stage) -> None:
    stage = skipping
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", ending("failed", "provider"))
    stage.script.plan("write_end", *[ApplicationError("no bucket")] * 30, as_written)
    assert (await failed(await stage.start())).code == "failed"
    assert len(stage.script.of("write_end")) == 31


async def test_how_an_end_was_learned_is_told(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created())
    stage.script.plan("get_task", ending("failed", "provider"))
    stage.script.plan("write_end", as_written)
    job = await stage.start()
    await stage.script.called("create_task")
    await callback(job, "failed")
    await failed(job)
    assert [
        entry.source
        for entry in detail_of(await state(job)).timeline
        if entry.detail == "failed" and entry.event == "status"
    ] == ["callback"]


async def test_the_failure_holds_the_error_as_other_languages_read_it(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.ended(failure("moderation", "SensitiveContentDetected")))
    job = await stage.start()
    await failed(job)
    told = (await events(job))[-1].workflow_execution_failed_event_attributes.failure
    assert told.application_failure_info.type == "moderation"
    details = json.loads(told.application_failure_info.details.payloads[0].data)
    assert details == {
        "code": "SensitiveContentDetected",
        "message": "It ended: moderation.",
        "class": "moderation",
        "task_id": TASK,
        "attempt": 1,
        "resubmit_could_help": False,
    }


@pytest.mark.parametrize("attention", ["task_gone", "credentials"])
async def test_a_job_that_has_ended_needs_nobody(stage: Stage, attention: Attention) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", waiting("", 0, attention=attention, note="x"), ending("lost", "lost"))
    stage.script.plan("write_end", as_written)
    job = await stage.start()
    await failed(job)
    shown = await state(job)
    assert (shown.attention, detail_of(shown).advice) == (None, None)
    assert (await job.describe()).typed_search_attributes.get(SEEDANCE_ATTENTION) is None


async def test_a_second_task_is_still_shown_after_the_end(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt(second_task="cgt-second"))
    stage.script.plan("get_task", ending("failed", "provider"))
    stage.script.plan("write_end", as_written)
    job = await stage.start()
    await failed(job)
    assert (await state(job)).attention == "second_task"


# --- another attempt by itself ---------------------------------------------------------------------------------------


async def and_again(order: EndInput) -> EndResult:
    """The setting has another attempt left."""
    return EndResult(error=order.error, continues=True)


async def test_an_attempt_that_expired_is_followed_by_another_in_the_same_run(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim(1), stage.claim(2))
    stage.script.plan("create_task", stage.created("cgt-1", again=0), stage.created("cgt-2", again=0))
    errors = [failure("expired", attempt=attempt) for attempt in (1, 2)]
    stage.script.plan("get_task", *[Observation(next="end", status="expired", error=error) for error in errors])
    stage.script.plan("write_end", and_again, as_written)
    job = await stage.start()
    error = await failed(job)
    assert (error.failure_class, error.attempt) == ("expired", 2)
    once = ["read_ledger", "create_task", "get_task", "write_end"]
    assert stage.script.names() == once * 2
    assert [call.order.attempt for call in stage.script.of("create_task")] == [1, 2]
    assert [call.order.task_id for call in stage.script.of("get_task")] == ["cgt-1", "cgt-2"]
    told = noted(await state(job))
    assert told.count("job_continues") == 1
    assert told[-1] == "ended code (expired)"
    run = await job.describe()
    assert run.run_id == job.first_execution_run_id


async def test_the_second_attempt_can_be_stored(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim(1), stage.claim(2))
    stage.script.plan("create_task", stage.created("cgt-1"), stage.created(TASK))
    stage.script.plan("get_task", ending("failed", "provider"), waiting("queued"), to_store())
    stage.script.plan("write_end", and_again)
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await shows(job, phase="queued", task_id="cgt-1")
    await callback(job, "failed", "cgt-1")
    await shows(job, phase="queued", task_id=TASK, attempt=2)
    await callback(job, "running", TASK, attempt=2)
    await callback(job, "succeeded", TASK, attempt=2)
    await stage.script.called("get_task", 2)
    await callback(job, "succeeded", TASK, attempt=2)
    assert await job.result() == RESULT
    assert (await state(job)).error is None


async def test_a_cancel_meanwhile_is_stronger_than_another_attempt(stage: Stage) -> None:
    held = Held(EndResult(error=failure("expired", "expired"), continues=True))
    stage.script.plan("read_ledger", stage.claim(1), stage.claim(2), stage.claim(2))
    stage.script.plan("create_task", stage.created(again=0))
    stage.script.plan("get_task", ending("expired", "expired"))
    stage.script.plan("write_end", held)
    job = await stage.start()
    await held.reached.wait()
    wish = await begin_to_cancel(job)
    held.let_go()
    assert (await failed(job)).failure_class == "cancelled"
    assert (await wish.result()).outcome == "cancelled"
    assert len(stage.script.of("create_task")) == 1


async def test_a_cancel_that_a_running_task_refused_still_keeps_the_next_attempt_from_being_paid(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim(1), stage.claim(2), stage.claim(2))
    stage.script.plan("create_task", stage.created())
    stage.script.plan("cancel_task", CancelResult(outcome="running_will_finish", status="running"))
    stage.script.plan("get_task", waiting("running"), ending("expired", "expired"))
    stage.script.plan("write_end", and_again)
    job = await stage.start()
    await shows(job, phase="queued")
    assert (await cancel(job)).outcome == "running_will_finish"
    await callback(job, "expired")
    assert (await failed(job)).failure_class == "cancelled"
    assert len(stage.script.of("create_task")) == 1


async def test_a_job_that_may_not_create_ends_where_another_attempt_would_follow(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt(), stage.claim(2))
    stage.script.plan("get_task", ending("expired", "expired"))
    stage.script.plan("write_end", and_again)
    job = await stage.start(may_create=False)
    assert (await failed(job)).failure_class == "unsettled"
    assert stage.script.of("create_task") == []
