"""Ends without a video: written once with the timeline, and raised as the ledger holds them."""

from __future__ import annotations

import json

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError

from activities.ledger import EndResult
from activities.poll import Observation
from seedance_temporal.contract import SEEDANCE_ATTENTION, SEEDANCE_COST_USD, SEEDANCE_TOKENS
from seedance_temporal.job import Attention, Phase
from seedance_temporal.provider.task import FailureClass, Usage
from tests.support.jobs import detail_of
from tests.workflows.fakes import (
    RESULT,
    TASK,
    TOO_LATE,
    Held,
    adopt,
    and_again,
    as_written,
    claim,
    created,
    ended,
    ending,
    failure,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, noted

ENDS: list[tuple[str, FailureClass, Phase]] = [
    ("failed", "provider", "failed"),
    ("failed", "moderation", "failed"),
    ("failed", "invalid", "failed"),
    ("expired", "expired", "expired"),
    ("cancelled", "cancelled", "cancelled"),
    ("lost", "lost", "lost"),
]


@pytest.mark.parametrize(("status", "of", "phase"), ENDS)
async def test_end_is_written_and_raised_by_class(
    harness: Harness, status: str, of: FailureClass, phase: Phase
) -> None:
    harness.fake.create(created(seconds=0), attempt=2)
    error = failure(of, code=status, attempt=2)
    usage = Usage(total_tokens=42)
    harness.fake.plan("get_task", Observation(next="write_end", status=status, error=error, usage=usage, cost_usd=0.25))
    harness.fake.plan("write_end", as_written)
    job = await harness.start_until_failed(error)
    assert harness.fake.names() == ["read_ledger", "create_task", "get_task", "write_end"]
    input = harness.fake.input("write_end")
    assert (input.job_id, input.error, input.usage, input.cost_usd) == (job.id, error, usage, 0.25)
    assert noted(input.timeline) == ["task_created 2", f"status {status}"]
    shown = await job.state()
    assert (shown.phase, shown.error, shown.task_id, shown.attempt) == (phase, error, TASK, 2)
    assert (detail_of(shown).continues_at, shown.result) == (None, None)
    assert noted(shown)[-1] == f"ended {status} ({of})"
    run = await job.describe()
    assert run.status is WorkflowExecutionStatus.FAILED
    spent = [run.typed_search_attributes.get(key) for key in (SEEDANCE_TOKENS, SEEDANCE_COST_USD)]
    assert spent == ([42, 0.25] if of == "lost" else [None, None]), "only a task that succeeded is billed"


async def test_later_run_shows_cost_of_end(harness: Harness) -> None:
    """The run that saw it may have been deleted, or be out of its retention."""
    harness.fake.plan("read_ledger", ended(failure("lost"), usage=Usage(total_tokens=42), cost_usd=0.25))
    job = await harness.start_until_failed()
    shown = await job.attributes()
    assert (shown.get(SEEDANCE_TOKENS), shown.get(SEEDANCE_COST_USD)) == (42, 0.25)


async def test_existing_end_is_raised(harness: Harness) -> None:
    """Another run of the same job may have written it first."""
    standing = failure("expired", code="expired")
    harness.fake.follow(ending("failed", "provider"))
    harness.fake.plan("write_end", EndResult(error=standing))
    job = await harness.start_until_failed(standing)
    assert (await job.state()).phase == "expired"


async def test_concurrent_end_is_raised_not_rewritten(harness: Harness) -> None:
    error = failure("expired")
    harness.fake.plan("read_ledger", adopt(), ended(error))
    harness.fake.plan(
        "get_task", waiting("running", 0), Observation(next="already_ended", status="expired", error=error)
    )
    await harness.start_until_failed(error)
    assert harness.fake.names() == ["read_ledger", "get_task", "get_task", "read_ledger"]


async def test_resubmitted_end_is_not_job_end(harness: Harness) -> None:
    """A Reset of an older run, while the attempt after its own is under way."""
    old = Observation(next="already_ended", status="expired", error=failure("expired"))
    harness.fake.plan("read_ledger", adopt(), adopt(2 * TASK, attempt=2))
    harness.fake.plan("get_task", old, to_store())
    harness.fake.plan("store_video", RESULT)
    assert await (await harness.start()).result() == RESULT
    assert [call.input.task_id for call in harness.fake.of("get_task")] == [TASK, 2 * TASK]


async def test_end_waits_for_ledger(skipping: Harness) -> None:
    skipping.fake.follow(ending("failed", "provider"))
    skipping.fake.plan("write_end", *[ApplicationError("no bucket")] * 30, as_written)
    assert (await (await skipping.start()).failed()).code == "failed"
    assert len(skipping.fake.of("write_end")) == 31


async def test_end_shows_its_source(harness: Harness) -> None:
    harness.fake.create(created())
    harness.fake.end("failed", "provider")
    job = await harness.start_until_called("create_task")
    await job.callback("failed")
    await job.failed()
    assert [
        entry.source for entry in (await job.detail()).timeline if entry.detail == "failed" and entry.event == "status"
    ] == ["callback"]


async def test_failure_details_hold_json_error(harness: Harness) -> None:
    harness.fake.plan("read_ledger", ended(failure("moderation", "SensitiveContentDetected")))
    job = await harness.start_until_failed()
    end = (await job.events())[-1].workflow_execution_failed_event_attributes.failure.application_failure_info
    assert end.type == "moderation"
    details = json.loads(end.details.payloads[0].data)
    assert details == {
        "code": "SensitiveContentDetected",
        "message": "It ended: moderation.",
        "class": "moderation",
        "task_id": TASK,
        "attempt": 1,
        "resubmit_could_help": False,
    }


@pytest.mark.parametrize("attention", ["task_gone", "credentials"])
async def test_ended_job_clears_attention(harness: Harness, attention: Attention) -> None:
    harness.fake.follow(waiting("", 0, attention=attention, note="x"), ending("lost", "lost"))
    harness.fake.plan("write_end", as_written)
    job = await harness.start_until_failed()
    shown = await job.state()
    assert (shown.attention, detail_of(shown).advice) == (None, None)
    assert (await job.attributes()).get(SEEDANCE_ATTENTION) is None


async def test_second_task_outlives_job_end(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt(second_task="cgt-second"))
    harness.fake.end("failed", "provider")
    job = await harness.start_until_failed()
    assert (await job.state()).attention == "second_task"


# --- automatic resubmits ---------------------------------------------------------------------------------------------


async def test_expired_attempt_is_followed_in_same_run(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(1), claim(2))
    harness.fake.plan("create_task", created("cgt-1", seconds=0), created("cgt-2", seconds=0))
    errors = [failure("expired", attempt=attempt) for attempt in (1, 2)]
    harness.fake.plan("get_task", *[Observation(next="write_end", status="expired", error=error) for error in errors])
    harness.fake.plan("write_end", and_again, as_written)
    job = await harness.start()
    error = await job.failed()
    assert (error.failure_class, error.attempt) == ("expired", 2)
    once = ["read_ledger", "create_task", "get_task", "write_end"]
    assert harness.fake.names() == once * 2
    assert [call.input.attempt for call in harness.fake.of("create_task")] == [1, 2]
    assert [call.input.task_id for call in harness.fake.of("get_task")] == ["cgt-1", "cgt-2"]
    timeline = await job.noted()
    assert timeline.count("job_continues") == 1
    assert timeline[-1] == "ended code (expired)"
    run = await job.describe()
    assert run.run_id == job.first_execution_run_id


async def test_second_attempt_is_stored(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(1), claim(2))
    harness.fake.plan("create_task", created("cgt-1"), created(TASK))
    harness.fake.plan("get_task", ending("failed", "provider"))
    harness.fake.plan("write_end", and_again)
    harness.fake.not_ready(waiting("queued"))
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until_state(phase="queued", task_id="cgt-1")
    await job.callback("failed", "cgt-1")
    await job.until_state(phase="queued", task_id=TASK, attempt=2)
    await job.callback("running", TASK, attempt=2)
    await job.callback("succeeded", TASK, attempt=2)
    await harness.fake.called("get_task", 2)
    await job.callback("succeeded", TASK, attempt=2)
    assert await job.result() == RESULT
    assert (await job.state()).error is None


async def test_cancel_beats_automatic_resubmit(harness: Harness) -> None:
    held = Held(EndResult(error=failure("expired", "expired"), continues=True))
    harness.fake.plan("read_ledger", claim(1), claim(2), claim(2))
    harness.fake.plan("create_task", created(seconds=0))
    harness.fake.plan("get_task", ending("expired", "expired"))
    harness.fake.plan("write_end", held)
    job = await harness.start_until(held)
    await job.ask_to_cancel()
    held.release()
    assert (await job.failed()).failure_class == "cancelled"
    assert await job.cancel_outcome() == "cancelled"
    assert len(harness.fake.of("create_task")) == 1


async def test_refused_cancel_prevents_next_attempt(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(1), claim(2), claim(2))
    harness.fake.plan("create_task", created())
    harness.fake.plan("cancel_task", TOO_LATE)
    harness.fake.plan("get_task", waiting("running"), ending("expired", "expired"))
    harness.fake.plan("write_end", and_again)
    job = await harness.start_until_state(phase="queued")
    await job.ask_to_cancel()
    assert await job.until_cancel_answered() == "running_will_finish"
    await job.callback("expired")
    assert (await job.failed()).failure_class == "cancelled"
    assert len(harness.fake.of("create_task")) == 1


async def test_may_create_false_ends_before_next_attempt(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt(), claim(2))
    harness.fake.plan("get_task", ending("expired", "expired"))
    harness.fake.plan("write_end", and_again)
    job = await harness.start(may_create=False)
    assert (await job.failed()).failure_class == "unsettled"
    assert harness.fake.of("create_task") == []
