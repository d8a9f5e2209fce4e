"""Task ids that callbacks name are received in every wait, and before every step that cannot be undone."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from activities.ledger import EndResult
from activities.limits import QuotaResult
from activities.recover import IdentifyInput, IdentifyResult
from activities.references import ReferencesResult
from seedance_temporal.contract import Resolve, ResolveAnswer, TaskChanged
from seedance_temporal.request import Reference
from tests.support.jobs import detail_of
from tests.support.polling import until
from tests.workflows.fakes import (
    CANCELLED,
    NOT_YET,
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    SHORT,
    TASK,
    Answer,
    Held,
    Planned,
    a_listing,
    adopt,
    as_written,
    claim,
    create_result,
    created,
    ended,
    ending,
    failure,
    not_sent,
    recover,
    stored,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, Job, noted
from workflows import policies

REFERENCES = (Reference(role="reference_image", url="https://cdn.example.com/a.png"),)
# The ledger's decision once the named task is written: it is the first attempt's, and lives.
FIRST_TASK = "cgt-20261125-of-the-first-attempt"
FIRST_NAMED = TaskChanged(task_id=FIRST_TASK, status="queued", attempt=1)


# --- before a claim --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A step of a job whose second attempt is due, during which the task of the first one is named."""

    decision: Planned
    activity: str
    answer: Answer
    references: tuple[Reference, ...] = ()


# During an activity, or after a create that sent nothing.
WAITS = {
    "references": Step(claim(2), "check_references", ReferencesResult(), REFERENCES),
    "limits": Step(claim(2, limited=True), "reserve_quota", QuotaResult()),
    "rate limit": Step(claim(2), "create_task", not_sent(seconds=3600)),
    "account": Step(claim(2), "create_task", not_sent(seconds=3600, attention="account")),
    "conflict": Step(claim(2), "create_task", create_result("conflict")),
}


@pytest.mark.parametrize("how", ["callback", "list"])
@pytest.mark.parametrize("step", WAITS.values(), ids=WAITS)
async def test_task_named_before_a_claim_is_followed(harness: Harness, step: Step, how: str) -> None:
    """The first attempt counted as absent by mistake: its task must not be paid for once more."""
    held, creates = Held(step.answer), int(step.activity == "create_task")
    if creates:
        held.release()
    harness.fake.plan(step.activity, held)
    harness.fake.plan("read_ledger", step.decision, adopt(FIRST_TASK, attempt=1))
    harness.fake.find()
    job = await harness.start_until_called(step.activity, references=step.references)
    if how == "callback":
        await job.callback("queued", FIRST_TASK, attempt=1)
    else:
        await job.listed(a_listing(1, task_id=FIRST_TASK))
    await harness.fake.called("identify_task")
    held.release()
    assert await job.result() == RESULT
    assert len(harness.fake.of("create_task")) == creates
    assert {call.input.task_id for call in harness.fake.of("get_task")} == {FIRST_TASK}


async def test_unstarted_create_is_withdrawn_for_named_task(idle: Harness) -> None:
    """The queue of creates has a rate: a create can wait in it for minutes."""
    await idle.start_workers("workflows", "ledger", "get", "transfer")
    idle.fake.plan("read_ledger", claim(2), adopt(FIRST_TASK, attempt=1))
    idle.fake.find()
    job = await idle.start_until_state(phase="creating")
    await job.callback("running", FIRST_TASK, attempt=1)
    assert await job.result() == RESULT
    await idle.start_workers("create")
    assert idle.fake.of("create_task") == []


async def test_made_up_names_withdraw_few_creates(idle: Harness) -> None:
    """One new name for each create that waits in its queue must not keep all of them from being sent."""
    await idle.start_workers("workflows", "ledger", "get", "transfer")
    idle.fake.always("read_ledger", claim(2))
    idle.fake.always("identify_task", OTHER)
    idle.fake.create(created(seconds=0), attempt=2)
    idle.fake.finish()
    job = await idle.start_until_state(phase="creating")
    for number in range(2 * policies.MOST_WITHDRAWALS):
        scheduled = min(number, policies.MOST_WITHDRAWALS) + 1
        await until_scheduled(job, "create_task", scheduled)
        await job.callback("running", f"{FIRST_TASK}-{number}", attempt=1)
    await idle.start_workers("create")
    assert await job.result() == RESULT
    assert len(await job.scheduled("create_task")) == policies.MOST_WITHDRAWALS + 1


