"""The daily quota of each user, counted in the bucket: exact under races, crashes and Resets.

Each user and UTC day has a log of entries that are only ever created, numbered without a gap. A create that needs quota
adds the next entry. Two workers cannot both create one number; the second one reads the log again.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Collection
from datetime import date, timedelta
from pathlib import PurePosixPath
from weakref import WeakValueDictionary

from pydantic import ValidationError

from seedance_temporal.job import Moment
from seedance_temporal.ledger.facts import Fact
from seedance_temporal.ledger.store import LedgerDamaged
from seedance_temporal.limits import Refusal, usd
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket, as_json

# Workers that tried the same number retry at different times.
_PAUSE_SECONDS = 0.2
_MICRO = 1_000_000
_NUMBERED = re.compile(r"[0-9]{6,}\.json")


class QuotaEntry(Fact):
    """The permission for one paid create.

    Attributes:
        resubmits: How many resubmits had been granted: with the job, it names the attempt that may be paid for.
        usd: The most that it should cost, of CNY by the rate of that time; None where that was not known.
    """

    job_id: str
    resubmits: int
    usd: float | None
    at: Moment

    def is_among(self, entries: Collection[QuotaEntry]) -> bool:
        """Return whether the job's attempt has an entry."""
        return any((self.job_id, self.resubmits) == (other.job_id, other.resubmits) for other in entries)


class DailyQuota:
    """The logs of all users, in a bucket. The settings hold the limits."""

    def __init__(self, bucket: Bucket, settings: Settings) -> None:
        self._bucket = bucket
        self._settings = settings
        # Jobs that wait for the same log in this process need not race for it.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # The entries of today and yesterday, by object name. They never change, so each is read once.
        self._read: dict[str, QuotaEntry] = {}
        self._today = date.min

    async def reserve(self, entry: QuotaEntry, user_id: str) -> Refusal | str:
        """Add an entry to the user's log of the day, unless the job's attempt has one.

        Return why a limit forbids it; or the user's share of today's quota, for the run's history.
        """
        today = entry.at.date()
        yesterday = today - timedelta(days=1)
        if today > self._today:
            self._today = today
            self._read = {name: other for name, other in self._read.items() if other.at.date() >= yesterday}
        # It can have been added just before midnight, by a run that was then reset.
        if entry.is_among((await self._log(self._folder(user_id, yesterday))).values()):
            return "allowed yesterday"
        folder = self._folder(user_id, today)
        async with self._turns.setdefault(folder, asyncio.Lock()):
            return await self._add(entry, folder)

    async def _add(self, entry: QuotaEntry, folder: str) -> Refusal | str:
        while True:
            log = await self._log(folder)
            entries = log.values()
            if entry.is_among(entries):
                return self._used(entries)
            if refusal := self._refusal(entries, entry):
                return refusal
            # The next number can exist by now, also as our own entry whose answer was lost: read the log again.
            name = f"{folder}{max(log, default=0) + 1:06d}.json"
            if await self._bucket.create(name, as_json(entry.model_dump(mode="json"))):
                return self._used([*entries, entry])
            await asyncio.sleep(random.uniform(0, _PAUSE_SECONDS))  # noqa: S311 - jitter, not a secret

    def _refusal(self, entries: Collection[QuotaEntry], entry: QuotaEntry) -> Refusal | None:
        """Return why no quota is left for another create; None if there is."""
        most_jobs = self._settings.seedance_max_jobs_per_user_day
        most_usd = self._settings.seedance_max_usd_per_user_day
        midnight = f"{entry.at.date() + timedelta(days=1)} 00:00 UTC"
        if most_jobs is not None and len(entries) >= most_jobs:
            return Refusal(
                "over_limit",
                f"The user has had {len(entries)} videos allowed today; SEEDANCE_MAX_JOBS_PER_USER_DAY allows "
                f"{most_jobs}. Submit it again after {midnight}, when the count begins anew.",
            )
        if most_usd is not None and entry.usd is not None and _micro([*entries, entry]) > round(most_usd * _MICRO):
            return Refusal(
                "over_limit",
                f"It can cost up to {usd(entry.usd)} by estimate, and the user has had "
                f"{usd(_micro(entries) / _MICRO)} allowed today; SEEDANCE_MAX_USD_PER_USER_DAY allows {usd(most_usd)}. "
                f"Submit it again after {midnight}, when the count begins anew.",
            )
        return None

    def _used(self, entries: Collection[QuotaEntry]) -> str:
        most_jobs = self._settings.seedance_max_jobs_per_user_day
        most_usd = self._settings.seedance_max_usd_per_user_day
        parts = [
            f"{len(entries)} of {most_jobs} videos" if most_jobs is not None else "",
            f"{usd(_micro(entries) / _MICRO)} of {usd(most_usd)}" if most_usd is not None else "",
        ]
        return f"{', '.join(filter(None, parts))} today"

    def _folder(self, user_id: str, day: date) -> str:
        """Return the folder of a user's log of a day; the user id is hashed, because it may hold any character."""
        user = hashlib.sha256(user_id.encode()).hexdigest()[:32]
        return f"{self._settings.seedance_prefix}/limits/{day.isoformat()}/{user}/"

    async def _log(self, folder: str) -> dict[int, QuotaEntry]:
        """Read the entries of a log by their numbers, from one strongly consistent listing."""
        names = [stored.name for stored in await self._bucket.list(folder)]
        for name in names:
            if not _NUMBERED.fullmatch(name.removeprefix(folder)):
                raise LedgerDamaged(self._bucket.name, name, "is no entry of a user's quota: move it away")
        entries = await asyncio.gather(*map(self._entry, names))
        return {int(PurePosixPath(name).stem): entry for name, entry in zip(names, entries, strict=True)}

    async def _entry(self, name: str) -> QuotaEntry:
        if name not in self._read:
            content = await self._bucket.read(name)
            if content is None:
                raise FileNotFoundError(f"{name} was listed, and cannot be read")
            try:
                self._read[name] = QuotaEntry.model_validate_json(content)
            except ValidationError:
                raise LedgerDamaged(self._bucket.name, name, "is no entry of a user's quota") from None
        return self._read[name]


def _micro(entries: Collection[QuotaEntry]) -> int:
    """Add up the highest costs of entries, in millionths of a USD: floats do not add up exactly."""
    return sum(round(entry.usd * _MICRO) for entry in entries if entry.usd is not None)
