"""An operator's resolution is written to the ledger, and the run reads it there."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import SIGNAL_CANCEL, SIGNAL_RESOLVE, Resolve, ResolveAnswer
from tests.workflows.fakes import (
    NOT_YET,
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    TASK,
    Held,
    a_listing,
    adopt,
    recover,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, noted
from workflows import policies

CONTINUED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
ADOPT = Resolve(attempt=2, action="adopt", task_id=TASK)
LOST = Resolve(attempt=2, action="lost")


async def test_accepted_resolution_rereads_ledger(harness: Harness) -> None:
    job = await harness.start_unknown(2)
    harness.fake.plan("read_ledger", adopt(attempt=2))
    harness.fake.plan("resolve_attempt", ResolveAnswer(accepted=True, message="adopted"))
    harness.fake.finish()
    assert await job.resolve(ADOPT) == ResolveAnswer(accepted=True, message="adopted")
    assert await job.result() == RESULT
    assert harness.fake.names() == [
        "read_ledger",
        "ask_lister",
        "resolve_attempt",
        "read_ledger",
        "get_task",
        "store_video",
    ]
    input = harness.fake.input("resolve_attempt")
    assert (input.job_id, input.resolution.model_copy(update={"id": ""})) == (job.id, ADOPT)
    assert "attention_raised unknown_create" in noted(input.timeline)
    (event,) = [e for e in (await job.detail()).timeline if e.event == "resolution_accepted"]
    assert (event.source, event.detail, event.attempt) == ("operator", "adopt", ADOPT.attempt)


async def test_refused_resolution_changes_nothing(harness: Harness) -> None:
    job = await harness.start_unknown(2)
    harness.fake.plan("resolve_attempt", ResolveAnswer(accepted=False, message="no such task"))
    assert await job.resolve(LOST) == ResolveAnswer(accepted=False, message="no such task")
    await asyncio.sleep(0.2)
    assert len(harness.fake.of("ask_lister")) == 1
    shown = await job.state()
    assert (shown.phase, shown.attention, shown.task_id) == ("recovering", "unknown_create", None)


@pytest.mark.parametrize(
    ("resolution", "part", "words"),
    [
        (LOST, "ProviderUnavailable", "Send it again once the provider answers"),
        (ADOPT, "ProviderUnavailable", "The job asks for the task by itself once the provider answers"),
        # A worker can have written it, and died before it said so.
        (LOST, "StoreFailed", "not known whether this was written"),
    ],
)
async def test_failed_resolution_is_not_accepted(harness: Harness, resolution: Resolve, part: str, words: str) -> None:
    job = await harness.start_unknown(2)
    harness.fake.plan("resolve_attempt", *[ApplicationError("HTTP 503", type=part)] * 2)
    harness.fake.always("identify_task", NOT_YET)
    answer = await job.resolve(resolution)
    assert not answer.accepted
    assert words in answer.message
    assert "HTTP 503" in answer.message
    assert len(harness.fake.of("ask_lister")) == 1


NAMED = {
    "a callback named it, and GET is asked": "is being checked",
    "a callback named it, and GET is away": "could not be checked",
    "a listing showed it, and GET does not": "A listing showed task",
    "an operator named it, and GET is behind": "is being checked",
    "an operator named it, and GET is away": "could not be checked",
}


@pytest.mark.parametrize(("how", "words"), NAMED.items(), ids=NAMED)
async def test_not_created_is_refused_over_named_task(harness: Harness, how: str, words: str) -> None:
    """Also before the first question is answered, as after a Reset."""
    asked = Held(NOT_YET)
    job = await harness.start_unknown(2)
    harness.fake.always("identify_task", RuntimeError("503") if how.endswith("away") else NOT_YET)
    if how.endswith("asked"):
        harness.fake.plan("identify_task", asked)
    if how.startswith("a listing"):
        await job.listed(a_listing(attempt=2, task_id=TASK))
    elif how.startswith("an operator"):
        harness.fake.plan("resolve_attempt", ResolveAnswer(accepted=False, message="not shown"))
        await job.resolve(ADOPT)
    else:
        await job.callback("running", TASK, attempt=2)
    await harness.fake.called("identify_task")
    if how.endswith("away"):
        await job.until_noted("task_not_checked " + ("operator" if how.startswith("an operator") else "callback"))
    answer = await job.resolve(Resolve(attempt=2, action="not_created"))
    assert not answer.accepted
    assert words in answer.message
    assert TASK in answer.message
    assert {call.input.resolution.action for call in harness.fake.of("resolve_attempt")} <= {"adopt"}
    asked.release()
    await job.terminate()


@pytest.mark.parametrize("task_id", ["é" * 300, ""])
async def test_not_created_is_refused_over_listed_odd_id(harness: Harness, task_id: str) -> None:
    """It shows the identifier of the attempt: a task exists, though nobody can ask for it."""
    job = await harness.start_unknown(2)
    await job.listed(a_listing(attempt=2, task_id=task_id))
    answer = await job.resolve(Resolve(attempt=2, action="not_created"))
    assert not answer.accepted
    assert "A listing showed task" in answer.message
    assert {"identify_task", "resolve_attempt"}.isdisjoint(harness.fake.names())


async def test_task_that_operator_names_again_is_asked_for_longer(skipping: Harness) -> None:
    """A callback named it before, and its last question is near: the operator's five minutes begin anew."""
    skipping.fake.always("read_ledger", recover(2, seconds=7200))
    skipping.fake.always("ask_lister", recover(2, seconds=7200))
    job = await skipping.start_until_called("ask_lister")
    skipping.fake.always("identify_task", NOT_YET)
    await job.callback("running", TASK, attempt=2)
    await skipping.fake.called("identify_task")
    before = sum(policies.IDENTIFY_PAUSES, policies.IDENTIFY_LATER).total_seconds()
    await skipping.skip(before - 10)
    skipping.fake.plan("resolve_attempt", ResolveAnswer(accepted=False, message="not shown"))
    assert not (await job.resolve(ADOPT)).accepted
    await skipping.skip(200)
    answer = await job.resolve(Resolve(attempt=2, action="not_created"))
    assert (answer.accepted, len(skipping.fake.of("resolve_attempt"))) == (False, 1)
    skipping.fake.always("read_ledger", adopt(attempt=2))
    skipping.fake.always("identify_task", OURS)
    skipping.fake.finish()
    await skipping.skip(200)
    assert await job.result() == RESULT


