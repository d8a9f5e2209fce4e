"""The paid create: scheduled once for each claim; its outcome is known, or recovery starts."""

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
from tests.workflows.fakes import (
    NONCE,
    RESULT,
    TASK,
    Held,
    adopt,
    claim,
    create_result,
    created,
    ended,
    failure,
    not_sent,
    recover,
    refused,
)
from tests.workflows.harness import Harness, noted
from workflows import policies


async def test_created_task_is_followed(harness: Harness) -> None:
    harness.fake.create(created(seconds=0), attempt=2)
    harness.fake.finish()
    job = await harness.start_until_stored()
    assert harness.fake.names() == ["read_ledger", "create_task", "get_task", "store_video"]
    input = harness.fake.input("create_task")
    assert (input.job_id, input.attempt, input.refusals) == (job.id, 2, 0)
    assert harness.fake.input("get_task").attempt == 2
    assert "task_created 2" in await job.noted()


async def test_temporal_never_retries_create(harness: Harness) -> None:
    harness.fake.create(created(seconds=0))
    harness.fake.finish()
    job = await harness.start_until_stored()
    (event,) = await job.scheduled("create_task")
    assert event.retry_policy.maximum_attempts == 1
    assert event.task_queue.name == f"seedance-{harness.route}-create"
    # After pause and unpause, a worker that heartbeats in it could be given it again.
    assert event.heartbeat_timeout.ToTimedelta() == timedelta(0)
    assert event.start_to_close_timeout.ToTimedelta() == timedelta(seconds=20) + policies.CREATE_MARGIN
    # A create that waits for a worker has not failed.
    assert event.schedule_to_start_timeout.ToTimedelta() == timedelta(0)


async def test_refusal_in_ledger_is_raised(harness: Harness) -> None:
    error = failure("invalid", "InvalidParameter", task_id=None)
    harness.fake.plan("read_ledger", claim(), ended(error))
    harness.fake.plan("create_task", refused())
    job = await harness.start_until_failed(error)
    assert harness.fake.names() == ["read_ledger", "create_task", "read_ledger"]
    assert (await job.state()).phase == "refused"


async def test_unsent_create_is_sent_with_new_claim(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(1), claim(2), claim(3))
    harness.fake.plan("create_task", not_sent(), not_sent(), created(seconds=0))
    harness.fake.finish()
    await harness.start_until_stored()
    assert harness.fake.names()[:6] == ["read_ledger", "create_task"] * 3
    inputs = [call.input for call in harness.fake.of("create_task")]
    assert [(input.attempt, input.refusals) for input in inputs] == [(1, 0), (2, 1), (3, 2)]
    assert harness.fake.input("get_task").attempt == 3


@pytest.mark.parametrize(("resolution", "queue"), [("4k", "create_4k"), ("1080p", "create")])
async def test_creates_at_4k_have_a_queue(idle: Harness, resolution: str, queue: str) -> None:
    idle.fake.plan("read_ledger", claim())
    idle.fake.plan("create_task", created(seconds=0))
    idle.fake.finish()
    await idle.start_workers("workflows", "ledger", "get", "list", "transfer", queue)
    job = await idle.start(resolution=resolution)
    await job.result()


async def test_failed_downloads_are_counted_in_a_row(harness: Harness) -> None:
    passing = not_sent(code="InvalidParameter", passing=True)
    harness.fake.plan("read_ledger", *(claim(attempt) for attempt in range(1, 6)))
    harness.fake.plan("create_task", passing, passing, not_sent(), passing, created(seconds=0))
    harness.fake.finish()
    await harness.start_until_stored()
    assert [call.input.passing for call in harness.fake.of("create_task")] == [0, 1, 2, 0, 1]


async def test_lost_answer_ends_the_row_of_unsent_creates(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(1), claim(2))
    harness.fake.plan("create_task", not_sent(), create_result("unknown"), created(seconds=0))
    harness.fake.plan("ask_lister", claim(3))
    harness.fake.finish()
    await harness.start_until_stored()
    inputs = [call.input for call in harness.fake.of("create_task")]
    assert [(input.attempt, input.refusals) for input in inputs] == [(1, 0), (2, 1), (3, 0)]


