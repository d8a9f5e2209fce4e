"""What the attempt ledger knows of a job, and what follows from it. Nothing in here does I/O.

A claim comes before each POST, an outcome after it. An attempt counts where a task exists, or may exist; a new claim is
allowed where every attempt that counts has ended, and somebody asked for another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from seedance_temporal.identity import safety_identifier
from seedance_temporal.job import JobError, TimelineEntry, VideoResult
from seedance_temporal.ledger.record import RecordedObject
from seedance_temporal.provider.task import FailureClass, Usage
from seedance_temporal.reference_media import Medium
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings

# The provider forgets a task after seven days; a day is left for clocks and slow listings.
_FORGOTTEN_AFTER = timedelta(days=6)


class Fact(BaseModel):
    """An object of the ledger. Unknown fields are ignored, so that an older worker reads what a newer one wrote."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)


class Claim(Fact):
    """Somebody is about to send the paid POST.

    Attributes:
        nonce: 32 hex digits, drawn by the one activity execution that may send; part of the safety identifier.
        key: Fingerprint of the API key that the POST is sent with; empty in claims of older workers.
        namespace, run_id: Which Temporal run claimed.
        submitted_at: When that run was started.
        estimated_tokens, estimated_usd: The most that the attempt should cost; None where that is not known.
        warnings: What the job was warned of, in sentences.
        media: What the references were, when they were looked at before it.
    """

    job_id: str
    attempt: int
    nonce: str
    namespace: str
    run_id: str
    claimed_at: datetime
    request: VideoRequest
    submitted_at: datetime | None = None
    estimated_tokens: int | None = None
    estimated_usd: float | None = None
    warnings: tuple[str, ...] = ()
    media: tuple[Medium, ...] = ()
    key: str = ""

    @property
    def safety_identifier(self) -> str:
        return safety_identifier(self.request.user_id, self.nonce)


class Witness(Fact):
    """A fact that ends a part of a job's story: it holds that story, and vouches for what stood before it.

    Attributes:
        namespace, run_id: Which Temporal run wrote it.
        timeline: The story of that run up to here.
        ledger: The objects of the job that stood when it was written.
    """

    namespace: str = ""
    run_id: str = ""
    timeline: tuple[TimelineEntry, ...] = ()
    ledger: tuple[RecordedObject, ...] = ()


class Outcome(Witness):
    """What came of a claim, decided once.

    Attributes:
        kind: ``created`` with a task id; ``refused``; ``not_sent`` and ``absent``: no task exists; ``taken``: a task
            exists, its id is not known. That decides nothing yet, so it stands in an object of its own.
        how: How that is known: ``create``, ``callback``, ``list`` or ``operator``.
    """

    kind: Literal["created", "refused", "not_sent", "absent", "taken"]
    how: str
    at: datetime
    task_id: str | None = None
    code: str = ""
    message: str = ""
    failure_class: FailureClass | None = None


class End(Witness):
    """A task ended without a video. ``how`` that was learned: ``poll``, ``callback``, ``copy`` or ``operator``."""

    error: JobError
    at: datetime
    how: str = ""
    usage: Usage | None = None
    cost_usd: float | None = None


class Listing(Fact):
    """What a listing of the account's tasks says of one attempt.

    Attributes:
        began_at: When it was begun.
        complete: Whether it showed as many tasks as there were when it began.
        task_id: The task that shows the attempt's identifier.
        unmarked: Whether it showed a task without an identifier that could be the attempt's.
        key: Fingerprint of the API key that read it; empty where its pages were read with different keys.
    """

    attempt: int
    safety_identifier: str
    began_at: datetime
    complete: bool
    task_id: str | None
    unmarked: bool
    key: str = ""


class Again(Fact):
    """Somebody asked for another attempt after this one; ``automatic``: a setting did."""

    accept_second_charge: bool
    at: datetime
    automatic: bool = False


