"""Looks at reference media before a claim: what cannot succeed is refused while it costs nothing.

The provider downloads them during the paid create. So they are downloaded here first, as it would: by a plain GET,
without credentials. The URLs are a user's word, and the files may be anything.
"""

from __future__ import annotations

import logging

from pydantic import BaseModel, ConfigDict
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.heartbeat import heartbeats
from seedance_temporal.job import JobError
from seedance_temporal.ledger.asset_ids import Assets
from seedance_temporal.ledger.facts import nothing_sent
from seedance_temporal.media.references import References, joined
from seedance_temporal.reference_media import Medium, media_warnings
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.storage.signing import CannotSign
from seedance_temporal.urls import redacted

_log = logging.getLogger(__name__)


class ReferencesInput(BaseModel):
    model_config = ConfigDict(frozen=True)

    job_id: str
    request: VideoRequest


class ReferencesResult(BaseModel):
    """What the references are; or, as ``error``, why nothing can be created with them."""

    model_config = ConfigDict(frozen=True)

    media: tuple[Medium, ...] = ()
    warnings: tuple[str, ...] = ()
    error: JobError | None = None


class ReferenceActivities:
    """Checks reference media for the workflow.

    Args:
        references: Looks at them.
        assets: What asset ids have stood for.
        settings: Hosts that need not be public, and the models behind endpoints.
    """

    def __init__(self, references: References, assets: Assets, settings: Settings) -> None:
        self._references = references
        self._assets = assets
        self._settings = settings

    @activity.defn
    async def check_references(self, input: ReferencesInput) -> ReferencesResult:
        """Looks at all references of a job that is about to be paid for.

        Raises:
            ApplicationError: ``ReferencesUnreachable``: one could not be had now, and nothing is known against any.
                ``ReferencesFailed``: anything else, such as a full disk. To be repeated.
        """
        request = input.request
        if problems := self._settings.rules.check(request):
            return ReferencesResult(error=nothing_sent("invalid_request", joined(problems)))
        try:
            async with heartbeats(lambda: {"references": len(request.references)}):
                findings = await self._references.examine(request)
        except CannotSign as error:
            return ReferencesResult(error=nothing_sent("cannot_sign", str(error)))
        except Exception as error:
            # The texts of other libraries are full of URLs.
            raise ApplicationError(
                f"{input.job_id}: looking at its references broke: {redacted(repr(error))}", type="ReferencesFailed"
            ) from None
        if findings.problems:
            advice = "Mend or replace what is named, and submit the request again."
            message = f"{joined([*findings.problems, *findings.passing])}. {advice}"
            return ReferencesResult(media=findings.media, error=nothing_sent("invalid_references", message))
        if findings.passing:
            raise ApplicationError(f"{input.job_id}: {joined(findings.passing)}", type="ReferencesUnreachable")
        return ReferencesResult(
            media=findings.media,
            warnings=(*media_warnings(findings.media), *await self._reuse(request, findings.media)),
        )

    async def _reuse(self, request: VideoRequest, media: tuple[Medium, ...]) -> list[str]:
        try:
            warnings = await self._assets.warnings(request, media)
            await self._assets.note(request, media)
        except Exception:
            # No job waits for this: whatever ails the bucket, the claim finds it, too.
            _log.warning("what asset ids stand for could not be compared", exc_info=True)
            return []
        return warnings
