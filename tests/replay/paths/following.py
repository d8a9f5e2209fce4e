"""Paths of a task that is known: by callbacks and polls, to its video."""

from __future__ import annotations

from functools import partial
from typing import Any

from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import SIGNAL_RETRY, TaskChanged
from tests.replay.paths.registry import add, path
from tests.workflows.fakes import (
    NOT_YET,
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    SHORT,
    TASK,
    Held,
    adopt,
    as_written,
    claim,
    created,
    stored,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness
from workflows import policies

CONFLICT = ApplicationError("gs://videos/a/output.mp4 holds another", type="ObjectConflict", non_retryable=True)
FAILED = ApplicationError("503 the bucket is away", type="StoreFailed")


@path()
async def callback(harness: Harness) -> None:
    harness.fake.finish()
    job = await harness.start_queued()
    await job.callback("queued")
    await job.callback("running")
    await job.until_state(phase="running")
    await job.callback("succeeded")
    await job.result()


@path()
async def polled(harness: Harness) -> None:
    harness.fake.create(created(seconds=SHORT))
    harness.fake.plan("get_task", RuntimeError("503"), waiting("queued", SHORT), waiting("polishing", 0), to_store())
    harness.fake.plan("store_video", RESULT)
    await harness.start_until_stored()


@path()
async def callback_with_start(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt())
    harness.fake.finish()
    await harness.start_until_stored(first_signal=TaskChanged(task_id=TASK, status="succeeded", attempt=1))


@path()
async def callback_ahead_of_end(harness: Harness) -> None:
    harness.fake.plan("get_task", waiting("running"), to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_queued()
    await job.callback("failed")
    await harness.fake.called("get_task")
    await job.callback("succeeded")
    await job.result()


@path()
async def callback_then_copy_fails(harness: Harness) -> None:
    harness.fake.plan("store_video", FAILED, RESULT)
    harness.fake.plan("get_task", to_store())
    job = await harness.start_queued()
    await job.callback("succeeded")
    await job.result()


@path()
async def callback_then_copy_is_retried(harness: Harness) -> None:
    harness.fake.plan("store_video", held := Held(RESULT), RESULT)
    harness.fake.plan("get_task", to_store())
    job = await harness.start_queued()
    await job.callback("succeeded")
    await held.reached.wait()
    await job.signal(SIGNAL_RETRY)
    await job.result()


@path()
async def fruitless_callbacks(harness: Harness) -> None:
    times = policies.MOST_FRUITLESS_CALLBACKS
    harness.fake.follow(*[waiting("running")] * times, waiting("running", 1.2), to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start()
    for number in range(times + 1):
        await harness.fake.called("get_task", number + 1)
        await job.callback("failed")
    await job.result()


# Problems


async def _attention_while_following(attention: str, harness: Harness) -> None:
    held = Held(waiting("running", 0))
    harness.fake.follow(waiting("", 0, attention=attention, note="401"), held, to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until(held)
    held.release()
    await job.result()


for _attention in ("task_gone", "credentials", "account", "ledger_damaged"):
    add(f"{_attention.replace('_', '-')}-while-following", partial(_attention_while_following, _attention))


@path()
async def second_task(harness: Harness) -> None:
    """Another task of the job is named, and shown when the first one is polled next."""
    harness.fake.follow(waiting("running"), waiting("running", second_task=OTHER_TASK), to_store(), attempt=2)
    harness.fake.plan("identify_task", OURS)
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until_state(phase="running")
    await job.callback("succeeded", OTHER_TASK)
    await job.until_state(attention="second_task")
    await job.callback("succeeded")
    await job.result()


@path()
async def second_task_behind_another_attention(harness: Harness) -> None:
    given: dict[str, Any] = {"attention": "credentials", "note": "401", "second_task": OTHER_TASK}
    harness.fake.follow(waiting("", 0, **given), to_store())
    harness.fake.plan("store_video", RESULT)
    await harness.start_until_stored()


@path()
async def second_task_at_start(harness: Harness) -> None:
    harness.fake.follow(waiting("running", 0), to_store(), second_task=OTHER_TASK)
    harness.fake.plan("store_video", RESULT)
    await harness.start_until_stored()


# Stored by others


@path()
async def stored_before_start(harness: Harness) -> None:
    harness.fake.plan("read_ledger", stored())
    await harness.start_until_stored()


@path()
async def stored_by_another_run(harness: Harness) -> None:
    done = to_store().model_copy(update={"next": "already_stored", "result": RESULT})
    harness.fake.follow(waiting("running", 0), done)
    await harness.start_until_stored()


# The copy


@path()
async def task_named_during_copy(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt(attempt=2), stored(second_task=OTHER_TASK))
    harness.fake.plan("get_task", to_store())
    harness.fake.plan("store_video", copying := Held(RESULT))
    harness.fake.plan("identify_task", identifying := Held(OURS))
    job = await harness.start_until(copying)
    await job.callback("queued", OTHER_TASK)
    await identifying.reached.wait()
    copying.release()
    identifying.release()
    await job.result()


@path("skipping")
async def task_not_shown_when_run_is_over(harness: Harness) -> None:
    """A name that comes while the run ends is asked for once more, and holds up nothing."""
    harness.fake.plan("identify_task", *[ApplicationError("503")] * 60)
    harness.fake.always("identify_task", NOT_YET)
    job, copying = await harness.start_copying()
    await job.callback("queued", OTHER_TASK)
    await harness.fake.called("identify_task")
    copying.release()
    await job.result()


@path()
async def broken_copy(harness: Harness) -> None:
    harness.fake.follow(to_store(within=0))
    harness.fake.plan("store_video", FAILED, RESULT)
    await harness.start_until_stored()


@path()
async def copy_asks_lister(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt(identifiers_listed=False))
    harness.fake.plan("ask_lister", stored())
    harness.fake.finish()
    await harness.start_until_stored()


@path()
async def copy_asks_lister_in_vain(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt(identifiers_listed=False))
    harness.fake.always("ask_lister", ApplicationError("Temporal is busy"))
    harness.fake.finish()
    await harness.start_until_stored()


@path("skipping")
async def copy_at_risk(harness: Harness) -> None:
    harness.fake.follow(to_store())
    harness.fake.plan("store_video", *[FAILED] * 30, RESULT)
    await harness.start_until_stored()


@path("skipping")
async def copy_lost(harness: Harness) -> None:
    harness.fake.follow(to_store(within=3600))
    harness.fake.always("store_video", FAILED)
    harness.fake.plan("write_end", as_written)
    await harness.start_until_failed()


@path("skipping")
async def object_conflict(harness: Harness) -> None:
    harness.fake.follow(to_store())
    harness.fake.plan("store_video", *[CONFLICT] * 20, RESULT)
    await harness.start_until_stored()


@path("skipping")
async def object_conflict_then_copy_at_risk(harness: Harness) -> None:
    harness.fake.follow(to_store())
    harness.fake.plan("store_video", CONFLICT, *[FAILED] * 20, RESULT)
    await harness.start_until_stored()


@path("skipping")
async def object_conflict_until_lost(harness: Harness) -> None:
    harness.fake.follow(to_store(within=3600))
    harness.fake.always("store_video", CONFLICT)
    harness.fake.plan("write_end", as_written)
    await harness.start_until_failed()


@path()
async def foreign_task_named_while_following(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim())
    harness.fake.plan("create_task", created())
    harness.fake.plan("identify_task", OTHER)
    harness.fake.finish()
    job = await harness.start_until_state(phase="queued")
    await job.callback("failed", OTHER_TASK)
    await harness.fake.called("identify_task")
    await job.callback("succeeded")
    await job.result()
