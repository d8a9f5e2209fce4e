"""Paths of an unknown outcome: found by a callback, by LIST or by an operator; absent; or not known for long."""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

from temporalio.exceptions import ApplicationError

from activities.recover import IdentifyResult
from seedance_temporal.contract import SIGNAL_LISTED, SIGNAL_TASK_CHANGED, Resolve, ResolveAction, ResolveAnswer
from tests.replay.paths.registry import add, path
from tests.workflows.fakes import (
    NOT_YET,
    OTHER,
    OTHER_TASK,
    OURS,
    TASK,
    Held,
    a_listing,
    adopt,
    claim,
    create_result,
    created,
    ended,
    failure,
    recover,
)
from tests.workflows.harness import Harness, Job
from workflows import policies

AGAIN = ApplicationError("503", type="ProviderUnavailable")
ACCEPTED = ResolveAnswer(accepted=True, message="noted")


async def asked(harness: Harness) -> Job:
    """Start a job whose create loses its answer, and return when it waits for a listing."""
    harness.fake.create(create_result("unknown", message="no answer"))
    harness.fake.plan("ask_lister", recover())
    job = await harness.start_until_called("ask_lister")
    await job.until_waiting()
    return job


@path()
async def lost_answer_found_by_callback(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("read_ledger", adopt())
    harness.fake.find()
    await job.callback("queued")
    await job.result()


@path()
async def lost_answer_found_by_listing(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("read_ledger", adopt())
    harness.fake.find()
    await job.listed(a_listing(complete=False), a_listing(task_id=TASK))
    await job.result()


@path()
async def lost_answer_found_by_ledger(harness: Harness) -> None:
    harness.fake.create(create_result("unknown"))
    harness.fake.plan("ask_lister", recover(seconds=0), recover(seconds=1.2), adopt())
    harness.fake.finish()
    await harness.start_until_stored()


@path()
async def task_known_before(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("read_ledger", adopt())
    harness.fake.plan("identify_task", AGAIN, IdentifyResult(answer="known"))
    harness.fake.finish()
    await job.callback("queued")
    await job.result()


@path()
async def identification_fails_at_first(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("read_ledger", adopt())
    harness.fake.plan("identify_task", *[AGAIN] * 3, NOT_YET, OURS)
    harness.fake.finish()
    await job.listed(a_listing(task_id=TASK))
    await job.result()


@path()
async def foreign_task_named(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("identify_task", OTHER, OURS)
    harness.fake.plan("read_ledger", adopt())
    harness.fake.finish()
    await job.callback("succeeded", OTHER_TASK)
    await harness.fake.called("identify_task")
    await job.callback("queued")
    await job.result()


@path()
async def nonsense_ignored(harness: Harness) -> None:
    job = await asked(harness)
    nonsense: list[list[Any]] = [[], [{}], ["x"], [{"task_id": "", "status": "failed", "attempt": 1}]]
    for odd in nonsense:
        await job.signal(SIGNAL_TASK_CHANGED, args=odd)
        await job.signal(SIGNAL_LISTED, args=odd)
    harness.fake.plan("read_ledger", adopt())
    harness.fake.find()
    await job.callback("queued")
    await job.result()


@path()
async def flood_of_callbacks(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("read_ledger", adopt())
    harness.fake.plan("identify_task", *[OTHER] * policies.MOST_CALLBACKS, OURS)
    harness.fake.finish()
    for number in range(policies.MOST_CALLBACKS + 1):
        await job.callback("queued", f"{OTHER_TASK}-{number}")
    await harness.fake.called("identify_task", policies.MOST_CALLBACKS)
    await job.listed(a_listing(task_id=TASK))
    await job.result()


# Absence


@path()
async def absent_then_created(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("settle_absent", recover(), claim(2))
    harness.fake.plan("create_task", created(seconds=0))
    harness.fake.finish()
    await job.listed(a_listing(), a_listing(3), a_listing(), a_listing())
    await job.result()


@path()
async def task_named_before_absence(harness: Harness) -> None:
    job = await asked(harness)
    harness.fake.plan("identify_task", held := Held(OURS))
    harness.fake.plan("read_ledger", adopt())
    harness.fake.finish()
    await job.callback("queued")
    await held.reached.wait()
    await job.listed(a_listing(), a_listing())
    held.release()
    await job.result()


@path()
async def listings_of_another_key(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover())
    doubtful = recover(needs_operator=True)
    assert doubtful.recovery is not None
    keyed = doubtful.model_copy(update={"recovery": doubtful.recovery.model_copy(update={"key": "0a1b2c3d"})})
    harness.fake.plan("ask_lister", keyed)
    job = await harness.start_until_called("ask_lister")
    await job.listed(a_listing(key="99999999"))
    await job.until_state(attention="unknown_create")


# Operators


@path()
async def unknown_create_attention(harness: Harness) -> None:
    await harness.start_unknown()


async def _resolved(action: ResolveAction, harness: Harness) -> None:
    job = await harness.start_unknown()
    following = {"adopt": adopt(), "not_created": claim(2), "lost": ended(failure("lost", "unknown_outcome", None))}
    harness.fake.plan("resolve_attempt", ACCEPTED)
    harness.fake.plan("read_ledger", following[action])
    harness.fake.plan("create_task", created(seconds=0))
    harness.fake.finish()
    await job.resolve(Resolve(attempt=1, action=action, task_id=TASK if action == "adopt" else None))
    await (job.failed() if action == "lost" else job.result())


for _action in get_args(ResolveAction):
    add(f"resolved-as-{_action.replace('_', '-')}", partial(_resolved, _action))


@path()
async def resolved_and_lost_again(harness: Harness) -> None:
    job = await harness.start_unknown()
    harness.fake.plan("resolve_attempt", ACCEPTED)
    harness.fake.create(create_result("unknown"), attempt=2)
    harness.fake.plan("ask_lister", adopt(attempt=2))
    harness.fake.finish()
    await job.resolve(Resolve(attempt=1, action="not_created"))
    await job.result()


@path()
async def resolution_refused(harness: Harness) -> None:
    job = await harness.start_unknown()
    harness.fake.plan("resolve_attempt", ResolveAnswer(accepted=False, message="no such task"))
    await job.resolve(Resolve(attempt=1, action="adopt", task_id=OTHER_TASK))


@path()
async def resolution_not_written(harness: Harness) -> None:
    job = await harness.start_unknown()
    harness.fake.plan("resolve_attempt", *[AGAIN] * 2)
    await job.resolve(Resolve(attempt=1, action="lost"))


@path()
async def resolution_during_listing(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(), adopt())
    harness.fake.plan("ask_lister", held := Held(recover()))
    harness.fake.plan("resolve_attempt", ACCEPTED)
    harness.fake.finish()
    job = await harness.start_until(held)
    await job.resolve(Resolve(attempt=1, action="adopt", task_id=TASK))
    held.release()
    await job.result()


# Over hours


@path("skipping")
async def silent_lister(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(), adopt())
    harness.fake.plan("ask_lister", *[recover(seconds=300)] * 2)
    harness.fake.always("ask_lister", recover(seconds=300, needs_operator=True))
    harness.fake.find()
    job = await harness.start()
    await harness.skip(3600)
    await job.callback("succeeded")
    await job.result()


@path("skipping")
async def task_not_shown_until_named_again(harness: Harness) -> None:
    tries = 1 + len(policies.IDENTIFY_PAUSES)
    harness.fake.plan("read_ledger", recover(), adopt())
    harness.fake.always("ask_lister", recover())
    harness.fake.plan("identify_task", *[NOT_YET] * tries, OURS)
    harness.fake.finish()
    job = await harness.start_until_called("ask_lister")
    await job.callback("queued")
    await harness.skip(90)
    await harness.fake.called("identify_task", tries)
    await job.callback("succeeded")
    await job.result()


@path("skipping")
async def task_named_in_outage(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(), adopt())
    harness.fake.always("ask_lister", recover(seconds=600, needs_operator=True))
    harness.fake.always("identify_task", AGAIN)
    harness.fake.finish()
    job = await harness.start_until_called("ask_lister")
    await job.callback("queued")
    await harness.skip(20 * 60)
    harness.fake.always("identify_task", OURS)
    await job.result()
