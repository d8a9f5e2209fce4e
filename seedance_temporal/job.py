"""The shapes of a job: its state, its result and its error. The command line's ``--json`` prints the same."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

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
"""What an operator must settle; the job cannot go on by itself, or money or a video is in danger."""


class Shape(BaseModel):
    """A shape that crosses Temporal. Unknown fields are ignored, so that an older reader understands a newer writer."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)


class VideoResult(Shape):
    """A stored video: where it is, how to check it, and what it cost.

    Attributes:
        video_uri: ``gs://…/output.mp4``.
        size: Bytes.
        crc32c: Base64, as Google Cloud Storage gives it.
        md5: Base64 as well.
        last_frame_uri: ``gs://…``, where it was asked for.
        record_uri: ``gs://…/record.json``, the account of the whole job.
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
    """Why a job ended without a video.

    Attributes:
        code: The provider's own code, or ours in snake case.
        message: A sentence: what happened, and the free next step.
        failure_class: ``class`` in JSON.
        attempt: The attempt that counts; None where nothing was claimed, so that submitting again starts anew.
        resubmit_could_help: Whether another paid attempt has a chance.
    """

    code: str
    message: str
    failure_class: FailureClass = Field(alias="class")
    task_id: str | None = None
    attempt: int | None = None
    resubmit_could_help: bool = False


def phase_of(error: JobError) -> Phase:
    """The phase of a run that ended with this error."""
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


class TimelineEntry(Shape):
    """What happened to a job, when, and how it was learned.

    Attributes:
        at: When it was seen.
        what: What happened, in a few words.
        how: How it was learned: ``ledger``, ``create``, ``callback``, ``poll``, ``list``, ``operator``, ``caller``.
        note: More, where there is more to say.
        times: How often the same was seen in a row.
    """

    at: AwareDatetime
    what: str
    how: str
    note: str | None = None
    times: int = 1


class JobDetail(Shape):
    """The part of a job's state that only its workflow knows.

    Attributes:
        provider_status: The status that the provider last gave, as it wrote it.
        next_poll_at: When the provider is asked next, if no callback comes first.
        advice: What an operator should do about the Attention.
        warnings: What is allowed, and still likely to disappoint, in sentences.
        timeline: What happened so far.
    """

    request: VideoRequest
    provider_status: str | None = None
    next_poll_at: AwareDatetime | None = None
    advice: str | None = None
    warnings: tuple[str, ...] = ()
    timeline: tuple[TimelineEntry, ...] = ()


class JobState(Shape):
    """A job at one moment; absent values are None.

    Attributes:
        attention: What an operator must settle, if anything.
        attempt: The paid attempt that the job is about.
        result: Where a video is stored; None in lists.
        error: Where the job ended without one; None in lists.
        user, model: None until a worker has begun with it, or where the namespace lacks the search attributes.
        started_at, closed_at: Of the newest run, in UTC; ``closed_at`` is None while it goes on.
        tokens, cost_usd: What its task was billed with, in the provider's tokens and in USD by the price table; None
            where nothing was billed, or it is not known.
        estimated_tokens, estimated_usd: The most that an attempt should cost; None where that is not known.
        detail: None in lists, and where no worker answered.
    """

    job_id: str
    request_hash: str
    phase: Phase
    attention: Attention | None = None
    task_id: str | None = None
    attempt: int | None = None
    result: VideoResult | None = None
    error: JobError | None = None
    user: str | None = None
    route: str
    model: str | None = None
    started_at: AwareDatetime
    closed_at: AwareDatetime | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    estimated_tokens: int | None = None
    estimated_usd: float | None = None
    detail: JobDetail | None = None

    @property
    def ended(self) -> bool:
        """Whether the job has a result or an error."""
        return self.result is not None or self.error is not None