async def test_unsent_create_shows_waiting(harness: Harness) -> None:
    harness.fake.create(not_sent(seconds=3600))
    job = await harness.start()
    shown = await job.until_state(phase="waiting")
    assert shown.attention is None
    assert (due := detail_of(shown).continues_at) is not None
    assert detail_of(shown).timeline[-1].detail == "ServerOverloaded: busy"
    assert due - detail_of(shown).timeline[-1].at == timedelta(hours=1)


@pytest.mark.parametrize("attention", ["account", "credentials"])
async def test_account_problem_needs_operator_until_fixed(harness: Harness, attention: Attention) -> None:
    held = Held(claim(2))
    harness.fake.plan("read_ledger", claim(1), held)
    harness.fake.plan("create_task", not_sent(attention=attention), created())
    job = await harness.start_until(held)
    shown = await job.state()
    assert (shown.attention, shown.phase) == (attention, "waiting")
    assert "Fix that" in (detail_of(shown).advice or "")
    assert (await job.attributes()).get(SEEDANCE_ATTENTION) == attention
    held.release()
    shown = await job.until_state(phase="queued")
    assert (shown.attention, detail_of(shown).advice) == (None, None)
    assert f"attention_settled {attention}" in noted(shown)
    await job.until_unset(SEEDANCE_ATTENTION)


async def test_lasting_problem_is_noted_once(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(1), claim(2), claim(3))
    harness.fake.plan("create_task", *[not_sent(attention="account")] * 2, not_sent(3600, attention="account"))
    job = await harness.start()
    await harness.fake.called("create_task", 3)
    shown = await job.until_state(phase="waiting", attention="account")
    assert noted(shown).count("attention_raised account") == 1


async def test_conflicting_claim_waits_and_rereads(skipping: Harness) -> None:
    skipping.fake.plan("read_ledger", claim(), adopt())
    skipping.fake.plan("create_task", CreateResult(kind="conflict"))
    skipping.fake.finish()
    await skipping.start_until_stored()
    assert skipping.fake.names() == ["read_ledger", "create_task", "read_ledger", "get_task", "store_video"]


async def test_impossible_request_ends_before_claim(harness: Harness) -> None:
    error = failure("invalid", "invalid_request", task_id=None, attempt=None)
    harness.fake.create(CreateResult(kind="impossible", error=error))
    await harness.start_until_failed(error)
    assert harness.fake.names() == ["read_ledger", "create_task"]


# Unknown outcomes


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
async def test_unknown_outcome_is_never_paid_again(harness: Harness, answer: Any) -> None:
    harness.fake.create(answer, attempt=4)
    # The ledger does not say that the attempt is settled, however often it is read.
    harness.fake.plan("ask_lister", *[recover(attempt=4, seconds=0)] * 6, adopt(attempt=4))
    harness.fake.finish()
    job = await harness.start_until_stored()
    assert harness.fake.names() == ["read_ledger", "create_task", *["ask_lister"] * 7, "get_task", "store_video"]
    assert len(await job.scheduled("create_task")) == 1
    assert {call.input.attempt for call in harness.fake.of("ask_lister")} == {4}
    shown = await job.state()
    assert "outcome_unknown 4" in noted(shown)


async def test_timed_out_create_is_unknown(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "CREATE_MARGIN", timedelta(seconds=0.5))
    held = Held(CreateResult(kind="unknown"))
    unsandboxed.fake.create(held, create_seconds=0.5)
    unsandboxed.fake.plan("ask_lister", adopt())
    unsandboxed.fake.finish()
    job = await unsandboxed.start_until_stored()
    assert await job.has_event(EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT)
    assert unsandboxed.fake.names() == ["read_ledger", "create_task", "ask_lister", "get_task", "store_video"]
    assert len(await job.scheduled("create_task")) == 1


async def test_create_cut_off_by_worker_stop_is_unknown(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim())
    held = Held(CreateResult(kind="unknown"))
    harness.fake.plan("create_task", held)
    harness.fake.plan("ask_lister", adopt())
    harness.fake.finish()
    job = await harness.start_until(held)
    await harness.stop("create")
    await harness.start_workers("create")
    assert await job.result() == RESULT
    assert held.cancelled
    assert harness.fake.names() == ["read_ledger", "create_task", "ask_lister", "get_task", "store_video"]
    (event,) = [entry for entry in (await job.detail()).timeline if entry.event == "outcome_unknown"]
    assert event.detail


