"""The shapes of a job: its state, its result and its error. The command line's ``--json`` prints the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from seedance_temporal.events import Timeline
from seedance_temporal.provider.task import FailureClass, Usage
from seedance_temporal.request import VideoRequest

Phase = Literal[
    "checking",
    "waiting",
    "creating",
    "recovering",
    "queued",
    "running",
    "storing",
    "stored",
    "refused",
    "failed",
    "expired",
    "cancelled",
    "lost",
]

Attention = Literal[
    "unknown_create",
    "second_task",
    "account",
    "credentials",
    "task_gone",
    "video_at_risk",
    "storage",
    "provider",
    "object_conflict",
    "ledger_damaged",
    "references",
    "places",
]
"""The reason a job needs an operator: it cannot continue by itself, or money or a video is in danger."""


def _in_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("there is no such time in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A point in time, in UTC."""


class Shape(BaseModel, frozen=True, validate_by_name=True, validate_by_alias=True, allow_inf_nan=False):
    """A value that crosses Temporal, or is stored. Unknown fields are ignored: an older reader meets newer writers."""


class VideoResult(Shape):
    """A stored video: its objects, their checksums, and its cost.

    Attributes:
        video_uri: ``gs://…/output.mp4``.
        size: Bytes.
        crc32c: Base64, as Google Cloud Storage gives it.
        md5: Base64 as well.
        last_frame_uri: ``gs://…``; None where none was requested.
        record_uri: ``gs://…/record.json``, the record of the whole job.
        duration: Seconds, as the provider says; after an edit it can be a fraction.
        cost_usd, cost_cny: By the price table, in the currency that the route bills; None where that is not known.
    """

    video_uri: str
    size: int
    crc32c: str
    md5: str | None
    last_frame_uri: str | None
    record_uri: str
    task_id: str
    usage: Usage | None
    seed: int | None
    ratio: str | None
    resolution: str | None
    duration: int | float | None
    generate_audio: bool | None
    cost_usd: float | None
    cost_cny: float | None = None


class JobError(Shape):
    """The reason a job ended without a video.

    Attributes:
        code: The provider's own code, or ours in snake case.
        message: The reason, and the next step that costs nothing, in sentences.
        failure_class: ``class`` in JSON.
        attempt: The attempt that ended the job; None where nothing was claimed: submitting again starts over.
        resubmit_could_help: Whether another paid attempt could succeed.
    """

    code: str
    message: str
    failure_class: FailureClass = Field(alias="class")
    task_id: str | None = None
    attempt: int | None = None
    resubmit_could_help: bool = False

    @property
    def summary(self) -> str:
        """The code and the class."""
        return f"{self.code} ({self.failure_class})"


def phase_of(error: JobError) -> Phase:
    """Return the phase of a job that ended with this error."""
    match error.failure_class:
        case "moderation" | "invalid":
            # Without a task the provider refused the create itself; with one, it took the request and failed later.
            return "refused" if error.task_id is None and error.attempt is not None else "failed"
        case "provider":
            return "failed"
        case "unsettled":
            return "checking"
        case end:
            return end


class JobDetail(Shape):
    """The part of a job's state that only its workflow knows.

    Attributes:
        provider_status: The provider's last status, verbatim.
        waits_for: The budget, or the place at the provider, that a waiting job waits for, in a sentence.
        continues_at: When a waiting run goes on by itself, with the next poll, listing or create.
        advice: What an operator should do about the Attention.
        warnings: Properties of the request that are allowed and likely to disappoint, in sentences.
        timeline: The first and the newest events of the job.
    """

    request: VideoRequest
    provider_status: str | None = None
    waits_for: str | None = None
    continues_at: AwareDatetime | None = None
    advice: str | None = None
    warnings: tuple[str, ...] = ()
    timeline: Timeline = ()


class JobState(Shape):
    """A job at one moment; absent values are None.

    Attributes:
        phase, attention: Of a newer worker, they can be words that this release does not know.
        attention: The reason the job needs an operator; None where it needs none.
        attempt: The paid attempt that the job is about.
        result: Where a video is stored; None in lists.
        error: Where the job ended without one; None in lists.
        user, model: None until a worker has begun with it, or where the namespace lacks the search attributes.
        expected_at: When the provider should have the video: an estimate, by how long tasks of the same shape took.
            None where too little is known, and where no task is waited for. Polls renew it; lists show that of the
            create.
        started_at, closed_at: Of the newest run, in UTC, with those that it was continued from; ``closed_at`` is None
            while it goes on.
        tokens, cost_usd, cost_cny: What its task was billed with, in the provider's tokens, and by the price table in
            the currency of the route; None where nothing was billed, or it is not known.
        estimated_tokens, estimated_usd, estimated_cny: The most that an attempt should cost; None where that is not
            known.
        detail: None in lists, and where no worker answered.
    """

    job_id: str
    request_hash: str
    phase: Phase | str
    attention: Attention | str | None = None
    task_id: str | None = None
    attempt: int | None = None
    result: VideoResult | None = None
    error: JobError | None = None
    user: str | None = None
    route: str
    model: str | None = None
    started_at: AwareDatetime
    closed_at: AwareDatetime | None = None
    expected_at: AwareDatetime | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    cost_cny: float | None = None
    estimated_tokens: int | None = None
    estimated_usd: float | None = None
    estimated_cny: float | None = None
    detail: JobDetail | None = None

    @property
    def ended(self) -> bool:
        """Whether the job has a result or an error."""
        return self.result is not None or self.error is not None
