"""Add up the outcomes and the costs of jobs by user, model, route and day. Pure functions over accounts of jobs.

An account comes from Temporal's visibility store, see :func:`accounts_of`, or from the objects in the bucket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from math import fsum
from operator import attrgetter
from typing import Literal, TypeVar, get_args

from seedance_temporal.job import JobState, Phase
from seedance_temporal.provider.billing import BilledTask, is_billed, once
from seedance_temporal.provider.prices import UNKNOWN, Cost, cost_in, estimate_in

_T = TypeVar("_T")

JobEnd = Literal["stored", "refused", "failed", "expired", "cancelled", "lost", "open"]
"""How a job ended; ``open``: it continues, or its last run was ended from outside before anything was settled."""
OUTCOMES: tuple[JobEnd, ...] = get_args(JobEnd)

Key = Literal["user", "model", "route", "day"]
"""The keys of a report's groups; the day is that of the job's start, in UTC."""
KEYS: tuple[Key, ...] = get_args(Key)

# From its claim to its end, an attempt can be billed.
_EXPOSED = frozenset({"creating", "recovering", "queued", "running", "storing"})


@dataclass(frozen=True)
class Account:
    """One job in a report.

    Attributes:
        user, model: None where the source does not say.
        started_at: By its first run, or by its first claim.
        ended_at: None while it is open.
        attempts: The number of its newest attempt; None where that is not known.
        tasks: Those that are, or may be, billed; each once.
        estimated_tokens, estimate: The most that an attempt should cost.
        exposed: Whether an attempt has been claimed that has not ended, and can still be billed.
    """

    job_id: str
    user: str | None
    model: str | None
    route: str
    started_at: datetime
    ended_at: datetime | None
    outcome: JobEnd
    attempts: int | None
    tasks: tuple[BilledTask, ...]
    estimated_tokens: int | None
    estimate: Cost
    exposed: bool = False

    @property
    def day(self) -> str:
        return self.started_at.astimezone(UTC).date().isoformat()

    def has_started(self, since: datetime | None, until: datetime | None) -> bool:
        """Return whether it started at ``since`` or later, and before ``until``."""
        return (since is None or self.started_at >= since) and (until is None or self.started_at < until)


def outcome_of(phase: Phase | str) -> JobEnd:
    """Return the outcome that a report shows for a phase."""
    return next((outcome for outcome in OUTCOMES if outcome == phase), "open")


def accounts_of(runs: Iterable[JobState]) -> list[Account]:
    """Return one account for each job, by all of its runs that Temporal still has."""
    in_order = sorted(runs, key=lambda run: (run.job_id, run.started_at))
    return [_account(list(of_job)) for _, of_job in groupby(in_order, key=attrgetter("job_id"))]


def _account(runs: Sequence[JobState]) -> Account:
    newest = runs[-1]
    # A stored video decides, also where a later run was terminated before it read the ledger.
    stored = [run for run in runs if run.phase == "stored"]
    ended = stored[0] if stored else newest
    outcome = outcome_of(ended.phase)
    return Account(
        job_id=newest.job_id,
        user=_last(run.user for run in runs),
        model=_last(run.model for run in runs),
        route=newest.route,
        started_at=runs[0].started_at,
        ended_at=None if outcome == "open" else ended.closed_at,
        outcome=outcome,
        attempts=max((run.attempt for run in runs if run.attempt is not None), default=None),
        tasks=once(task for run in runs for task in _tasks(run)),
        estimated_tokens=_last(run.estimated_tokens for run in runs),
        estimate=_last(estimate_in(run) for run in runs if estimate_in(run) != UNKNOWN) or UNKNOWN,
        exposed=outcome == "open" and newest.phase in _EXPOSED,
    )


def _tasks(run: JobState) -> Iterable[BilledTask]:
    if is_billed(run.phase):
        yield BilledTask(run.task_id, run.tokens, cost_in(run))
    if run.attention == "second_task":
        yield BilledTask(None)


def _last(values: Iterable[_T | None]) -> _T | None:
    return next((value for value in reversed([*values]) if value is not None), None)


@dataclass(frozen=True)
class Figures:
    """The figures of a group of jobs.

    Attributes:
        outcomes: The number of jobs of each outcome that occurred.
        attempts: The sum of the attempts that are known.
        tokens: Billed, in the provider's tokens, as far as they are known.
        cost_usd, cost_cny: Their price by the price table, in the currency that each route bills.
        unpriced_tokens: Those of ``tokens`` whose price is not known.
        uncounted_tasks: Tasks that are, or may be, billed, and whose tokens are not known.
        estimated_tokens, estimated_usd, estimated_cny: The most that the billed tasks should have cost, where known.
        compared_tokens, compared_usd, compared_cny: The actual charge for the same tasks.
        exposed_jobs: Open jobs with an attempt that can still be billed: the open exposure.
        exposed_usd, exposed_cny: The most that those attempts should cost, where an estimate is known.
        exposed_unpriced: Those of ``exposed_jobs`` without an estimate.
    """

    jobs: int
    outcomes: dict[JobEnd, int]
    attempts: int
    tokens: int
    cost_usd: float
    unpriced_tokens: int
    uncounted_tasks: int
    estimated_tokens: int
    compared_tokens: int
    estimated_usd: float
    compared_usd: float
    cost_cny: float
    estimated_cny: float
    compared_cny: float
    exposed_jobs: int
    exposed_usd: float
    exposed_cny: float
    exposed_unpriced: int

    def total_usd(self, cny_per_usd: float | None) -> float | None:
        """Return one sum for both currencies, at a rate; None where there is none, and amounts of both."""
        if not self.cost_cny:
            return self.cost_usd
        return round(self.cost_usd + self.cost_cny / cny_per_usd, 6) if cny_per_usd is not None else None


def figures(accounts: Sequence[Account]) -> Figures:
    """Add up accounts."""
    outcomes = Counter(account.outcome for account in accounts)
    billed = [(account, task) for account in accounts for task in account.tasks]
    tokens = [(task.tokens, account.estimated_tokens) for account, task in billed if task.tokens is not None]
    usd = [(task.cost.usd, account.estimate.usd) for account, task in billed if task.cost.usd is not None]
    exposed = [account.estimate for account in accounts if account.exposed]
    cny = [(task.cost.cny, account.estimate.cny) for account, task in billed if task.cost.cny is not None]
    return Figures(
        jobs=len(accounts),
        outcomes={outcome: outcomes[outcome] for outcome in OUTCOMES if outcome in outcomes},
        attempts=sum(account.attempts or 0 for account in accounts),
        tokens=sum(actual for actual, _ in tokens),
        cost_usd=_sum(actual for actual, _ in usd),
        unpriced_tokens=sum(task.tokens or 0 for _, task in billed if task.cost == UNKNOWN),
        uncounted_tasks=sum(task.tokens is None for _, task in billed),
        estimated_tokens=sum(estimate for _, estimate in tokens if estimate is not None),
        compared_tokens=sum(actual for actual, estimate in tokens if estimate is not None),
        estimated_usd=_sum(estimate for _, estimate in usd if estimate is not None),
        compared_usd=_sum(actual for actual, estimate in usd if estimate is not None),
        cost_cny=_sum(actual for actual, _ in cny),
        estimated_cny=_sum(estimate for _, estimate in cny if estimate is not None),
        compared_cny=_sum(actual for actual, estimate in cny if estimate is not None),
        exposed_jobs=len(exposed),
        exposed_usd=_sum(estimate.usd for estimate in exposed if estimate.usd is not None),
        exposed_cny=_sum(estimate.cny for estimate in exposed if estimate.cny is not None),
        exposed_unpriced=exposed.count(UNKNOWN),
    )


def _sum(amounts: Iterable[float]) -> float:
    return round(fsum(amounts), 6)


Group = tuple[str | None, ...]
"""The values that the jobs of a group share, in the order of the keys."""


def rows(accounts: Iterable[Account], by: Sequence[Key]) -> dict[Group, Figures]:
    """Return the figures of each group, in the order of the shared values; without keys, of one group."""
    groups: dict[Group, list[Account]] = {}
    for account in accounts:
        groups.setdefault(tuple(getattr(account, key) for key in by), []).append(account)
    in_order = sorted(groups, key=lambda group: tuple(value or "" for value in group))
    return {group: figures(groups[group]) for group in in_order}
