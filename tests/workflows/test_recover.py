"""An unknown outcome is settled by a callback, a listing or an operator; nothing is sent meanwhile."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import SEEDANCE_ATTENTION, SIGNAL_LISTED, Resolve, ResolveAnswer, TaskChanged
from seedance_temporal.ledger.decisions import Decision
from tests.support.jobs import detail_of
from tests.support.polling import until
from tests.workflows.fakes import (
    NOT_YET,
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    SHORT,
    TASK,
    Held,
    a_listing,
    adopt,
    and_again,
    claim,
    create_result,
    created,
    ended,
    ending,
    failure,
    recover,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, Job, noted
from workflows import policies

FOUND = ["read_ledger", "ask_lister", "identify_task", "read_ledger", "get_task", "store_video"]


async def test_search_requests_listings_repeatedly(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(attempt=3))
    harness.fake.plan("ask_lister", *[recover(attempt=3, seconds=SHORT)] * 2, adopt(attempt=3))
    harness.fake.finish()
    job = await harness.start_until_stored()
    assert [(call.input.job_id, call.input.attempt) for call in harness.fake.of("ask_lister")] == [(job.id, 3)] * 3
    assert harness.fake.input("get_task").attempt == 3


async def test_search_is_shown_without_attention(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(attempt=2))
    harness.fake.plan("ask_lister", recover(attempt=2))
    job = await harness.start_until_called("ask_lister")
    shown = await job.until_waiting()
    assert (shown.phase, shown.attempt, shown.attention) == ("recovering", 2, None)


async def test_callback_names_task_at_once(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(attempt=2), adopt(OTHER_TASK, attempt=2))
    harness.fake.plan("ask_lister", recover(attempt=2))
    harness.fake.find()
    job = await harness.start()
    await job.until_waiting()
    await job.callback("queued", OTHER_TASK, attempt=2)
    await job.result()
    assert harness.fake.names() == FOUND
    input = harness.fake.input("identify_task")
    assert (input.job_id, input.attempt, input.task_id) == (job.id, 2, OTHER_TASK)
    assert harness.fake.input("get_task").task_id == OTHER_TASK


async def test_callback_during_request_is_handled(harness: Harness) -> None:
    held = Held(recover())
    harness.fake.plan("read_ledger", recover(), adopt())
    harness.fake.plan("ask_lister", held)
    harness.fake.find()
    job = await harness.start_until(held)
    await job.callback("running")
    await harness.fake.called("identify_task")
    held.release()
    assert await job.result() == RESULT
    assert harness.fake.names() == FOUND


async def test_listing_before_a_lost_answer_blocks_nothing(harness: Harness) -> None:
    """An operator resolves attempt 1 while its listing is under way; then attempt 2 loses its answer, too."""
    held = Held(create_result("unknown"))
    job = await harness.start_unknown()
    asked = len(harness.fake.of("ask_lister"))
    harness.fake.plan("resolve_attempt", ResolveAnswer(accepted=True, message=""))
    harness.fake.create(held, attempt=2)
    assert (await job.resolve(Resolve(attempt=1, action="not_created"))).accepted
    await held.reached.wait()
    await job.listed(a_listing(1))
    harness.fake.always("ask_lister", adopt(attempt=2))
    harness.fake.finish()
    held.release()
    assert await job.result() == RESULT
    assert len(harness.fake.of("ask_lister")) == asked + 1


async def test_listing_of_a_found_task_blocks_no_next_attempt(harness: Harness) -> None:
    """A callback finds the task while its listing is under way; the task fails, and the next answer is lost, too."""
    harness.fake.plan("read_ledger", claim(), adopt(), claim(attempt=2))
    harness.fake.plan("create_task", create_result("unknown"), create_result("unknown"))
    harness.fake.plan("ask_lister", recover(1))
    harness.fake.plan("identify_task", OURS)
    harness.fake.plan("get_task", waiting("running"), ending("failed", "provider"))
    harness.fake.plan("write_end", and_again)
    job = await harness.start_until_called("ask_lister")
    await job.callback("running")
    await job.until_state(phase="running")
    await job.listed(a_listing(1, task_id=TASK))
    harness.fake.always("ask_lister", adopt(OTHER_TASK, attempt=2))
    harness.fake.plan("get_task", to_store())
    harness.fake.plan("store_video", RESULT)
    await job.callback("failed")
    assert await job.result() == RESULT
    assert len(harness.fake.of("ask_lister")) == 2


async def test_foreign_task_settles_nothing(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover())
    harness.fake.plan("ask_lister", recover(seconds=SHORT), adopt())
    harness.fake.plan("identify_task", OTHER)
    harness.fake.finish()
    job = await harness.start(first_signal=TaskChanged(task_id=OTHER_TASK, status="succeeded", attempt=1))
    await job.callback("succeeded", OTHER_TASK)
    assert await job.result() == RESULT
    assert len(harness.fake.of("identify_task")) == 1, "another identifier closes a task id for good"
    assert harness.fake.of("create_task") == []


async def test_unchecked_task_is_asked_again(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(), adopt())
    harness.fake.plan("ask_lister", recover())
    harness.fake.plan("identify_task", *[ApplicationError("503")] * 3, OURS)
    harness.fake.finish()
    job = await harness.start_until_called("ask_lister")
    await job.callback("succeeded")
    assert await job.result() == RESULT
    assert [call.tries for call in harness.fake.of("identify_task")] == [1, 2, 3, 1]
    assert "task_not_checked callback" in await job.noted()


async def test_early_callback_blocks_no_later_one(skipping: Harness) -> None:
    """Each callback of the job's own task is ahead of GET, but for the last one."""
    tries = 1 + len(policies.IDENTIFY_PAUSES)
    skipping.fake.plan("read_ledger", recover(), adopt())
    skipping.fake.always("ask_lister", recover())
    skipping.fake.plan("identify_task", *[NOT_YET] * (tries + 1), OURS)
    skipping.fake.finish()
    job = await skipping.start_until_called("ask_lister")
    for calls in (tries, tries + 1):
        await job.callback("queued")
        await skipping.skip(90)
        await skipping.fake.called("identify_task", calls)
    await job.callback("succeeded")
    assert await job.result() == RESULT
    assert len(skipping.fake.of("identify_task")) == tries + 2