async def until_scheduled(job: Job, name: str, times: int) -> None:
    async def is_scheduled() -> bool:
        return len(await job.scheduled(name)) >= times

    await until(is_scheduled, f"{name} is scheduled {times} times")


async def test_claim_waits_for_named_task(skipping: Harness) -> None:
    tries = 1 + len(policies.IDENTIFY_PAUSES)
    skipping.fake.plan("read_ledger", claim(2))
    skipping.fake.always("identify_task", NOT_YET)
    skipping.fake.plan("create_task", created(seconds=0))
    skipping.fake.plan("ask_later", None)
    skipping.fake.finish()
    await skipping.start_until_stored(first_signal=FIRST_NAMED)
    assert skipping.fake.names() == [
        "read_ledger",
        *["identify_task"] * tries,
        "create_task",
        "get_task",
        "store_video",
        # The last question comes early, so it is asked once more, after the end.
        "identify_task",
        "ask_later",
    ]


async def test_early_question_is_not_the_last(skipping: Harness) -> None:
    """A search asks before each step that a task could change; GET may lag for the promised five minutes."""
    asked: list[datetime] = []

    async def lagging(_: IdentifyInput) -> IdentifyResult:
        asked.append(activity.info().scheduled_time)
        return OURS if asked[-1] - asked[0] >= policies.IDENTIFY_LATER else NOT_YET

    skipping.fake.plan("read_ledger", recover(), adopt())
    skipping.fake.always("ask_lister", recover(seconds=20))
    skipping.fake.always("identify_task", lagging)
    skipping.fake.finish()
    job = await skipping.start_until_called("ask_lister")
    await job.callback("succeeded")
    assert await job.result() == RESULT
    assert len(asked) > 2 + len(policies.IDENTIFY_PAUSES), "no question came early"


async def test_task_that_get_never_shows_is_given_up(skipping: Harness) -> None:
    skipping.fake.always("identify_task", NOT_YET)
    skipping.fake.plan("read_ledger", adopt())
    skipping.fake.always("get_task", waiting("running", 120))
    job = await skipping.start_until_called("get_task")
    await job.callback("running", OTHER_TASK)
    await skipping.skip(policies.IDENTIFY_LATER.total_seconds() + 120)
    await job.until_noted("task_not_found")
    await skipping.skip(3_600)
    assert len(skipping.fake.of("identify_task")) == 2 + len(policies.IDENTIFY_PAUSES)
    await job.terminate()


# --- during a create -------------------------------------------------------------------------------------------------


async def test_callback_before_create_answer_costs_no_get(harness: Harness) -> None:
    harness.fake.finish()
    job, held = await harness.start_creating(created(seconds=0))
    await job.callback("queued")
    await job.callback("running")
    held.release()
    assert await job.result() == RESULT
    assert harness.fake.names() == ["read_ledger", "create_task", "get_task", "store_video"]


async def test_callback_for_lost_create_answer_is_followed(harness: Harness) -> None:
    harness.fake.always("ask_lister", recover())
    harness.fake.find()
    job, held = await harness.start_creating(create_result("unknown"))
    harness.fake.plan("read_ledger", adopt())
    await job.callback("queued")
    held.release()
    assert await job.result() == RESULT
    assert len(harness.fake.of("create_task")) == 1


async def test_named_task_prevents_absence(harness: Harness) -> None:
    held = Held(OURS)
    harness.fake.plan("read_ledger", recover(), adopt())
    harness.fake.always("ask_lister", recover())
    harness.fake.plan("identify_task", held)
    harness.fake.finish()
    job = await harness.start_until_called("ask_lister")
    await job.callback("queued")
    await held.reached.wait()
    await job.listed(a_listing(), a_listing())
    held.release()
    assert await job.result() == RESULT
    assert harness.fake.of("settle_absent") == []


# --- before an end ---------------------------------------------------------------------------------------------------


