"""The audit of a job: its whole life in one document, the one that ``starter.py audit --json`` prints."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from seedance_temporal.job import Attention, JobError, Phase, TimelineEntry, VideoResult

Source = Literal["temporal", "record", "end", "outcome", "ledger"]
"""Where the newest part of the story was read: the run's history, the object that holds it, or, without either, the
bare facts of the ledger."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Step(TimelineEntry):
    """What happened, when, and how it was learned. ``after``: seconds since the step before it."""

    after: float = 0


class Charge(_Part):
    """What was expected to be paid, and what was.

    Attributes:
        estimated_tokens, estimated_usd: The most that was expected before the create; None where unknown.
        tokens, usd: As the provider counted, and by the price table; None where nobody has seen it, or it is open.
        billed: None where that is not known, or still open.
    """

    estimated_tokens: int | None = None
    estimated_usd: float | None = None
    tokens: int | None = None
    usd: float | None = None
    billed: bool | None = None


class AuditedAttempt(_Part):
    """One claim, and what came of it.

    Attributes:
        claimed_at, namespace, run_id: When it was claimed, and by which Temporal run.
        outcome: ``unknown`` until it is settled.
        known_by: How the outcome is known: ``create``, ``callback``, ``list`` or ``operator``.
        message: The provider's words, or why nothing was sent.
        task_ids: All tasks that came of it, the one to follow first.
        accepted_without_id: The provider took the create, and its answer showed no task id.
        error: How it ended without a video.
        asked_again_at: When another attempt was asked for after it, and ``asked_again_by`` whom: the ``caller``, or
            the ``setting`` for automatic resubmits.
        create_seconds: From the claim to its outcome.
        task_seconds: From there until the task's end was seen.
        copy_seconds: From there until the record was written.
    """

    attempt: int
    claimed_at: AwareDatetime | None = None
    namespace: str | None = None
    run_id: str | None = None
    outcome: Literal["created", "refused", "not_sent", "absent", "accepted_without_id", "unknown"] = "unknown"
    known_by: str | None = None
    outcome_at: AwareDatetime | None = None
    message: str = ""
    task_ids: tuple[str, ...] = ()
    accepted_without_id: bool = False
    error: JobError | None = None
    ended_at: AwareDatetime | None = None
    asked_again_at: AwareDatetime | None = None
    asked_again_by: Literal["caller", "setting"] | None = None
    accepted_second_charge: bool = False
    create_seconds: float | None = None
    task_seconds: float | None = None
    copy_seconds: float | None = None
    charge: Charge = Charge()


class AuditedObject(_Part):
    """An object as the bucket shows it. ``size`` is bytes; checksums are base64."""

    name: str
    generation: int
    size: int
    crc32c: str
    md5: str | None = None
    created_at: AwareDatetime


class Finding(_Part):
    """What ``--verify`` says of an object, or of what should be one; without problems it is as it was written."""

    name: str
    problems: tuple[str, ...] = ()


class Event(_Part):
    """An event of Temporal's own history. ``what``: the activity or timer, and its summary."""

    id: int
    at: AwareDatetime
    type: str
    what: str = ""


class RunHistory(_Part):
    """A run of the job, as long as Temporal keeps it."""

    run_id: str
    status: str
    started_at: AwareDatetime
    closed_at: AwareDatetime | None = None
    events: tuple[Event, ...] = ()


class Audit(_Part):
    """The whole life of a job.

    Attributes:
        source: Where the story was read. The rest is the same from any source.
        missing: What could not be asked, and what is not shown for that, in sentences.
        phase: None where neither Temporal nor an object says it.
        advice: What a person should do about the Attention.
        result, error: How it ended; both None while it goes on.
        seconds: From the submission to the end.
        steps: What happened, in the order of time.
        looks: How often the provider was asked for the task.
        callbacks: How many callbacks came.
        charge: Of all attempts together.
        objects: All that stand in the bucket, in the order of their names.
        request: As it was submitted; what was not given is left out.
        rights: What the request declares about the people who are shown.
        media: What was found in the reference media before the create.
        verification: With ``--verify``: one finding for each object.
        history: With ``--history``: the runs that Temporal still has, the oldest first.
    """

    job_id: str
    request_hash: str
    source: Source
    missing: tuple[str, ...] = ()
    phase: Phase | None = None
    attention: Attention | None = None
    advice: str | None = None
    result: VideoResult | None = None
    error: JobError | None = None
    submitted_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    seconds: float | None = None
    steps: tuple[Step, ...] = ()
    looks: int = 0
    callbacks: int = 0
    attempts: tuple[AuditedAttempt, ...] = ()
    charge: Charge = Charge()
    objects: tuple[AuditedObject, ...] = ()
    warnings: tuple[str, ...] = ()
    request: dict[str, Any] = {}
    rights: dict[str, Any] = {}
    media: tuple[dict[str, Any], ...] = ()
    verification: tuple[Finding, ...] | None = None
    history: tuple[RunHistory, ...] | None = None
