"""Ways in which a job can go: each submits a request, and returns the last state of its job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from dev.stack import Stack
from seedance_temporal import JobState, VideoRequest
from seedance_temporal.errors import WorkerUnavailable
from tests.e2e.requests import until, until_created, until_ended

Scenario = Callable[[Stack, VideoRequest], Awaitable[JobState]]


async def stored(stack: Stack, request: VideoRequest) -> JobState:
    return await until_ended(stack, (await stack.jobs.submit(request)).id)


async def refused(stack: Stack, request: VideoRequest) -> JobState:
    await stack.ark.fault("create", "400", contains=request.prompt)
    return await stored(stack, request)


async def failed(stack: Stack, request: VideoRequest) -> JobState:
    await stack.ark.fault("task", "fail", contains=request.prompt)
    return await stored(stack, request)


async def expired(stack: Stack, request: VideoRequest) -> JobState:
    await stack.ark.fault("task", "expire", contains=request.prompt)
    return await stored(stack, request)


async def cancelled(stack: Stack, request: VideoRequest) -> JobState:
    await stack.ark.fault("task", "stay_queued", contains=request.prompt)
    job = await stack.jobs.submit(request)
    await until_created(stack, job.id)
    assert (await job.cancel()).outcome in {"cancelled", "requested"}
    return await until_ended(stack, job.id)


async def found(stack: Stack, request: VideoRequest) -> JobState:
    """The answer of the create is lost; its task is found."""
    await stack.ark.fault("create", "lost_after_commit", contains=request.prompt)
    return await stored(stack, request)


async def given_up(stack: Stack, request: VideoRequest) -> JobState:
    """The create never arrives; an operator resolves it as lost."""
    await stack.ark.fault("create", "reset_before_commit", contains=request.prompt)
    job = await stack.jobs.submit(request)
    await until(stack, job.id, lambda job: job.phase == "recovering")
    # On a busy machine, a worker can take longer to answer than an operator waits; the answer can come late.
    with suppress(WorkerUnavailable):
        answer = await job.resolve(attempt=1, action="lost")
        assert answer.accepted, answer
    return await until_ended(stack, job.id)


async def resubmitted(stack: Stack, request: VideoRequest) -> JobState:
    first = await expired(stack, request)
    await stack.jobs.job(first.job_id).resubmit(attempt=1)
    return await until_ended(stack, first.job_id)
