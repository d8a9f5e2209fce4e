"""An attempt whose outcome is unknown: a callback, a listing or a person settles it; nothing is sent meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import SEEDANCE_ATTENTION, SIGNAL_LISTED, Resolve, ResolveAnswer, TaskChanged
from seedance_temporal.ledger.decisions import Decision
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
    callback,
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


def finish(stage: Stage) -> None:
    stage.script.always("get_task", to_store())
    stage.script.always("store_video", RESULT)


async def test_it_looks_at_the_listing_again_and_again(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover(attempt=3))
    stage.script.plan("ask_lister", *[stage.recover(attempt=3, again=SHORT)] * 2, stage.adopt(attempt=3))
    finish(stage)
    job = await stage.start()
    assert await job.result() == RESULT
    assert [(call.order.job_id, call.order.attempt) for call in stage.script.of("ask_lister")] == [(job.id, 3)] * 3
    assert stage.script.order("get_task").attempt == 3


async def test_it_is_shown_and_needs_nobody_while_it_looks(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover(attempt=2))
    stage.script.plan("ask_lister", stage.recover(attempt=2))
    job = await stage.start()
    await stage.script.called("ask_lister")
    shown = await until(lambda: _waits(stage, job), "it waits for the next look")
    assert (shown.phase, shown.attempt, shown.attention) == ("recovering", 2, None)


async def _waits(stage: Stage, job: object) -> object:
    shown = await state(stage.jobs[-1])
    return shown if detail_of(shown).next_poll_at is not None else None


async def test_a_callback_tells_the_task_at_once(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover(attempt=2), stage.adopt(OTHER_TASK, attempt=2))
    stage.script.plan("ask_lister", stage.recover(attempt=2))
    stage.script.plan("identify_task", OURS)
    finish(stage)
    job = await stage.start()
    await until(lambda: _waits(stage, job), "it waits for the next look")
    await callback(job, "queued", OTHER_TASK, attempt=2)
    await job.result()
    assert stage.script.names() == [
        "read_ledger",
        "ask_lister",
        "identify_task",
        "read_ledger",
        "get_task",
        "store_video",
    ]
    order = stage.script.order("identify_task")
    assert (order.job_id, order.attempt, order.task_id) == (job.id, 2, OTHER_TASK)
    assert stage.script.order("get_task").task_id == OTHER_TASK


async def test_callback_during_a_question_is_heard(stage: Stage) -> None:
    held = Held(stage.recover())
    stage.script.plan("read_ledger", stage.recover(), stage.adopt())
    stage.script.plan("ask_lister", held)
    stage.script.plan("identify_task", OURS)
    finish(stage)
    job = await stage.start()
    await held.reached.wait()
    await callback(job, "running")
    await stage.script.called("identify_task")
    held.let_go()
    assert await job.result() == RESULT
    assert stage.script.names() == [
        "read_ledger",
        "ask_lister",
        "identify_task",
        "read_ledger",
        "get_task",
        "store_video",
    ]


async def test_a_task_of_somebody_else_settles_nothing(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover())
    stage.script.plan("ask_lister", stage.recover(again=SHORT), stage.adopt())
    stage.script.plan("identify_task", OTHER)
    finish(stage)
    job = await stage.start(first_signal=TaskChanged(task_id=OTHER_TASK, status="succeeded", attempt=1))
    await callback(job, "succeeded", OTHER_TASK)
    assert await job.result() == RESULT
    assert len(stage.script.of("identify_task")) == 1, "another identifier closes a task id for good"
    assert stage.script.of("create_task") == []


async def test_unchecked_task_is_asked_for_again(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover(), stage.adopt())
    stage.script.plan("ask_lister", stage.recover())
    stage.script.plan("identify_task", *[ApplicationError("503")] * 3, OURS)
    finish(stage)
    job = await stage.start()
    await stage.script.called("ask_lister")
    await callback(job, "succeeded")
    assert await job.result() == RESULT
    assert [call.tries for call in stage.script.of("identify_task")] == [1, 2, 3, 1]
    assert await _says(stage, "task_not_checked callback")


async def test_early_callback_does_not_deafen_a_job(skipping: Stage) -> None:
    """Each callback of the job's own task is ahead of GET, but for the last one."""
    stage = skipping
    tries = 1 + len(policies.IDENTIFY_PAUSES)
    stage.script.plan("read_ledger", stage.recover(), stage.adopt())
    stage.script.always("ask_lister", stage.recover())
    stage.script.plan("identify_task", *[NOT_YET] * (2 * tries), OURS)
    finish(stage)
    job = await stage.start()
    await stage.script.called("ask_lister")
    for named in (1, 2):
        await callback(job, "queued")
        await stage.skip(90)
        await stage.script.called("identify_task", named * tries)
    await callback(job, "succeeded")
    assert await job.result() == RESULT
    assert len(stage.script.of("identify_task")) == 2 * tries + 1


