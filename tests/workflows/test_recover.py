"""An unknown outcome is settled by a callback, a listing or an operator; nothing is sent meanwhile."""

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
    Harness,
    Held,
    a_listing,
    callback,
    failed,
    failure,
    listed,
    noted,
    resolve,
    state,
    to_store,
    until,
    until_state,
    waiting,
    waits,
)
from workflows import policies


def finish(harness: Harness) -> None:
    harness.fake.always("get_task", to_store())
    harness.fake.always("store_video", RESULT)


async def test_search_requests_listings_repeatedly(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.recover(attempt=3))
    harness.fake.plan("ask_lister", *[harness.recover(attempt=3, seconds=SHORT)] * 2, harness.adopt(attempt=3))
    finish(harness)
    job = await harness.start()
    assert await job.result() == RESULT
    assert [(call.input.job_id, call.input.attempt) for call in harness.fake.of("ask_lister")] == [(job.id, 3)] * 3
    assert harness.fake.input("get_task").attempt == 3


async def test_search_is_shown_without_attention(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.recover(attempt=2))
    harness.fake.plan("ask_lister", harness.recover(attempt=2))
    job = await harness.start()
    await harness.fake.called("ask_lister")
    shown = await until(lambda: waits(job), "it waits for a listing")
    assert (shown.phase, shown.attempt, shown.attention) == ("recovering", 2, None)


async def test_callback_names_task_at_once(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.recover(attempt=2), harness.adopt(OTHER_TASK, attempt=2))
    harness.fake.plan("ask_lister", harness.recover(attempt=2))
    harness.fake.plan("identify_task", OURS)
    finish(harness)
    job = await harness.start()
    await until(lambda: waits(job), "it waits for a listing")
    await callback(job, "queued", OTHER_TASK, attempt=2)
    await job.result()
    assert harness.fake.names() == [
        "read_ledger",
        "ask_lister",
        "identify_task",
        "read_ledger",
        "get_task",
        "store_video",
    ]
    input = harness.fake.input("identify_task")
    assert (input.job_id, input.attempt, input.task_id) == (job.id, 2, OTHER_TASK)
    assert harness.fake.input("get_task").task_id == OTHER_TASK


async def test_callback_during_request_is_handled(harness: Harness) -> None:
    held = Held(harness.recover())
    harness.fake.plan("read_ledger", harness.recover(), harness.adopt())
    harness.fake.plan("ask_lister", held)
    harness.fake.plan("identify_task", OURS)
    finish(harness)
    job = await harness.start()
    await held.reached.wait()
    await callback(job, "running")
    await harness.fake.called("identify_task")
    held.release()
    assert await job.result() == RESULT
    assert harness.fake.names() == [
        "read_ledger",
        "ask_lister",
        "identify_task",
        "read_ledger",
        "get_task",
        "store_video",
    ]


async def test_foreign_task_settles_nothing(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.recover())
    harness.fake.plan("ask_lister", harness.recover(seconds=SHORT), harness.adopt())
    harness.fake.plan("identify_task", OTHER)
    finish(harness)
    job = await harness.start(first_signal=TaskChanged(task_id=OTHER_TASK, status="succeeded", attempt=1))
    await callback(job, "succeeded", OTHER_TASK)
    assert await job.result() == RESULT
    assert len(harness.fake.of("identify_task")) == 1, "another identifier closes a task id for good"
    assert harness.fake.of("create_task") == []


async def test_unchecked_task_is_asked_again(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.recover(), harness.adopt())
    harness.fake.plan("ask_lister", harness.recover())
    harness.fake.plan("identify_task", *[ApplicationError("503")] * 3, OURS)
    finish(harness)
    job = await harness.start()
    await harness.fake.called("ask_lister")
    await callback(job, "succeeded")
    assert await job.result() == RESULT
    assert [call.tries for call in harness.fake.of("identify_task")] == [1, 2, 3, 1]
    assert await _says(harness, "task_not_checked callback")