INVALID = failure("invalid", task_id=None, attempt=None)
ENDS = {
    "references": Step(claim(2), "check_references", ReferencesResult(error=INVALID), REFERENCES),
    "limits": Step(claim(2, limited=True), "reserve_quota", QuotaResult(error=INVALID)),
    "impossible": Step(claim(2), "create_task", create_result("impossible", error=INVALID)),
    "failed": Step(adopt(TASK, attempt=2), "get_task", ending("failed", "provider")),
}


@pytest.mark.parametrize("step", ENDS.values(), ids=ENDS)
async def test_task_named_before_an_end_is_followed(harness: Harness, step: Step) -> None:
    held = Held(step.answer)
    harness.fake.plan("read_ledger", step.decision, adopt(FIRST_TASK, attempt=1))
    harness.fake.plan(step.activity, held)
    harness.fake.plan("write_end", as_written)
    harness.fake.find()
    job = await harness.start_until(held, references=step.references)
    await job.callback("queued", FIRST_TASK, attempt=1)
    held.release()
    assert await job.result() == RESULT
    assert harness.fake.input("get_task").task_id == FIRST_TASK


@pytest.mark.parametrize(
    ("decision", "may_create"),
    [(claim(2), False), (ended(failure("invalid", task_id=None, attempt=2)), True)],
    ids=["unsettled", "refused"],
)
async def test_task_named_at_start_is_followed(harness: Harness, decision: Planned, may_create: bool) -> None:
    harness.fake.plan("read_ledger", decision, adopt(FIRST_TASK, attempt=1))
    harness.fake.find()
    await harness.start_until_stored(first_signal=FIRST_NAMED, may_create=may_create)
    assert harness.fake.input("get_task").task_id == FIRST_TASK


async def test_task_named_before_cancel_end_is_cancelled(harness: Harness) -> None:
    held = Held(OURS)
    harness.fake.plan("read_ledger", claim(2), claim(2), adopt(FIRST_TASK, attempt=1))
    harness.fake.plan("create_task", not_sent(seconds=3600))
    harness.fake.plan("identify_task", held)
    harness.fake.cancel()
    job = await harness.start_until_called("create_task")
    await job.callback("queued", FIRST_TASK, attempt=1)
    await held.reached.wait()
    await job.cancel()
    held.release()
    assert (await job.failed()).failure_class == "cancelled"
    assert [call.input.task_id for call in harness.fake.of("cancel_task")] == [FIRST_TASK]


async def test_task_named_during_copy_is_identified(harness: Harness) -> None:
    copying, identifying = Held(RESULT), Held(OURS)
    harness.fake.plan("read_ledger", adopt(TASK, attempt=2), stored(second_task=FIRST_TASK))
    harness.fake.plan("get_task", to_store())
    harness.fake.plan("store_video", copying)
    harness.fake.plan("identify_task", identifying)
    job = await harness.start_until(copying)
    await job.callback("queued", FIRST_TASK, attempt=1)
    await identifying.reached.wait()
    copying.release()
    await harness.fake.called("store_video")
    assert (await job.state()).phase == "storing", "the run ends after the task is identified"
    identifying.release()
    assert await job.result() == RESULT
    shown = await job.state()
    assert (shown.phase, shown.attention) == ("stored", "second_task")
    assert FIRST_TASK in (detail_of(shown).advice or "")
    assert "task_found" in noted(shown)


async def test_unknown_task_delays_stored_video_briefly(skipping: Harness) -> None:
    skipping.fake.always("identify_task", NOT_YET)
    skipping.fake.always("ask_later", None)
    job, copying = await skipping.start_copying()
    await job.callback("queued", OTHER_TASK)
    await skipping.fake.called("identify_task")
    copying.release()
    assert await job.result() == RESULT
    described = await job.describe()
    assert described.close_time is not None
    took = (described.close_time - described.start_time).total_seconds()
    assert took < sum(pause.total_seconds() for pause in policies.IDENTIFY_PAUSES) + 30
    assert len(skipping.fake.of("identify_task")) == 1 + len(policies.IDENTIFY_PAUSES)


