"""Cancel at every moment, by the signal and by Temporal's own: no paid task is lost, nothing more is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError

from activities.create import CreateResult
from activities.poll import CancelResult
from seedance_temporal.contract import SIGNAL_CANCEL
from tests.support.polling import until
from tests.workflows.fakes import (
    CANCELLED,
    OTHER_TASK,
    OURS,
    RESULT,
    SHORT,
    TASK,
    TOO_LATE,
    Held,
    adopt,
    as_written,
    claim,
    created,
    ended,
    ending,
    failure,
    not_sent,
    recover,
    refused,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, Job, noted


@pytest.fixture
def harness(both_orders: Harness) -> Harness:
    return both_orders


class CancelRequest(Protocol):
    """Request a cancel; return a function that returns its answer: "any" where the way gives none."""

    async def __call__(self, job: Job) -> Answer: ...


Answer = Callable[[], Awaitable[str]]


async def by_signal(job: Job) -> Answer:
    await job.ask_to_cancel()
    return job.until_cancel_answered


async def by_temporal(job: Job) -> Answer:
    await job.cancel()
    await job.until_noted("cancel_requested")

    async def answer() -> str:
        return "any"

    return answer


both = pytest.mark.parametrize("ask", [by_signal, by_temporal], ids=["signal", "temporal"])


async def assert_cancelled(job: Job, code: str = "cancelled") -> None:
    """Assert that the run ended Failed, in class cancelled; Temporal's own Cancelled says nothing of the cost."""
    error = await job.failed()
    assert (error.failure_class, error.code) == ("cancelled", code)
    assert (await job.describe()).status is WorkflowExecutionStatus.FAILED
    assert (await job.state()).phase == "cancelled"


# Before anything was created. A cancel then reads the ledger once more, hence the last decision of each plan.


@both
async def test_nothing_is_sent_before_ledger_read(harness: Harness, ask: CancelRequest) -> None:
    held = Held(claim())
    harness.fake.plan("read_ledger", held, claim())
    job = await harness.start_until(held)
    answer = await ask(job)
    held.release()
    assert await answer() in {"any", "cancelled"}
    await assert_cancelled(job)
    assert harness.fake.names() == ["read_ledger", "read_ledger"]
    assert await job.scheduled("create_task") == []
    assert "nothing is billed" in (await job.failed()).message
    # The same request can be submitted again, because no attempt is named.
    assert (await job.failed()).attempt is None


async def test_early_cancel_sends_nothing(idle: Harness) -> None:
    idle.fake.plan("read_ledger", claim(), claim())
    job = await idle.start()
    await job.cancel()
    await idle.start_workers("workflows", "ledger", "create")
    await assert_cancelled(job)
    assert idle.fake.names() == ["read_ledger", "read_ledger"]


async def test_cancel_with_stale_decision_leaves_no_task(harness: Harness) -> None:
    """A Reset brings back the cancel request, and a decision from before the create."""
    held = Held(claim())
    harness.fake.plan("read_ledger", held, adopt())
    harness.fake.plan("cancel_task", TOO_LATE)
    harness.fake.finish()
    job = await harness.start_until(held)
    await job.cancel()
    held.release()
    assert await job.result() == RESULT
    assert harness.fake.of("create_task") == []


@both
async def test_unstarted_create_is_withdrawn(harness: Harness, ask: CancelRequest) -> None:
    await harness.stop("create")
    harness.fake.plan("read_ledger", claim(), claim(2), claim(2))
    job = await harness.start_until_state(phase="creating")
    answer = await ask(job)
    assert await answer() in {"any", "cancelled"}
    await assert_cancelled(job)
    assert harness.fake.names() == ["read_ledger", "read_ledger", "read_ledger"]
    (withdrawn,) = [e for e in await job.events() if e.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELED]
    assert withdrawn.activity_task_canceled_event_attributes.started_event_id == 0
    await harness.start_workers("create")
    await asyncio.sleep(0.5)
    assert harness.fake.of("create_task") == []


@both
async def test_nothing_is_sent_before_wait_is_over(harness: Harness, ask: CancelRequest) -> None:
    harness.fake.plan("read_ledger", claim(1), claim(2), claim(2))
    harness.fake.plan("create_task", not_sent(seconds=3600, attention="account"))
    job = await harness.start_until_state(phase="waiting")
    answer = await ask(job)
    assert await answer() in {"any", "cancelled"}
    await assert_cancelled(job)
    assert harness.fake.names() == ["read_ledger", "create_task", "read_ledger", "read_ledger"]
    assert (await job.state()).attention is None


@both
async def test_foreign_created_task_is_followed(harness: Harness, ask: CancelRequest) -> None:
    harness.fake.plan("read_ledger", claim(1), adopt(OTHER_TASK, attempt=2))
    harness.fake.plan("create_task", not_sent(seconds=3600))
    harness.fake.cancel()
    job = await harness.start_until_state(phase="waiting")
    answer = await ask(job)
    assert await answer() in {"any", "cancelled"}
    await assert_cancelled(job)
    assert harness.fake.input("cancel_task").task_id == OTHER_TASK


# While a create is under way