async def test_early_callback_blocks_no_later_one(skipping: Harness) -> None:
    """Each callback of the job's own task is ahead of GET, but for the last one."""
    harness = skipping
    tries = 1 + len(policies.IDENTIFY_PAUSES)
    harness.fake.plan("read_ledger", harness.recover(), harness.adopt())
    harness.fake.always("ask_lister", harness.recover())
    harness.fake.plan("identify_task", *[NOT_YET] * (2 * tries), OURS)
    finish(harness)
    job = await harness.start()
    await harness.fake.called("ask_lister")
    for named in (1, 2):
        await callback(job, "queued")
        await harness.skip(90)
        await harness.fake.called("identify_task", named * tries)
    await callback(job, "succeeded")
    assert await job.result() == RESULT
    assert len(harness.fake.of("identify_task")) == 2 * tries + 1


async def _says(harness: Harness, event: str) -> bool:
    return event in noted(await state(harness.jobs[-1]))


async def test_late_search_needs_operator_until_found(harness: Harness) -> None:
    held = Held(harness.adopt(attempt=2))
    harness.fake.plan("read_ledger", harness.recover(attempt=2))
    harness.fake.plan("ask_lister", *[harness.recover(attempt=2, seconds=0, needs_operator=True)] * 2, held)
    finish(harness)
    job = await harness.start()
    await held.reached.wait()
    shown = await state(job)
    assert (shown.phase, shown.attention) == ("recovering", "unknown_create")
    assert f"resolve {job.id} --attempt 2" in (detail_of(shown).advice or "")
    assert noted(shown).count("attention_raised unknown_create") == 1
    assert (await job.describe()).typed_search_attributes.get(SEEDANCE_ATTENTION) == "unknown_create"
    held.release()
    await job.result()
    shown = await state(job)
    assert (shown.attention, detail_of(shown).advice) == (None, None)
    assert "attention_settled unknown_create" in noted(shown)


async def test_old_claim_waits_for_listing_before_attention(harness: Harness) -> None:
    """Such as the claim of a run that was terminated, and is submitted again on the next day."""
    harness.fake.plan("read_ledger", harness.recover(needs_operator=True), harness.adopt())
    harness.fake.plan("ask_lister", harness.recover(needs_operator=True))
    harness.fake.plan("identify_task", OURS)
    finish(harness)
    job = await harness.start()
    await until(lambda: waits(job), "it waits for the lister")
    assert (await state(job)).attention is None
    await listed(job, a_listing(task_id=TASK))
    assert await job.result() == RESULT
    assert "attention_raised unknown_create" not in noted(await state(job))


async def test_request_is_not_repeated_before_answer(skipping: Harness) -> None:
    """So hundreds of jobs in recovery do not block the lister by asking it over and over."""
    harness = skipping
    harness.fake.plan("read_ledger", harness.recover(), harness.adopt())
    harness.fake.always("ask_lister", harness.recover(seconds=60))
    harness.fake.plan("identify_task", OURS)
    finish(harness)
    job = await harness.start()
    await harness.fake.called("ask_lister")
    await harness.skip(60 * (policies.LISTING_PATIENCE - 1))
    assert len(harness.fake.of("ask_lister")) == 1
    await harness.skip(120)
    assert len(harness.fake.of("ask_lister")) == 2
    await listed(job, a_listing(complete=False))
    await harness.skip(90)
    assert len(harness.fake.of("ask_lister")) == 3, "after an answer, the usual wait"
    await callback(job, "succeeded")
    assert await job.result() == RESULT


async def test_silent_lister_delays_no_attention_or_callback(skipping: Harness) -> None:
    """LIST can be down for hours, or refused: an Attention is raised all the same, and a callback handled."""
    harness = skipping
    harness.fake.plan("read_ledger", harness.recover(), harness.adopt())
    harness.fake.plan("ask_lister", *[harness.recover(seconds=300)] * 2)
    harness.fake.always("ask_lister", harness.recover(seconds=300, needs_operator=True))
    harness.fake.plan("identify_task", OURS)
    finish(harness)
    job = await harness.start()
    await harness.skip(3600)
    shown = await state(job)
    assert (shown.phase, shown.attention) == ("recovering", "unknown_create")
    assert len(harness.fake.of("ask_lister")) >= 4, "it goes on asking"
    await callback(job, "succeeded")
    assert await job.result() == RESULT


