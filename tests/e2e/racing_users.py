"""Users who race for one budget: by the provider's own ledger, and by the entries in the bucket."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter

from dev.stack import Stack
from seedance_temporal import JobState
from seedance_temporal.provider.rules import Rules
from tests.e2e.requests import a_request, entries_of

WORKERS = 3


async def check_racing_users(stack: Stack, *, videos: int, submitted: int, users: int) -> None:
    """Submit at once, to three workers with a budget of so many videos, and check that exactly those are paid for.

    The budget is that of a label which no other test has: the account's would count their jobs of the same day, too.
    """
    label = uuid.uuid4().hex
    budget = videos * (Rules().estimate(a_request()).usd or 0)
    budgets = json.dumps({f"project={label}": {"usd_per_day": round(budget, 6)}})
    await stack.children["worker"].stop()
    names = [f"worker-budget-{number}" for number in range(WORKERS)]
    await asyncio.gather(*(stack.start_worker(name, SEEDANCE_LABEL_BUDGETS=budgets) for name in names))
    try:
        await _race(stack, label, videos, submitted, users)
    finally:
        await asyncio.gather(*(stack.children[name].stop() for name in names))
        await stack.start_worker()


async def _race(stack: Stack, label: str, videos: int, submitted: int, users: int) -> None:
    labels = {"project": label}
    requests = [a_request(user_id=f"user-with-budget-{number % users}", labels=labels) for number in range(submitted)]
    jobs = await asyncio.gather(*(stack.jobs.submit(request) for request in requests))
    ended = await asyncio.gather(*(_ended(stack, job.id) for job in jobs))

    assert Counter(job.phase for job in ended) == {"stored": videos, "failed": submitted - videos}
    errors = [job.error for job in ended if job.error is not None]
    assert {(error.code, error.failure_class, error.attempt) for error in errors} == {("over_budget", "invalid", None)}
    prompts = {str(request.prompt) for request in requests}
    creates = [entry for entry in await stack.ark.ledger() if any(prompt in str(entry.body) for prompt in prompts)]
    assert len(creates) == videos
    assert all(entry.committed for entry in creates)
    # Each entry has what its video was billed with.
    entries = await entries_of(stack, [job.id for job in jobs])
    assert len(entries) == videos
    stored = {each.name for each in await stack.bucket.list("seedance/limits/")}
    assert stored >= {name.replace("/log/", "/actual/") for name in entries}


async def _ended(stack: Stack, job_id: str) -> JobState:
    """Return a job once it has ended; of hundreds at once, none is asked often."""
    states = [job async for job in stack.jobs.job(job_id).follow(every=2)]
    return states[-1]