@dataclass(frozen=True)
class Attempt:
    """All facts about one attempt.

    Attributes:
        claimed_at: The claim object's own creation time.
        ends: How its tasks ended without a video, each task once; or one that names no task: it was given up.
    """

    number: int
    claim: Claim | None = None
    claimed_at: datetime | None = None
    outcome: Outcome | None = None
    taken: bool = False
    late: tuple[str, ...] = ()
    ends: tuple[End, ...] = ()
    again: Again | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The ids of all tasks that are known to have come of it, the one to follow first."""
        created = (self.outcome.task_id,) if self.outcome is not None and self.outcome.task_id else ()
        return created + tuple(task_id for task_id in self.late if task_id not in created)

    @property
    def live(self) -> tuple[str, ...]:
        """The ids of its tasks that are not known to have ended, the one to follow first.

        An end that names no task (the attempt was given up) does not bind a task that came to light after it.
        """
        return tuple(task_id for task_id in self.tasks if self.end_of(task_id) is None)

    def end_of(self, task_id: str) -> End | None:
        """How a task ended without a video; None where it is not known to have ended so."""
        return next((end for end in self.ends if end.error.task_id == task_id), None)

    @property
    def end(self) -> End | None:
        """The end that counts for the attempt: that of a paid task, or the newest that names a task, or any."""

        def weight(end: End) -> tuple[bool, bool, datetime]:
            return end.error.task_id is not None, end.error.failure_class == "lost", end.at

        return max(self.ends, key=weight, default=None)

    @property
    def counts(self) -> bool:
        """Whether a task exists, or may exist, that came of it."""
        return self.taken or bool(self.tasks) or self.outcome is None

    @property
    def error(self) -> JobError | None:
        """How it ended without a video; None where it did not, or not for good."""
        if self.live:
            return None
        if self.end is not None:
            return self.end.error
        if not self.counts and self.outcome is not None and self.outcome.kind == "refused":
            return _refusal(self.number, self.outcome)
        return None

    @property
    def settled(self) -> bool:
        """Whether it stands in nobody's way."""
        if self.error is None:
            return not self.counts
        return self.again is not None


@dataclass(frozen=True)
class Facts:
    """Everything that the ledger knows of one job.

    Attributes:
        echo: Whether LIST has once shown an identifier of ours under the key of each open attempt.
        objects: All objects of the job, as the bucket lists them.
    """

    record: VideoResult | None
    attempts: tuple[Attempt, ...]
    echo: bool = False
    objects: tuple[RecordedObject, ...] = ()

    def attempt(self, number: int) -> Attempt | None:
        return next((attempt for attempt in self.attempts if attempt.number == number), None)

    def without(self, number: int) -> Facts:
        return replace(self, attempts=tuple(attempt for attempt in self.attempts if attempt.number != number))


class Look(Fact):
    """What the ledger says comes next.

    Attributes:
        next: ``stored``: the video is there; ``ended``: the job ended without one; ``adopt``: follow the task;
            ``recover``: an attempt's outcome is unknown; ``claim``: nothing stands against a new attempt.
        attempt: The attempt that decided, or with ``claim`` the number of the next one.
        usage, cost_usd: With ``ended``: what the provider counted, as far as it was seen.
        second_task: A task besides the one to follow that nobody follows.
        recovery_over: With ``recover``: the attempt has been looked for long enough to need a person.
        doubt: With ``recover``: why LIST cannot prove that no task came of the attempt; None where it can.
        key: With ``recover``: fingerprint of the API key that the attempt was sent with.
        look_again_after: Seconds, with ``recover``.
        search_attributes: The names that the namespace knows.
        hash_users: Whether a user is shown by a hash.
        folder: The start of the names of all objects of the job, as ``gs://…/``.
        echo_known: Whether it is known that LIST shows our identifiers.
        create_seconds: The total time that a create may take.
        estimated_tokens, estimated_usd: The most that an attempt should cost; None where that is not known.
        warnings: What is allowed, and still likely to disappoint, in sentences.
        limited: Whether limits are set, so that a create must be allowed first.
    """

    next: Literal["stored", "ended", "adopt", "recover", "claim"]
    attempt: int
    task_id: str | None = None
    result: VideoResult | None = None
    error: JobError | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    second_task: str | None = None
    recovery_over: bool = False
    doubt: str | None = None
    key: str = ""
    look_again_after: float = 0
    search_attributes: tuple[str, ...] = ()
    hash_users: bool = False
    folder: str | None = None
    create_seconds: float = 0
    echo_known: bool = False
    estimated_tokens: int | None = None
    estimated_usd: float | None = None
    warnings: tuple[str, ...] = ()
    limited: bool = False


def decide(facts: Facts) -> Look:
    """What comes next, by the facts alone.

    A record wins over everything, then a live task: the newest one, even where a later attempt was refused or not
    sent. Otherwise the highest attempt that is not settled decides; where all are, a new claim is allowed.
    """
    look = _next(facts)
    return look.model_copy(update={"second_task": second_task(facts, look.task_id)})


def _next(facts: Facts) -> Look:
    if facts.record is not None:
        highest = max((attempt.number for attempt in facts.attempts), default=0)
        return Look(next="stored", attempt=highest, result=facts.record, task_id=facts.record.task_id)
    newest_first = sorted(facts.attempts, key=lambda a: a.number, reverse=True)
    for attempt in newest_first:
        if attempt.live:
            return Look(next="adopt", attempt=attempt.number, task_id=attempt.live[0])
    for attempt in newest_first:
        if attempt.settled:
            continue
        if attempt.error is not None:
            usage, cost_usd = (attempt.end.usage, attempt.end.cost_usd) if attempt.end is not None else (None, None)
            return Look(next="ended", attempt=attempt.number, error=attempt.error, usage=usage, cost_usd=cost_usd)
        return Look(next="recover", attempt=attempt.number)
    return Look(next="claim", attempt=max((a.number for a in facts.attempts), default=0) + 1)