async def test_silent_ledger_is_retried(skipping: Harness) -> None:
    harness = skipping
    harness.fake.plan("read_ledger", harness.recover())
    harness.fake.plan("ask_lister", *[ApplicationError("no bucket")] * 30, harness.adopt())
    finish(harness)
    assert await (await harness.start()).result() == RESULT


# --- answers of the lister -------------------------------------------------------------------------------------------


async def asked(harness: Harness, *decisions: Decision, attempt: int = 1) -> Handle:
    """Start a job that has asked the lister, and waits for its answer."""
    harness.fake.plan("read_ledger", harness.recover(attempt))
    harness.fake.plan("ask_lister", harness.recover(attempt), *decisions)
    job = await harness.start()
    await until(lambda: waits(job), "it waits for the lister")
    return job


async def test_listed_task_shown_by_get_is_adopted(harness: Harness) -> None:
    job = await asked(harness, attempt=2)
    harness.fake.plan("read_ledger", harness.adopt(OTHER_TASK, attempt=2))
    harness.fake.plan("identify_task", OURS)
    finish(harness)
    await listed(job, a_listing(2, task_id=OTHER_TASK, complete=False))
    await job.result()
    assert harness.fake.names() == [
        "read_ledger",
        "ask_lister",
        "identify_task",
        "read_ledger",
        "get_task",
        "store_video",
    ]
    input = harness.fake.input("identify_task")
    assert (input.job_id, input.attempt, input.task_id, input.source) == (job.id, 2, OTHER_TASK, "list")