async def test_late_search_needs_operator_until_found(harness: Harness) -> None:
    held = Held(adopt(attempt=2))
    harness.fake.plan("read_ledger", recover(attempt=2))
    harness.fake.plan("ask_lister", *[recover(attempt=2, seconds=0, needs_operator=True)] * 2, held)
    harness.fake.finish()
    job = await harness.start_until(held)
    shown = await job.state()
    assert (shown.phase, shown.attention) == ("recovering", "unknown_create")
    assert f"resolve {job.id} --attempt 2" in (detail_of(shown).advice or "")
    assert noted(shown).count("attention_raised unknown_create") == 1
    assert (await job.attributes()).get(SEEDANCE_ATTENTION) == "unknown_create"
    held.release()
    await job.result()
    shown = await job.state()
    assert (shown.attention, detail_of(shown).advice) == (None, None)
    assert "attention_settled unknown_create" in noted(shown)


async def test_old_claim_waits_for_listing_before_attention(harness: Harness) -> None:
    """Such as the claim of a run that was terminated, and is submitted again on the next day."""
    harness.fake.plan("read_ledger", recover(needs_operator=True), adopt())
    harness.fake.plan("ask_lister", recover(needs_operator=True))
    harness.fake.find()
    job = await harness.start()
    await job.until_waiting()
    assert (await job.state()).attention is None
    await job.listed(a_listing(task_id=TASK))
    assert await job.result() == RESULT
    assert "attention_raised unknown_create" not in await job.noted()


