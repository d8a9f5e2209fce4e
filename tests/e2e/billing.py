"""Jobs of all outcomes, and their report against the provider's own billing ledger."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from dev.stack import Stack
from seedance_temporal import JobState, VideoRequest
from seedance_temporal.contract import Resubmit
from seedance_temporal.job import JobError
from seedance_temporal.ledger.facts import End
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.task import Usage
from seedance_temporal.reports.figures import Account, JobEnd, accounts_of, figures
from seedance_temporal.reports.from_bucket import read_accounts
from seedance_temporal.settings import Settings
from tests.e2e import scenarios
from tests.e2e.command import starter
from tests.e2e.operator import reset
from tests.e2e.requests import a_request, creates_of, until, until_created
from tests.e2e.scenarios import Scenario
from tests.support import polling

USERS = 3
# More at once would measure this machine.
AT_ONCE = 20
SHAPES: list[dict[str, Any]] = [
    {"duration": 4},
    {"duration": 6},
    {"duration": 5, "resolution": "720p"},
    {"duration": 4, "model": "dreamina-seedance-2-0-fast-260128"},
]


async def _reset_when_stored(stack: Stack, request: VideoRequest) -> JobState:
    job_id = (await scenarios.stored(stack, request)).job_id
    (entry,) = await creates_of(stack, request)
    await reset(stack, job_id)
    result = await stack.jobs.job(job_id).result()
    assert result.task_id == entry.task_id
    return await stack.jobs.job(job_id).state()


async def _terminated(stack: Stack, request: VideoRequest) -> JobState:
    await stack.ark.fault("task", "seconds", contains=request.prompt, running_seconds=5)
    job_id = (await stack.jobs.submit(request)).id
    await until_created(stack, job_id)
    await stack.client.get_workflow_handle(job_id).terminate("a test")
    return await scenarios.stored(stack, request)


async def _lost_copy(stack: Stack, request: VideoRequest) -> JobState:
    """A task is billed, and its video cannot be downloaded. Its URL lives for a day, so the test itself writes the end
    that the run would write then, and ends the run.
    """
    await stack.ark.fault("task", "seconds", contains=request.prompt, running_seconds=5)
    job_id = (await stack.jobs.submit(request)).id
    task_id = (await until_created(stack, job_id)).task_id
    await stack.ark.fault("download", "refuse", task_id=task_id, times=None)
    await until(stack, job_id, lambda job: job.phase == "storing")
    (entry,) = await creates_of(stack, request)
    error = JobError(code="copy_failed", message="Lost.", failure_class="lost", task_id=task_id, attempt=1)
    usage = Usage(completion_tokens=entry.billed_tokens, total_tokens=entry.billed_tokens)
    end = End(error=error, at=datetime.now(UTC), usage=usage, cost_usd=0.01)
    await Ledger(stack.bucket, "seedance").end(job_id, 1, end)
    await stack.client.get_workflow_handle(job_id).terminate("a test")
    return await scenarios.stored(stack, request)


async def _paid_twice(stack: Stack, request: VideoRequest) -> JobState:
    await _lost_copy(stack, request)
    await stack.jobs.submit(request, resubmit=Resubmit(attempt=1, accept_second_charge=True))
    return await scenarios.stored(stack, request)


STORED: tuple[Scenario, JobEnd] = (scenarios.stored, "stored")
# Twenty jobs, with their outcomes in the report.
SCENARIOS: list[tuple[Scenario, JobEnd]] = [
    (scenarios.refused, "refused"),
    (scenarios.failed, "failed"),
    (scenarios.expired, "expired"),
    (scenarios.cancelled, "cancelled"),
    (scenarios.found, "stored"),
    (scenarios.given_up, "lost"),
    (scenarios.resubmitted, "stored"),
    (_reset_when_stored, "stored"),
    (_terminated, "stored"),
    (_lost_copy, "lost"),
    (_paid_twice, "stored"),
    *[STORED] * 9,
]


async def check_billing(stack: Stack, count: int) -> str:
    """Run jobs of all kinds to their ends, and compare the reports with the provider's ledger.

    Args:
        stack: With a worker of each route.
        count: How many jobs, a multiple of 20.

    Returns:
        The outcomes and the billed tokens, in a sentence.
    """
    mark = uuid.uuid4().hex
    limit = asyncio.Semaphore(AT_ONCE)
    requests = [_request(mark, number) for number in range(count)]

    async def live(number: int) -> JobEnd:
        async with limit:
            scenario, outcome = SCENARIOS[number % 20]
            await scenario(stack, requests[number])
            return outcome

    expected = Counter(await asyncio.gather(*map(live, range(count))))
    ours = [entry for entry in await stack.ark.ledger() if mark in str(entry.body) and entry.billed_tokens is not None]
    paid = {entry.task_id: entry.billed_tokens for entry in ours}
    by_scenario = Counter(
        SCENARIOS[number % 20][0].__name__
        for number, request in enumerate(requests)
        for entry in ours
        if str(request.prompt) in str(entry.body)
    )
    assert len(paid) == expected["stored"] + count // 20 * 2, f"the lost ones were paid, too: {by_scenario}"

    by_temporal = await _until_complete(stack, mark, count)
    by_bucket = _ours((await read_accounts(stack.bucket, Settings()))[0], mark)
    for accounts in (by_temporal, by_bucket):
        assert len(accounts) == count
        assert Counter(account.outcome for account in accounts) == expected
        tasks = [task for account in accounts for task in account.tasks]
        seen = [task for task in tasks if task.tokens is not None]
        assert {task.task_id: task.tokens for task in seen} == paid
        assert len(seen) == len(paid), "no task is counted twice"
        assert len(tasks) - len(seen) == count // 20, "given up, at an unknown cost"
    assert figures(by_temporal) == figures(by_bucket)
    for one, other in zip(by_temporal, by_bucket, strict=True):
        for name in ("job_id", "user", "model", "route", "outcome", "attempts", "estimated_tokens", "estimate"):
            assert getattr(one, name) == getattr(other, name), name
        assert set(one.tasks) == set(other.tasks)
    assert sum(len(account.tasks) > 1 for account in by_temporal) == count // 20, "paid twice on purpose"

    billed: Counter[str] = Counter()
    for made in requests:
        billed[made.user_id] += sum(e.billed_tokens or 0 for e in ours if str(made.prompt) in str(e.body))
    for source in ((), ("--from-bucket",)):
        report = (await starter(stack, "report", "--by", "user", *source)).answer
        assert {row["user"]: row["tokens"] for row in report["rows"] if mark in (row["user"] or "")} == billed
    tokens = sum(billed.values())
    ends = ", ".join(f"{end}: {times}" for end, times in sorted(expected.items()))
    return f"{ends}; {len(paid)} tasks that were billed, {tokens} tokens, and not one more"


def _request(mark: str, number: int) -> VideoRequest:
    # One in five on the route that only polls: it has lost answers as well.
    route = "volcengine" if number % 5 == 4 else "byteplus"
    shape = SHAPES[number % (4 if route == "byteplus" else 3)]
    user, prompt = f"report-{mark}-{number % USERS}", f"A paper boat on a pond, {mark}, {number}."
    return a_request(route, user_id=user, prompt=prompt, **shape)


def _ours(accounts: Iterable[Account], mark: str) -> list[Account]:
    return sorted((a for a in accounts if mark in (a.user or "")), key=lambda account: account.job_id)


async def _until_complete(stack: Stack, mark: str, count: int) -> list[Account]:
    """Return the accounts, once the visibility store has caught up."""

    async def complete() -> list[Account] | None:
        accounts = _ours(accounts_of([run async for run in stack.jobs.runs()]), mark)
        open_ones = [account for account in accounts if account.outcome == "open"]
        return accounts if len(accounts) == count and not open_ones else None

    accounts: list[Account] = await polling.until(complete, "visibility shows all jobs", seconds=90, every=0.5)
    return accounts
