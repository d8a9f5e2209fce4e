"""The audit of a job, as the command line's ``audit --json`` prints it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel

from seedance_temporal.events import Event, EventSource
from seedance_temporal.job import Attention, JobError, Phase, VideoResult
from seedance_temporal.provider.billing import Charge
from seedance_temporal.storage.bucket import StoredObject

Source = Literal["temporal", "record", "end", "outcome", "ledger"]
"""The origin of the newest part of the timeline: the run's history, the object that holds it, or, without either, the
facts of the ledger."""


class Step(Event):
    """An event of the timeline. ``after``: seconds since the event before it."""

    after: float = 0


class AuditedAttempt(BaseModel, frozen=True):
    """An attempt: its claim, its outcome, its end, and its charge.

    Attributes:
        claimed_at, namespace, run_id: When it was claimed, and by which Temporal run.
        outcome: ``unknown`` until it is settled.
        known_by: The source of the outcome: ``create``, ``callback``, ``list`` or ``operator``.
        message: The provider's message, or the reason nothing was sent.
        task_ids: All its tasks, the one to follow first.
        accepted_without_id: The provider accepted the create, and its answer showed no task id.
        error: The reason it ended without a video.
        asked_again_at: When another attempt was requested after it.
        asked_again_by: ``caller``, or ``setting`` for automatic resubmits.
        create_seconds: From the claim to its outcome.
        task_seconds: From there until the end of the task was seen.
        copy_seconds: From there until the record was written.
    """

    attempt: int
    claimed_at: AwareDatetime | None = None
    namespace: str | None = None
    run_id: str | None = None
    outcome: Literal["created", "refused", "not_sent", "absent", "accepted_without_id", "unknown"] = "unknown"
    known_by: EventSource | None = None
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


class Finding(BaseModel, frozen=True):
    """The problems that ``--verify`` finds in an object, or in a missing one; without problems it is unchanged."""

    name: str
    problems: tuple[str, ...] = ()


class HistoryEvent(BaseModel, frozen=True):
    """An event of Temporal's own history. ``summary``: the activity, signal or timer, its summary, and its failure."""

    id: int
    at: AwareDatetime
    type: str
    summary: str = ""


class RunHistory(BaseModel, frozen=True):
    """A run of the job, as long as Temporal keeps it."""

    run_id: str
    status: str
    started_at: AwareDatetime
    closed_at: AwareDatetime | None = None
    events: tuple[HistoryEvent, ...] = ()


class Audit(BaseModel, frozen=True):
    """A job: its timeline, its attempts, its charge, and its objects.

    Attributes:
        source: The origin of the timeline. The rest is the same from any source.
        missing: Sources that could not be read, and their consequences, in sentences.
        phase: None where neither Temporal nor an object says it.
        advice: What an operator should do about the Attention.
        result, error: How it ended; both None while it is open.
        seconds: From the submission to the end.
        timeline: All events, in the order of time.
        polls: How often the provider gave the status of a task.
        callbacks: How many callbacks came.
        charge: Of all attempts together.
        objects: All objects in the bucket, in the order of their names; ``size`` is bytes, checksums are base64.
        request: As it was submitted, without absent fields.
        rights: The request's declaration about the people shown.
        media: The reference media, as they were before the create.
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
    timeline: tuple[Step, ...] = ()
    polls: int = 0
    callbacks: int = 0
    attempts: tuple[AuditedAttempt, ...] = ()
    charge: Charge = Charge()
    objects: tuple[StoredObject, ...] = ()
    warnings: tuple[str, ...] = ()
    request: dict[str, Any] = {}
    rights: dict[str, Any] = {}
    media: tuple[dict[str, Any], ...] = ()
    verification: tuple[Finding, ...] | None = None
    history: tuple[RunHistory, ...] | None = None
