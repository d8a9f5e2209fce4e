"""Workers that die, runs that are reset, terminated or cancelled: the video is stored, and paid for once."""

from __future__ import annotations

import asyncio
import signal

import pytest

from dev.stack import Stack
from seedance_temporal.contract import CancelAnswer
from tests.e2e.operator import reset
from tests.e2e.requests import a_faulty_request, a_request, creates_of, until_created, until_ended, until_posted
from tests.support.jobs import detail_of
from tests.support.polling import until


async def test_worker_killed_while_task_runs(stack: Stack) -> None:
    request = a_request()
    submitted = await stack.jobs.submit(request)
    await until_created(stack, submitted.id)
    worker = stack.children["worker"]
    await worker.kill()
    assert worker.process.returncode == -signal.SIGKILL
    await asyncio.sleep(2)  # the task ends without a worker
    await stack.start_worker()
    await submitted.result()
    assert len(await creates_of(stack, request)) == 1


async def test_worker_killed_during_create(stack: Stack) -> None:
    request, _ = await a_faulty_request(stack, "create", "slow", seconds=3)
    submitted = await stack.jobs.submit(request)
    await until_posted(stack, request)
    await stack.children["worker"].kill()
    await stack.start_worker()
    await submitted.result()
    assert len(await creates_of(stack, request)) == 1


async def test_sigterm_lets_create_finish(stack: Stack) -> None:
    request, armed = await a_faulty_request(stack, "create", "slow", seconds=3)
    submitted = await stack.jobs.submit(request)
    await until_posted(stack, request)
    code = await stack.children["worker"].stop(signal.SIGTERM)
    assert code == 0
    await stack.start_worker()
    await submitted.result()
    assert len(await stack.ark.fired(armed)) == 1
    events = [e.event for e in detail_of(await submitted.state()).timeline]
    assert "outcome_unknown" not in events, "the create's outcome was lost at a deploy"
    assert len(await creates_of(stack, request)) == 1


async def test_reset_of_finished_run(stack: Stack) -> None:
    request = a_request()
    submitted = await stack.jobs.submit(request)
    result = await submitted.result()
    await reset(stack, submitted.id)
    assert await submitted.result() == result
    assert len(await creates_of(stack, request)) == 1


async def test_reset_of_running_run(stack: Stack) -> None:
    request = a_request()
    submitted = await stack.jobs.submit(request)
    await until_created(stack, submitted.id)
    await reset(stack, submitted.id)
    await submitted.result()
    assert len(await creates_of(stack, request)) == 1


async def test_terminated_run_is_submitted_again(stack: Stack) -> None:
    request = a_request()
    submitted = await stack.jobs.submit(request)
    await until_created(stack, submitted.id)
    await stack.client.get_workflow_handle(submitted.id).terminate("a test")
    again = await stack.jobs.submit(request)
    assert again.existing
    await submitted.result()
    assert len(await creates_of(stack, request)) == 1


@pytest.mark.parametrize("by", ["signal", "temporal"])
async def test_cancelled_queued_task_is_not_billed(stack: Stack, by: str) -> None:
    request, _ = await a_faulty_request(stack, "task", "stay_queued")
    submitted = await stack.jobs.submit(request)
    job = await until_created(stack, submitted.id)
    if by == "signal":
        assert await submitted.cancel() == CancelAnswer(outcome="cancelled")
    else:
        await stack.client.get_workflow_handle(submitted.id).cancel()
    last = await until_ended(stack, submitted.id)
    assert last.phase == "cancelled"
    assert last.error is not None
    assert (last.error.failure_class, last.error.task_id) == ("cancelled", job.task_id)
    (entry,) = await creates_of(stack, request)
    assert entry.billed_tokens is None
    assert (await submitted.cancel()).outcome == "already_closed"


async def test_cancelled_running_task_is_stored(stack: Stack) -> None:
    request, _ = await a_faulty_request(stack, "task", "stay_running")
    submitted = await stack.jobs.submit(request)
    job = await until_created(stack, submitted.id)

    async def runs() -> bool:
        return any(task["id"] == job.task_id and task["status"] == "running" for task in await stack.ark.tasks())

    await until(runs, "the provider runs the task", seconds=60)
    assert (await submitted.cancel()).outcome == "running_will_finish"
    await stack.ark.release(job.task_id)
    result = await submitted.result()
    assert result.task_id == job.task_id