@both
async def test_running_create_is_awaited_and_task_cancelled(harness: Harness, ask: CancelRequest) -> None:
    harness.fake.cancel()
    job, go = await harness.start_creating(created())
    answer = await ask(job)
    await asyncio.sleep(0.2)
    assert not go.cancelled
    assert (await job.describe()).status is WorkflowExecutionStatus.RUNNING
    go.release()
    assert await answer() in {"any", "cancelled"}
    await assert_cancelled(job)
    assert harness.fake.names() == ["read_ledger", "create_task", "cancel_task", "get_task", "write_end"]
    assert harness.fake.input("cancel_task").task_id == TASK


@pytest.mark.parametrize("first", ["cancel", "completion"])
@pytest.mark.parametrize("how", ["signal", "temporal"])
async def test_cancel_with_create_answer_keeps_task(harness: Harness, first: str, how: str) -> None:

    async def complete() -> None:
        go.release()
        await until(lambda: _completions(job, 2), "the create's answer is in the history")

    async def request_cancel() -> None:
        if how == "temporal":
            await job.cancel()
        else:
            await job.signal(SIGNAL_CANCEL)

    harness.fake.cancel()
    job, go = await harness.start_creating(created())
    await harness.stop("workflows")
    for step in (request_cancel, complete) if first == "cancel" else (complete, request_cancel):
        await step()
    await harness.start_workers("workflows")
    await assert_cancelled(job)
    assert harness.fake.names() == ["read_ledger", "create_task", "cancel_task", "get_task", "write_end"]
    assert harness.fake.input("cancel_task").task_id == TASK
    assert await job.cancel_outcome() == "cancelled"


async def _completions(job: Job, count: int) -> bool:
    done = [e for e in await job.events() if e.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED]
    return len(done) >= count


@both
async def test_running_create_not_sent_is_not_repeated(harness: Harness, ask: CancelRequest) -> None:
    job, go = await harness.start_creating(not_sent(seconds=3600))
    harness.fake.plan("read_ledger", claim(2), claim(2))
    await ask(job)
    go.release()
    await assert_cancelled(job)
    assert harness.fake.names() == ["read_ledger", "create_task", "read_ledger", "read_ledger"]


@both
async def test_running_create_with_unknown_outcome_recovers(harness: Harness, ask: CancelRequest) -> None:
    harness.fake.plan("ask_lister", recover(seconds=0), adopt())
    harness.fake.cancel()
    job, go = await harness.start_creating(CreateResult(kind="unknown", message="no answer"))
    await ask(job)
    go.release()
    await assert_cancelled(job)
    assert harness.fake.names()[2:5] == ["ask_lister", "ask_lister", "cancel_task"]


@both
async def test_refused_create_ends_refused(harness: Harness, ask: CancelRequest) -> None:
    error = failure("invalid", task_id=None)
    job, go = await harness.start_creating(refused())
    harness.fake.plan("read_ledger", ended(error))
    answer = await ask(job)
    go.release()
    assert await job.failed() == error
    assert await answer() in {"any", "already_closed"}


# During a recovery


@both
async def test_unknown_outcome_outlives_cancel(harness: Harness, ask: CancelRequest) -> None:
    harness.fake.plan("read_ledger", recover(), adopt())
    harness.fake.plan("ask_lister", recover())
    harness.fake.plan("identify_task", OURS)
    harness.fake.cancel()
    job = await harness.start_until_called("ask_lister")
    await ask(job)
    assert await job.cancel_outcome() is None
    assert (await job.describe()).status is WorkflowExecutionStatus.RUNNING
    assert (await job.state()).phase == "recovering"
    await job.callback("running")
    await assert_cancelled(job)
    assert harness.fake.names()[-4:] == ["read_ledger", "cancel_task", "get_task", "write_end"]


async def test_cancel_prevents_attempt_after_absent_one(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(), claim(2), claim(2))
    held = Held(claim(2))
    harness.fake.plan("ask_lister", held)
    job = await harness.start_until(held)
    await by_temporal(job)
    held.release()
    await assert_cancelled(job)
    assert harness.fake.of("create_task") == []


# While the provider has the task


@both
async def test_queued_task_is_cancelled_at_provider(harness: Harness, ask: CancelRequest) -> None:
    harness.fake.cancel()
    job = await harness.start_queued()
    answer = await ask(job)
    assert await answer() in {"any", "cancelled"}
    await assert_cancelled(job)
    assert harness.fake.names() == ["read_ledger", "create_task", "cancel_task", "get_task", "write_end"]
    assert harness.fake.input("get_task").announced
    input = harness.fake.input("cancel_task")
    assert (input.job_id, input.task_id, input.attempt) == (job.id, TASK, 1)
    timeline = noted(harness.fake.input("write_end").timeline)
    assert timeline[-3:] == ["cancel_requested", "cancel_answered cancelled, cancelled", "status cancelled"]