async def _says(stage: Stage, event: str) -> bool:
    return event in noted(await state(stage.jobs[-1]))


async def test_a_person_is_asked_for_when_the_time_is_over_and_no_longer_when_it_is_found(stage: Stage) -> None:
    held = Held(stage.adopt(attempt=2))
    stage.script.plan("read_ledger", stage.recover(attempt=2))
    stage.script.plan("ask_lister", *[stage.recover(attempt=2, again=0, needs_operator=True)] * 2, held)
    finish(stage)
    job = await stage.start()
    await held.reached.wait()
    shown = await state(job)
    assert (shown.phase, shown.attention) == ("recovering", "unknown_create")
    assert f"resolve {job.id} --attempt 2" in (detail_of(shown).advice or "")
    assert noted(shown).count("attention_raised unknown_create") == 1
    assert (await job.describe()).typed_search_attributes.get(SEEDANCE_ATTENTION) == "unknown_create"
    held.let_go()
    await job.result()
    shown = await state(job)
    assert (shown.attention, detail_of(shown).advice) == (None, None)
    assert "attention_settled unknown_create" in noted(shown)


async def test_nobody_is_called_before_the_first_listing_of_an_old_claim(stage: Stage) -> None:
    """Such as that of a run that was terminated, and is submitted again on the next day."""
    stage.script.plan("read_ledger", stage.recover(needs_operator=True), stage.adopt())
    stage.script.plan("ask_lister", stage.recover(needs_operator=True))
    stage.script.plan("identify_task", OURS)
    finish(stage)
    job = await stage.start()
    await until(lambda: _waits(stage, job), "it waits for the lister")
    assert (await state(job)).attention is None
    await listed(job, a_listing(task_id=TASK))
    assert await job.result() == RESULT
    assert "attention_raised unknown_create" not in noted(await state(job))


async def test_a_question_stands_until_it_is_answered(skipping: Stage) -> None:
    """So hundreds of jobs that look for their tasks do not hold the lister up by asking it over and over."""
    stage = skipping
    stage.script.plan("read_ledger", stage.recover(), stage.adopt())
    stage.script.always("ask_lister", stage.recover(again=60))
    stage.script.plan("identify_task", OURS)
    finish(stage)
    job = await stage.start()
    await stage.script.called("ask_lister")
    await stage.skip(60 * (policies.LISTING_PATIENCE - 1))
    assert len(stage.script.of("ask_lister")) == 1
    await stage.skip(120)
    assert len(stage.script.of("ask_lister")) == 2
    await listed(job, a_listing(complete=False))
    await stage.skip(90)
    assert len(stage.script.of("ask_lister")) == 3, "after an answer, the usual wait"
    await callback(job, "succeeded")
    assert await job.result() == RESULT


async def test_a_lister_that_does_not_answer_keeps_nobody_from_helping(skipping: Stage) -> None:
    """LIST can be down for hours, or refused: a person is asked for all the same, and a callback heard."""
    stage = skipping
    stage.script.plan("read_ledger", stage.recover(), stage.adopt())
    stage.script.plan("ask_lister", *[stage.recover(again=300)] * 2)
    stage.script.always("ask_lister", stage.recover(again=300, needs_operator=True))
    stage.script.plan("identify_task", OURS)
    finish(stage)
    job = await stage.start()
    await stage.skip(3600)
    shown = await state(job)
    assert (shown.phase, shown.attention) == ("recovering", "unknown_create")
    assert len(stage.script.of("ask_lister")) >= 4, "it goes on asking"
    await callback(job, "succeeded")
    assert await job.result() == RESULT


