"""A job as callers see it. The command line's ``--json`` prints the same shapes."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

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
]
"""The reason a job needs an operator: it cannot continue by itself, or money or a video is in danger."""


class Shape(BaseModel):
    """A value that crosses Temporal. Unknown fields are ignored, so that an older reader understands a newer writer."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)


class VideoResult(Shape):
    """A stored video: its objects, their checksums, and its cost.

    Attributes:
        video_uri: ``gs://…/output.mp4``.
        size: Bytes.
        crc32c: Base64, as Google Cloud Storage gives it.
        md5: Base64 as well.
        last_frame_uri: ``gs://…``; None where none was requested.
        record_uri: ``gs://…/record.json``, the record of the whole job.
        cost_usd: By the price table; None where the price is not known.
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
    duration: int | None
    generate_audio: bool | None
    cost_usd: float | None


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


class Job(Shape):
    """A job as callers see it; absent values are None."""

    job_id: str
    request_hash: str
    phase: Phase
    attention: Attention | None = None
    task_id: str | None = None
    attempt: int | None = None
    result: VideoResult | None = None
    error: JobError | None = None


class JobSummary(Job):
    """A job as Temporal's visibility store shows one of its runs: no worker is needed; result and error are absent.

    Attributes:
        user, model: None until a worker has begun with it, or where the namespace lacks the search attributes.
        started_at, closed_at: Of the run; closed_at is None while it is open.
        tokens, cost_usd: Billed for its task; None where nothing is billed, or the amount is not known.
        estimated_tokens, estimated_usd: The most that an attempt should cost; None where that is not known.
    """

    user: str | None = None
    route: str
    model: str | None = None
    started_at: AwareDatetime
    closed_at: AwareDatetime | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    estimated_tokens: int | None = None
    estimated_usd: float | None = None


class Submitted(Job):
    """The answer to a submission.

    Attributes:
        existing: Whether Temporal knew the job before.
    """

    existing: bool


class JobState(Job):
    """The answer to the ``state`` query: a job with its timeline.

    Attributes:
        provider_status: The provider's last status, verbatim.
        look_again_at: When the provider is polled next, if no callback comes first.
        advice: What an operator should do about the Attention.
        estimated_tokens, estimated_usd: The most that an attempt should cost; None where that is not known.
        warnings: Properties of the request that are allowed and likely to disappoint, in sentences.
        timeline: The first and the newest events of the job.
    """

    request: VideoRequest
    provider_status: str | None = None
    look_again_at: AwareDatetime | None = None
    advice: str | None = None
    estimated_tokens: int | None = None
    estimated_usd: float | None = None
    warnings: tuple[str, ...] = ()
    timeline: Timeline = ()
