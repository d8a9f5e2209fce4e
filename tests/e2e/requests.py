"""Requests for end-to-end tests, each with a prompt of its own, so that faults and ledger entries find it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Collection
from typing import Any

from dev.ark.faults import Operation
from dev.ark.ledger import CreateEntry
from dev.stack import Stack
from seedance_temporal import JobState, VideoRequest
from seedance_temporal.ledger.spending_log import QuotaEntry
from tests.support import polling

MODELS = {"byteplus": "dreamina-seedance-2-0-mini-260615", "volcengine": "doubao-seedance-2-0-mini-260615"}


def a_request(route: str = "byteplus", **changes: Any) -> VideoRequest:
    """Return a small, cheap request that no other test makes."""
    fields: dict[str, Any] = {
        "user_id": "user-e2e",
        "route": route,
        "model": MODELS[route],
        "prompt": f"A paper boat on a pond, {uuid.uuid4().hex}",
        "resolution": "480p",
        "duration": 4,
    }
    return VideoRequest.model_validate(fields | changes)


async def a_faulty_request(
    stack: Stack, on: Operation, fault: str, route: str = "byteplus", **fields: Any
) -> tuple[VideoRequest, int]:
    """Return a request that meets a fault of the provider, and the id of the fault."""
    request = a_request(route)
    return request, await stack.ark.fault(on, fault, contains=request.prompt, **fields)


async def creates_of(stack: Stack, request: VideoRequest) -> list[CreateEntry]:
    """Return every POST that the provider got for a request."""
    return [entry for entry in await stack.ark.ledger() if str(request.prompt) in str(entry.body)]


async def entries_of(stack: Stack, job_ids: Collection[str]) -> dict[str, QuotaEntry]:
    """Return the entries of jobs in the logs of spending, by name: other tests have theirs in the same logs."""
    names = [stored.name for stored in await stack.bucket.list("seedance/limits/") if "/log/" in stored.name]
    found = {name: QuotaEntry.model_validate_json(await stack.bucket.read(name) or b"") for name in names}
    return {name: entry for name, entry in found.items() if entry.job_id in job_ids}


async def until_posted(stack: Stack, request: VideoRequest) -> None:
    """Wait until the provider has a POST of a request."""
    await polling.until(lambda: creates_of(stack, request), "a POST arrives", seconds=60)


async def until_committed(stack: Stack, request: VideoRequest) -> str:
    """Return the task of a request, as soon as the provider has it; its job may not know it yet."""

    async def task_id() -> str | None:
        return next((entry.task_id for entry in await creates_of(stack, request) if entry.task_id), None)

    created: str = await polling.until(task_id, "the provider creates a task", seconds=200)
    return created


async def until(stack: Stack, job_id: str, condition: Callable[[JobState], bool], seconds: float = 200) -> JobState:
    """Return the state of a running job, as soon as it meets a condition.

    Raises:
        AssertionError: It ended, or did not meet it in time.
    """
    last: JobState | None = None
    try:
        async with asyncio.timeout(seconds):
            async for job in stack.jobs.job(job_id).follow(every=0.1):
                last = job
                if job.detail is not None and condition(job):
                    return job
    except TimeoutError:
        pass
    raise AssertionError(f"the job did not get there: {last}")


async def until_created(stack: Stack, job_id: str) -> JobState:
    """Return the state of a job, as soon as its task is known."""
    return await until(stack, job_id, lambda job: job.task_id is not None)


async def until_ended(stack: Stack, job_id: str, every: float = 0.5, seconds: float = 200) -> JobState:
    """Return the last state of a job."""
    async with asyncio.timeout(seconds):
        async for job in stack.jobs.job(job_id).follow(every):
            last = job
    return last
