"""What callers see of a job, and the names by which they reach it.

The shapes are those of ``starter.py --json``; the names are the workflow's contract with backends and relays in
any language.
"""

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
"""What a person must settle; the job cannot go on by itself, or money or a video is in danger."""


"""What a list shows of a run besides the search attributes; nothing can be filtered by it."""


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
    """What Temporal itself knows of a job by one of its runs, without any worker, and without result and error.

    Attributes:
        user, model: None until a worker has begun with it, or where the namespace lacks the search attributes.
        started_at, closed_at: Of the run; closed_at is None while it goes on.
        tokens, cost_usd: What its task was billed with; None where nothing was billed, or nobody has seen it.
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
    """The answer to the ``state`` query: a job with its story so far.

    Attributes:
        provider_status: What the provider last said, in its own words.
        look_again_at: When the provider is asked next, if no callback comes first.
        advice: What a person should do about the Attention.
        estimated_tokens, estimated_usd: The most that an attempt should cost; None where that is not known.
        warnings: What is allowed, and still likely to disappoint, in sentences.
    """

    request: VideoRequest
    provider_status: str | None = None
    look_again_at: AwareDatetime | None = None
    advice: str | None = None
    estimated_tokens: int | None = None
    estimated_usd: float | None = None
    warnings: tuple[str, ...] = ()
    timeline: tuple[TimelineEntry, ...] = ()
