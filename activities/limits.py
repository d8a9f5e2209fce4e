"""The limits on spending, checked before each create."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from temporalio import activity

from seedance_temporal.job import JobError, Shape
from seedance_temporal.ledger.daily_quota import DailyQuota, QuotaEntry
from seedance_temporal.ledger.facts import NOTHING_SENT
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.limits import Refusal, refusal_by_price
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket


class QuotaInput(Shape):
    job_id: str
    request: VideoRequest


class QuotaResult(Shape):
    """Whether a create may be paid for: ``error`` says why not, ``used`` is the user's share of today's quota."""

    error: JobError | None = None
    used: str = ""


class LimitActivities:
    """Enforce the limits of the settings. ``clock`` returns the time, in UTC."""

    def __init__(
        self,
        ledger: Ledger,
        bucket: Bucket,
        settings: Settings,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._quota = DailyQuota(bucket, settings)
        self._settings = settings
        self._clock = clock

    @activity.defn
    async def reserve_quota(self, input: QuotaInput) -> QuotaResult:
        """Reserve quota for the job's next paid attempt, once, unless a limit forbids it."""
        answer = await self.reserve(input.job_id, input.request)
        return _refused(answer) if isinstance(answer, Refusal) else QuotaResult(used=answer)

    async def reserve(self, job_id: str, request: VideoRequest) -> Refusal | str:
        """Do the same, outside of an activity of its own: return why a limit forbids it, or the user's share."""
        settings = self._settings
        estimated = settings.rules.estimate(request)
        if refusal := refusal_by_price(estimated, settings):
            return refusal
        if settings.seedance_max_jobs_per_user_day is None and settings.seedance_max_usd_per_user_day is None:
            return ""
        facts = await self._ledger.read(job_id)
        resubmits = sum(attempt.resubmit_grant is not None for attempt in facts.attempts)
        entry = QuotaEntry(job_id=job_id, resubmits=resubmits, usd=settings.in_usd(estimated.most), at=self._clock())
        return await self._quota.reserve(entry, request.user_id)


def _refused(refusal: Refusal) -> QuotaResult:
    message = f"{NOTHING_SENT} {refusal.message}"
    return QuotaResult(error=JobError(code=refusal.code, message=message, failure_class="invalid"))
