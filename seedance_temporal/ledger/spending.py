"""The limits of users, and the budgets of account and labels, kept in the bucket: exact under races and crashes.

Each create that is allowed has an entry in the log of its UTC day, which is what it counts for until its cost is known.
One log serves all limits, so nothing is reserved for one of them where another refuses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from seedance_temporal.ledger.past_days import PastDays
from seedance_temporal.ledger.spending_log import MICRO, QuotaEntry, SpendingLog
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.limits import Budget, BudgetUse, Refusal, budgets, usd
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket

# From so much of a budget on, it is warned of.
WARN_PERCENT = 80
# What tasks have cost is read again after so many seconds, and always before a budget refuses.
_CORRECTED_EVERY = 60.0
# After midnight, workers whose clocks are behind can still add entries to the day before, unless it is closed.
_DAY_IS_OPEN_LONGER = timedelta(minutes=10)


class Reservation(NamedTuple):
    """The permission for one paid create.

    Attributes:
        reference: Of its entry, such as ``2026-11-22/000001``; empty where nothing is counted.
        used: How much of the user's day and of the budgets is used, for the run's history.
        warnings: The budgets of which this create crosses the share that is warned of, in sentences.
    """

    reference: str = ""
    used: str = ""
    warnings: tuple[str, ...] = ()


class Spending:
    """The logs of all days, in a bucket. The settings hold the limits, and ``clock`` returns the time, in UTC."""

    def __init__(
        self,
        ledger: Ledger,
        bucket: Bucket,
        settings: Settings,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._bucket = bucket
        # Of today and yesterday, by the clock or the closed days.
        self._logs: dict[date, SpendingLog] = {}
        self._closed: date | None = None
        self._past = PastDays(ledger, bucket, settings)

    async def reserve(self, entry: QuotaEntry) -> Refusal | Reservation:
        """Add an entry to the log of the day, unless there is one that permits the same, or a limit forbids it.

        It is dated by the time at which it is added, which can be after midnight where it had to wait.
        """
        asked = time.monotonic()
        while True:
            answer = await self._reserve_in(self._open_log(), entry, asked)
            if answer is not None:
                return answer

    async def _reserve_in(self, log: SpendingLog, entry: QuotaEntry, asked: float) -> Refusal | Reservation | None:
        """Do the same in the log of one day; None if that day ends meanwhile."""
        due = [budget for budget in budgets(self._settings) if budget.payer in entry.payers]
        yesterday = await self._yesterday(log.day, closes=any(budget.period == "month" for budget in due))
        # It can have been added just before midnight, by a run that was then reset.
        if (number := yesterday.find(entry)) is not None:
            return Reservation(yesterday.reference(number), "allowed yesterday")
        before = await self._before_today(due, log.day, self._clock(), writes=True)
        if log.find(entry) is None and log.turns.locked():
            # Another worker can have added it; a create that has its entry must not wait for those that have none.
            await log.read_after(asked)
        if (number := log.find(entry)) is not None:
            return Reservation(log.reference(number), self._used(log, entry, due, before))
        async with log.turns:
            while log is self._open_log():
                entry = entry.model_copy(update={"at": max(self._clock(), _midnight(log.day))})
                if (number := log.find(entry)) is not None:
                    return Reservation(log.reference(number), self._used(log, entry, due, before))
                if due and time.monotonic() - log.corrected_since > _CORRECTED_EVERY:
                    await log.read_actual()
                if refusal := self._refusal(log, entry, due, before):
                    if log.read_since >= asked and (log.corrected_since >= asked or not due):
                        return refusal
                    # Another worker can have added this very entry, and tasks can have cost less than was reserved.
                    await log.read_on()
                    if due:
                        await log.read_actual()
                    continue
                if (number := await log.add(entry)) is not None:
                    warnings = tuple(_crossed(log, entry, due, before))
                    return Reservation(log.reference(number), self._used(log, entry, due, before), warnings)
                await log.read_on()
        return None

    async def figures(self, now: datetime) -> list[BudgetUse]:
        """Return how much of each budget is used, and write nothing. ``now``: in UTC."""
        found = list(budgets(self._settings))
        log = self._log(now.date())
        if found:
            await log.read_on()
            await log.read_actual()
        before = await self._before_today(found, now.date(), now, writes=False)
        return [
            BudgetUse(budget, (before[budget] + log.used_by(budget.payer)) / MICRO, budget.ends(now))
            for budget in found
        ]

    def _open_log(self) -> SpendingLog:
        """Return the log of today, or of the next day where a worker whose clock is ahead has begun that one."""
        day = self._clock().date()
        while self._log(day).closed:
            day += timedelta(days=1)
        return self._log(day)

    async def _yesterday(self, today: date, *, closes: bool) -> SpendingLog:
        """Read the log of the day before; no more of it once no worker adds to it.

        Args:
            closes: Whether to see to it that none does: what a month's budget counts before today must not grow.
        """
        day = today - timedelta(days=1)
        log = self._log(day)
        if closes:
            await log.close(self._clock())
        elif self._closed != day:
            await log.read_on()
            if self._clock() >= _midnight(today) + _DAY_IS_OPEN_LONGER:
                self._closed = day
        return log

    async def _before_today(self, due: list[Budget], today: date, now: datetime, *, writes: bool) -> dict[Budget, int]:
        """Return what each budget's period had used before today, in millionths of a USD."""
        days = [date(today.year, today.month, day) for day in range(1, today.day)]
        payers = frozenset(budget.payer for budget in due if budget.period == "month")
        used = await self._past.used(days, payers, now, writes=writes) if payers else {}
        return {budget: used.get(budget.payer, 0) if budget.period == "month" else 0 for budget in due}

    def _log(self, day: date) -> SpendingLog:
        if day not in self._logs:
            oldest = day - timedelta(days=1)
            self._logs = {other: log for other, log in self._logs.items() if other >= oldest}
            self._logs[day] = SpendingLog(self._bucket, self._settings.seedance_prefix, day)
        return self._logs[day]

    def _refusal(
        self, log: SpendingLog, entry: QuotaEntry, due: list[Budget], before: dict[Budget, int]
    ) -> Refusal | None:
        """Return why nothing is left for another create; None if there is."""
        count, micro = _of_user(log, entry.user)
        most_jobs = self._settings.seedance_max_jobs_per_user_day
        most_usd = self._settings.seedance_max_usd_per_user_day
        midnight = f"{log.day + timedelta(days=1)} 00:00 UTC"
        if most_jobs is not None and count >= most_jobs:
            return Refusal(
                "over_limit",
                f"The user has had {count} videos allowed today; SEEDANCE_MAX_JOBS_PER_USER_DAY allows "
                f"{most_jobs}. Submit it again after {midnight}, when the count begins anew.",
            )
        can_cost = usd(entry.micro / MICRO)
        if most_usd is not None and micro + entry.micro > round(most_usd * MICRO):
            return Refusal(
                "over_limit",
                f"It can cost up to {can_cost} by estimate, and the user has had "
                f"{usd(micro / MICRO)} allowed today; SEEDANCE_MAX_USD_PER_USER_DAY allows {usd(most_usd)}. "
                f"Submit it again after {midnight}, when the count begins anew.",
            )
        # The one that is used up for longest comes first.
        used = {budget: before[budget] + log.used_by(budget.payer) for budget in due}
        full = [budget for budget in due if used[budget] + entry.micro > round(budget.usd * MICRO)]
        full.sort(key=lambda budget: budget.period == "day")
        if not full:
            return None
        until = full[0].ends(entry.at)
        uses = " ".join(
            f"{usd(used[budget] / MICRO)} of {budget} are used or reserved; {budget.setting} allows {usd(budget.usd)}."
            for budget in full
        )
        return Refusal(
            "over_budget",
            f"It can cost up to {can_cost} by estimate. {uses} The budget begins anew at {until:%Y-%m-%d %H:%M} UTC.",
            until,
        )

    def _used(self, log: SpendingLog, entry: QuotaEntry, due: list[Budget], before: dict[Budget, int]) -> str:
        most_jobs = self._settings.seedance_max_jobs_per_user_day
        most_usd = self._settings.seedance_max_usd_per_user_day
        count, micro = _of_user(log, entry.user)
        parts = [
            f"{count} of {most_jobs} videos" if most_jobs is not None else "",
            f"{usd(micro / MICRO)} of {usd(most_usd)}" if most_usd is not None else "",
        ]
        of_user = f"{', '.join(filter(None, parts))} today" if any(parts) else ""
        uses = [
            BudgetUse(budget, (before[budget] + log.used_by(budget.payer)) / MICRO, budget.ends(entry.at))
            for budget in due
        ]
        return "; ".join(filter(None, [of_user, *map(str, uses)]))


def _midnight(day: date) -> datetime:
    """Return when a day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _of_user(log: SpendingLog, user: str) -> tuple[int, int]:
    """Return how many creates of a user were allowed, and what they can cost, in millionths of a USD.

    An estimate stays what it is: users are limited by what they ask for.
    """
    entries = [entry for entry in log.entries.values() if entry.user == user]
    return len(entries), sum(entry.micro for entry in entries)


def _crossed(log: SpendingLog, entry: QuotaEntry, due: list[Budget], before: dict[Budget, int]) -> Iterator[str]:
    """Say of which budgets an entry that was just added crosses the share that is warned of, or is the last to fit."""
    for budget in due:
        used = before[budget] + log.used_by(budget.payer)
        limit = round(budget.usd * MICRO)
        use = BudgetUse(budget, used / MICRO, budget.ends(entry.at))
        if (used - entry.micro) * 100 < limit * WARN_PERCENT <= used * 100:
            yield f"From this job on, {WARN_PERCENT}% or more of a budget are used or reserved: {use}."
        elif used * 100 < limit * WARN_PERCENT and used + entry.micro > limit:
            yield f"After this job, no other of its price fits into a budget: {use}."