async def test_request_is_not_repeated_before_answer(skipping: Harness) -> None:
    """So hundreds of jobs in recovery do not block the lister by asking it over and over."""
    skipping.fake.plan("read_ledger", recover(), adopt())
    skipping.fake.always("ask_lister", recover(seconds=60))
    skipping.fake.find()
    job = await skipping.start_until_called("ask_lister")
    await skipping.skip(60 * (policies.LISTING_PATIENCE - 1))
    assert len(skipping.fake.of("ask_lister")) == 1
    await skipping.skip(120)
    assert len(skipping.fake.of("ask_lister")) == 2
    await job.listed(a_listing(complete=False))
    await skipping.skip(90)
    assert len(skipping.fake.of("ask_lister")) == 3, "after an answer, the usual wait"
    await job.callback("succeeded")
    assert await job.result() == RESULT


async def test_silent_lister_delays_no_attention_or_callback(skipping: Harness) -> None:
    """LIST can be down for hours, or refused: an Attention is raised all the same, and a callback handled."""
    skipping.fake.plan("read_ledger", recover(), adopt())
    skipping.fake.plan("ask_lister", *[recover(seconds=300)] * 2)
    skipping.fake.always("ask_lister", recover(seconds=300, needs_operator=True))
    skipping.fake.find()
    job = await skipping.start()
    await skipping.skip(3600)
    shown = await job.state()
    assert (shown.phase, shown.attention) == ("recovering", "unknown_create")
    assert len(skipping.fake.of("ask_lister")) >= 4, "it goes on asking"
    await job.callback("succeeded")
    assert await job.result() == RESULT


async def test_failing_list_is_named_until_it_answers(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(), adopt())
    harness.fake.always("ask_lister", recover(needs_operator=True))
    harness.fake.find()
    job = await harness.start_until_called("ask_lister")
    await job.listed(a_listing(complete=False, problem="HTTP 502 from a gateway"))
    shown = await job.until_state(attention="unknown_create")
    assert "HTTP 502 from a gateway" in (detail_of(shown).advice or "")
    assert "not_listed" not in noted(shown), "there was no listing"
    await job.listed(a_listing(complete=False))
    await job.until_noted("not_listed")
    assert "HTTP 502" not in ((await job.detail()).advice or "")
    await job.callback("succeeded")
    assert await job.result() == RESULT


async def _is_silent_on(job: Job, words: str) -> bool:
    return words not in ((await job.detail()).advice or "")


@pytest.mark.parametrize(
    ("key", "says"),
    [("01234567", "check in the console that the key still names the model"), ("89abcdef", "fingerprint 89abcdef")],
    ids=["of the claim's key", "of another key"],
)
async def test_blind_listing_tells_operator_about_key(harness: Harness, key: str, says: str) -> None:
    harness.fake.plan("read_ledger", recover(), adopt())
    harness.fake.always("ask_lister", recover(needs_operator=True, key="01234567"))
    harness.fake.find()
    job = await harness.start_until_called("ask_lister")
    await job.listed(a_listing(is_blind=True, key=key, complete=False))
    await job.until_noted("not_listed")
    shown = await job.until_state(attention="unknown_create")
    assert says in (detail_of(shown).advice or "")
    await job.listed(a_listing(key="01234567", complete=False))
    await until(lambda: _is_silent_on(job, says), "a listing that can prove absence takes the doubt away")
    await job.callback("succeeded")
    assert await job.result() == RESULT


async def test_silent_ledger_is_retried(skipping: Harness) -> None:
    skipping.fake.plan("read_ledger", recover())
    skipping.fake.plan("ask_lister", *[ApplicationError("no bucket")] * 30, adopt())
    skipping.fake.finish()
    assert await (await skipping.start()).result() == RESULT


# --- answers of the lister -------------------------------------------------------------------------------------------


async def asked(harness: Harness, *decisions: Decision, attempt: int = 1) -> Job:
    """Start a job that has asked the lister, and waits for its answer."""
    harness.fake.plan("read_ledger", recover(attempt))
    harness.fake.plan("ask_lister", recover(attempt), *decisions)
    job = await harness.start()
    await job.until_waiting()
    return job


