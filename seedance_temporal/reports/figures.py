"""What jobs came to and what they cost, by user, model, route and day. Pure functions over accounts of jobs.

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

_T = TypeVar("_T")

Outcome = Literal["stored", "refused", "failed", "expired", "cancelled", "lost", "open"]
"""How a job ended; ``open``: it goes on, or its last run was ended from outside before anything was settled."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

Key = Literal["user", "model", "route", "day"]
"""What a report can be grouped by; the day is that of the job's start, in UTC."""
KEYS: tuple[Key, ...] = get_args(Key)


@dataclass(frozen=True)
class Charge:
    """A task that was billed, or may have been. ``tokens`` and ``usd`` are None where nobody has seen them."""

    task_id: str | None
    tokens: int | None
    usd: float | None


@dataclass(frozen=True)
class Account:
    """One job in a report.

    Attributes:
        user, model: None where the source does not tell.
        started_at: By its first run, or by its first claim.
        ended_at: None while it is open.
        attempts: The number of its newest attempt; None where that is not known.
        charges: One for each task.
        estimated_tokens, estimated_usd: The most that an attempt should cost.
    """

    job_id: str
    user: str | None
    model: str | None
    route: str
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome
    attempts: int | None
    charges: tuple[Charge, ...]
    estimated_tokens: int | None
    estimated_usd: float | None

    @property
    def day(self) -> str:
        return self.started_at.astimezone(UTC).date().isoformat()

    def has_started(self, since: datetime | None, until: datetime | None) -> bool:
        """Whether it started in this span of time, whose end does not belong to it."""
        return (since is None or self.started_at >= since) and (until is None or self.started_at < until)


def outcome_of(phase: Phase) -> Outcome:
    """What a phase, or the last one of a run, means for a report."""
    return next((outcome for outcome in OUTCOMES if outcome == phase), "open")


def accounts_of(runs: Iterable[JobState]) -> list[Account]:
    """One account for each job, by all of its runs that Temporal still has."""
    in_order = sorted(runs, key=lambda run: (run.job_id, run.started_at))
    return [_account(list(of_job)) for _, of_job in groupby(in_order, key=attrgetter("job_id"))]


def _account(runs: Sequence[JobState]) -> Account:
    newest = runs[-1]
    # A record wins over everything, also over a later run that was terminated before it had looked.
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
        charges=charges(charge for run in runs for charge in _charges(run)),
        estimated_tokens=_last(run.estimated_tokens for run in runs),
        estimated_usd=_last(run.estimated_usd for run in runs),
    )


def _charges(run: JobState) -> Iterable[Charge]:
    if run.phase in {"stored", "lost"}:
        yield Charge(run.task_id, run.tokens, run.cost_usd)
    if run.attention == "second_task":
        yield Charge(None, None, None)


def charges(found: Iterable[Charge]) -> tuple[Charge, ...]:
    """One charge for each task: that several runs or objects tell of it does not make it dearer."""
    by_task: dict[str | None, Charge] = {}
    for charge in found:
        known = by_task.get(charge.task_id)
        if known is None or known.tokens is None:
            by_task[charge.task_id] = charge
    return tuple(by_task.values())


def _last(values: Iterable[_T | None]) -> _T | None:
    return next((value for value in reversed([*values]) if value is not None), None)


@dataclass(frozen=True)
class Figures:
    """What a group of jobs came to.

    Attributes:
        jobs: How many.
        outcomes: How many of each outcome; what did not occur is left out.
        attempts: The sum of the attempts that are known.
        tokens: Billed, in the provider's tokens, as far as a look at the tasks has shown.
        cost_usd: What they cost by the price table.
        unpriced_tokens: Those of ``tokens`` whose price is not known.
        uncounted_tasks: Tasks that were billed, or may have been, and whose tokens nobody has seen.
        estimated_tokens, estimated_usd: The most that the billed tasks should have cost, where an estimate is known.
        compared_tokens, compared_usd: What the same tasks did cost.
    """

    jobs: int
    outcomes: dict[Outcome, int]
    attempts: int
    tokens: int
    cost_usd: float
    unpriced_tokens: int
    uncounted_tasks: int
    estimated_tokens: int
    compared_tokens: int
    estimated_usd: float
    compared_usd: float


@dataclass(frozen=True)
class Row:
    """A group of a report: what its jobs have in common, in the order of the keys, and what they came to."""

    group: tuple[str | None, ...]
    figures: Figures


def figures(accounts: Sequence[Account]) -> Figures:
    """Adds up."""
    outcomes = Counter(account.outcome for account in accounts)
    billed = [(account, charge) for account in accounts for charge in account.charges]
    tokens = [(charge.tokens, account.estimated_tokens) for account, charge in billed if charge.tokens is not None]
    usd = [(charge.usd, account.estimated_usd) for account, charge in billed if charge.usd is not None]
    return Figures(
        jobs=len(accounts),
        outcomes={outcome: outcomes[outcome] for outcome in OUTCOMES if outcome in outcomes},
        attempts=sum(account.attempts or 0 for account in accounts),
        tokens=sum(actual for actual, _ in tokens),
        cost_usd=_usd(actual for actual, _ in usd),
        unpriced_tokens=sum(charge.tokens or 0 for _, charge in billed if charge.usd is None),
        uncounted_tasks=sum(charge.tokens is None for _, charge in billed),
        estimated_tokens=sum(estimate for _, estimate in tokens if estimate is not None),
        compared_tokens=sum(actual for actual, estimate in tokens if estimate is not None),
        estimated_usd=_usd(estimate for _, estimate in usd if estimate is not None),
        compared_usd=_usd(actual for actual, estimate in usd if estimate is not None),
    )


def _usd(amounts: Iterable[float]) -> float:
    return round(fsum(amounts), 6)


def rows(accounts: Iterable[Account], by: Sequence[Key]) -> list[Row]:
    """The accounts in groups, in the order of what they have in common; without keys, all of them in one."""
    groups: dict[tuple[str | None, ...], list[Account]] = {}
    for account in accounts:
        groups.setdefault(tuple(getattr(account, key) for key in by), []).append(account)
    in_order = sorted(groups.items(), key=lambda group: tuple(value or "" for value in group[0]))
    return [Row(group, figures(of_group)) for group, of_group in in_order]