async def test_task_that_operator_named_is_adopted_later(skipping: Harness) -> None:
    """GET is behind. The name outlasts the run, and holds back the create that a second operator asks for."""
    skipping.fake.always("read_ledger", recover(2, seconds=30))
    skipping.fake.always("ask_lister", recover(2, seconds=30))
    job = await skipping.start_until_called("ask_lister")
    skipping.fake.plan("resolve_attempt", ResolveAnswer(accepted=False, message="not shown"))
    skipping.fake.always("identify_task", NOT_YET)
    await job.callback("running", TASK, attempt=2)
    await skipping.fake.called("identify_task")
    assert not (await job.resolve(ADOPT)).accepted
    for _ in range(policies.MOST_EVENTS):
        await job.callback("running", OTHER_TASK, attempt=2)
    await skipping.skip(200)
    assert (await job.events())[-1].event_type == CONTINUED
    answer = await job.resolve(Resolve(attempt=2, action="not_created"))
    assert (answer.accepted, len(skipping.fake.of("resolve_attempt"))) == (False, 1)
    skipping.fake.always("read_ledger", adopt(attempt=2))
    skipping.fake.always("identify_task", OURS)
    skipping.fake.finish()
    assert await job.result() == RESULT
    asked = [call.input.source for call in skipping.fake.of("identify_task") if call.input.task_id == TASK]
    assert (asked[0], asked[-1]) == ("callback", "operator")


async def test_resolution_during_listing_is_handled(harness: Harness) -> None:
    """The lister's decision can be older than the resolution."""
    held = Held(recover(attempt=2))
    harness.fake.plan("read_ledger", recover(attempt=2), adopt(attempt=2))
    harness.fake.plan("ask_lister", held)
    harness.fake.plan("resolve_attempt", ResolveAnswer(accepted=True, message="adopted"))
    harness.fake.finish()
    job = await harness.start_until(held)
    assert (await job.resolve(ADOPT)).accepted
    held.release()
    assert await job.result() == RESULT


