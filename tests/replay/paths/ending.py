"""Paths that end without a video, or go on after an end with another attempt."""

from __future__ import annotations

from functools import partial
from typing import get_args

from activities.poll import Observation
from seedance_temporal.provider.task import FailureClass
from tests.replay.paths.registry import add, path
from tests.workflows.fakes import (
    OTHER_TASK,
    OURS,
    Held,
    adopt,
    and_again,
    as_written,
    claim,
    created,
    ended,
    ending,
    failure,
    waiting,
)
from tests.workflows.harness import Harness


async def _task_ends(of: FailureClass, harness: Harness) -> None:
    harness.fake.create(created())
    harness.fake.end(of, of)
    job = await harness.start_until_state(phase="queued")
    await job.callback("failed")
    await job.failed()


async def _ended_before_start(of: FailureClass, harness: Harness) -> None:
    harness.fake.plan("read_ledger", ended(failure(of)))
    await harness.start_until_failed()


for _class in get_args(FailureClass):
    add(f"task-ends-{_class}", partial(_task_ends, _class))
    add(f"ended-{_class}-before-start", partial(_ended_before_start, _class))


@path()
async def ended_by_another_run(harness: Harness) -> None:
    error = failure("expired")
    over = Observation(next="already_ended", status="expired", error=error)
    harness.fake.plan("read_ledger", adopt(), ended(error))
    harness.fake.plan("get_task", waiting("", 0, attention="task_gone", note="x"), over)
    await harness.start_until_failed()


@path()
async def another_attempt_by_itself(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(1), claim(2))
    harness.fake.plan("create_task", created("cgt-1", seconds=0), created())
    harness.fake.plan("get_task", ending("failed", "provider"))
    harness.fake.plan("write_end", and_again)
    harness.fake.finish()
    job = await harness.start_until_state(phase="queued", attempt=2)
    await job.callback("succeeded", attempt=2)
    await job.result()


@path()
async def another_task_after_an_end(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt(attempt=2, second_task=OTHER_TASK), adopt(OTHER_TASK))
    harness.fake.plan("get_task", ending("failed", "provider"))
    harness.fake.plan("write_end", and_again)
    harness.fake.finish()
    await harness.start_until_stored()


@path()
async def task_named_before_an_end(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt(attempt=2), adopt(OTHER_TASK))
    harness.fake.plan("get_task", held := Held(ending("failed", "provider")))
    harness.fake.plan("write_end", as_written)
    harness.fake.plan("identify_task", identifying := Held(OURS))
    harness.fake.finish()
    job = await harness.start_until(held)
    await job.callback("queued", OTHER_TASK)
    await identifying.reached.wait()
    held.release()
    await harness.fake.called("write_end")
    identifying.release()
    await job.result()
