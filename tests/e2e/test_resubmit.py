"""Another attempt, paid for on purpose: it names the attempt that it answers, and saying it twice changes nothing."""

from __future__ import annotations

import asyncio

from dev.stack import Stack
from seedance_temporal import JobState
from seedance_temporal.contract import Resubmit
from tests.e2e.operator import reset_to_the_first_task
from tests.e2e.requests import a_request, creates_of, until
from tests.support.jobs import found


async def _ended(stack: Stack, job_id: str) -> JobState:
    async for job in stack.jobs.job(job_id).follow():
        last = job
    return last


async def test_a_failed_task_is_followed_by_one_more_attempt(stack: Stack) -> None:
    request = a_request()
    armed = await stack.ark.fault("task", "expire", contains=request.prompt)
    job_id = (await stack.jobs.submit(request)).id
    failed = await _ended(stack, job_id)
    assert failed.error is not None
    assert f"resubmit {job_id} --attempt 1" in failed.error.message
    assert len(await stack.ark.fired(armed)) == 1

    clicks = await asyncio.gather(*(stack.jobs.job(job_id).resubmit(attempt=1) for _ in range(5)))
    assert all(click.existing for click in clicks)
    result = await stack.jobs.job(job_id).result()
    first, second = await creates_of(stack, request)
    assert (first.committed, second.committed) == (True, True)
    assert second.task_id == result.task_id

    late = await stack.jobs.job(job_id).resubmit(attempt=1)
    assert found(late).result == result
    assert len(await creates_of(stack, request)) == 2


async def test_a_second_failure_needs_a_word_of_its_own(stack: Stack) -> None:
    request = a_request()
    await stack.ark.fault("task", "fail", contains=request.prompt, times=2, code="InternalServiceError")
    job_id = (await stack.jobs.submit(request)).id
    await _ended(stack, job_id)
    await stack.jobs.job(job_id).resubmit(attempt=1)
    second = await _ended(stack, job_id)
    assert second.error is not None
    assert second.error.attempt == 2
    assert found(await stack.jobs.job(job_id).resubmit(attempt=1)).error == second.error
    assert len(await creates_of(stack, request)) == 2
    await stack.jobs.job(job_id).resubmit(attempt=2)
    await stack.jobs.job(job_id).result()
    assert len(await creates_of(stack, request)) == 3


async def test_what_may_have_been_billed_needs_the_second_charge_to_be_accepted(stack: Stack) -> None:
    request = a_request("volcengine")
    await stack.ark.fault("create", "reset_before_commit", contains=request.prompt)
    job_id = (await stack.jobs.submit(request)).id
    await until(stack, job_id, lambda job: job.phase == "recovering")
    assert (await stack.jobs.job(job_id).resolve(attempt=1, action="lost")).accepted
    assert (await _ended(stack, job_id)).phase == "lost"

    await stack.jobs.job(job_id).resubmit(attempt=1)
    refused = await _ended(stack, job_id)
    assert refused.error is not None
    assert refused.error.code == "second_charge_not_accepted"
    assert len(await creates_of(stack, request)) == 1

    await stack.jobs.job(job_id).resubmit(attempt=1, accept_second_charge=True)
    await stack.jobs.job(job_id).result()
    assert [entry.committed for entry in await creates_of(stack, request)] == [False, True]


async def test_the_wish_comes_back_with_a_reset_and_changes_nothing(stack: Stack) -> None:
    request = a_request()
    await stack.ark.fault("task", "expire", contains=request.prompt)
    job_id = (await stack.jobs.submit(request)).id
    await _ended(stack, job_id)
    submitted = await stack.jobs.submit(request, resubmit=Resubmit(attempt=1))
    assert submitted.existing
    result = await stack.jobs.job(job_id).result()
    await reset_to_the_first_task(stack, job_id)
    assert await stack.jobs.job(job_id).result() == result
    assert len(await creates_of(stack, request)) == 2
