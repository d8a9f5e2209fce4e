"""What was spent on the days before today, for the budgets of a month: a day that cannot change is totalled once."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, timedelta

from pydantic import ValidationError

from seedance_temporal.identity import limits_folder
from seedance_temporal.ledger.facts import Fact
from seedance_temporal.ledger.settling import cost_of
from seedance_temporal.ledger.spending_log import SpendingLog
from seedance_temporal.ledger.store import Ledger, LedgerDamaged
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket, as_json

# Costs of the last days still arrive: they are read again after so many seconds.
_READ_EVERY = 600.0
# An entry allows a create on its day and the next one. So long after its day began, no claim can name it any more.
_NO_MORE_CLAIMS = timedelta(days=2, hours=1)
# The provider forgets a task after seven days: what is not known by then counts by its estimate for good.
_GIVEN_UP = timedelta(days=10)
# Entries whose jobs are looked at in one go; the next go has the others.
_SETTLED_AT_ONCE = 50
# A day can have as many labels as jobs. Of more, only the largest are totalled, and others are read from the log.
_MOST_PAYERS = 1_000


class DayTotal(Fact):
    """What the entries of a day count for, by account and label, in millionths of a USD; written once.

    Attributes:
        complete: Whether an account or label that is not named has spent nothing.
    """

    micro: dict[str, int]
    complete: bool


class PastDays:
    """The days of the current month before today, as far as they were read."""

    def __init__(self, ledger: Ledger, bucket: Bucket, settings: Settings) -> None:
        self._ledger = ledger
        self._bucket = bucket
        self._settings = settings
        self._totals: dict[date, DayTotal] = {}
        self._logs: dict[date, SpendingLog] = {}
        self._reading = asyncio.Lock()

    async def used(
        self, days: Collection[date], payers: Collection[str], now: datetime, *, writes: bool
    ) -> Mapping[str, int]:
        """Return what the days' entries count for, by account or label, in millionths of a USD.

        Args:
            writes: Whether to settle old entries, and to write totals; a reader may not be allowed to.
        """
        async with self._reading:
            first = min(days, default=now.date())
            self._totals = {day: total for day, total in self._totals.items() if day >= first}
            self._logs = {day: log for day, log in self._logs.items() if day >= first}
            sums = await asyncio.gather(*(self._day(day, payers, now, writes) for day in days))
        return {payer: sum(of_day.get(payer, 0) for of_day in sums) for payer in payers}

    async def _day(self, day: date, payers: Collection[str], now: datetime, writes: bool) -> Mapping[str, int]:
        log = self._logs.setdefault(day, SpendingLog(self._bucket, self._settings.seedance_prefix, day))
        is_due = time.monotonic() - log.corrected_since > _READ_EVERY
        total = await self._total(day) if is_due else self._totals.get(day)
        if total is not None and (total.complete or total.micro.keys() >= set(payers)):
            return total.micro
        if is_due:
            await log.read_on()
            await log.read_actual()
            if total is None and writes:
                await self._settle_and_total(log, now)
        return _sums(log)

    async def _total(self, day: date) -> DayTotal | None:
        if day not in self._totals:
            content = await self._bucket.read(self._name(day))
            if content is None:
                return None
            try:
                self._totals[day] = DayTotal.model_validate_json(content)
            except ValidationError:
                raise LedgerDamaged(self._bucket.name, self._name(day), "is no total of a day: put it back") from None
        return self._totals[day]

    async def _settle_and_total(self, log: SpendingLog, now: datetime) -> None:
        """Settle the entries whose jobs did not say what they cost; write the total once none is left."""
        age = now - datetime(log.day.year, log.day.month, log.day.day, tzinfo=UTC)
        if age < _NO_MORE_CLAIMS:
            return
        unsettled = [number for number in log.entries if number not in log.actual]
        await asyncio.gather(*(self._settle(log, number) for number in unsettled[:_SETTLED_AT_ONCE]))
        if unsettled:
            await log.read_actual()
        if len(log.actual) < len(log.entries) and age < _GIVEN_UP:
            return
        sums = sorted(_sums(log).items(), key=lambda payer: payer[1], reverse=True)
        total = DayTotal(micro=dict(sums[:_MOST_PAYERS]), complete=len(sums) <= _MOST_PAYERS)
        await self._bucket.create(self._name(log.day), as_json(total.model_dump(mode="json")))

    async def _settle(self, log: SpendingLog, number: int) -> None:
        reference = log.reference(number)
        try:
            facts = await self._ledger.read(log.entries[number].job_id)
        except ValueError:  # a damaged ledger of one job must not stop all others: it counts by its estimate
            return
        cost = cost_of(facts, reference, self._settings, over=True)
        if cost is not None:
            await self._ledger.write_actual(reference, cost)

    def _name(self, day: date) -> str:
        return f"{limits_folder(self._settings.seedance_prefix, day.isoformat())}total.json"


def _sums(log: SpendingLog) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for number, entry in log.entries.items():
        for payer in entry.payers:
            sums[payer] += log.counted(number)
    return dict(sums)
