"""What jobs came to and what they cost, by the objects in the bucket: complete for as long as those are kept."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import datetime

from seedance_temporal.identity import user_hash
from seedance_temporal.job import phase_of
from seedance_temporal.ledger.decisions import decide
from seedance_temporal.ledger.facts import Facts
from seedance_temporal.ledger.record import Record
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.task import Usage
from seedance_temporal.reports.figures import Account, Charge, Outcome, charges, outcome_of
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket

# A few small objects for each job: enough at once to keep the bucket's threads busy.
_JOBS_AT_ONCE = 16


async def read_accounts(bucket: Bucket, settings: Settings, *, since: datetime | None = None) -> list[Account]:
    """An account of every job that claimed an attempt.

    Args:
        bucket: Where they stand.
        settings: The prefix, and whether users are shown by a hash.
        since: Jobs whose objects are all older are not read.
    """
    ledger = Ledger(bucket, settings.seedance_prefix)
    at_once = asyncio.Semaphore(_JOBS_AT_ONCE)
    name = re.compile(re.escape(settings.seedance_prefix) + "/([0-9a-f]{64})/.+")
    jobs: set[str] = set()
    for stored in await bucket.list(f"{settings.seedance_prefix}/"):
        match = name.fullmatch(stored.name)
        if match is not None and (since is None or stored.created_at >= since):
            jobs.add(f"seedance-{match[1]}")

    async def account(job_id: str) -> Account | None:
        async with at_once:
            facts = await ledger.read(job_id)
            content = await bucket.read(ledger.names(job_id).record) if facts.record is not None else None
        record = Record.model_validate_json(content) if content is not None else None
        return _account(job_id, facts, record, settings)

    accounts = await asyncio.gather(*map(account, sorted(jobs)))
    return [account for account in accounts if account is not None]


def _account(job_id: str, facts: Facts, record: Record | None, settings: Settings) -> Account | None:
    claims = [attempt.claim for attempt in facts.attempts if attempt.claim is not None]
    if not claims:
        return None
    first, newest = claims[0], claims[-1]
    outcome, ended_at = _end(facts, record)
    return Account(
        job_id=job_id,
        user=user_hash(first.request.user_id) if settings.seedance_hash_users else first.request.user_id,
        model=first.request.model,
        route=first.request.route,
        started_at=first.submitted_at or first.claimed_at,
        ended_at=ended_at,
        outcome=outcome,
        attempts=newest.attempt,
        charges=charges(_charges(facts, outcome)),
        estimated_tokens=newest.estimated_tokens,
        estimated_usd=newest.estimated_usd,
    )


def _end(facts: Facts, record: Record | None) -> tuple[Outcome, datetime | None]:
    if record is not None:
        return "stored", record.stored_at
    look = decide(facts)
    attempt = facts.attempt(look.attempt)
    if look.error is None or attempt is None:
        return "open", None
    last = attempt.end or attempt.outcome
    return outcome_of(phase_of(look.error)), last.at if last is not None else None


def _charges(facts: Facts, outcome: Outcome) -> Iterator[Charge]:
    """Only a task that succeeded is billed: one whose video is stored, or was lost."""
    if facts.record is not None:
        yield _charge(facts.record.task_id, facts.record.usage, facts.record.cost_usd)
    for attempt in facts.attempts:
        for end in attempt.ends:
            if end.error.failure_class == "lost":
                yield _charge(end.error.task_id, end.usage, end.cost_usd)
    second = decide(facts).second_task
    if second is not None and outcome != "open":
        yield Charge(second, None, None)


def _charge(task_id: str | None, usage: Usage | None, usd: float | None) -> Charge:
    return Charge(task_id, usage.total_tokens if usage is not None else None, usd)
