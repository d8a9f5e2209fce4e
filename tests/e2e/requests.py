"""Requests for end-to-end tests, each with a prompt of its own, so that faults and ledger entries find it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

from dev.ark.ledger import CreateEntry
from dev.stack import Stack
from seedance_temporal import JobState, VideoRequest

MODELS = {"byteplus": "dreamina-seedance-2-0-mini-260615", "volcengine": "doubao-seedance-2-0-mini-260615"}


def a_request(route: str = "byteplus", **changes: Any) -> VideoRequest:
    """A small, cheap request that no other test makes."""
    fields: dict[str, Any] = {
        "user_id": "user-e2e",
        "route": route,
        "model": MODELS[route],
        "prompt": f"A paper boat on a pond, {uuid.uuid4().hex}",
        "resolution": "480p",
        "duration": 4,
    }
    return VideoRequest.model_validate(fields | changes)


async def creates_of(stack: Stack, request: VideoRequest) -> list[CreateEntry]:
    """Every POST that the provider got for a request."""
    return [entry for entry in await stack.ark.ledger() if str(request.prompt) in str(entry.body)]


async def until(stack: Stack, job_id: str, condition: Callable[[JobState], bool], seconds: float = 90) -> JobState:
    """Waits until a running job's state is as it should be.

    Raises:
        AssertionError: It ended, or did not get there.
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