async def test_a_ledger_that_does_not_answer_is_waited_for(skipping: Stage) -> None:
    stage = skipping
    stage.script.plan("read_ledger", stage.recover())
    stage.script.plan("ask_lister", *[ApplicationError("no bucket")] * 30, stage.adopt())
    finish(stage)
    assert await (await stage.start()).result() == RESULT


# --- what the lister answers -----------------------------------------------------------------------------------------


async def asked(stage: Stage, *looks: Decision, attempt: int = 1) -> Handle:
    """A job that has asked the lister, and waits for its answer."""
    stage.script.plan("read_ledger", stage.recover(attempt))
    stage.script.plan("ask_lister", stage.recover(attempt), *looks)
    job = await stage.start()
    await until(lambda: _waits(stage, job), "it waits for the lister")
    return job


async def test_a_listed_task_is_adopted_when_a_get_shows_it(stage: Stage) -> None:
    job = await asked(stage, attempt=2)
    stage.script.plan("read_ledger", stage.adopt(OTHER_TASK, attempt=2))
    stage.script.plan("identify_task", OURS)
    finish(stage)
    await listed(job, a_listing(2, task_id=OTHER_TASK, complete=False))
    await job.result()
    assert stage.script.names() == [
        "read_ledger",
        "ask_lister",
        "identify_task",
        "read_ledger",
        "get_task",
        "store_video",
    ]
    order = stage.script.order("identify_task")
    assert (order.job_id, order.attempt, order.task_id, order.source) == (job.id, 2, OTHER_TASK, "list")


async def test_a_listed_task_that_a_get_does_not_show_is_asked_for_again(stage: Stage) -> None:
    job = await asked(stage)
    stage.script.plan("read_ledger", stage.adopt(OTHER_TASK))
    stage.script.plan("identify_task", *[ApplicationError("503")] * 3, NOT_YET, OURS)
    finish(stage)
    await listed(job, a_listing(task_id=OTHER_TASK))
    assert await job.result() == RESULT
    assert await _says(stage, "task_not_checked list")
    assert len(stage.script.of("identify_task")) == 5


async def test_two_complete_listings_are_shown_to_the_ledger_and_the_next_attempt_is_claimed(stage: Stage) -> None:
    job = await asked(stage)
    stage.script.plan("settle_absent", stage.claim(2))
    stage.script.plan("read_ledger", stage.claim(2))
    stage.script.plan("create_task", stage.created(again=0))
    finish(stage)
    first, second = a_listing(), a_listing()
    await listed(job, first)
    await until(lambda: _says(stage, "not_listed"), "the first one is noted")
    assert stage.script.of("settle_absent") == [], "one proves nothing"
    await listed(job, second)
    assert await job.result() == RESULT
    order = stage.script.order("settle_absent")
    assert (order.job_id, order.attempt, order.listings) == (job.id, 1, (first, second))
    assert [call.order.attempt for call in stage.script.of("create_task")] == [2]


async def test_what_the_ledger_does_not_take_as_proof_is_shown_again_with_the_next_one(stage: Stage) -> None:
    job = await asked(stage)
    stage.script.plan("settle_absent", stage.recover(), stage.adopt())
    finish(stage)
    listings = [a_listing() for _ in range(3)]
    for listing in listings:
        await listed(job, listing)
    assert await job.result() == RESULT
    assert [list(call.order.listings) for call in stage.script.of("settle_absent")] == [listings[:2], listings]


async def test_listings_that_prove_nothing_are_not_kept(stage: Stage) -> None:
    job = await asked(stage, attempt=2)
    for listing in (a_listing(2, complete=False), a_listing(1), a_listing(3), a_listing(2)):
        await listed(job, listing)
    await until(lambda: _says(stage, "not_listed"), "they were read")
    await asyncio.sleep(0.3)
    assert stage.script.names() == ["read_ledger", "ask_lister"]
    told = [(e.attempt, e.detail) for e in detail_of(await state(job)).timeline if e.event == "not_listed"]
    assert told == [(2, "incomplete listing"), (2, None)]


