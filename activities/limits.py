"""What a user may have in a day, counted in the bucket: exact under races, crashes and Resets.

Each user and UTC day has a log of objects that are only ever created, numbered without a gap; whoever wants to spend
adds the next one. Two who want the same number cannot both have it, and the second one counts again.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime, timedelta
from pathlib import PurePosixPath
from weakref import WeakValueDictionary

from temporalio import activity

from seedance_temporal.job import JobError
from seedance_temporal.ledger.facts import Fact
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.limits import Refusal, refusal_by_price, usd
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket, as_json

# Workers that met over one number do not all come back at once.
_PAUSE_SECONDS = 0.2
_MICRO = 1_000_000


class QuotaEntry(Fact):
    """A paid create was allowed.

    Attributes:
        again: How many further attempts had been asked for: with the job, it names the one that may be paid for.
        usd: The most that it should cost; None where that was not known.
    """

    job_id: str
    again: int
    usd: float | None
    at: datetime

    def is_of(self, other: QuotaEntry) -> bool:
        return (self.job_id, self.again) == (other.job_id, other.again)


class QuotaInput(Fact):
    job_id: str
    request: VideoRequest


class QuotaResult(Fact):
    """Whether a create may be paid for: ``error`` says why not, ``used`` what the user has had since midnight."""

    error: JobError | None = None
    used: str = ""


class LimitActivities:
    """Keeps the limits of the settings.

    Args:
        clock: Tells the time, in UTC.
    """

    def __init__(
        self,
        ledger: Ledger,
        bucket: Bucket,
        settings: Settings,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._bucket = bucket
        self._settings = settings
        self._clock = clock
        # Those who wait for the same log in this process need not race for it.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # The places of today and yesterday, by object name. They never change, so each is read once.
        self._read: dict[str, QuotaEntry] = {}
        self._today = clock().date()

    @activity.defn
    async def allow(self, order: QuotaInput) -> QuotaResult:
        """Takes a place in the user's log of today, unless the job's attempt has one, or a limit stands against it."""
        settings = self._settings
        estimated = settings.rules.estimate(order.request)
        if refusal := refusal_by_price(estimated, settings):
            return _refused(refusal)
        if settings.seedance_max_jobs_per_user_day is None and settings.seedance_max_usd_per_user_day is None:
            return QuotaResult()
        facts = await self._ledger.read(order.job_id)
        again = sum(attempt.again is not None for attempt in facts.attempts)
        wanted = QuotaEntry(job_id=order.job_id, again=again, usd=estimated.usd, at=self._clock())
        self._forget_before(wanted.at.date())
        # It can have been taken just before midnight, by a run that was then reset.
        yesterday = await self._log(order.request.user_id, wanted.at.date() - timedelta(days=1))
        if any(place.is_of(wanted) for place in yesterday.values()):
            return QuotaResult(used="allowed yesterday")
        async with self._turns.setdefault(self._folder(order.request.user_id, wanted.at.date()), asyncio.Lock()):
            return await self._take(wanted, order.request.user_id)

    async def _take(self, wanted: QuotaEntry, user_id: str) -> QuotaResult:
        folder = self._folder(user_id, wanted.at.date())
        while True:
            log = await self._log(user_id, wanted.at.date())
            if any(place.is_of(wanted) for place in log.values()):
                return QuotaResult(used=self._used(log.values()))
            if refusal := self._refusal(log.values(), wanted):
                return _refused(refusal)
            # What stands there already can be our own place, whose answer was lost: the next look tells.
            number = max(log, default=0) + 1
            if await self._bucket.create(f"{folder}{number:06d}.json", as_json(wanted.model_dump(mode="json"))):
                return QuotaResult(used=self._used([*log.values(), wanted]))
            await asyncio.sleep(random.uniform(0, _PAUSE_SECONDS))  # noqa: S311 - jitter, not a secret

    def _refusal(self, taken: Collection[QuotaEntry], wanted: QuotaEntry) -> Refusal | None:
        """Why there is no place left for another create; None if there is."""
        most_jobs = self._settings.seedance_max_jobs_per_user_day
        most_usd = self._settings.seedance_max_usd_per_user_day
        midnight = f"{wanted.at.date() + timedelta(days=1)} 00:00 UTC"
        if most_jobs is not None and len(taken) >= most_jobs:
            return Refusal(
                "over_limit",
                f"The user has had {len(taken)} videos allowed today; SEEDANCE_MAX_JOBS_PER_USER_DAY allows "
                f"{most_jobs}. Submit it again after {midnight}, when the count begins anew.",
            )
        if most_usd is not None and wanted.usd is not None and _micro([*taken, wanted]) > round(most_usd * _MICRO):
            return Refusal(
                "over_limit",
                f"It can cost up to {usd(wanted.usd)} by estimate, and the user has had {usd(_micro(taken) / _MICRO)} "
                f"allowed today; SEEDANCE_MAX_USD_PER_USER_DAY allows {usd(most_usd)}. Submit it again after "
                f"{midnight}, when the count begins anew.",
            )
        return None

    def _used(self, taken: Collection[QuotaEntry]) -> str:
        """What a user has had, as the timeline shows it."""
        most_jobs = self._settings.seedance_max_jobs_per_user_day
        most_usd = self._settings.seedance_max_usd_per_user_day
        words = [
            f"{len(taken)} of {most_jobs} videos" if most_jobs is not None else "",
            f"{usd(_micro(taken) / _MICRO)} of {usd(most_usd)}" if most_usd is not None else "",
        ]
        return f"{', '.join(filter(None, words))} today"

    def _folder(self, user_id: str, day: date) -> str:
        """Where a user's log of a day stands; the user's own name could hold anything."""
        user = hashlib.sha256(user_id.encode()).hexdigest()[:32]
        return f"{self._settings.seedance_prefix}/limits/{day.isoformat()}/{user}/"

    async def _log(self, user_id: str, day: date) -> dict[int, QuotaEntry]:
        """A user's places of a day by their numbers, from one strongly consistent listing."""
        names = [stored.name for stored in await self._bucket.list(self._folder(user_id, day))]
        places = await asyncio.gather(*map(self._place, names))
        return {int(PurePosixPath(name).stem): place for name, place in zip(names, places, strict=True)}

    async def _place(self, name: str) -> QuotaEntry:
        if name not in self._read:
            content = await self._bucket.read(name)
            if content is None:
                raise FileNotFoundError(f"{name} was listed, and cannot be read")
            self._read[name] = QuotaEntry.model_validate_json(content)
        return self._read[name]

    def _forget_before(self, today: date) -> None:
        if today > self._today:
            self._today = today
            since = today - timedelta(days=1)
            self._read = {name: place for name, place in self._read.items() if place.at.date() >= since}


def _micro(places: Collection[QuotaEntry]) -> int:
    """What places should cost at most, in millionths of a USD: floats do not add up exactly."""
    return sum(round(place.usd * _MICRO) for place in places if place.usd is not None)


def _refused(refusal: Refusal) -> QuotaResult:
    message = f"Nothing was sent, and nothing is billed. {refusal.message}"
    return QuotaResult(error=JobError(code=refusal.code, message=message, failure_class="invalid"))