async def test_create_waits_for_worker(harness: Harness) -> None:
    await harness.stop("create")
    harness.fake.create(created(seconds=0))
    harness.fake.finish()
    job = await harness.start_until_state(phase="creating")
    assert harness.fake.of("create_task") == []
    await harness.start_workers("create")
    assert await job.result() == RESULT
    assert len(await job.scheduled("create_task")) == 1


async def test_attempt_after_recovery_has_full_patience(harness: Harness) -> None:
    """A decision of recovery holds no time limit for a create: one that is cut off early would be unknown once more."""
    harness.fake.plan("read_ledger", recover(), claim(2))
    harness.fake.plan("ask_lister", claim(2))
    harness.fake.plan("create_task", created(seconds=0))
    harness.fake.finish()
    job = await harness.start_until_stored()
    (event,) = await job.scheduled("create_task")
    assert event.start_to_close_timeout.ToTimedelta() >= timedelta(seconds=20) + policies.CREATE_MARGIN
    assert harness.fake.input("create_task").attempt == 2


# Known outcomes that were not written


@pytest.mark.parametrize("kind", ["created", "refused", "not_sent"])
async def test_known_outcome_is_written_first(harness: Harness, kind: str) -> None:
    harness.fake.plan("read_ledger", claim(5))
    reports = {
        "created": created(seconds=0, written=False),
        "refused": refused(written=False),
        "not_sent": not_sent(written=False),
    }
    harness.fake.plan("create_task", reports[kind])
    harness.fake.plan("write_outcome", None)
    harness.fake.always("read_ledger", adopt())
    harness.fake.finish()
    await harness.start_until_stored()
    assert harness.fake.names()[:3] == ["read_ledger", "create_task", "write_outcome"]
    input = harness.fake.input("write_outcome")
    assert (input.claim.nonce, input.claim.attempt, input.outcome.kind) == (NONCE, 5, kind)
    assert input.outcome.task_id == (TASK if kind == "created" else None)


async def test_written_outcome_is_not_rewritten(harness: Harness) -> None:
    harness.fake.create(created(seconds=0))
    harness.fake.finish()
    await (await harness.start()).result()
    assert harness.fake.of("write_outcome") == []


async def test_job_waits_for_written_outcome(skipping: Harness) -> None:
    """The bucket may be away for hours: the job must not go on with a fact that only this run knows."""
    skipping.fake.create(created(seconds=0, written=False))
    skipping.fake.plan("write_outcome", *[ApplicationError("no bucket")] * 100, None)
    skipping.fake.finish()
    await skipping.start_until_stored()
    assert skipping.fake.names() == ["read_ledger", "create_task", *["write_outcome"] * 101, "get_task", "store_video"]
    assert {call.input.claim.nonce for call in skipping.fake.of("write_outcome")} == {NONCE}


# Limits


async def test_limits_reserve_quota_before_each_claim(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(1, limited=True), claim(2, limited=True))
    harness.fake.plan(
        "reserve_quota", QuotaResult(used="1 of 10 videos today"), QuotaResult(used="1 of 10 videos today")
    )
    harness.fake.plan("create_task", not_sent(), created(seconds=0))
    harness.fake.finish()
    job = await harness.start_until_stored()
    assert harness.fake.names()[:6] == ["read_ledger", "reserve_quota", "create_task"] * 2
    input = harness.fake.input("reserve_quota")
    assert (input.job_id, input.request.user_id) == (job.id, "user-42")


async def test_over_limit_ends_before_claim(harness: Harness) -> None:
    error = failure("invalid", "over_limit", task_id=None, attempt=None)
    harness.fake.plan("read_ledger", claim(limited=True))
    harness.fake.plan("reserve_quota", QuotaResult(error=error))
    job = await harness.start_until_failed(error)
    assert harness.fake.names() == ["read_ledger", "reserve_quota"]
    assert (await job.state()).phase == "failed"


async def test_cancelled_job_reserves_no_quota(harness: Harness) -> None:
    held = Held(claim(limited=True))
    harness.fake.plan("read_ledger", held, claim(limited=True))
    job = await harness.start_until(held)
    await job.ask_to_cancel()
    held.release()
    assert await job.until_cancel_answered() == "cancelled"
    assert (await job.failed()).failure_class == "cancelled"
    assert harness.fake.names() == ["read_ledger", "read_ledger"]