async def test_resolution_of_known_job_changes_nothing(harness: Harness) -> None:
    job = await harness.start_running()
    harness.fake.plan("resolve_attempt", ResolveAnswer(accepted=False, message="it is settled"))
    harness.fake.finish()
    assert not (await job.resolve(Resolve(attempt=1, action="lost"))).accepted
    assert len(harness.fake.of("get_task")) == 1
    await job.callback("succeeded")
    assert await job.result() == RESULT


async def test_job_ends_after_resolution_answer(harness: Harness) -> None:
    resolution, copy = Held(ResolveAnswer(accepted=False, message="late")), Held(RESULT)
    harness.fake.follow(to_store())
    harness.fake.plan("resolve_attempt", resolution)
    harness.fake.always("identify_task", OTHER)
    harness.fake.plan("store_video", copy)
    job = await harness.start_until(copy)
    answer = await job.start_resolve(Resolve(attempt=1, action="adopt", task_id=OTHER_TASK))
    await resolution.reached.wait()
    copy.release()
    await asyncio.sleep(0.5)
    # The operator may adopt a task to follow, so the run waits for the resolution.
    assert (await job.state()).phase == "storing"
    resolution.release()
    assert (await answer).message == "late"
    assert await job.result() == RESULT


async def test_resolutions_are_written_in_turn(harness: Harness) -> None:
    """Two operators who contradict each other must not both be told that it is written."""
    first = Held(ResolveAnswer(accepted=True, message="adopted"))
    job = await harness.start_unknown(2)
    harness.fake.plan("read_ledger", adopt(attempt=2))
    harness.fake.plan("resolve_attempt", first, ResolveAnswer(accepted=False, message="it is settled"))
    harness.fake.finish()
    answers = [await job.start_resolve(one) for one in (ADOPT, Resolve(attempt=2, action="lost"))]
    await first.reached.wait()
    await asyncio.sleep(0.3)
    assert [call.input.resolution.action for call in harness.fake.of("resolve_attempt")] == ["adopt"]
    first.release()
    assert [(await answer).accepted for answer in answers] == [True, False]
    assert await job.result() == RESULT


@pytest.mark.parametrize("odd", [[], [None], ["adopt"], [{}], [{"attempt": 1, "action": "explode"}]])
async def test_invalid_resolution_is_ignored(harness: Harness, odd: list[object]) -> None:
    job = await harness.start_running()
    harness.fake.finish()
    await job.signal(SIGNAL_RESOLVE, args=odd)
    await job.until_noted("signal_ignored")
    await job.callback("succeeded")
    assert await asyncio.wait_for(job.result(), 10) == RESULT
    assert harness.fake.of("resolve_attempt") == []


async def test_cancel_with_argument_is_accepted(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt())
    harness.fake.always("get_task", waiting("running"))
    harness.fake.always("cancel_task", {"outcome": "running_will_finish", "status": "running"})
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until_state(phase="running")
    await job.signal(SIGNAL_CANCEL, {"reason": "x"})
    assert await job.until_cancel_answered() == "running_will_finish"
    harness.fake.always("get_task", to_store())
    await job.callback("succeeded")
    assert await asyncio.wait_for(job.result(), 10) == RESULT


@pytest.mark.parametrize("task_id", ["", "cgt-" + "1" * 100_000])
async def test_resolution_with_odd_task_id_is_refused(harness: Harness, task_id: str) -> None:
    """It is not kept: what a run gives to its activities must stay small."""
    job = await harness.start_unknown(2)
    answer = await job.resolve(Resolve(attempt=2, action="adopt", task_id=task_id))
    assert (answer.accepted, answer.message) == (False, "That is no task id.")
    assert harness.fake.of("resolve_attempt") == []
    assert len((await job.state()).model_dump_json()) < 10_000


async def test_not_created_is_refused_for_unchecked_task(harness: Harness) -> None:
    """A task was named, and the provider cannot be asked for it: another create could be a second charge."""
    job = await harness.start_unknown(2)
    harness.fake.always("identify_task", ApplicationError("HTTP 503", type="ProviderUnavailable"))
    await job.callback("running", TASK, attempt=2)
    await job.until_noted("task_not_checked callback")
    answer = await job.resolve(Resolve(attempt=2, action="not_created"))
    assert not answer.accepted
    assert f"Task {TASK} was named, and could not be checked" in answer.message
    assert harness.fake.of("resolve_attempt") == []
