"""Say what the creates of a job have cost, once that is known: an entry in a log of spending then counts for that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from seedance_temporal.job import phase_of
from seedance_temporal.ledger.facts import Attempt, Facts
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.billing import is_billed
from seedance_temporal.provider.prices import cost_in
from seedance_temporal.settings import Settings

_log = logging.getLogger(__name__)
# What is paid for must not wait long for a figure that can be made up for.
_SECONDS = 10.0


async def settle(ledger: Ledger, job_id: str, settings: Settings) -> None:
    """Write what the entries of a job have cost, as far as that is known. A failure is logged: it is made up for later.

    Call it after each end of a task, whose fact must be in the ledger.
    """
    if not settings.has_budgets:
        return
    try:
        async with asyncio.timeout(_SECONDS):
            facts = await ledger.read(job_id)
            for reference in {attempt.claim.reserved for attempt in facts.attempts if attempt.claim is not None} - {""}:
                cost = cost_of(facts, reference, settings)
                if cost is not None:
                    await ledger.write_actual(reference, cost)
    except Exception:
        _log.warning("what a job has cost was not noted for its budgets", extra={"job_id": job_id}, exc_info=True)


def cost_of(facts: Facts, reference: str, settings: Settings, *, over: bool = False) -> float | None:
    """Return what the create that an entry allowed has cost, in USD; None where that is not known, or can change.

    Args:
        over: Whether the entry is too old for another claim: then an attempt that created nothing settles it as well.
    """
    attempts = [a for a in facts.attempts if a.claim is not None and a.claim.reserved == reference]
    costs = [_cost_of(attempt, facts, settings) for attempt in attempts]
    ended = over or any(attempt.error is not None or _is_stored(attempt, facts) for attempt in attempts)
    if not ended or None in costs:
        return None
    return sum(cost for cost in costs if cost is not None)


def _cost_of(attempt: Attempt, facts: Facts, settings: Settings) -> float | None:
    """Return what the tasks of an attempt have cost, in USD; None where one may still cost something."""
    if attempt.error is None and attempt.counts and not _is_stored(attempt, facts):
        return None
    total = 0.0
    for amount in _amounts(attempt, facts, settings):
        if amount is None:
            return None
        total += amount
    return total


def _amounts(attempt: Attempt, facts: Facts, settings: Settings) -> Iterable[float | None]:
    record = facts.record
    if record is not None and record.task_id in attempt.tasks:
        yield settings.in_usd(cost_in(record))
    for end in attempt.ends:
        # Where an attempt was given up, and its task came to light later, the task alone counts.
        is_nameless = end.error.task_id is None and bool(attempt.tasks)
        if not is_nameless and (record is None or end.error.task_id != record.task_id):
            yield settings.in_usd(cost_in(end)) if is_billed(phase_of(end.error)) else 0.0
    others = [task_id for task_id in attempt.live if record is None or task_id != record.task_id]
    yield from (None for _ in others)


def _is_stored(attempt: Attempt, facts: Facts) -> bool:
    return facts.record is not None and facts.record.task_id in attempt.tasks