async def test_listed_task_missing_from_get_is_asked_again(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("read_ledger", harness.adopt(OTHER_TASK))
    harness.fake.plan("identify_task", *[ApplicationError("503")] * 3, NOT_YET, OURS)
    finish(harness)
    await listed(job, a_listing(task_id=OTHER_TASK))
    assert await job.result() == RESULT
    assert await _says(harness, "task_not_checked list")
    assert len(harness.fake.of("identify_task")) == 5


async def test_two_complete_listings_allow_next_claim(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("settle_absent", harness.claim(2))
    harness.fake.plan("read_ledger", harness.claim(2))
    harness.fake.plan("create_task", harness.created(seconds=0))
    finish(harness)
    first, second = a_listing(), a_listing()
    await listed(job, first)
    await until(lambda: _says(harness, "not_listed"), "the first one is noted")
    assert harness.fake.of("settle_absent") == [], "one proves nothing"
    await listed(job, second)
    assert await job.result() == RESULT
    input = harness.fake.input("settle_absent")
    assert (input.job_id, input.attempt, input.listings) == (job.id, 1, (first, second))
    assert [call.input.attempt for call in harness.fake.of("create_task")] == [2]


async def test_rejected_proof_is_sent_again_with_next(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("settle_absent", harness.recover(), harness.adopt())
    finish(harness)
    listings = [a_listing() for _ in range(3)]
    for listing in listings:
        await listed(job, listing)
    assert await job.result() == RESULT
    assert [list(call.input.listings) for call in harness.fake.of("settle_absent")] == [listings[:2], listings]


async def test_useless_listings_are_dropped(harness: Harness) -> None:
    job = await asked(harness, attempt=2)
    for listing in (a_listing(2, complete=False), a_listing(1), a_listing(3), a_listing(2)):
        await listed(job, listing)
    await until(lambda: _says(harness, "not_listed"), "they were read")
    await asyncio.sleep(0.3)
    assert harness.fake.names() == ["read_ledger", "ask_lister"]
    told = [(e.attempt, e.detail) for e in detail_of(await state(job)).timeline if e.event == "not_listed"]
    assert told == [(2, "incomplete listing"), (2, None)]


async def test_listing_of_settled_attempt_proves_nothing(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("settle_absent", harness.claim(2))
    harness.fake.plan("read_ledger", harness.claim(2))
    harness.fake.plan("create_task", harness.result_of("unknown", None))
    harness.fake.always("ask_lister", harness.recover(2))
    for _ in range(2):
        await listed(job, a_listing())
    await harness.fake.called("ask_lister", 2)
    harness.fake.plan("settle_absent", harness.adopt(attempt=2))
    finish(harness)
    mine = [a_listing(2), a_listing(2)]
    for listing in (a_listing(1), *mine):
        await listed(job, listing)
    assert await job.result() == RESULT
    assert [call.input.attempt for call in harness.fake.of("settle_absent")] == [
        1,
        *[2] * (len(harness.fake.of("settle_absent")) - 1),
    ]
    assert set(harness.fake.input("settle_absent").listings) <= set(mine)


@pytest.mark.parametrize("odd", [[], [None], ["x"], [{}], [{"attempt": "one"}], [[1]], [1, 2]])
async def test_invalid_listing_is_ignored(harness: Harness, odd: list[Any]) -> None:
    job = await asked(harness)
    harness.fake.plan("read_ledger", harness.adopt())
    harness.fake.plan("identify_task", OURS)
    finish(harness)
    await job.signal(SIGNAL_LISTED, args=odd)
    await listed(job, a_listing(task_id=TASK))
    assert await job.result() == RESULT


async def test_listing_flood_is_bounded(harness: Harness) -> None:
    held = Held(harness.recover())
    harness.fake.plan("read_ledger", harness.recover())
    harness.fake.plan("ask_lister", held, harness.recover())
    harness.fake.always("settle_absent", harness.recover())
    job = await harness.start()
    await held.reached.wait()
    for _ in range(policies.MOST_LISTINGS + 20):
        await listed(job, a_listing())
    held.release()
    await harness.fake.called("settle_absent", policies.MOST_LISTINGS - 1)
    await asyncio.sleep(0.3)
    assert len(harness.fake.of("settle_absent")) == policies.MOST_LISTINGS - 1
    await listed(job, a_listing())
    await harness.fake.called("settle_absent", policies.MOST_LISTINGS)
    assert len(harness.fake.input("settle_absent").listings) == policies.MOST_LISTINGS


async def test_unneeded_listing_changes_nothing(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.adopt())
    harness.fake.plan("get_task", waiting("running"), to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start()
    await until_state(job, phase="running")
    harness.fake.plan("identify_task", OTHER)
    await listed(job, a_listing(task_id=OTHER_TASK))
    await harness.fake.called("identify_task")
    await callback(job, "succeeded")
    assert await job.result() == RESULT
    assert harness.fake.names() == ["read_ledger", "get_task", "identify_task", "get_task", "store_video"]


async def test_given_up_attempt_ends_job(harness: Harness) -> None:
    error = failure("lost", "unknown_outcome", task_id=None, attempt=2)
    harness.fake.plan("read_ledger", harness.recover(attempt=2), harness.ended(error))
    harness.fake.plan("ask_lister", harness.recover(attempt=2, needs_operator=True))
    harness.fake.plan("resolve_attempt", ResolveAnswer(accepted=True, message="given up"))
    job = await harness.start()
    await harness.fake.called("ask_lister")
    await listed(job, a_listing(2, complete=False))
    await until_state(job, attention="unknown_create")
    assert (await resolve(job, Resolve(attempt=2, action="lost"))).accepted
    assert await failed(job) == error
    assert harness.fake.of("create_task") == []
    assert (await state(job)).attention is None


async def test_not_created_attempt_is_followed_by_next(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.recover(), harness.claim(2), harness.claim(2))
    harness.fake.plan("ask_lister", harness.recover(needs_operator=True))
    harness.fake.plan("resolve_attempt", ResolveAnswer(accepted=True, message="noted"))
    harness.fake.plan("create_task", harness.created(seconds=0))
    finish(harness)
    job = await harness.start()
    await harness.fake.called("ask_lister")
    await listed(job, a_listing(complete=False))
    await until_state(job, attention="unknown_create")
    assert (await resolve(job, Resolve(attempt=1, action="not_created"))).accepted
    assert await job.result() == RESULT
    assert [call.input.attempt for call in harness.fake.of("create_task")] == [2]


async def test_other_attempt_can_become_unknown(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.recover(attempt=2))
    harness.fake.plan("ask_lister", harness.recover(attempt=1, seconds=0), harness.adopt(TASK, attempt=1))
    finish(harness)
    job = await harness.start()
    assert await job.result() == RESULT
    assert [call.input.attempt for call in harness.fake.of("ask_lister")] == [2, 1]
