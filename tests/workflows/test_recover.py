"""An attempt whose outcome is unknown: a callback, a listing or a person settles it; nothing is sent meanwhile."""

from __future__ import annotations

from temporalio.exceptions import ApplicationError

from seedance_temporal.job import SEEDANCE_ATTENTION, Resolve, ResolveAnswer
from tests.workflows.scripted import (
    OTHER_TASK,
    RESULT,
    SHORT,
    TASK,
    Held,
    Stage,
    callback,
    failed,
    failure,
    resolve,
    shows,
    state,
    to_store,
    until,
    what,
)


def finish(stage: Stage) -> None:
    stage.script.always("get_task", to_store())
    stage.script.always("store_video", RESULT)


async def test_it_looks_at_the_listing_again_and_again(stage: Stage) -> None:
    stage.script.plan("look", stage.recover(attempt=3))
    stage.script.plan("find_task", *[stage.recover(attempt=3, again=SHORT)] * 2, stage.adopt(attempt=3))
    finish(stage)
    job = await stage.start()
    assert await job.result() == RESULT
    assert [(call.order.attempt, call.order.task_id) for call in stage.script.of("find_task")] == [(3, None)] * 3
    assert stage.script.order("get_task").attempt == 3


async def test_it_is_shown_and_needs_nobody_while_it_looks(stage: Stage) -> None:
    stage.script.plan("look", stage.recover(attempt=2))
    stage.script.plan("find_task", stage.recover(attempt=2))
    job = await stage.start()
    await stage.script.called("find_task")
    shown = await until(lambda: _waits(stage, job), "it waits for the next look")
    assert (shown.phase, shown.attempt, shown.attention) == ("recovering", 2, None)


async def _waits(stage: Stage, job: object) -> object:
    shown = await state(stage.jobs[-1])
    return shown if shown.look_again_at is not None else None


async def test_a_callback_tells_the_task_at_once(stage: Stage) -> None:
    stage.script.plan("look", stage.recover(attempt=2))
    stage.script.plan("find_task", stage.recover(attempt=2))
    stage.script.plan("identify_task", stage.adopt(OTHER_TASK, attempt=2))
    finish(stage)
    job = await stage.start()
    await until(lambda: _waits(stage, job), "it waits for the next look")
    await callback(job, "queued", OTHER_TASK, attempt=2)
    await job.result()
    assert stage.script.names() == ["look", "find_task", "identify_task", "get_task", "store_video"]
    order = stage.script.order("identify_task")
    assert (order.job_id, order.attempt, order.task_id) == (job.id, 2, OTHER_TASK)
    assert stage.script.order("get_task").task_id == OTHER_TASK


async def test_a_callback_during_a_listing_is_looked_at_after_it(stage: Stage) -> None:
    held = Held(stage.recover())
    stage.script.plan("look", stage.recover())
    stage.script.plan("find_task", held)
    stage.script.plan("identify_task", stage.adopt())
    finish(stage)
    job = await stage.start()
    await held.reached.wait()
    await callback(job, "running")
    held.let_go()
    assert await job.result() == RESULT
    assert stage.script.names() == ["look", "find_task", "identify_task", "get_task", "store_video"]


async def test_a_task_of_somebody_else_settles_nothing(stage: Stage) -> None:
    stage.script.plan("look", stage.recover())
    stage.script.plan("find_task", stage.recover(), stage.adopt())
    stage.script.plan("identify_task", stage.recover(again=0))
    finish(stage)
    job = await stage.start()
    await stage.script.called("find_task")
    await callback(job, "succeeded", OTHER_TASK)
    assert await job.result() == RESULT
    assert stage.script.names() == ["look", "find_task", "identify_task", "find_task", "get_task", "store_video"]


