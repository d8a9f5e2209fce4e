"""Paths of callbacks that name a task of a job whose run has ended."""

from __future__ import annotations

from typing import Any

from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import (
    LATE_TASKS,
    SIGNAL_TASK_CHANGED,
    LateTasksInput,
    Queues,
    TaskChanged,
    late_tasks_id,
)
from tests.replay.paths.registry import path
from tests.workflows.fakes import NOT_YET, OTHER, OTHER_TASK, OURS, TASK, Held
from tests.workflows.harness import Harness, Job
from workflows import policies

JOB_ID = "seedance-" + "0" * 64
AWAY = ApplicationError("503", type="ProviderUnavailable")


def named(task_id: str) -> TaskChanged:
    return TaskChanged(task_id=task_id, status="succeeded", attempt=2)


async def late_tasks(harness: Harness, first: Any) -> Job:
    """Have a callback name a task, as the relay does."""
    handle = await harness.client.start_workflow(
        LATE_TASKS,
        LateTasksInput(job_id=JOB_ID, attempt=2, route=harness.route),
        id=f"{harness.route}-{late_tasks_id(JOB_ID, 2)}",
        task_queue=Queues(harness.route).workflows,
        start_signal=SIGNAL_TASK_CHANGED,
        start_signal_args=[first],
    )
    harness.jobs.append(Job(handle))
    return harness.jobs[-1]


@path("skipping")
async def late_task_followed(harness: Harness) -> None:
    held = Held(OTHER)
    harness.fake.plan("identify_task", held, NOT_YET, OURS)
    harness.fake.plan("follow_known_task", None)
    job = await late_tasks(harness, named(OTHER_TASK))
    await held.reached.wait()
    further: list[Any] = [{}, named(TASK), named(TASK), named("x" * 5_000)]
    for one in further:
        await job.signal(SIGNAL_TASK_CHANGED, one)
    await harness.fake.called("identify_task", 2)
    held.release()
    await job.result()


@path("skipping")
async def late_task_not_shown(harness: Harness) -> None:
    harness.fake.always("identify_task", NOT_YET)
    await (await late_tasks(harness, named(TASK))).result()


@path("skipping")
async def late_task_named_in_outage(harness: Harness) -> None:
    harness.fake.plan("identify_task", *[AWAY] * 30, OURS)
    harness.fake.plan("follow_known_task", AWAY, None)
    await (await late_tasks(harness, named(TASK))).result()


@path("skipping")
async def late_task_named_in_long_outage(harness: Harness) -> None:
    harness.fake.always("identify_task", AWAY)
    await (await late_tasks(harness, named(TASK))).result()
    assert len(harness.fake.of("identify_task")) > policies.LATE_TASK_TRIES
