"""Check reference media before a claim, so that a request which cannot succeed is refused at no cost.

The provider downloads them during the paid create. So they are downloaded here first in the same way: by a plain GET,
without credentials. URLs and files come from users, and are not trusted.
"""

from __future__ import annotations

import logging

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.heartbeat import heartbeats
from seedance_temporal.job import JobError, Shape
from seedance_temporal.ledger.asset_ids import Assets
from seedance_temporal.ledger.facts import nothing_sent
from seedance_temporal.media.references import References
from seedance_temporal.reference_media import Medium, media_warnings
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.storage.signing import CannotSign
from seedance_temporal.urls import redacted

_log = logging.getLogger(__name__)


class ReferencesInput(Shape):
    job_id: str
    request: VideoRequest


class ReferencesResult(Shape):
    """The properties of the references; or, as ``error``, why nothing can be created with them."""

    media: tuple[Medium, ...] = ()
    warnings: tuple[str, ...] = ()
    error: JobError | None = None


class ReferenceActivities:
    """Check reference media for the workflow."""

    def __init__(self, references: References, assets: Assets, settings: Settings) -> None:
        self._references = references
        self._assets = assets
        self._settings = settings

    @activity.defn
    async def check_references(self, input: ReferencesInput) -> ReferencesResult:
        """Download and check all references of a job, before its create is paid for.

        Raises:
            ApplicationError: ``ReferencesUnreachable``: one could not be downloaded, and no other has a problem.
                ``ReferencesFailed``: anything else, such as a full disk. Both are retryable.
        """
        request = input.request
        if problems := self._settings.rules.check_new(request):
            return ReferencesResult(error=nothing_sent("invalid_request", "; ".join(map(str, problems))))
        try:
            async with heartbeats(lambda: {"references": len(request.references)}):
                findings = await self._references.examine(request)
        except CannotSign as error:
            return ReferencesResult(error=nothing_sent("cannot_sign", str(error)))
        except Exception as error:
            # The texts of other libraries are full of URLs.
            raise ApplicationError(
                f"{input.job_id}: the check of its references failed: {redacted(repr(error))}", type="ReferencesFailed"
            ) from None
        if findings.problems:
            advice = "Fix or replace these references, and submit the request again."
            message = f"{'; '.join(map(str, [*findings.problems, *findings.passing]))}. {advice}"
            return ReferencesResult(media=findings.media, error=nothing_sent("invalid_references", message))
        if findings.passing:
            passing = "; ".join(map(str, findings.passing))
            raise ApplicationError(f"{input.job_id}: {passing}", type="ReferencesUnreachable")
        return ReferencesResult(
            media=findings.media,
            warnings=(*media_warnings(findings.media), *await self._reuse(request, findings.media)),
        )

    async def _reuse(self, request: VideoRequest, media: tuple[Medium, ...]) -> list[str]:
        try:
            warnings = await self._assets.warnings(request, media)
            await self._assets.note(request, media)
        except Exception:
            # No job waits for this: the claim fails, too, where the bucket does.
            _log.warning("the contents of asset ids could not be compared", exc_info=True)
            return []
        return warnings
