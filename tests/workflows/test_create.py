"""The paid create: scheduled once for each claim, and whatever came of it is known or looked for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.exceptions import ApplicationError

from activities.create import CreateResult
from activities.limits import QuotaResult
from seedance_temporal.contract import SEEDANCE_ATTENTION
from seedance_temporal.job import Attention
from tests.support.jobs import detail_of
from tests.workflows.scripted import (
    NONCE,
    RESULT,
    TASK,
    Held,
    Stage,
    begin_to_cancel,
    failed,
    failure,
    has_event,
    noted,
    scheduled,
    shows,
    state,
    to_store,
    until,
)
from workflows import policies


def finish(stage: Stage) -> None:
    stage.script.always("get_task", to_store())
    stage.script.always("store_video", RESULT)


async def test_a_created_task_is_followed(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim(attempt=2))
    stage.script.plan("create_task", stage.created(again=0))
    finish(stage)
    job = await stage.start()
    assert await job.result() == RESULT
    assert stage.script.names() == ["read_ledger", "create_task", "get_task", "store_video"]
    order = stage.script.order("create_task")
    assert (order.job_id, order.attempt, order.refusals) == (job.id, 2, 0)
    assert stage.script.order("get_task").attempt == 2
    assert "task_created 2" in noted(await state(job))


async def test_temporal_itself_never_sends_a_create_again(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created(again=0))
    finish(stage)
    job = await stage.start()
    await job.result()
    (event,) = await scheduled(job, "create_task")
    assert event.retry_policy.maximum_attempts == 1
    assert event.task_queue.name == f"seedance-{stage.route}-create"
    # A worker that heartbeats in it can be given it again by pause and unpause.
    assert event.heartbeat_timeout.ToTimedelta() == timedelta(0)
    assert event.start_to_close_timeout.ToTimedelta() == timedelta(seconds=20) + policies.CREATE_MARGIN
    # One that waits for a worker is not a failed one.
    assert event.schedule_to_start_timeout.ToTimedelta() == timedelta(0)


async def test_a_refusal_is_raised_as_the_ledger_tells_it(stage: Stage) -> None:
    error = failure("invalid", "InvalidParameter", task_id=None)
    stage.script.plan("read_ledger", stage.claim(), stage.ended(error))
    stage.script.plan("create_task", stage.refused())
    job = await stage.start()
    assert await failed(job) == error
    assert stage.script.names() == ["read_ledger", "create_task", "read_ledger"]
    assert (await state(job)).phase == "refused"


async def test_what_was_not_sent_is_sent_later_with_a_new_claim(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim(1), stage.claim(2), stage.claim(3))
    stage.script.plan("create_task", stage.not_sent(), stage.not_sent(), stage.created(again=0))
    finish(stage)
    job = await stage.start()
    assert await job.result() == RESULT
    assert stage.script.names()[:6] == ["read_ledger", "create_task"] * 3
    orders = [call.order for call in stage.script.of("create_task")]
    assert [(order.attempt, order.refusals) for order in orders] == [(1, 0), (2, 1), (3, 2)]
    assert stage.script.order("get_task").attempt == 3


async def test_a_create_that_was_not_sent_shows_that_it_waits(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.not_sent(again=3600))
    job = await stage.start()
    shown = await shows(job, phase="waiting")
    assert shown.attention is None
    assert (due := detail_of(shown).next_poll_at) is not None
    assert detail_of(shown).timeline[-1].detail == "ServerOverloaded: busy"
    assert due - detail_of(shown).timeline[-1].at == timedelta(hours=1)


@pytest.mark.parametrize("attention", ["account", "credentials"])
async def test_trouble_with_the_account_needs_a_person_until_it_is_mended(stage: Stage, attention: Attention) -> None:
    held = Held(stage.claim(2))
    stage.script.plan("read_ledger", stage.claim(1), held)
    stage.script.plan("create_task", stage.not_sent(attention=attention), stage.created())
    job = await stage.start()
    await held.reached.wait()
    shown = await state(job)
    assert (shown.attention, shown.phase) == (attention, "waiting")
    assert "Fix that" in (detail_of(shown).advice or "")
    assert (await job.describe()).typed_search_attributes.get(SEEDANCE_ATTENTION) == attention
    held.let_go()
    shown = await shows(job, phase="queued")
    assert (shown.attention, detail_of(shown).advice) == (None, None)
    assert f"attention_settled {attention}" in noted(shown)

    async def unset() -> bool:
        return (await job.describe()).typed_search_attributes.get(SEEDANCE_ATTENTION) is None

    await until(unset, "the search attribute is taken back")


async def test_trouble_that_goes_on_is_said_once(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim(1), stage.claim(2), stage.claim(3))
    stage.script.plan(
        "create_task", *[stage.not_sent(attention="account")] * 2, stage.not_sent(3600, attention="account")
    )
    job = await stage.start()
    await stage.script.called("create_task", 3)
    shown = await shows(job, phase="waiting", attention="account")
    assert noted(shown).count("attention_raised account") == 1


async def test_an_attempt_of_somebody_else_is_left_to_settle(skipping: Stage) -> None:
    stage = skipping
    stage.script.plan("read_ledger", stage.claim(), stage.adopt())
    stage.script.plan("create_task", CreateResult(kind="conflict"))
    finish(stage)
    job = await stage.start()
    assert await job.result() == RESULT
    assert stage.script.names() == ["read_ledger", "create_task", "read_ledger", "get_task", "store_video"]


async def test_a_request_that_can_never_be_sent_ends_before_a_claim(stage: Stage) -> None:
    error = failure("invalid", "invalid_request", task_id=None, attempt=None)
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", CreateResult(kind="impossible", error=error))
    job = await stage.start()
    assert await failed(job) == error
    assert stage.script.names() == ["read_ledger", "create_task"]


# Outcomes that are not known


@pytest.mark.parametrize(
    "answer",
    [
        CreateResult(kind="unknown", message="timed_out: no answer"),
        ApplicationError("it broke"),
        ApplicationError("it broke", non_retryable=True),
        ValueError("a bug"),
    ],
    ids=["reported", "error", "final error", "bug"],
)
async def test_an_unknown_outcome_is_looked_for_and_never_paid_for_again(stage: Stage, answer: Any) -> None:
    stage.script.plan("read_ledger", stage.claim(4))
    stage.script.plan("create_task", answer)
    # However often recovery looks: the ledger never says that it is settled before it is.
    stage.script.plan("ask_lister", *[stage.recover(attempt=4, again=0)] * 6, stage.adopt(attempt=4))
    finish(stage)
    job = await stage.start()
    assert await job.result() == RESULT
    assert stage.script.names() == ["read_ledger", "create_task", *["ask_lister"] * 7, "get_task", "store_video"]
    assert len(await scheduled(job, "create_task")) == 1
    assert {call.order.attempt for call in stage.script.of("ask_lister")} == {4}
    shown = await state(job)
    assert "outcome_unknown 4" in noted(shown)


async def test_a_create_that_ran_out_of_time_is_unknown(still: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = still
    stage.sandboxed = False
    monkeypatch.setattr(policies, "CREATE_MARGIN", timedelta(seconds=0.5))
    await stage.serve("workflows", "ledger", "create", "get", "list", "transfer")
    held = Held(CreateResult(kind="unknown"))
    stage.script.plan("read_ledger", stage.claim(create_seconds=0.5))
    stage.script.plan("create_task", held)
    stage.script.plan("ask_lister", stage.adopt())
    finish(stage)
    job = await stage.start()
    assert await job.result() == RESULT
    assert await has_event(job, EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT)
    assert stage.script.names() == ["read_ledger", "create_task", "ask_lister", "get_task", "store_video"]
    assert len(await scheduled(job, "create_task")) == 1


async def test_a_create_that_a_stopping_worker_cut_off_is_unknown(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim())
    held = Held(CreateResult(kind="unknown"))
    stage.script.plan("create_task", held)
    stage.script.plan("ask_lister", stage.adopt())
    finish(stage)
    job = await stage.start()
    await held.reached.wait()
    await stage.stop("create")
    await stage.serve("create")
    assert await job.result() == RESULT
    assert held.disturbed
    assert stage.script.names() == ["read_ledger", "create_task", "ask_lister", "get_task", "store_video"]
    (event,) = [entry for entry in detail_of(await state(job)).timeline if entry.event == "outcome_unknown"]
    assert event.detail


async def test_a_create_without_a_worker_waits_for_one(stage: Stage) -> None:
    await stage.stop("create")
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created(again=0))
    finish(stage)
    job = await stage.start()
    await shows(job, phase="creating")
    assert stage.script.of("create_task") == []
    await stage.serve("create")
    assert await job.result() == RESULT
    assert len(await scheduled(job, "create_task")) == 1


async def test_a_new_attempt_after_a_recovery_has_the_full_time(stage: Stage) -> None:
    """What recovery answers knows no time for a create: one that is cut off early would be unknown once more."""
    stage.script.plan("read_ledger", stage.recover(), stage.claim(2))
    stage.script.plan("ask_lister", stage.claim(2))
    stage.script.plan("create_task", stage.created(again=0))
    finish(stage)
    job = await stage.start()
    assert await job.result() == RESULT
    (event,) = await scheduled(job, "create_task")
    assert event.start_to_close_timeout.ToTimedelta() >= timedelta(seconds=20) + policies.CREATE_MARGIN
    assert stage.script.order("create_task").attempt == 2


# Outcomes that are known and not written


@pytest.mark.parametrize("kind", ["created", "refused", "not_sent"])
async def test_a_known_outcome_is_written_before_anything_else(stage: Stage, kind: str) -> None:
    stage.script.plan("read_ledger", stage.claim(5))
    reports = {
        "created": stage.created(again=0, written=False),
        "refused": stage.refused(written=False),
        "not_sent": stage.not_sent(written=False),
    }
    stage.script.plan("create_task", reports[kind])
    stage.script.plan("write_outcome", None)
    stage.script.always("read_ledger", stage.adopt())
    finish(stage)
    job = await stage.start()
    assert await job.result() == RESULT
    assert stage.script.names()[:3] == ["read_ledger", "create_task", "write_outcome"]
    order = stage.script.order("write_outcome")
    assert (order.claim.nonce, order.claim.attempt, order.outcome.kind) == (NONCE, 5, kind)
    assert order.outcome.task_id == (TASK if kind == "created" else None)


async def test_a_written_outcome_is_not_written_again(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created(again=0))
    finish(stage)
    await (await stage.start()).result()
    assert stage.script.of("write_outcome") == []


async def test_the_job_waits_until_the_outcome_is_written(skipping: Stage) -> None:
    """The bucket may be away for hours: nothing goes on with a fact that only this run knows."""
    stage = skipping
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created(again=0, written=False))
    stage.script.plan("write_outcome", *[ApplicationError("no bucket")] * 100, None)
    finish(stage)
    job = await stage.start()
    assert await job.result() == RESULT
    assert stage.script.names() == ["read_ledger", "create_task", *["write_outcome"] * 101, "get_task", "store_video"]
    assert {call.order.claim.nonce for call in stage.script.of("write_outcome")} == {NONCE}


# Limits


async def test_where_limits_are_set_each_claim_is_allowed_first(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim(1, limited=True), stage.claim(2, limited=True))
    stage.script.plan(
        "reserve_quota", QuotaResult(used="1 of 10 videos today"), QuotaResult(used="1 of 10 videos today")
    )
    stage.script.plan("create_task", stage.not_sent(), stage.created(again=0))
    finish(stage)
    job = await stage.start()
    assert await job.result() == RESULT
    assert stage.script.names()[:6] == ["read_ledger", "reserve_quota", "create_task"] * 2
    order = stage.script.order("reserve_quota")
    assert (order.job_id, order.request.user_id) == (job.id, "user-42")


async def test_over_a_limit_the_run_ends_before_a_claim(stage: Stage) -> None:
    error = failure("invalid", "over_limit", task_id=None, attempt=None)
    stage.script.plan("read_ledger", stage.claim(limited=True))
    stage.script.plan("reserve_quota", QuotaResult(error=error))
    job = await stage.start()
    assert await failed(job) == error
    assert stage.script.names() == ["read_ledger", "reserve_quota"]
    assert (await state(job)).phase == "failed"


async def test_a_cancelled_job_takes_no_place(stage: Stage) -> None:
    held = Held(stage.claim(limited=True))
    stage.script.plan("read_ledger", held, stage.claim(limited=True))
    job = await stage.start()
    await held.reached.wait()
    update = await begin_to_cancel(job)
    held.let_go()
    assert (await update.result()).outcome == "cancelled"
    assert (await failed(job)).failure_class == "cancelled"
    assert stage.script.names() == ["read_ledger", "read_ledger"]