async def test_listed_task_shown_by_get_is_adopted(harness: Harness) -> None:
    job = await asked(harness, attempt=2)
    harness.fake.plan("read_ledger", adopt(OTHER_TASK, attempt=2))
    harness.fake.find()
    await job.listed(a_listing(2, task_id=OTHER_TASK, complete=False))
    await job.result()
    assert harness.fake.names() == FOUND
    input = harness.fake.input("identify_task")
    assert (input.job_id, input.attempt, input.task_id, input.source) == (job.id, 2, OTHER_TASK, "list")


async def test_listed_task_missing_from_get_is_asked_again(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("read_ledger", adopt(OTHER_TASK))
    harness.fake.plan("identify_task", *[ApplicationError("503")] * 3, NOT_YET, OURS)
    harness.fake.finish()
    await job.listed(a_listing(task_id=OTHER_TASK))
    assert await job.result() == RESULT
    assert "task_not_checked list" in await job.noted()
    assert len(harness.fake.of("identify_task")) == 5


async def test_two_complete_listings_allow_next_claim(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("settle_absent", claim(2))
    harness.fake.create(created(seconds=0), attempt=2)
    harness.fake.finish()
    first, second = a_listing(), a_listing()
    await job.listed(first)
    await job.until_noted("not_listed")
    assert harness.fake.of("settle_absent") == [], "one proves nothing"
    await job.listed(second)
    assert await job.result() == RESULT
    input = harness.fake.input("settle_absent")
    assert (input.job_id, input.attempt, input.listings) == (job.id, 1, (first, second))
    assert [call.input.attempt for call in harness.fake.of("create_task")] == [2]


@pytest.mark.parametrize(
    "how", ["it was listed once", "it was listed, and GET is away", "it was named, and GET is away"]
)
async def test_named_task_is_never_absent(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """LIST hides, in all later listings, a task that the provider cannot be asked for."""
    monkeypatch.setattr(policies, "IDENTIFY_PAUSES", (timedelta(seconds=0.1),) * 2)
    job = await asked(unsandboxed)
    unsandboxed.fake.always("ask_lister", recover())
    away = ApplicationError("500 the provider is away", type="ProviderUnavailable")
    unsandboxed.fake.always("identify_task", away if how.endswith("away") else OTHER)
    await (job.callback("queued", OTHER_TASK) if "named" in how else job.listed(a_listing(task_id=OTHER_TASK)))
    await unsandboxed.fake.called("identify_task")
    await job.listed(*[a_listing() for _ in range(4)])
    await asyncio.sleep(1)
    assert unsandboxed.fake.of("settle_absent") == []
    unsandboxed.fake.plan("read_ledger", adopt())
    unsandboxed.fake.plan("resolve_attempt", ResolveAnswer(accepted=True, message="adopted"))
    unsandboxed.fake.always("ask_later", None)
    unsandboxed.fake.finish()
    assert (await job.resolve(Resolve(attempt=1, action="adopt", task_id=TASK))).accepted
    assert await job.result() == RESULT


async def test_rejected_proof_is_sent_again_with_next(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("settle_absent", recover(), adopt())
    harness.fake.finish()
    listings = [a_listing() for _ in range(3)]
    await job.listed(*listings)
    assert await job.result() == RESULT
    assert [list(call.input.listings) for call in harness.fake.of("settle_absent")] == [listings[:2], listings]


async def test_useless_listings_are_dropped(harness: Harness) -> None:
    job = await asked(harness, attempt=2)
    await job.listed(a_listing(2, complete=False), a_listing(1), a_listing(3), a_listing(2))
    await job.until_noted("not_listed")
    await asyncio.sleep(0.3)
    assert harness.fake.names() == ["read_ledger", "ask_lister"]
    listings = [(e.attempt, e.detail) for e in (await job.detail()).timeline if e.event == "not_listed"]
    assert listings == [(2, "incomplete listing"), (2, None)]


async def test_listing_of_settled_attempt_proves_nothing(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("settle_absent", claim(2))
    harness.fake.create(create_result("unknown"), attempt=2)
    harness.fake.always("ask_lister", recover(2))
    await job.listed(a_listing(), a_listing())
    await harness.fake.called("ask_lister", 2)
    harness.fake.plan("settle_absent", adopt(attempt=2))
    harness.fake.finish()
    mine = [a_listing(2), a_listing(2)]
    await job.listed(a_listing(1), *mine)
    assert await job.result() == RESULT
    assert [call.input.attempt for call in harness.fake.of("settle_absent")] == [
        1,
        *[2] * (len(harness.fake.of("settle_absent")) - 1),
    ]
    assert set(harness.fake.input("settle_absent").listings) <= set(mine)


@pytest.mark.parametrize("odd", [[], [None], ["x"], [{}], [{"attempt": "one"}], [[1]], [1, 2]])
async def test_invalid_listing_is_ignored(harness: Harness, odd: list[Any]) -> None:
    job = await asked(harness)
    harness.fake.plan("read_ledger", adopt())
    harness.fake.find()
    await job.signal(SIGNAL_LISTED, args=odd)
    await job.listed(a_listing(task_id=TASK))
    assert await job.result() == RESULT


async def test_listing_flood_is_bounded(harness: Harness) -> None:
    held = Held(recover())
    harness.fake.plan("read_ledger", recover())
    harness.fake.plan("ask_lister", held, recover())
    harness.fake.always("settle_absent", recover())
    job = await harness.start_until(held)
    await job.listed(*(a_listing() for _ in range(policies.MOST_LISTINGS + 20)))
    held.release()
    await harness.fake.called("settle_absent", policies.MOST_LISTINGS - 1)
    await asyncio.sleep(0.3)
    assert len(harness.fake.of("settle_absent")) == policies.MOST_LISTINGS - 1
    await job.listed(a_listing())
    await harness.fake.called("settle_absent", policies.MOST_LISTINGS)
    assert len(harness.fake.input("settle_absent").listings) == policies.MOST_LISTINGS


async def test_unneeded_listing_changes_nothing(harness: Harness) -> None:
    job = await harness.start_running()
    harness.fake.finish()
    harness.fake.plan("identify_task", OTHER)
    await job.listed(a_listing(task_id=OTHER_TASK))
    await harness.fake.called("identify_task")
    await job.callback("succeeded")
    assert await job.result() == RESULT
    assert harness.fake.names() == ["read_ledger", "get_task", "identify_task", "store_video"]


async def test_given_up_attempt_ends_job(harness: Harness) -> None:
    error = failure("lost", "unknown_outcome", task_id=None, attempt=2)
    job = await harness.start_unknown(2)
    harness.fake.plan("read_ledger", ended(error))
    harness.fake.plan("resolve_attempt", ResolveAnswer(accepted=True, message="given up"))
    assert (await job.resolve(Resolve(attempt=2, action="lost"))).accepted
    assert await job.failed() == error
    assert harness.fake.of("create_task") == []
    assert (await job.state()).attention is None


async def test_not_created_attempt_is_followed_by_next(harness: Harness) -> None:
    job = await harness.start_unknown()
    harness.fake.plan("read_ledger", claim(2), claim(2))
    harness.fake.plan("resolve_attempt", ResolveAnswer(accepted=True, message="noted"))
    harness.fake.plan("create_task", created(seconds=0))
    harness.fake.finish()
    assert (await job.resolve(Resolve(attempt=1, action="not_created"))).accepted
    assert await job.result() == RESULT
    assert [call.input.attempt for call in harness.fake.of("create_task")] == [2]


async def test_other_attempt_can_become_unknown(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(attempt=2))
    harness.fake.plan("ask_lister", recover(attempt=1, seconds=0), adopt(TASK, attempt=1))
    harness.fake.finish()
    await harness.start_until_stored()
    assert [call.input.attempt for call in harness.fake.of("ask_lister")] == [2, 1]
