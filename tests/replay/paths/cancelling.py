"""Paths of a cancel, at every moment of a job, by the update and by Temporal's own."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Literal, get_args

from temporalio.exceptions import ApplicationError

from activities.create import CreateResult
from activities.ledger import EndResult
from activities.references import ReferencesResult
from tests.replay.paths.creating import PICTURE
from tests.replay.paths.registry import add, path
from tests.workflows.fakes import (
    CANCELLED,
    LONG,
    OTHER_TASK,
    OURS,
    RESULT,
    SHORT,
    TOO_LATE,
    Held,
    adopt,
    as_written,
    claim,
    created,
    ended,
    ending,
    failure,
    not_sent,
    recover,
    refused,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, Job
from workflows import policies

Ask = Literal["update", "temporal"]


async def _ask(how: Ask, job: Job) -> None:
    """Request a cancel, and return when the run knows of it."""
    if how == "update":
        await job.start_cancel_update()
    else:
        await job.cancel()
    await job.until_noted("cancel_requested")


async def _cancelled_before_ledger_is_read(how: Ask, harness: Harness) -> None:
    harness.fake.plan("read_ledger", held := Held(claim()), claim())
    job = await harness.start_until(held)
    await _ask(how, job)
    held.release()
    await job.failed()


async def _cancelled_with_stale_decision(how: Ask, harness: Harness) -> None:
    harness.fake.plan("read_ledger", held := Held(claim()), adopt())
    harness.fake.plan("cancel_task", TOO_LATE)
    harness.fake.finish()
    job = await harness.start_until(held)
    await _ask(how, job)
    held.release()
    await job.result()


async def _cancelled_while_references_are_checked(how: Ask, harness: Harness) -> None:
    harness.fake.always("read_ledger", claim())
    harness.fake.plan("check_references", held := Held(ReferencesResult()))
    job = await harness.start_until(held, references=(PICTURE,))
    await _ask(how, job)
    await job.failed()


async def _cancelled_before_create_is_started(how: Ask, harness: Harness) -> None:
    await harness.stop("create")
    harness.fake.plan("read_ledger", claim(), claim(2), claim(2))
    job = await harness.start_until_state(phase="creating")
    await _ask(how, job)
    await job.failed()


async def _cancelled_while_waiting(how: Ask, harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(1), claim(2), claim(2))
    harness.fake.plan("create_task", not_sent(LONG, attention="account"))
    job = await harness.start_until_state(phase="waiting")
    await _ask(how, job)
    await job.failed()


async def _cancelled_during_create(how: Ask, harness: Harness) -> None:
    harness.fake.cancel()
    job, held = await harness.start_creating(created(written=False))
    harness.fake.plan("write_outcome", None)
    await _ask(how, job)
    held.release()
    await job.failed()


async def _cancelled_during_lost_create(how: Ask, harness: Harness) -> None:
    harness.fake.plan("ask_lister", recover(seconds=0), adopt())
    harness.fake.cancel()
    job, held = await harness.start_creating(CreateResult(kind="unknown", message="no answer"))
    await _ask(how, job)
    held.release()
    await job.failed()


async def _cancelled_during_refused_create(how: Ask, harness: Harness) -> None:
    job, held = await harness.start_creating(refused())
    harness.fake.plan("read_ledger", ended(failure("invalid", task_id=None)))
    await _ask(how, job)
    held.release()
    await job.failed()


async def _cancelled_while_recovering(how: Ask, harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(), adopt())
    harness.fake.plan("ask_lister", recover())
    harness.fake.plan("identify_task", OURS)
    harness.fake.cancel()
    job = await harness.start_until_called("ask_lister")
    await _ask(how, job)
    await job.callback("running")
    await job.failed()


async def _cancelled_while_queued(how: Ask, harness: Harness) -> None:
    harness.fake.cancel()
    job = await harness.start_queued()
    await _ask(how, job)
    await job.failed()


async def _cancelled_while_running(how: Ask, harness: Harness) -> None:
    job = await harness.start_running()
    harness.fake.plan("get_task", waiting("running"), to_store())
    harness.fake.plan("cancel_task", TOO_LATE)
    harness.fake.plan("store_video", RESULT)
    await _ask(how, job)
    await harness.fake.called("get_task", 2)
    await job.callback("succeeded")
    await job.result()


async def _cancel_not_served(how: Ask, harness: Harness) -> None:
    refused = ApplicationError("401", type="ProviderUnavailable", non_retryable=True)
    harness.fake.follow(waiting("queued"), waiting("queued", SHORT), ending("cancelled", "cancelled"))
    harness.fake.plan("cancel_task", refused, CANCELLED)
    harness.fake.plan("write_end", as_written)
    job = await harness.start_until_state(provider_status="queued")
    await _ask(how, job)
    await job.failed()


async def _cancelled_during_copy(how: Ask, harness: Harness) -> None:
    job, held = await harness.start_copying()
    await _ask(how, job)
    held.release()
    await job.result()


async def _cancelled_with_create_answer(how: Ask, harness: Harness) -> None:
    """Both arrive in one activation: no worker runs the workflow meanwhile."""
    harness.fake.cancel()
    job, held = await harness.start_creating(created())
    await harness.stop("workflows")
    # The handle of an update is returned only when the workflow has received it.
    update = asyncio.create_task(job.update_cancel()) if how == "update" else None
    if how == "temporal":
        await job.cancel()
    held.release()
    await asyncio.sleep(0.3)
    await harness.start_workers("workflows")
    await job.failed()
    if update is not None:
        await update


async def _cancel_reaches_next_task(how: Ask, harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt(attempt=2), adopt(OTHER_TASK))
    harness.fake.plan("get_task", waiting("queued"), *[ending("cancelled", "cancelled")] * 2)
    harness.fake.always("cancel_task", CANCELLED)
    harness.fake.plan("write_end", EndResult(error=failure("cancelled"), continues=True), as_written)
    job = await harness.start_until_called("get_task")
    await _ask(how, job)
    await job.failed()


@path("skipping")
async def cancel_answered_before_outcome_is_known(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover())
    harness.fake.plan("ask_lister", recover())
    job = await harness.start_until_called("ask_lister")
    await job.start_cancel_update()
    await harness.skip(policies.CANCEL_ANSWER.total_seconds() + 1)


for _play in (
    _cancelled_before_ledger_is_read,
    _cancelled_with_stale_decision,
    _cancelled_while_references_are_checked,
    _cancelled_before_create_is_started,
    _cancelled_while_waiting,
    _cancelled_during_create,
    _cancelled_during_lost_create,
    _cancelled_during_refused_create,
    _cancelled_while_recovering,
    _cancelled_while_queued,
    _cancelled_while_running,
    _cancel_not_served,
    _cancelled_during_copy,
    _cancelled_with_create_answer,
    _cancel_reaches_next_task,
):
    for _how in get_args(Ask):
        add(f"{_play.__name__.strip('_').replace('_', '-')}-by-{_how}", partial(_play, _how))
