"""Task ids that callbacks name are heard in every wait, and before every act that cannot be taken back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from activities.create import CreateInput, CreateResult
from activities.ledger import EndResult
from activities.limits import QuotaResult
from activities.poll import CancelResult
from activities.recover import IdentifyResult
from activities.references import ReferencesResult
from seedance_temporal.contract import Resolve, ResolveAnswer, TaskChanged
from seedance_temporal.request import Reference
from tests.support.jobs import detail_of
from tests.workflows.scripted import (
    NOT_YET,
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    SHORT,
    TASK,
    Handle,
    Held,
    Stage,
    a_listing,
    as_written,
    callback,
    cancel,
    ending,
    failed,
    failure,
    listed,
    noted,
    resolve,
    shows,
    state,
    to_store,
    until,
    waiting,
)
from workflows import policies

REFERENCES = (Reference(role="reference_image", url="https://cdn.example.com/a.png"),)
# What the ledger says once the named task is written: it is the first attempt's, and lives.
FIRST_TASK = "cgt-20261125-of-the-first-attempt"


def finish(stage: Stage) -> None:
    stage.script.always("get_task", to_store())
    stage.script.always("store_video", RESULT)


Create = Callable[[CreateInput], Awaitable[CreateResult]]


def after(held: Held, answer: Create) -> Create:
    """A create whose answer is held back."""

    async def call(order: CreateInput) -> CreateResult:
        await held(order)
        return await answer(order)

    return call


# --- before a claim --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wait:
    """A moment at which a job whose second attempt is due waits for something.

    Attributes:
        plan: Writes the script up to there; returns what is held then, if anything.
        reached: The activity by whose call the moment is reached.
        creates: How many creates were scheduled by then, and how many of them reached a worker.
    """

    plan: Callable[[Stage], Held | None]
    reached: str
    creates: int = 0
    references: tuple[Reference, ...] = ()


def _references(stage: Stage) -> Held:
    held = Held(ReferencesResult())
    stage.script.plan("check_references", held)
    return held


def _limits(stage: Stage) -> Held:
    held = Held(QuotaResult())
    stage.script.plan("reserve_quota", held)
    return held


def _rate_limited(stage: Stage) -> None:
    stage.script.plan("create_task", stage.not_sent(again=3600))


def _account(stage: Stage) -> None:
    stage.script.plan("create_task", stage.not_sent(again=3600, attention="account"))


def _conflict(stage: Stage) -> None:
    stage.script.plan("create_task", stage.report("conflict", None))


WAITS = {
    "references": Wait(_references, "check_references", references=REFERENCES),
    "limits": Wait(_limits, "reserve_quota"),
    "rate limit": Wait(_rate_limited, "create_task", creates=1),
    "account": Wait(_account, "create_task", creates=1),
    "conflict": Wait(_conflict, "create_task", creates=1),
}


@pytest.mark.parametrize("how", ["callback", "list"])
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
async def test_task_named_before_a_claim_is_followed(stage: Stage, wait: Wait, how: str) -> None:
    """The first attempt counted as absent, wrongly: its task must not be paid for once more."""
    held = wait.plan(stage)
    adopted = stage.adopt(FIRST_TASK, attempt=1)
    stage.script.plan("read_ledger", stage.claim(2, limited=wait.reached == "reserve_quota"), adopted)
    stage.script.plan("identify_task", OURS)
    finish(stage)
    job = await stage.start(references=wait.references)
    await stage.script.called(wait.reached)
    if how == "callback":
        await callback(job, "queued", FIRST_TASK, attempt=1)
    else:
        await listed(job, a_listing(1, task_id=FIRST_TASK))
    await stage.script.called("identify_task")
    if held is not None:
        held.let_go()
    assert await job.result() == RESULT
    assert len(stage.script.of("create_task")) == wait.creates
    assert {call.order.task_id for call in stage.script.of("get_task")} == {FIRST_TASK}


async def test_create_without_a_worker_is_withdrawn_for_a_named_task(still: Stage) -> None:
    """The queue of creates has a rate: a create can wait in it for minutes."""
    stage = still
    await stage.serve("workflows", "ledger", "get", "transfer")
    stage.script.plan("read_ledger", stage.claim(2), stage.adopt(FIRST_TASK, attempt=1))
    stage.script.plan("identify_task", OURS)
    finish(stage)
    job = await stage.start()
    await shows(job, phase="creating")
    await callback(job, "running", FIRST_TASK, attempt=1)
    assert await job.result() == RESULT
    await stage.serve("create")
    assert stage.script.of("create_task") == []


async def test_claim_waits_until_a_named_task_is_known_or_cannot_be(skipping: Stage) -> None:
    stage = skipping
    tries = 1 + len(policies.IDENTIFY_PAUSES)
    stage.script.plan("read_ledger", stage.claim(2))
    stage.script.plan("identify_task", *[NOT_YET] * tries)
    stage.script.plan("create_task", stage.created(again=0))
    finish(stage)
    job = await stage.start(first_signal=TaskChanged(task_id=FIRST_TASK, status="queued", attempt=1))
    assert await job.result() == RESULT
    assert stage.script.names() == ["read_ledger", *["identify_task"] * tries, "create_task", "get_task", "store_video"]


# --- while a create is under way -------------------------------------------------------------------------------------


async def test_callback_before_the_answer_of_its_create_costs_no_look(stage: Stage) -> None:
    held = Held(None)
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", after(held, stage.created(again=0)))
    finish(stage)
    job = await stage.start()
    await held.reached.wait()
    await callback(job, "queued")
    await callback(job, "running")
    held.let_go()
    assert await job.result() == RESULT
    assert stage.script.names() == ["read_ledger", "create_task", "get_task", "store_video"]


async def test_callback_during_a_create_with_a_lost_answer_is_followed(stage: Stage) -> None:
    held = Held(None)
    stage.script.plan("read_ledger", stage.claim(), stage.adopt())
    stage.script.plan("create_task", after(held, stage.report("unknown", None)))
    stage.script.always("ask_lister", stage.recover())
    stage.script.plan("identify_task", OURS)
    finish(stage)
    job = await stage.start()
    await held.reached.wait()
    await callback(job, "queued")
    held.let_go()
    assert await job.result() == RESULT
    assert len(stage.script.of("create_task")) == 1


async def test_absence_is_not_settled_over_a_named_task(stage: Stage) -> None:
    held = Held(OURS)
    stage.script.plan("read_ledger", stage.recover(), stage.adopt())
    stage.script.always("ask_lister", stage.recover())
    stage.script.plan("identify_task", held)
    finish(stage)
    job = await stage.start()
    await stage.script.called("ask_lister")
    await callback(job, "queued")
    await held.reached.wait()
    await listed(job, a_listing())
    await listed(job, a_listing())
    held.let_go()
    assert await job.result() == RESULT
    assert stage.script.of("settle_absent") == []


# --- before an end ---------------------------------------------------------------------------------------------------


async def _refused(stage: Stage) -> Handle:
    stage.script.plan("read_ledger", stage.ended(failure("invalid", task_id=None, attempt=2)))
    return await stage.start(first_signal=TaskChanged(task_id=FIRST_TASK, status="queued", attempt=1))


async def _bad_references(stage: Stage) -> Handle:
    held = Held(ReferencesResult(error=failure("invalid", task_id=None, attempt=None)))
    stage.script.plan("read_ledger", stage.claim(2))
    stage.script.plan("check_references", held)
    job = await stage.start(references=REFERENCES)
    await held.reached.wait()
    await callback(job, "queued", FIRST_TASK, attempt=1)
    held.let_go()
    return job


async def _over_limit(stage: Stage) -> Handle:
    held = Held(QuotaResult(error=failure("invalid", task_id=None, attempt=None)))
    stage.script.plan("read_ledger", stage.claim(2, limited=True))
    stage.script.plan("reserve_quota", held)
    job = await stage.start()
    await held.reached.wait()
    await callback(job, "queued", FIRST_TASK, attempt=1)
    held.let_go()
    return job


async def _impossible(stage: Stage) -> Handle:
    held = Held(None)
    error = failure("invalid", task_id=None, attempt=None)
    stage.script.plan("read_ledger", stage.claim(2))
    stage.script.plan("create_task", after(held, stage.report("impossible", None, error=error)))
    job = await stage.start()
    await held.reached.wait()
    await callback(job, "queued", FIRST_TASK, attempt=1)
    held.let_go()
    return job


async def _unsettled(stage: Stage) -> Handle:
    stage.script.plan("read_ledger", stage.claim(2))
    named = TaskChanged(task_id=FIRST_TASK, status="queued", attempt=1)
    return await stage.start(first_signal=named, may_create=False)


async def _failed_task(stage: Stage) -> Handle:
    stage.script.plan("read_ledger", stage.adopt(TASK, attempt=2))
    held = Held(ending("failed", "provider"))
    stage.script.plan("get_task", held)
    stage.script.plan("write_end", as_written)
    job = await stage.start()
    await held.reached.wait()
    await callback(job, "queued", FIRST_TASK, attempt=1)
    held.let_go()
    return job


ENDS = {
    "refused": _refused,
    "references": _bad_references,
    "limits": _over_limit,
    "impossible": _impossible,
    "unsettled": _unsettled,
    "failed": _failed_task,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_task_named_before_an_end_is_followed(stage: Stage, end: Callable[[Stage], Awaitable[Handle]]) -> None:
    stage.script.plan("identify_task", OURS)
    job = await end(stage)
    stage.script.plan("read_ledger", stage.adopt(FIRST_TASK, attempt=1))
    finish(stage)
    assert await job.result() == RESULT
    assert stage.script.order("get_task").task_id == FIRST_TASK


async def test_task_named_before_a_cancel_ends_the_job_is_cancelled(stage: Stage) -> None:
    held = Held(OURS)
    stage.script.plan("read_ledger", stage.claim(2), stage.claim(2), stage.adopt(FIRST_TASK, attempt=1))
    stage.script.plan("create_task", stage.not_sent(again=3600))
    stage.script.plan("identify_task", held)
    stage.script.plan("cancel_task", CancelResult(outcome="cancelled", status="cancelled"))
    stage.script.plan("get_task", ending("cancelled", "cancelled"))
    stage.script.plan("write_end", as_written)
    job = await stage.start()
    await stage.script.called("create_task")
    await callback(job, "queued", FIRST_TASK, attempt=1)
    await held.reached.wait()
    await job.cancel()
    held.let_go()
    assert (await failed(job)).failure_class == "cancelled"
    assert [call.order.task_id for call in stage.script.of("cancel_task")] == [FIRST_TASK]


async def test_task_named_while_the_video_is_copied_is_identified(stage: Stage) -> None:
    copying, identifying = Held(RESULT), Held(OURS)
    stage.script.plan("read_ledger", stage.adopt(TASK, attempt=2), stage.stored(second_task=FIRST_TASK))
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", copying)
    stage.script.plan("identify_task", identifying)
    job = await stage.start()
    await copying.reached.wait()
    await callback(job, "queued", FIRST_TASK, attempt=1)
    await identifying.reached.wait()
    copying.let_go()
    await until(lambda: _copied(stage), "the copy is done")
    assert (await state(job)).phase == "storing", "the run ends after the task is identified"
    identifying.let_go()
    assert await job.result() == RESULT
    shown = await state(job)
    assert (shown.phase, shown.attention) == ("stored", "second_task")
    assert FIRST_TASK in (detail_of(shown).advice or "")
    assert "task_found" in noted(shown)


def _copied(stage: Stage) -> bool:
    return len(stage.script.of("store_video")) == 1


async def test_unknown_task_does_not_hold_a_stored_video_up_for_long(skipping: Stage) -> None:
    stage = skipping
    copying = Held(RESULT)
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", copying)
    stage.script.always("identify_task", NOT_YET)
    job = await stage.start()
    await copying.reached.wait()
    await callback(job, "queued", OTHER_TASK)
    await stage.script.called("identify_task")
    copying.let_go()
    assert await job.result() == RESULT
    described = await job.describe()
    assert described.close_time is not None
    took = (described.close_time - described.start_time).total_seconds()
    assert took < sum(pause.total_seconds() for pause in policies.IDENTIFY_PAUSES) + 30
    assert len(stage.script.of("identify_task")) == 1 + len(policies.IDENTIFY_PAUSES)


async def test_cancel_is_answered_while_a_task_is_identified(stage: Stage) -> None:
    held = Held(NOT_YET)
    stage.script.plan("read_ledger", stage.claim(2))
    stage.script.plan("identify_task", held)
    stage.script.always("identify_task", NOT_YET)
    stage.script.always("read_ledger", stage.claim(2))
    job = await stage.start(first_signal=TaskChanged(task_id=FIRST_TASK, status="queued", attempt=1))
    await held.reached.wait()
    assert (await cancel(job)).outcome == "requested"
    held.let_go()
    await job.terminate()


# --- floods, outages, and what happens at once -----------------------------------------------------------------------


async def test_flood_of_callbacks_does_not_deafen_a_job(stage: Stage) -> None:
    """Made-up ids, by a callback URL that leaked: a listing shows only tasks with our identifier, and is heard."""
    stage.script.plan("read_ledger", stage.recover(), stage.adopt())
    stage.script.always("ask_lister", stage.recover())
    stage.script.plan("identify_task", *[OTHER] * policies.MOST_CALLBACKS, OURS)
    finish(stage)
    job = await stage.start()
    await stage.script.called("ask_lister")
    for number in range(policies.MOST_CALLBACKS):
        await callback(job, "queued", f"{OTHER_TASK}-{number}")
    await stage.script.called("identify_task", policies.MOST_CALLBACKS)
    await listed(job, a_listing(task_id=TASK))
    assert await job.result() == RESULT


async def test_callbacks_are_heard_again_some_time_after_a_flood(skipping: Stage) -> None:
    stage = skipping
    stage.script.plan("read_ledger", stage.recover(), stage.adopt())
    stage.script.always("ask_lister", stage.recover())
    stage.script.plan("identify_task", *[OTHER] * policies.MOST_CALLBACKS, OURS)
    finish(stage)
    job = await stage.start()
    await stage.script.called("ask_lister")
    for number in range(policies.MOST_CALLBACKS + 5):
        await callback(job, "queued", f"{OTHER_TASK}-{number}")
    await stage.script.called("identify_task", policies.MOST_CALLBACKS)
    await stage.skip(policies.ONE_MORE_CALLBACK.total_seconds() + 1)
    await callback(job, "succeeded")
    assert await job.result() == RESULT


async def test_flood_holds_a_stored_video_up_for_minutes_at_most(skipping: Stage) -> None:
    stage = skipping
    copying = Held(RESULT)
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", copying)
    stage.script.always("identify_task", NOT_YET)
    job = await stage.start()
    await copying.reached.wait()
    await callback(job, "queued", OTHER_TASK)
    await stage.script.called("identify_task")
    copying.let_go()
    for number in range(int(policies.LISTEN_AT_MOST.total_seconds()) // 30 + 1):
        with contextlib.suppress(RPCError):  # it has ended
            await callback(job, "queued", f"{OTHER_TASK}-{number}")
        await stage.skip(30)
    assert (await job.describe()).status is not WorkflowExecutionStatus.RUNNING
    assert await job.result() == RESULT


@pytest.mark.parametrize("how", ["callback", "list"])
async def test_task_named_in_an_outage_is_not_forgotten(skipping: Stage, how: str) -> None:
    stage = skipping
    away = [True]

    async def answer(order: object) -> IdentifyResult:
        if away:
            raise ApplicationError("503", type="ProviderUnavailable")
        return OURS

    stage.script.plan("read_ledger", stage.recover(), stage.adopt())
    stage.script.always("ask_lister", stage.recover(again=120, needs_operator=True))
    stage.script.always("identify_task", answer)
    finish(stage)
    job = await stage.start()
    await stage.script.called("ask_lister")
    await (callback(job, "queued") if how == "callback" else listed(job, a_listing(task_id=TASK)))
    await stage.skip(40 * 60)
    assert (await state(job)).attention == "unknown_create", "an outage holds up nothing else"
    away.clear()
    assert await job.result() == RESULT


async def test_task_written_by_a_lost_try_is_news(stage: Stage) -> None:
    """The first try of the identification writes the task, and its answer is lost: the second one finds it known."""
    stage.script.plan("read_ledger", stage.ended(failure("invalid", task_id=None, attempt=2)), stage.adopt(FIRST_TASK))
    stage.script.plan("identify_task", ApplicationError("its worker died"), IdentifyResult(answer="known"))
    finish(stage)
    job = await stage.start(first_signal=TaskChanged(task_id=FIRST_TASK, status="queued", attempt=1))
    assert await job.result() == RESULT


async def test_accepted_adoption_is_followed_though_the_attempt_was_given_up(stage: Stage) -> None:
    adopt = Held(ResolveAnswer(accepted=True, message="adopted"))
    stage.script.plan("read_ledger", stage.recover(), stage.ended(failure("lost", task_id=None)), stage.adopt())
    stage.script.always("ask_lister", stage.recover())
    stage.script.plan("resolve_attempt", adopt, ResolveAnswer(accepted=True, message="given up"))
    finish(stage)
    job = await stage.start()
    await stage.script.called("ask_lister")
    slow = asyncio.create_task(resolve(job, Resolve(attempt=1, action="adopt", task_id=TASK)))
    await adopt.reached.wait()
    assert (await resolve(job, Resolve(attempt=1, action="lost"))).accepted
    await stage.script.called("read_ledger", 2)
    adopt.let_go()
    assert (await slow).accepted
    assert await job.result() == RESULT


async def test_second_task_is_shown_after_another_attention(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan(
        "get_task",
        waiting("", SHORT, attention="credentials", note="401", second_task=OTHER_TASK),
        to_store(),
    )
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    assert await job.result() == RESULT
    shown = await state(job)
    assert shown.attention == "second_task"
    assert OTHER_TASK in (detail_of(shown).advice or "")


async def test_cancel_reaches_the_task_that_is_followed_next(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt(TASK, attempt=2), stage.adopt(OTHER_TASK, attempt=1))
    stage.script.plan("get_task", waiting("queued"), *[ending("cancelled", "cancelled")] * 2)
    stage.script.always("cancel_task", CancelResult(outcome="cancelled", status="cancelled"))
    stage.script.plan("write_end", EndResult(error=failure("cancelled"), continues=True), as_written)
    job = await stage.start()
    await stage.script.called("get_task")
    assert (await cancel(job)).outcome == "cancelled"
    assert (await failed(job)).failure_class == "cancelled"
    assert [call.order.task_id for call in stage.script.of("cancel_task")] == [TASK, OTHER_TASK]


async def test_paid_task_is_followed_while_a_reference_is_slow(stage: Stage) -> None:
    held = Held(ReferencesResult())
    stage.script.plan("read_ledger", stage.claim(2), stage.adopt(FIRST_TASK, attempt=1))
    stage.script.plan("check_references", held)
    stage.script.plan("identify_task", OURS)
    finish(stage)
    job = await stage.start(references=REFERENCES)
    await held.reached.wait()
    await callback(job, "succeeded", FIRST_TASK, attempt=1)
    assert await job.result() == RESULT
    held.let_go()
