"""Another attempt, paid for on purpose: it names the attempt that it follows, and repeating it changes nothing."""

from __future__ import annotations

import asyncio

from dev.stack import Stack
from seedance_temporal.contract import Resubmit
from tests.e2e import scenarios
from tests.e2e.operator import reset
from tests.e2e.requests import a_faulty_request, a_request, creates_of, until_ended
from tests.support.jobs import found, present


async def test_resubmit_creates_one_task(stack: Stack) -> None:
    request, armed = await a_faulty_request(stack, "task", "expire")
    job_id = (await stack.jobs.submit(request)).id
    failed = await until_ended(stack, job_id)
    assert f"resubmit {job_id} --attempt 1" in present(failed.error).message
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


async def test_each_failure_needs_own_resubmit(stack: Stack) -> None:
    request, _ = await a_faulty_request(stack, "task", "fail", times=2, code="InternalServiceError")
    job_id = (await stack.jobs.submit(request)).id
    await until_ended(stack, job_id)
    await stack.jobs.job(job_id).resubmit(attempt=1)
    second = await until_ended(stack, job_id)
    assert second.error is not None
    assert second.error.attempt == 2
    assert found(await stack.jobs.job(job_id).resubmit(attempt=1)).error == second.error
    assert len(await creates_of(stack, request)) == 2
    await stack.jobs.job(job_id).resubmit(attempt=2)
    await stack.jobs.job(job_id).result()
    assert len(await creates_of(stack, request)) == 3


async def test_lost_attempt_needs_accepted_charge(stack: Stack) -> None:
    request = a_request("volcengine")
    lost = await scenarios.given_up(stack, request)
    assert lost.phase == "lost"
    job_id = lost.job_id

    await stack.jobs.job(job_id).resubmit(attempt=1)
    refused = await until_ended(stack, job_id)
    assert present(refused.error).code == "second_charge_not_accepted"
    assert len(await creates_of(stack, request)) == 1

    await stack.jobs.job(job_id).resubmit(attempt=1, accept_second_charge=True)
    await stack.jobs.job(job_id).result()
    assert [entry.committed for entry in await creates_of(stack, request)] == [False, True]


async def test_resubmit_repeated_by_reset_changes_nothing(stack: Stack) -> None:
    request = a_request()
    job_id = (await scenarios.expired(stack, request)).job_id
    submitted = await stack.jobs.submit(request, resubmit=Resubmit(attempt=1))
    assert submitted.existing
    result = await stack.jobs.job(job_id).result()
    await reset(stack, job_id)
    assert await stack.jobs.job(job_id).result() == result
    assert len(await creates_of(stack, request)) == 2
