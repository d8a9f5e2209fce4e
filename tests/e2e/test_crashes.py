"""Workers that die, runs that are reset, terminated or cancelled: the video is stored, and paid for once."""

from __future__ import annotations

import asyncio
import signal

import pytest

from dev.stack import Stack
from seedance_temporal.contract import CancelAnswer
from tests.e2e.operator import reset_to_the_first_task
from tests.e2e.requests import a_request, creates_of, until
from tests.support.jobs import detail_of


async def test_a_worker_killed_while_the_task_runs(stack: Stack) -> None:
    request = a_request()
    submitted = await stack.jobs.submit(request)
    await until(stack, submitted.id, lambda job: job.task_id is not None)
    worker = stack.children["worker"]
    await worker.kill()
    assert worker.process.returncode == -signal.SIGKILL
    await asyncio.sleep(2)  # the task ends while nobody is there
    await stack.start_worker()
    await submitted.result()
    assert len(await creates_of(stack, request)) == 1


async def test_a_worker_killed_during_the_create(stack: Stack) -> None:
    request = a_request()
    await stack.ark.fault("create", "slow", contains=request.prompt, seconds=3)
    submitted = await stack.jobs.submit(request)
    async with asyncio.timeout(60):
        while not await creates_of(stack, request):
            await asyncio.sleep(0.05)
    await stack.children["worker"].kill()
    await stack.start_worker()
    await submitted.result()
    assert len(await creates_of(stack, request)) == 1


async def test_sigterm_lets_a_create_under_way_finish(stack: Stack) -> None:
    request = a_request()
    fault = await stack.ark.fault("create", "slow", contains=request.prompt, seconds=3)
    submitted = await stack.jobs.submit(request)
    async with asyncio.timeout(60):
        while not await creates_of(stack, request):
            await asyncio.sleep(0.05)
    code = await stack.children["worker"].stop(signal.SIGTERM)
    assert code == 0
    await stack.start_worker()
    await submitted.result()
    assert len(await stack.ark.fired(fault)) == 1
    state = await submitted.state()
    assert not any(e.event == "outcome_unknown" for e in detail_of(state).timeline), (
        "the create's outcome was lost at a deploy"
    )
    assert len(await creates_of(stack, request)) == 1


async def test_a_reset_of_the_finished_run(stack: Stack) -> None:
    request = a_request()
    submitted = await stack.jobs.submit(request)
    result = await submitted.result()
    await reset_to_the_first_task(stack, submitted.id)
    assert await submitted.result() == result
    assert len(await creates_of(stack, request)) == 1


async def test_a_reset_of_the_running_run(stack: Stack) -> None:
    request = a_request()
    submitted = await stack.jobs.submit(request)
    await until(stack, submitted.id, lambda job: job.task_id is not None)
    await reset_to_the_first_task(stack, submitted.id)
    await submitted.result()
    assert len(await creates_of(stack, request)) == 1


async def test_a_run_terminated_while_waiting_and_submitted_again(stack: Stack) -> None:
    request = a_request()
    submitted = await stack.jobs.submit(request)
    await until(stack, submitted.id, lambda job: job.task_id is not None)
    await stack.client.get_workflow_handle(submitted.id).terminate("a test")
    again = await stack.jobs.submit(request)
    assert again.existing
    await submitted.result()
    assert len(await creates_of(stack, request)) == 1


@pytest.mark.parametrize("by", ["update", "temporal"])
async def test_a_queued_task_is_cancelled_and_not_billed(stack: Stack, by: str) -> None:
    request = a_request()
    await stack.ark.fault("task", "stay_queued", contains=request.prompt)
    submitted = await stack.jobs.submit(request)
    job = await until(stack, submitted.id, lambda job: job.task_id is not None)
    if by == "update":
        assert await submitted.cancel() == CancelAnswer(outcome="cancelled")
    else:
        await stack.client.get_workflow_handle(submitted.id).cancel()
    async for ended in submitted.follow():
        last = ended
    assert last.phase == "cancelled"
    assert last.error is not None
    assert (last.error.failure_class, last.error.task_id) == ("cancelled", job.task_id)
    (entry,) = await creates_of(stack, request)
    assert entry.billed_tokens is None
    assert (await submitted.cancel()).outcome == "already_closed"


async def test_a_running_task_is_billed_and_so_it_is_stored(stack: Stack) -> None:
    request = a_request()
    await stack.ark.fault("task", "stay_running", contains=request.prompt)
    submitted = await stack.jobs.submit(request)
    job = await until(stack, submitted.id, lambda job: job.task_id is not None)
    async with asyncio.timeout(60):
        while (await _provider_status(stack, job.task_id)) != "running":
            await asyncio.sleep(0.05)
    assert (await submitted.cancel()).outcome == "running_will_finish"
    await stack.ark.release(job.task_id)
    result = await submitted.result()
    assert result.task_id == job.task_id


async def _provider_status(stack: Stack, task_id: str | None) -> str:
    return next(str(task["status"]) for task in await stack.ark.tasks() if task["id"] == task_id)
