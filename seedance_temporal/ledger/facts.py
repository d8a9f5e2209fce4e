"""The facts that the attempt ledger holds of a job. Nothing in here does I/O.

A claim comes before each POST, an outcome after it. An attempt counts where a task exists, or may exist. A new claim is
allowed where every attempt that counts has ended, and a resubmit was granted after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from seedance_temporal.events import EventSource, Timeline
from seedance_temporal.identity import safety_identifier
from seedance_temporal.job import JobError, Moment, Shape, VideoResult
from seedance_temporal.ledger.record import RecordedObject
from seedance_temporal.provider.refusals import advice_on, can_pass, is_closed_model
from seedance_temporal.provider.task import PROVIDER_FORGETS_AFTER, FailureClass, Usage
from seedance_temporal.reference_media import Medium
from seedance_temporal.request import Reference, Rights, VideoRequest

# LIST can prove that a create made no task for so long: a day is left for clocks and slow listings.
ABSENCE_PROVABLE_WITHIN = PROVIDER_FORGETS_AFTER - timedelta(days=1)


class Fact(Shape):
    """An object of the ledger."""


def _known_fields(request: object) -> object:
    """Leave out what a newer worker's request has more: nobody pays by this one, and the task must be followed."""
    if not isinstance(request, Mapping):
        return request
    known = _of(VideoRequest, request)
    rights, references = known.get("rights"), known.get("references")
    if isinstance(rights, Mapping):
        known["rights"] = _of(Rights, rights)
    if isinstance(references, Sequence):
        known["references"] = [_of(Reference, each) if isinstance(each, Mapping) else each for each in references]
    return known


def _of(model: type[BaseModel], given: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in given.items() if name in model.model_fields}


class Claim(Fact):
    """The permission to send one paid POST, written before it.

    Attributes:
        nonce: 32 hex digits, drawn by the one activity execution that may send; part of the safety identifier.
        key: Fingerprint of the API key that the POST is sent with; empty in claims of older workers.
        namespace, run_id: The Temporal run that claimed.
        submitted_at: The start of that run.
        estimated_tokens, estimated_usd, estimated_cny: The most that the attempt should cost; None where that is not
            known.
        warnings: The job's warnings, in sentences.
        media: The properties of the references, as the check before the claim found them.
        search_seconds: How long the worker that sends it would search for its task: the POST can still be under way. 0
            in claims of older workers.
        reserved: The quota entry that allows its create, such as ``2026-11-22/000001``; empty where nothing is counted.
    """

    job_id: str
    attempt: int
    nonce: str
    namespace: str
    run_id: str
    claimed_at: Moment
    request: Annotated[VideoRequest, BeforeValidator(_known_fields)]
    submitted_at: Moment | None = None
    estimated_tokens: int | None = None
    estimated_usd: float | None = None
    estimated_cny: float | None = None
    warnings: tuple[str, ...] = ()
    media: tuple[Medium, ...] = ()
    key: str = ""
    search_seconds: float = 0
    reserved: str = ""

    @property
    def safety_identifier(self) -> str:
        return safety_identifier(self.request.user_id, self.nonce)


class Provenance(Fact):
    """A fact that says who wrote it, after which events, and which objects existed before it.

    Attributes:
        namespace, run_id: The Temporal run that wrote it.
        timeline: The events of that run so far.
        ledger: The objects that the job had when it was written.
    """

    namespace: str = ""
    run_id: str = ""
    timeline: Timeline = ()
    ledger: tuple[RecordedObject, ...] = ()


class Outcome(Provenance):
    """The outcome of a claim, decided once.

    Attributes:
        kind: ``created`` with a task id; ``refused``; ``not_sent`` and ``absent``: no task exists;
            ``accepted_without_id``: a task exists, its id is not known. The outcome stays open, so that is noted in
            an object of its own.
        source: ``create``, ``callback``, ``list`` or ``operator``.
    """

    kind: Literal["created", "refused", "not_sent", "absent", "accepted_without_id"]
    source: EventSource
    at: Moment
    task_id: str | None = None
    code: str = ""
    message: str = ""
    failure_class: FailureClass | None = None


class End(Provenance):
    """A task ended without a video. ``source``: ``poll``, ``callback``, ``copy`` or ``operator``."""

    error: JobError
    at: Moment
    source: EventSource = "ledger"
    usage: Usage | None = None
    cost_usd: float | None = None
    cost_cny: float | None = None


class Listing(Fact):
    """The evidence about one attempt in a listing of the account's tasks, or why there is no listing.

    Attributes:
        began_at: When its reading began; with ``problem`` when it began to fail.
        complete: Whether it showed as many tasks as there were when it began.
        task_id: The task that shows the attempt's identifier.
        unmarked: Whether it showed a task without an identifier that could be the attempt's.
        key: Fingerprint of the API key that read it; empty where its pages were read with different keys.
        is_blind: Whether it was of one model's tasks, and showed none of ours: its key may not see that model's tasks.
        problem: The last failure of LIST, where it keeps failing; the listing then shows nothing.
    """

    attempt: int
    safety_identifier: str
    began_at: Moment
    complete: bool
    task_id: str | None
    unmarked: bool
    key: str = ""
    is_blind: bool = False
    problem: str = ""