async def test_a_task_that_cannot_be_checked_may_be_named_again(stage: Stage) -> None:
    stage.script.plan("look", stage.recover())
    stage.script.plan("find_task", *[stage.recover()] * 2)
    stage.script.plan("identify_task", *[ApplicationError("503")] * 3, stage.adopt())
    finish(stage)
    job = await stage.start()
    await stage.script.called("find_task")
    await callback(job, "succeeded")
    await stage.script.called("identify_task", 3)
    await until(lambda: _says(stage, "a callback could not be checked"), "the failed check is noted")
    await callback(job, "succeeded")
    assert await job.result() == RESULT
    assert [call.tries for call in stage.script.of("identify_task")] == [1, 2, 3, 1]


async def _says(stage: Stage, words: str) -> bool:
    return words in what(await state(stage.jobs[-1]))


async def test_a_person_is_asked_for_when_the_time_is_over_and_no_longer_when_it_is_found(stage: Stage) -> None:
    held = Held(stage.adopt(attempt=2))
    stage.script.plan("look", stage.recover(attempt=2))
    stage.script.plan("find_task", *[stage.recover(attempt=2, again=0, recovery_over=True)] * 2, held)
    finish(stage)
    job = await stage.start()
    await held.reached.wait()
    shown = await state(job)
    assert (shown.phase, shown.attention) == ("recovering", "unknown_create")
    assert f"resolve {job.id} --attempt 2" in (shown.advice or "")
    assert what(shown).count("needs a person: unknown_create") == 1
    assert (await job.describe()).typed_search_attributes.get(SEEDANCE_ATTENTION) == "unknown_create"
    held.let_go()
    await job.result()
    shown = await state(job)
    assert (shown.attention, shown.advice) == (None, None)
    assert "settled: unknown_create" in what(shown)


async def test_a_listing_that_does_not_answer_keeps_nobody_from_helping(skipping: Stage) -> None:
    """LIST can be down for hours, or refused: a person is asked for all the same, and a callback heard."""
    stage = skipping
    stage.script.plan("look", stage.recover())
    stage.script.always("look", stage.recover(recovery_over=True))
    stage.script.always("find_task", ApplicationError("500"))
    stage.script.plan("identify_task", stage.adopt())
    finish(stage)
    job = await stage.start()
    await stage.skip(3600)
    shown = await state(job)
    assert (shown.phase, shown.attention) == ("recovering", "unknown_create")
    await callback(job, "succeeded")
    assert await job.result() == RESULT


async def test_an_attempt_that_is_given_up_ends_the_job(stage: Stage) -> None:
    error = failure("lost", "unknown_outcome", task_id=None, attempt=2)
    stage.script.plan("look", stage.recover(attempt=2))
    stage.script.plan("find_task", stage.recover(attempt=2, recovery_over=True), stage.ended(error))
    stage.script.plan("resolve_attempt", ResolveAnswer(accepted=True, message="given up"))
    job = await stage.start()
    await shows(job, attention="unknown_create")
    assert (await resolve(job, Resolve(attempt=2, action="lost"))).accepted
    assert await failed(job) == error
    assert stage.script.of("create_task") == []
    assert (await state(job)).attention is None


async def test_an_attempt_that_was_not_created_is_followed_by_another(stage: Stage) -> None:
    stage.script.plan("look", stage.recover(), stage.claim(2))
    stage.script.plan("find_task", stage.recover(recovery_over=True), stage.says("claim", attempt=2))
    stage.script.plan("resolve_attempt", ResolveAnswer(accepted=True, message="noted"))
    stage.script.plan("create_task", stage.created(again=0))
    finish(stage)
    job = await stage.start()
    await shows(job, attention="unknown_create")
    assert (await resolve(job, Resolve(attempt=1, action="not_created"))).accepted
    assert await job.result() == RESULT
    assert [call.order.attempt for call in stage.script.of("create_task")] == [2]


async def test_another_attempt_can_become_the_unknown_one(stage: Stage) -> None:
    stage.script.plan("look", stage.recover(attempt=2))
    stage.script.plan("find_task", stage.recover(attempt=1, again=0), stage.adopt(TASK, attempt=1))
    finish(stage)
    job = await stage.start()
    assert await job.result() == RESULT
    assert [call.order.attempt for call in stage.script.of("find_task")] == [2, 1]