@both
async def test_cancelled_running_task_is_stored(harness: Harness, ask: CancelRequest) -> None:
    job = await harness.start_running()
    harness.fake.plan("get_task", waiting("running"), to_store())
    harness.fake.plan("cancel_task", TOO_LATE)
    harness.fake.plan("store_video", RESULT)
    answer = await ask(job)
    assert await answer() in {"any", "running_will_finish"}
    await harness.fake.called("get_task", 2)
    assert (await job.state()).phase == "running"
    await job.callback("succeeded")
    assert await job.result() == RESULT
    assert len(harness.fake.of("cancel_task")) == 1


@both
async def test_cancel_during_poll_follows_it(harness: Harness, ask: CancelRequest) -> None:
    held = Held(waiting("queued"))
    harness.fake.follow(held)
    harness.fake.cancel()
    job = await harness.start_until(held)
    await ask(job)
    held.release()
    await assert_cancelled(job)


@both
async def test_cancel_during_copy_stores_video(harness: Harness, ask: CancelRequest) -> None:
    job, held = await harness.start_copying()
    answer = await ask(job)
    # At once, though the copy goes on: its outcome is known.
    assert await asyncio.wait_for(answer(), 5) in {"any", "running_will_finish"}
    assert not held.cancelled
    held.release()
    assert await job.result() == RESULT
    assert harness.fake.of("cancel_task") == []


async def test_task_ended_during_cancel_keeps_its_end(harness: Harness) -> None:
    job = await harness.start_running()
    harness.fake.plan("get_task", ending("failed", "provider"))
    harness.fake.plan("cancel_task", CancelResult(outcome="running_will_finish", status="failed"))
    harness.fake.plan("write_end", as_written)
    await job.ask_to_cancel()
    assert (await job.failed()).failure_class == "provider"
    assert await job.cancel_outcome() == "already_closed"


@pytest.mark.parametrize("status", ["running", "succeeded"])
async def test_cancel_that_is_not_served_stops_no_poll(harness: Harness, status: str) -> None:
    harness.fake.plan("read_ledger", adopt())
    harness.fake.plan("get_task", waiting("queued"), waiting("queued", SHORT), waiting("queued"))
    harness.fake.always("cancel_task", ApplicationError("401", type="ProviderUnavailable", non_retryable=True))
    job = await harness.start()
    await job.until_state(provider_status="queued")
    await job.ask_to_cancel()
    await harness.fake.called("get_task", 3)
    asked = len(harness.fake.of("cancel_task"))
    assert asked == 2, "with each poll, and not without one"
    assert (await job.noted()).count("cancel_not_served") == asked
    if status == "succeeded":
        harness.fake.always("get_task", to_store())
        harness.fake.always("store_video", RESULT)
        await job.callback("succeeded")
        assert await job.result() == RESULT
    else:
        harness.fake.always("cancel_task", CANCELLED)
        harness.fake.always("get_task", ending("cancelled", "cancelled"))
        harness.fake.always("write_end", as_written)
        await job.callback("succeeded")
        await assert_cancelled(job)


async def test_cancel_with_lost_answer_is_retried(harness: Harness) -> None:
    harness.fake.follow(waiting("queued"), ending("cancelled", "cancelled"))
    harness.fake.plan("cancel_task", RuntimeError("503"), CANCELLED)
    harness.fake.plan("write_end", as_written)
    job = await harness.start_until_state(provider_status="queued")
    await job.ask_to_cancel()
    assert await job.until_cancel_answered() == "cancelled"
    await assert_cancelled(job)


# Repeated cancels


async def test_repeated_cancel_is_done_once(harness: Harness) -> None:
    job = await harness.start_running()
    harness.fake.plan("get_task", waiting("running"), to_store())
    go = Held(TOO_LATE)
    harness.fake.plan("cancel_task", go)
    harness.fake.plan("store_video", RESULT)
    for _ in range(2):
        await job.ask_to_cancel()
        await job.cancel()
    go.release()
    assert await job.until_cancel_answered() == "running_will_finish"
    await job.ask_to_cancel()
    assert await job.cancel_outcome() == "running_will_finish"
    await job.callback("succeeded")
    assert await job.result() == RESULT
    assert len(harness.fake.of("cancel_task")) == 1
    assert (await job.noted()).count("cancel_requested") == 1


async def test_cancel_in_last_step_is_answered(harness: Harness) -> None:
    """The video is stored, and the run closes, in the step in which the cancel comes."""
    job, held = await harness.start_copying()
    await job.until_state(phase="storing")
    await harness.stop("workflows")
    await job.signal(SIGNAL_CANCEL)
    held.release()
    await until(lambda: _completions(job, 3), "the copy's answer is in the history")
    await harness.start_workers("workflows")
    assert await job.result() == RESULT
    assert await job.cancel_outcome() == "running_will_finish"


async def test_cancel_waits_for_written_outcome(harness: Harness) -> None:
    go = Held(None)
    harness.fake.create(created(seconds=0, written=False))
    harness.fake.plan("write_outcome", go)
    harness.fake.cancel()
    job = await harness.start_until(go)
    await by_temporal(job)
    await asyncio.sleep(0.2)
    assert harness.fake.names() == ["read_ledger", "create_task", "write_outcome"]
    go.release()
    await assert_cancelled(job)
    assert harness.fake.names()[3] == "cancel_task"
