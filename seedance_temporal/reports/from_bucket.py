"""Read the accounts of jobs from the bucket: complete for as long as the objects are kept."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import datetime

from seedance_temporal.identity import user_hash
from seedance_temporal.job import phase_of
from seedance_temporal.ledger.decisions import decide, ending
from seedance_temporal.ledger.facts import Facts
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.billing import BilledTask, is_billed, once, tokens
from seedance_temporal.provider.prices import cost_in, estimate_in
from seedance_temporal.reports.figures import Account, outcome_of
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket

# A few small objects for each job: enough at once to keep the bucket's threads busy.
_JOBS_AT_ONCE = 16


async def read_accounts(
    bucket: Bucket, settings: Settings, *, since: datetime | None = None
) -> tuple[list[Account], list[str]]:
    """Read an account of every job that claimed an attempt, except those whose objects are all older than ``since``.

    Returns:
        The accounts, and the ids of the jobs that have none because an object is damaged.
    """
    ledger = Ledger(bucket, settings.seedance_prefix)
    at_once = asyncio.Semaphore(_JOBS_AT_ONCE)
    name = re.compile(re.escape(settings.seedance_prefix) + "/([0-9a-f]{64})/.+")
    jobs = {
        f"seedance-{match[1]}"
        for stored in await bucket.list(f"{settings.seedance_prefix}/")
        if (match := name.fullmatch(stored.name)) and (since is None or stored.created_at >= since)
    }

    damaged: list[str] = []

    async def account(job_id: str) -> Account | None:
        async with at_once:
            try:
                return _account(job_id, await ledger.read(job_id), settings)
            except ValueError:
                damaged.append(job_id)
                return None

    accounts = await asyncio.gather(*map(account, sorted(jobs)))
    return [account for account in accounts if account is not None], sorted(damaged)


def _account(job_id: str, facts: Facts, settings: Settings) -> Account | None:
    claims = [attempt.claim for attempt in facts.attempts if attempt.claim is not None]
    if not claims:
        return None
    first, newest = claims[0], claims[-1]
    end = ending(facts)
    return Account(
        job_id=job_id,
        user=user_hash(first.request.user_id) if settings.seedance_hash_users else first.request.user_id,
        model=first.request.model,
        route=first.request.route,
        started_at=first.submitted_at or first.claimed_at,
        ended_at=end.at if end is not None else None,
        outcome=outcome_of(end.phase) if end is not None else "open",
        attempts=newest.attempt,
        tasks=once(_tasks(facts)),
        estimated_tokens=newest.estimated_tokens,
        estimate=estimate_in(newest),
        exposed=end is None and any(attempt.counts and attempt.error is None for attempt in facts.attempts),
    )


def _tasks(facts: Facts) -> Iterator[BilledTask]:
    if facts.record is not None:
        yield BilledTask(facts.record.task_id, tokens(facts.record.usage), cost_in(facts.record))
    for attempt in facts.attempts:
        for end in attempt.ends:
            # Where an attempt was given up, and its task came to light later, the task alone counts.
            is_nameless = end.error.task_id is None and bool(attempt.tasks)
            if is_billed(phase_of(end.error)) and not is_nameless:
                yield BilledTask(end.error.task_id, tokens(end.usage), cost_in(end))
    decision = decide(facts)
    if (decision.second_task or decision.unknown_attempt) and ending(facts) is not None:
        yield BilledTask(decision.second_task)