async def test_a_listing_of_a_settled_attempt_proves_nothing_of_the_next_one(stage: Stage) -> None:
    job = await asked(stage)
    stage.script.plan("settle_absent", stage.claim(2))
    stage.script.plan("read_ledger", stage.claim(2))
    stage.script.plan("create_task", stage.report("unknown", None))
    stage.script.always("ask_lister", stage.recover(2))
    for _ in range(2):
        await listed(job, a_listing())
    await stage.script.called("ask_lister", 2)
    stage.script.plan("settle_absent", stage.adopt(attempt=2))
    finish(stage)
    mine = [a_listing(2), a_listing(2)]
    for listing in (a_listing(1), *mine):
        await listed(job, listing)
    assert await job.result() == RESULT
    assert [call.order.attempt for call in stage.script.of("settle_absent")] == [
        1,
        *[2] * (len(stage.script.of("settle_absent")) - 1),
    ]
    assert set(stage.script.order("settle_absent").listings) <= set(mine)


@pytest.mark.parametrize("odd", [[], [None], ["x"], [{}], [{"attempt": "one"}], [[1]], [1, 2]])
async def test_an_answer_that_is_none_is_ignored(stage: Stage, odd: list[Any]) -> None:
    job = await asked(stage)
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("identify_task", OURS)
    finish(stage)
    await job.signal(SIGNAL_LISTED, args=odd)
    await listed(job, a_listing(task_id=TASK))
    assert await job.result() == RESULT


async def test_a_flood_of_answers_stays_bounded(stage: Stage) -> None:
    held = Held(stage.recover())
    stage.script.plan("read_ledger", stage.recover())
    stage.script.plan("ask_lister", held, stage.recover())
    stage.script.always("settle_absent", stage.recover())
    job = await stage.start()
    await held.reached.wait()
    for _ in range(policies.MOST_LISTINGS + 20):
        await listed(job, a_listing())
    held.let_go()
    await stage.script.called("settle_absent", policies.MOST_LISTINGS - 1)
    await asyncio.sleep(0.3)
    assert len(stage.script.of("settle_absent")) == policies.MOST_LISTINGS - 1
    await listed(job, a_listing())
    await stage.script.called("settle_absent", policies.MOST_LISTINGS)
    assert len(stage.script.order("settle_absent").listings) == policies.MOST_LISTINGS


async def test_an_answer_to_a_job_that_looks_for_nothing_disturbs_nothing(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", waiting("running"), to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await shows(job, phase="running")
    stage.script.plan("identify_task", OTHER)
    await listed(job, a_listing(task_id=OTHER_TASK))
    await stage.script.called("identify_task")
    await callback(job, "succeeded")
    assert await job.result() == RESULT
    assert stage.script.names() == ["read_ledger", "get_task", "identify_task", "get_task", "store_video"]


async def test_an_attempt_that_is_given_up_ends_the_job(stage: Stage) -> None:
    error = failure("lost", "unknown_outcome", task_id=None, attempt=2)
    stage.script.plan("read_ledger", stage.recover(attempt=2), stage.ended(error))
    stage.script.plan("ask_lister", stage.recover(attempt=2, needs_operator=True))
    stage.script.plan("resolve_attempt", ResolveAnswer(accepted=True, message="given up"))
    job = await stage.start()
    await stage.script.called("ask_lister")
    await listed(job, a_listing(2, complete=False))
    await shows(job, attention="unknown_create")
    assert (await resolve(job, Resolve(attempt=2, action="lost"))).accepted
    assert await failed(job) == error
    assert stage.script.of("create_task") == []
    assert (await state(job)).attention is None


async def test_an_attempt_that_was_not_created_is_followed_by_another(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover(), stage.claim(2), stage.claim(2))
    stage.script.plan("ask_lister", stage.recover(needs_operator=True))
    stage.script.plan("resolve_attempt", ResolveAnswer(accepted=True, message="noted"))
    stage.script.plan("create_task", stage.created(again=0))
    finish(stage)
    job = await stage.start()
    await stage.script.called("ask_lister")
    await listed(job, a_listing(complete=False))
    await shows(job, attention="unknown_create")
    assert (await resolve(job, Resolve(attempt=1, action="not_created"))).accepted
    assert await job.result() == RESULT
    assert [call.order.attempt for call in stage.script.of("create_task")] == [2]


async def test_another_attempt_can_become_the_unknown_one(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover(attempt=2))
    stage.script.plan("ask_lister", stage.recover(attempt=1, again=0), stage.adopt(TASK, attempt=1))
    finish(stage)
    job = await stage.start()
    assert await job.result() == RESULT
    assert [call.order.attempt for call in stage.script.of("ask_lister")] == [2, 1]
