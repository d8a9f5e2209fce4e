"""The ledger decides the next step of a run."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import Resubmit
from seedance_temporal.job import Phase
from seedance_temporal.provider.task import FailureClass
from tests.support.jobs import detail_of
from tests.workflows.fakes import OTHER_TASK, RESULT, TASK, adopt, claim, ended, failure, not_sent, recover, stored
from tests.workflows.harness import Harness, noted


async def test_stored_video_is_returned_at_once(harness: Harness) -> None:
    harness.fake.plan("read_ledger", stored())
    job = await harness.start_until_stored()
    assert harness.fake.names() == ["read_ledger"]
    shown = await job.state()
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
async def test_existing_end_is_raised_not_rewritten(
    harness: Harness, of: FailureClass, task_id: str | None, phase: Phase
) -> None:
    error = failure(of, task_id=task_id)
    harness.fake.plan("read_ledger", ended(error))
    job = await harness.start_until_failed(error)
    assert harness.fake.names() == ["read_ledger"]
    shown = await job.state()
    assert (shown.phase, shown.error, shown.task_id, shown.attempt) == (phase, error, task_id, 1)


async def test_known_task_is_followed_without_create(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt(attempt=3))
    harness.fake.finish()
    job = await harness.start_until_stored()
    assert harness.fake.names() == ["read_ledger", "get_task", "store_video"]
    got, copied = harness.fake.input("get_task"), harness.fake.input("store_video")
    assert (got.job_id, got.task_id, got.attempt, got.polls) == (job.id, TASK, 3, 0)
    assert (copied.job_id, copied.task_id, copied.attempt) == (job.id, TASK, 3)


async def test_unknown_attempt_recovers_without_create(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(attempt=2))
    harness.fake.plan("ask_lister", adopt(attempt=2))
    harness.fake.finish()
    await harness.start_until_stored()
    assert harness.fake.names() == ["read_ledger", "ask_lister", "get_task", "store_video"]
    assert harness.fake.input("ask_lister").attempt == 2


async def test_may_create_false_ends_unsettled(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(attempt=2))
    job = await harness.start(may_create=False)
    error = await job.failed()
    assert (error.failure_class, error.code, error.attempt) == ("unsettled", "may_not_create", None)
    assert harness.fake.names() == ["read_ledger"]
    assert await job.scheduled("create_task") == []
    assert (await job.state()).phase == "checking"


async def test_may_create_false_follows_existing_task(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt())
    harness.fake.finish()
    assert await (await harness.start(may_create=False)).result() == RESULT


async def test_may_create_false_ends_after_recovery(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover())
    harness.fake.plan("ask_lister", claim(2))
    harness.fake.always("read_ledger", claim(attempt=2))
    assert (await (await harness.start(may_create=False)).failed()).failure_class == "unsettled"
    assert harness.fake.of("create_task") == []


async def test_each_read_has_job_and_resubmit(harness: Harness) -> None:
    resubmit = Resubmit(attempt=1, accept_second_charge=True)
    harness.fake.plan("read_ledger", claim(attempt=2), stored())
    harness.fake.plan("create_task", not_sent(seconds=0))
    job = await harness.start_until_stored(resubmit=resubmit)
    inputs = [call.input for call in harness.fake.of("read_ledger")]
    assert [input.resubmit for input in inputs] == [resubmit, resubmit]
    assert {input.job_id for input in inputs} == {job.id}
    assert inputs[0].request.route == harness.route


async def test_unreadable_ledger_is_retried(harness: Harness) -> None:
    harness.fake.plan("read_ledger", ApplicationError("no bucket"), stored())
    assert await (await harness.start()).result() == RESULT
    assert [call.tries for call in harness.fake.of("read_ledger")] == [1, 2]


async def test_unfollowed_task_is_shown(harness: Harness) -> None:
    harness.fake.plan("read_ledger", stored(second_task=OTHER_TASK))
    job = await harness.start_until_stored()
    shown = await job.state()
    assert shown.attention == "second_task"
    assert OTHER_TASK in (detail_of(shown).advice or "")
    assert "attention_raised second_task" in noted(shown)
