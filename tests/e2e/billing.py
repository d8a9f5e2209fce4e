"""Jobs that come to all kinds of ends, and whether the report equals the provider's own billing ledger."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from dev.stack import Stack
from seedance_temporal import JobState, VideoRequest
from seedance_temporal.contract import Resubmit
from seedance_temporal.job import JobError
from seedance_temporal.ledger.facts import End
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.task import Usage
from seedance_temporal.reports.figures import Account, Outcome, accounts_of, figures
from seedance_temporal.reports.from_bucket import read_accounts
from seedance_temporal.settings import Settings
from tests.e2e.command import starter
from tests.e2e.operator import reset_to_the_first_task
from tests.e2e.requests import a_request, creates_of, until

USERS = 3
# More at once would measure this machine.
AT_ONCE = 40
SHAPES: list[dict[str, Any]] = [
    {"duration": 4},
    {"duration": 6},
    {"duration": 5, "resolution": "720p"},
    {"duration": 4, "model": "dreamina-seedance-2-0-fast-260128"},
]


async def _ended(stack: Stack, job_id: str) -> JobState:
    async for job in stack.jobs.job(job_id).follow(every=5):
        last = job
    return last


async def _plain(stack: Stack, request: VideoRequest) -> Outcome:
    await _ended(stack, (await stack.jobs.submit(request)).id)
    return "stored"


async def _refused(stack: Stack, request: VideoRequest) -> Outcome:
    await stack.ark.fault("create", "400", contains=request.prompt)
    await _plain(stack, request)
    return "refused"


async def _failed(stack: Stack, request: VideoRequest) -> Outcome:
    code = "OutputVideoSensitiveContentDetected"
    await stack.ark.fault("task", "fail", contains=request.prompt, code=code)
    await _plain(stack, request)
    return "failed"


async def _expired(stack: Stack, request: VideoRequest) -> Outcome:
    await stack.ark.fault("task", "expire", contains=request.prompt)
    await _plain(stack, request)
    return "expired"


async def _cancelled(stack: Stack, request: VideoRequest) -> Outcome:
    await stack.ark.fault("task", "stay_queued", contains=request.prompt)
    job_id = (await stack.jobs.submit(request)).id
    await until(stack, job_id, lambda job: job.phase == "queued", seconds=90)
    assert (await stack.jobs.job(job_id).cancel()).outcome in {"cancelled", "requested"}
    await _ended(stack, job_id)
    return "cancelled"


async def _recovered(stack: Stack, request: VideoRequest) -> Outcome:
    await stack.ark.fault("create", "lost_after_commit", contains=request.prompt)
    return await _plain(stack, request)


async def _given_up(stack: Stack, request: VideoRequest) -> Outcome:
    await stack.ark.fault("create", "reset_before_commit", contains=request.prompt)
    job_id = (await stack.jobs.submit(request)).id
    await until(stack, job_id, lambda job: job.phase == "recovering", seconds=90)
    assert (await stack.jobs.job(job_id).resolve(attempt=1, action="lost")).accepted
    await _ended(stack, job_id)
    return "lost"


async def _second_attempt(stack: Stack, request: VideoRequest) -> Outcome:
    await stack.ark.fault("task", "fail", contains=request.prompt, code="InternalServiceError")
    job_id = (await stack.jobs.submit(request)).id
    await _ended(stack, job_id)
    await stack.jobs.job(job_id).resubmit(attempt=1)
    await _ended(stack, job_id)
    return "stored"


async def _reset_when_stored(stack: Stack, request: VideoRequest) -> Outcome:
    await _plain(stack, request)
    (entry,) = await creates_of(stack, request)
    job_id = (await stack.jobs.submit(request)).id
    await reset_to_the_first_task(stack, job_id)
    result = await stack.jobs.job(job_id).result()
    assert result.task_id == entry.task_id
    return "stored"


async def _terminated(stack: Stack, request: VideoRequest) -> Outcome:
    await stack.ark.fault("task", "seconds", contains=request.prompt, running_seconds=5)
    job_id = (await stack.jobs.submit(request)).id
    await until(stack, job_id, lambda job: job.task_id is not None, seconds=90)
    await stack.client.get_workflow_handle(job_id).terminate("a test")
    return await _plain(stack, request)


async def _lost_copy(stack: Stack, request: VideoRequest) -> Outcome:
    """A task that is billed, and whose video cannot be had. Its URL lives for a day: the test writes what the run
    would write then, by what a GET shows, and ends the run.
    """
    await stack.ark.fault("task", "seconds", contains=request.prompt, running_seconds=5)
    job_id = (await stack.jobs.submit(request)).id
    task_id = (await until(stack, job_id, lambda job: job.task_id is not None, seconds=90)).task_id
    await stack.ark.fault("download", "refuse", task_id=task_id, times=None)
    await until(stack, job_id, lambda job: job.phase == "storing", seconds=90)
    (entry,) = await creates_of(stack, request)
    error = JobError(code="copy_failed", message="Lost.", failure_class="lost", task_id=task_id, attempt=1)
    usage = Usage(completion_tokens=entry.billed_tokens, total_tokens=entry.billed_tokens)
    end = End(error=error, at=datetime.now(UTC), usage=usage, cost_usd=0.01)
    await Ledger(stack.bucket, "seedance").end(job_id, 1, end)
    await stack.client.get_workflow_handle(job_id).terminate("a test")
    await _plain(stack, request)
    return "lost"


async def _paid_twice(stack: Stack, request: VideoRequest) -> Outcome:
    await _lost_copy(stack, request)
    await stack.jobs.submit(request, resubmit=Resubmit(attempt=1, accept_second_charge=True))
    return await _plain(stack, request)


# What happens to each of twenty jobs; the others are plain.
STORIES: dict[int, Callable[[Stack, VideoRequest], Awaitable[Outcome]]] = dict(
    enumerate(
        (
            *(_refused, _failed, _expired, _cancelled, _recovered, _given_up),
            *(_second_attempt, _reset_when_stored, _terminated, _lost_copy, _paid_twice),
        )
    )
)


async def check_billing(stack: Stack, count: int) -> str:
    """Lets jobs of all kinds come to their ends, and compares the reports with the provider's ledger.

    Args:
        stack: With a worker of each route.
        count: How many jobs, a multiple of 20.

    Returns:
        What was compared, in a sentence.
    """
    mark = uuid.uuid4().hex
    limit = asyncio.Semaphore(AT_ONCE)
    requests = [_request(mark, number) for number in range(count)]

    async def live(number: int) -> Outcome:
        async with limit:
            return await STORIES.get(number % 20, _plain)(stack, requests[number])

    expected = Counter(await asyncio.gather(*map(live, range(count))))
    ours = [entry for entry in await stack.ark.ledger() if mark in str(entry.body) and entry.billed_tokens is not None]
    paid = {entry.task_id: entry.billed_tokens for entry in ours}
    assert len(paid) == expected["stored"] + count // 20 * 2, "what is lost was paid, too"

    by_temporal = await _until_complete(stack, mark, count)
    by_bucket = _ours(await read_accounts(stack.bucket, Settings()), mark)
    for accounts in (by_temporal, by_bucket):
        assert len(accounts) == count
        assert Counter(account.outcome for account in accounts) == expected
        tasks = [task for account in accounts for task in account.tasks]
        seen = [task for task in tasks if task.tokens is not None]
        assert {task.task_id: task.tokens for task in seen} == paid
        assert len(seen) == len(paid), "no task is counted twice"
        assert len(tasks) - len(seen) == count // 20, "given up, and nobody knows what that cost"
    assert figures(by_temporal) == figures(by_bucket)
    for one, other in zip(by_temporal, by_bucket, strict=True):
        for name in ("job_id", "user", "model", "route", "outcome", "attempts", "estimated_tokens", "estimated_usd"):
            assert getattr(one, name) == getattr(other, name), name
        assert set(one.tasks) == set(other.tasks)
    assert sum(len(account.tasks) > 1 for account in by_temporal) == count // 20, "paid twice on purpose"

    billed: Counter[str] = Counter()
    for made in requests:
        billed[made.user_id] += sum(e.billed_tokens or 0 for e in ours if str(made.prompt) in str(e.body))
    for source in ((), ("--from-bucket",)):
        told = (await starter(stack, "report", "--by", "user", *source)).answer
        assert {row["user"]: row["tokens"] for row in told["rows"] if mark in (row["user"] or "")} == billed
    tokens = sum(billed.values())
    ends = ", ".join(f"{end}: {times}" for end, times in sorted(expected.items()))
    return f"{ends}; {len(paid)} tasks that were billed, {tokens} tokens, and not one more"


def _request(mark: str, number: int) -> VideoRequest:
    # Of the route that only polls, one in five; lost answers are looked for there as well.
    route = "volcengine" if number % 5 == 4 else "byteplus"
    shape = SHAPES[number % (4 if route == "byteplus" else 3)]
    user, prompt = f"report-{mark}-{number % USERS}", f"A paper boat on a pond, {mark}, {number}."
    return a_request(route, user_id=user, prompt=prompt, **shape)


def _ours(accounts: Iterable[Account], mark: str) -> list[Account]:
    return sorted((a for a in accounts if mark in (a.user or "")), key=lambda account: account.job_id)


async def _until_complete(stack: Stack, mark: str, count: int) -> list[Account]:
    """The accounts, once the visibility store has caught up."""
    async with asyncio.timeout(90):
        while True:
            accounts = _ours(accounts_of([run async for run in stack.jobs.runs()]), mark)
            if len(accounts) == count and all(account.outcome != "open" for account in accounts):
                return accounts
            await asyncio.sleep(0.5)
