"""What callers see of a job, and the names by which they reach it.

The shapes are those of ``starter.py --json``; the names are the workflow's contract with backends and relays in
any language.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from temporalio.common import SearchAttributeKey

from seedance_temporal.provider.task import FailureClass, Usage
from seedance_temporal.request import VideoRequest

WORKFLOW = "GenerateVideo"
SIGNAL_TASK_CHANGED = "task_changed"
SIGNAL_LISTED = "listed"
UPDATE_CANCEL = "cancel"
UPDATE_RESOLVE = "resolve"
QUERY_STATE = "state"

LISTER = "ListTasks"
SIGNAL_WANTED = "wanted"

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


class Queues:
    """The task queues of a route. One worker process serves all of them."""

    def __init__(self, route: str) -> None:
        self.workflows = f"seedance-{route}"
        self.create = f"seedance-{route}-create"
        self.get = f"seedance-{route}-get"
        self.list = f"seedance-{route}-list"
        self.transfer = f"seedance-{route}-transfer"


def lister_id(route: str) -> str:
    """The workflow id of the one lister of a route."""
    return f"seedance-lister-{route}"


SEEDANCE_USER = SearchAttributeKey.for_keyword("SeedanceUser")
SEEDANCE_ROUTE = SearchAttributeKey.for_keyword("SeedanceRoute")
SEEDANCE_MODEL = SearchAttributeKey.for_keyword("SeedanceModel")
SEEDANCE_PHASE = SearchAttributeKey.for_keyword("SeedancePhase")
SEEDANCE_TASK_ID = SearchAttributeKey.for_keyword("SeedanceTaskId")
SEEDANCE_ATTENTION = SearchAttributeKey.for_keyword("SeedanceAttention")
SEEDANCE_TOKENS = SearchAttributeKey.for_int("SeedanceTokens")
SEEDANCE_COST_USD = SearchAttributeKey.for_float("SeedanceCostUsd")

SEARCH_ATTRIBUTES: tuple[SearchAttributeKey[str] | SearchAttributeKey[int] | SearchAttributeKey[float], ...] = (
    SEEDANCE_USER,
    SEEDANCE_ROUTE,
    SEEDANCE_MODEL,
    SEEDANCE_PHASE,
    SEEDANCE_TASK_ID,
    SEEDANCE_ATTENTION,
    SEEDANCE_TOKENS,
    SEEDANCE_COST_USD,
)

MEMO_ATTEMPT = "attempt"
MEMO_ESTIMATED_TOKENS = "estimated_tokens"
MEMO_ESTIMATED_USD = "estimated_usd"
"""What a list shows of a run besides the search attributes; nothing can be filtered by it."""


class _Shape(BaseModel):
    """A shape that crosses Temporal. Unknown fields are ignored, so that an older reader understands a newer writer."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)


class VideoResult(_Shape):
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


class JobError(_Shape):
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


class TimelineEntry(_Shape):
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


class Job(_Shape):
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


class Resubmit(_Shape):
    """The wish for another attempt, which names the attempt that it answers: a second click changes nothing."""

    attempt: int
    accept_second_charge: bool = False


class Carried(_Shape):
    """What goes from one run to the next at continue-as-new; all else stands in the ledger."""

    timeline: tuple[TimelineEntry, ...] = ()
    cancel_wished: bool = False


class GenerateVideoInput(_Shape):
    """The workflow's argument.

    Attributes:
        request: What to generate.
        resubmit: Another attempt, on purpose.
        may_create: With False, a run that would have to claim ends ``unsettled`` instead.
        carried: For continue-as-new only.
    """

    request: VideoRequest
    resubmit: Resubmit | None = None
    may_create: bool = True
    carried: Carried | None = None


class TaskChanged(_Shape):
    """The signal's payload: a hint that a task changed. Nothing in it is believed."""

    task_id: str
    status: str
    attempt: int


CancelOutcome = Literal["cancelled", "running_will_finish", "requested", "already_closed"]


class CancelAnswer(_Shape):
    """What became of the wish to cancel."""

    outcome: CancelOutcome


class Resolve(_Shape):
    """An operator's word on an attempt whose outcome is unknown."""

    attempt: int
    action: Literal["adopt", "not_created", "lost"]
    task_id: str | None = None


class ResolveAnswer(_Shape):
    """Whether the ledger took the operator's word, and why not."""

    accepted: bool
    message: str