async def test_cancel_is_answered_during_identification(harness: Harness) -> None:
    held = Held(NOT_YET)
    harness.fake.plan("read_ledger", claim(2))
    harness.fake.plan("identify_task", held)
    harness.fake.always("identify_task", NOT_YET)
    harness.fake.always("read_ledger", claim(2))
    job = await harness.start_until(held, first_signal=FIRST_NAMED)
    await job.ask_to_cancel()
    assert await job.cancel_outcome() is None
    held.release()
    await job.terminate()


# --- floods, outages, and races --------------------------------------------------------------------------------------


async def test_callback_flood_blocks_no_later_task(harness: Harness) -> None:
    """Invented ids, by a callback URL that leaked: a listing shows only tasks with our identifier, and is accepted."""
    harness.fake.plan("read_ledger", recover(), adopt())
    harness.fake.always("ask_lister", recover())
    harness.fake.plan("identify_task", *[OTHER] * policies.MOST_CALLBACKS, OURS)
    harness.fake.finish()
    job = await harness.start_until_called("ask_lister")
    for number in range(policies.MOST_CALLBACKS):
        await job.callback("queued", f"{OTHER_TASK}-{number}")
    await harness.fake.called("identify_task", policies.MOST_CALLBACKS)
    await job.listed(a_listing(task_id=TASK))
    assert await job.result() == RESULT


async def test_callbacks_are_accepted_again_after_flood(skipping: Harness) -> None:
    skipping.fake.plan("read_ledger", recover(), adopt())
    skipping.fake.always("ask_lister", recover())
    skipping.fake.plan("identify_task", *[OTHER] * policies.MOST_CALLBACKS, OURS)
    skipping.fake.finish()
    job = await skipping.start_until_called("ask_lister")
    for number in range(policies.MOST_CALLBACKS + 5):
        await job.callback("queued", f"{OTHER_TASK}-{number}")
    await skipping.fake.called("identify_task", policies.MOST_CALLBACKS)
    await skipping.skip(policies.ONE_MORE_CALLBACK.total_seconds() + 1)
    await job.callback("succeeded")
    assert await job.result() == RESULT


