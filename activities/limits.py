"""The limits on spending, checked before each create."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime

from temporalio import activity

from seedance_temporal.identity import user_hash
from seedance_temporal.job import JobError, Shape
from seedance_temporal.ledger.facts import NOTHING_SENT
from seedance_temporal.ledger.spending import Reservation, Spending
from seedance_temporal.ledger.spending_log import QuotaEntry
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.limits import Refusal, payers_of, refusal_by_price
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket

_log = logging.getLogger(__name__)
# A job over a budget looks again after so long, and then after twice as long each time: corrections can free some.
_FIRST_LOOK = 300.0
_LONGEST_LOOK = 3600.0


class QuotaInput(Shape):
    """The job that is to be paid for. ``waits``: how often it has waited for a budget so far."""

    job_id: str
    request: VideoRequest
    waits: int = 0


class QuotaResult(Shape):
    """Whether a create may be paid for.

    Attributes:
        error: Why not.
        used: How much of the user's day and of the budgets is used.
        waits_for: The budget to wait for, in a sentence, where the settings want that in place of an error.
        wait_seconds: Until the budget is to be looked at again.
        warnings: The budgets that are nearly used up since this job, in sentences.
    """

    error: JobError | None = None
    used: str = ""
    waits_for: str = ""
    wait_seconds: float = 0
    warnings: tuple[str, ...] = ()


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
        self._spending = Spending(ledger, bucket, settings, clock)
        self._settings = settings
        self._clock = clock

    @activity.defn
    async def reserve_quota(self, input: QuotaInput) -> QuotaResult:
        """Reserve quota for the job's next paid attempt, once, unless a limit forbids it."""
        answer = await self.reserve(input.job_id, input.request)
        if isinstance(answer, Refusal):
            return self._waits(answer, input.waits) if self.is_waited_for(answer) else _refused(answer)
        for warning in answer.warnings:
            _log.warning(warning, extra={"job_id": input.job_id})
        return QuotaResult(used=answer.used, warnings=answer.warnings)

    def is_waited_for(self, refusal: Refusal) -> bool:
        """Return whether a job waits after a refusal, because a budget begins anew, and the settings want that."""
        return refusal.until is not None and self._settings.seedance_over_budget == "wait"

    def _waits(self, refusal: Refusal, waits: int) -> QuotaResult:
        assert refusal.until is not None
        look = min(_FIRST_LOOK * 2.0 ** min(waits, 10), _LONGEST_LOOK)
        # Some seconds later than the budget begins, and not all jobs at once.
        begins = (refusal.until - self._clock()).total_seconds() + 5
        seconds = min(look, max(begins, 5.0)) * random.uniform(1.0, 1.2)  # noqa: S311 - jitter, not a secret
        return QuotaResult(waits_for=refusal.message, wait_seconds=seconds)

    async def reserve(self, job_id: str, request: VideoRequest) -> Refusal | Reservation:
        """Do the same, outside of an activity of its own: return why a limit forbids it, or what was reserved."""
        settings = self._settings
        if refusal := refusal_by_price(request, settings):
            return refusal
        if not settings.counts_spending:
            return Reservation()
        estimated = settings.rules.estimate(request)
        facts = await self._ledger.read(job_id)
        resubmits = sum(attempt.resubmit_grant is not None for attempt in facts.attempts)
        entry = QuotaEntry(
            job_id=job_id,
            resubmits=resubmits,
            usd=settings.in_usd(estimated.most),
            at=self._clock(),
            user=user_hash(request.user_id),
            payers=payers_of(request),
        )
        return await self._spending.reserve(entry)


def _refused(refusal: Refusal) -> QuotaResult:
    message = f"{NOTHING_SENT} {refusal.message}"
    if refusal.until is not None:
        message += " Submit it again then, raise the budget, or set SEEDANCE_OVER_BUDGET=wait."
    return QuotaResult(error=JobError(code=refusal.code, message=message, failure_class="invalid"))