def look_by(facts: Facts, settings: Settings) -> Look:
    """What comes next, with how long to wait where an attempt is being looked for."""
    look = decide(facts)
    if look.next != "recover":
        return look
    attempt = facts.attempt(look.attempt)
    assert attempt is not None
    window = timedelta(seconds=settings.seedance_recovery_seconds)
    age = _age(attempt)
    # Proving absence takes two listings after the window; where it cannot be proved, a person is needed at once.
    doubt = _bar_to_absence(facts, attempt) or _other_key(attempt, settings.key_fingerprint)
    over = age > (window if doubt else 1.5 * window)
    # Twenty looks in the window; one for every sixth of it when a person is needed anyway.
    wait = (window / 6 if over else window / 20).total_seconds()
    key = attempt.claim.key if attempt.claim is not None else ""
    return look.model_copy(update={"recovery_over": over, "look_again_after": wait, "doubt": doubt, "key": key})


def is_absent(facts: Facts, attempt: Attempt, listings: Sequence[Listing], settings: Settings) -> bool:
    """Whether it is proved that no task came of an attempt, so that another claim may be made.

    Args:
        listings: What complete listings said of this attempt.
    """
    if attempt.claim is None or attempt.claimed_at is None or _bar_to_absence(facts, attempt) is not None:
        return False
    window = timedelta(seconds=settings.seedance_recovery_seconds)
    proofs = [
        listing.began_at
        for listing in listings
        if listing.safety_identifier == attempt.claim.safety_identifier
        and listing.key == attempt.claim.key
        and listing.complete
        and listing.task_id is None
        and listing.began_at > attempt.claimed_at + window
    ]
    if any(listing.task_id is not None or listing.unmarked for listing in listings):
        return False
    return bool(proofs) and max(proofs) - min(proofs) >= window / 10


def _bar_to_absence(facts: Facts, attempt: Attempt) -> str | None:
    """What keeps an attempt from ever counting as absent, however often LIST does not show it."""
    if attempt.taken:
        return "the provider accepted the create"
    if _age(attempt) > _FORGOTTEN_AFTER:
        return "the provider may have forgotten the task by now"
    if attempt.claim is not None and not attempt.claim.key:
        return "its claim does not say which API key sent it, and a key shows only the tasks that it may see"
    if not facts.echo:
        return "it is not known that LIST shows our identifiers under the API key that sent it"
    if any(other.outcome is not None and other.outcome.kind == "absent" for other in facts.attempts):
        return "an earlier attempt of this job counted as absent already"
    return None


def _other_key(attempt: Attempt, key: str) -> str | None:
    if attempt.claim is None or attempt.claim.key == key:
        return None
    return other_key(attempt.claim.key, key)


def other_key(sent: str, now: str) -> str:
    """Why a listing that another API key reads proves nothing.

    Args:
        sent: Fingerprint of the key that the create was sent with.
        now: Fingerprint of the key that reads listings; empty where several do.
    """
    reader = f"the key of fingerprint {now}, which may not see them" if now else "several keys"
    return (
        f"the create was sent with the API key of fingerprint {sent}, and tasks are now read with {reader}: "
        "a key shows only the tasks of its own project, and of the models it names. Start the worker with the first "
        "key again, and the job settles itself; without it, look in the console of that key's project, not of this one"
    )


def _age(attempt: Attempt) -> timedelta:
    return datetime.now(UTC) - attempt.claimed_at if attempt.claimed_at is not None else timedelta(0)


def second_task(facts: Facts, followed: str | None) -> str | None:
    """A task that may be billed besides the one that is followed, or stored: it is not known to have ended."""
    return next((task for attempt in facts.attempts for task in attempt.live if task != followed), None)


def nothing_sent(code: str, message: str) -> JobError:
    """The end of a job that nothing was claimed for, so that submitting it again starts it anew."""
    return JobError(code=code, message=f"Nothing was sent, and nothing is billed. {message}", failure_class="invalid")


def _refusal(attempt: int, outcome: Outcome) -> JobError:
    words = f"({outcome.code}): {outcome.message}".rstrip(" .:")
    return JobError(
        code=outcome.code,
        message=f"The provider refused the request {words}. "
        "No task was created, and nothing is billed. Submit a request that is changed accordingly.",
        failure_class=outcome.failure_class or "invalid",
        attempt=attempt,
    )