async def test_flood_delays_stored_video_by_minutes(skipping: Harness) -> None:
    skipping.fake.always("identify_task", NOT_YET)
    skipping.fake.always("ask_later", None)
    job, copying = await skipping.start_copying()
    await job.callback("queued", OTHER_TASK)
    await skipping.fake.called("identify_task")
    copying.release()
    for number in range(int(policies.LISTEN_AT_MOST.total_seconds()) // 30 + 1):
        with contextlib.suppress(RPCError):  # it has ended
            await job.callback("queued", f"{OTHER_TASK}-{number}")
        await skipping.skip(30)
    assert (await job.describe()).status is not WorkflowExecutionStatus.RUNNING
    assert await job.result() == RESULT


@pytest.mark.parametrize("how", ["callback", "list"])
async def test_task_named_in_outage_is_identified_later(skipping: Harness, how: str) -> None:
    away = [True]

    async def answer(input: object) -> IdentifyResult:
        if away:
            raise ApplicationError("503", type="ProviderUnavailable")
        return OURS

    skipping.fake.plan("read_ledger", recover(), adopt())
    skipping.fake.always("ask_lister", recover(seconds=120, needs_operator=True))
    skipping.fake.always("identify_task", answer)
    skipping.fake.finish()
    job = await skipping.start_until_called("ask_lister")
    await (job.callback("queued") if how == "callback" else job.listed(a_listing(task_id=TASK)))
    await skipping.skip(40 * 60)
    assert (await job.state()).attention == "unknown_create", "an outage holds up nothing else"
    away.clear()
    assert await job.result() == RESULT


async def test_task_from_lost_try_counts(harness: Harness) -> None:
    """The first try of the identification writes the task, and its answer is lost: the second try finds it known."""
    harness.fake.plan("read_ledger", ended(failure("invalid", task_id=None, attempt=2)), adopt(FIRST_TASK))
    harness.fake.plan("identify_task", ApplicationError("its worker died"), IdentifyResult(answer="known"))
    harness.fake.finish()
    await harness.start_until_stored(first_signal=FIRST_NAMED)


async def test_accepted_adoption_of_lost_attempt_is_followed(harness: Harness) -> None:
    """Another run wrote that it is lost, while this one's adoption was being checked."""
    slow, listed = Held(ResolveAnswer(accepted=True, message="adopted")), Held(ended(failure("lost", task_id=None)))
    harness.fake.plan("read_ledger", recover(), adopt())
    harness.fake.plan("ask_lister", listed)
    harness.fake.plan("resolve_attempt", slow)
    harness.fake.finish()
    job = await harness.start_until(listed)
    adoption = await job.start_resolve(Resolve(attempt=1, action="adopt", task_id=TASK))
    await slow.reached.wait()
    listed.release()
    await asyncio.sleep(0.3)
    assert not (await job.state()).ended, "it waits for the resolution"
    slow.release()
    assert (await adoption).accepted
    assert await job.result() == RESULT


async def test_second_task_returns_after_other_attention(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt())
    harness.fake.plan(
        "get_task", waiting("", SHORT, attention="credentials", note="401", second_task=OTHER_TASK), to_store()
    )
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until_stored()
    shown = await job.state()
    assert shown.attention == "second_task"
    assert OTHER_TASK in (detail_of(shown).advice or "")


async def test_unknown_attempt_beside_the_video_calls_operator(harness: Harness) -> None:
    """An attempt that was given up turned out to have a task, while the answer to the next one was lost."""
    harness.fake.plan("read_ledger", adopt(unknown_attempt=2))
    harness.fake.finish()
    job = await harness.start_until_stored()
    shown = await job.state()
    assert (shown.phase, shown.attention) == ("stored", "second_task")
    assert "Attempt 2 of this job may have made a task as well" in (detail_of(shown).advice or "")


async def test_cancel_reaches_next_followed_task(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt(TASK, attempt=2), adopt(OTHER_TASK, attempt=1))
    harness.fake.plan("get_task", waiting("queued"), *[ending("cancelled", "cancelled")] * 2)
    harness.fake.always("cancel_task", CANCELLED)
    harness.fake.plan("write_end", EndResult(error=failure("cancelled"), continues=True), as_written)
    job = await harness.start_until_called("get_task")
    await job.ask_to_cancel()
    assert await job.until_cancel_answered() == "cancelled"
    assert (await job.failed()).failure_class == "cancelled"
    assert [call.input.task_id for call in harness.fake.of("cancel_task")] == [TASK, OTHER_TASK]


async def test_task_named_during_reference_check_is_followed(harness: Harness) -> None:
    held = Held(ReferencesResult())
    harness.fake.plan("read_ledger", claim(2), adopt(FIRST_TASK, attempt=1))
    harness.fake.plan("check_references", held)
    harness.fake.find()
    job = await harness.start_until(held, references=REFERENCES)
    await job.callback("succeeded", FIRST_TASK, attempt=1)
    assert await job.result() == RESULT
    held.release()


async def test_create_is_told_of_task_without_answer(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The activity sends nothing then."""
    monkeypatch.setattr(policies, "LISTEN_AT_MOST", timedelta(seconds=0.2))
    ledger, asked = Held(claim(2)), Held(OTHER)
    unsandboxed.fake.plan("read_ledger", ledger)
    unsandboxed.fake.plan("identify_task", asked)
    unsandboxed.fake.plan("create_task", created(seconds=0, attempt=2))
    unsandboxed.fake.finish()
    job = await unsandboxed.start_until(ledger)
    await job.callback("running", FIRST_TASK, attempt=1)
    ledger.release()
    await unsandboxed.fake.called("create_task")
    assert f"Task {FIRST_TASK} was named" in unsandboxed.fake.input("create_task").doubt
    asked.release()
    assert await job.result() == RESULT


async def test_flood_does_not_fill_the_history(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a step fails for a day, a run cannot renew; the server would end it."""
    monkeypatch.setattr(policies, "MOST_EVENTS_OF_CALLBACKS", 60)
    unsandboxed.fake.always("identify_task", OTHER)
    job, copying = await unsandboxed.start_copying()
    for number in range(20):
        await job.callback("queued", f"{OTHER_TASK}-{number}")
        await job.until_state(phase="storing")
    asked = len(unsandboxed.fake.of("identify_task"))
    assert 3 < asked < 15
    copying.release()
    assert await job.result() == RESULT