class ResubmitGrant(Fact):
    """The permission for another attempt after this one; ``automatic``: a setting gave it, not a caller."""

    accept_second_charge: bool
    at: Moment
    automatic: bool = False


class ActualCost(Fact):
    """The cost of the create that a quota entry allowed, in USD: 0 where nothing is billed. ``at``: of its writing."""

    usd: float = Field(ge=0)
    at: Moment


@dataclass(frozen=True)
class Attempt:
    """All facts about one attempt.

    Attributes:
        claimed_at: The claim object's own creation time.
        accepted_without_id: Whether the provider accepted the create, and the task id could not be read.
        late: The ids of tasks that became known after another outcome.
        ends: How its tasks ended without a video, each task once; or one that names no task: it was given up.
    """

    number: int
    claim: Claim | None = None
    claimed_at: datetime | None = None
    outcome: Outcome | None = None
    accepted_without_id: bool = False
    late: tuple[str, ...] = ()
    ends: tuple[End, ...] = ()
    resubmit_grant: ResubmitGrant | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The ids of all its known tasks, the one to follow first."""
        created = (self.outcome.task_id,) if self.outcome is not None and self.outcome.task_id else ()
        return tuple(dict.fromkeys((*created, *self.late)))

    @property
    def live(self) -> tuple[str, ...]:
        """The ids of its tasks that are not known to have ended, the one to follow first.

        An end that names no task (the attempt was given up) does not end a task that became known after it.
        """
        return tuple(task_id for task_id in self.tasks if self.end_of(task_id) is None)

    def end_of(self, task_id: str) -> End | None:
        """Return how a task ended without a video; None where no such end is known."""
        return next((end for end in self.ends if end.error.task_id == task_id), None)

    @property
    def end(self) -> End | None:
        """The end that counts. One that names a task comes first, then one of a paid task, then the newest."""

        def weight(end: End) -> tuple[bool, bool, datetime]:
            return end.error.task_id is not None, end.error.failure_class == "lost", end.at

        return max(self.ends, key=weight, default=None)

    @property
    def counts(self) -> bool:
        """Whether a task of this attempt exists, or may exist."""
        return self.accepted_without_id or bool(self.tasks) or self.outcome is None

    @property
    def error(self) -> JobError | None:
        """How it ended without a video; None where it did not, or not for good."""
        if self.live:
            return None
        if self.end is not None:
            return self.end.error
        if not self.counts and self.outcome is not None and self.outcome.kind == "refused":
            return refusal(self.number, self.outcome)
        return None

    @property
    def unknown(self) -> bool:
        """Whether a task may exist that nobody knows of."""
        return self.counts and not self.tasks and self.error is None

    @property
    def allows_another(self) -> bool:
        """Whether a new attempt may be claimed, as far as this one is concerned."""
        if self.error is None:
            return not self.counts
        return self.resubmit_grant is not None


@dataclass(frozen=True)
class Facts:
    """All facts of one job.

    Attributes:
        identifiers_listed: Whether LIST has once shown an identifier of ours under the key of each open attempt.
        objects: All objects of the job, as the bucket lists them.
        stored_at: When the record was written, where it says so.
    """

    record: VideoResult | None
    attempts: tuple[Attempt, ...]
    identifiers_listed: bool = False
    objects: tuple[RecordedObject, ...] = ()
    stored_at: datetime | None = None

    def attempt(self, number: int) -> Attempt | None:
        return next((attempt for attempt in self.attempts if attempt.number == number), None)

    @property
    def may_have_tasks(self) -> tuple[int, ...]:
        """The attempts of which a task can turn up."""
        absent = (a.number for a in self.attempts if a.outcome is not None and a.outcome.kind == "absent")
        return tuple(sorted({*(a.number for a in self.attempts if a.counts), *absent}))

    def without(self, number: int) -> Facts:
        return replace(self, attempts=tuple(attempt for attempt in self.attempts if attempt.number != number))


NOTHING_SENT = "Nothing was sent, and nothing is billed."


def nothing_sent(code: str, message: str) -> JobError:
    """Return the error of a job that ends before any claim; the same request can then be submitted again."""
    return JobError(code=code, message=f"{NOTHING_SENT} {message}", failure_class="invalid")


def refusal(attempt: int, outcome: Outcome) -> JobError:
    """Return the error of an attempt that the provider refused."""
    reason = f"({outcome.code}): {outcome.message}".rstrip(" .:")
    passing, closed = can_pass(outcome.code, outcome.message), is_closed_model(outcome.code)
    next_step = "Submit a request that is changed accordingly."
    if passing:
        next_step = f"It can pass later: a resubmit of attempt {attempt} is free."
    elif closed:
        next_step = (
            "See in the provider's console that the account has opened the model, and that the key may use it: "
            f"then a resubmit of attempt {attempt} is free. For another model, submit another request."
        )
    advice = advice_on(outcome.code, outcome.message)
    sentences = [
        f"The provider refused the request {reason}.",
        "No task was created, and nothing is billed.",
        *([advice] if advice else []),
        next_step,
    ]
    return JobError(
        code=outcome.code,
        message=" ".join(sentences),
        failure_class=outcome.failure_class or "invalid",
        attempt=attempt,
        resubmit_could_help=passing or closed,
    )
