"""Decide from the facts of a ledger what a run does next. Pure functions without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from seedance_temporal.job import JobError, Phase, VideoResult, phase_of
from seedance_temporal.ledger.facts import FORGOTTEN_AFTER, Attempt, Fact, Facts, Listing
from seedance_temporal.provider.task import Usage
from seedance_temporal.settings import Settings


class Decision(Fact):
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
        identifiers_listed: Whether it is known that LIST shows our identifiers.
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
    identifiers_listed: bool = False
    estimated_tokens: int | None = None
    estimated_usd: float | None = None
    warnings: tuple[str, ...] = ()
    limited: bool = False


def decide(facts: Facts) -> Decision:
    """What comes next, by the facts alone.

    A record wins over everything, then a live task: the newest one, even where a later attempt was refused or not
    sent. Otherwise the highest attempt that is not settled decides; where all are, a new claim is allowed.
    """
    look = _next(facts)
    return look.model_copy(update={"second_task": second_task(facts, look.task_id)})


def _next(facts: Facts) -> Decision:
    if facts.record is not None:
        highest = max((attempt.number for attempt in facts.attempts), default=0)
        return Decision(next="stored", attempt=highest, result=facts.record, task_id=facts.record.task_id)
    newest_first = sorted(facts.attempts, key=lambda a: a.number, reverse=True)
    for attempt in newest_first:
        if attempt.live:
            return Decision(next="adopt", attempt=attempt.number, task_id=attempt.live[0])
    for attempt in newest_first:
        if attempt.settled:
            continue
        if attempt.error is not None:
            usage, cost_usd = (attempt.end.usage, attempt.end.cost_usd) if attempt.end is not None else (None, None)
            return Decision(next="ended", attempt=attempt.number, error=attempt.error, usage=usage, cost_usd=cost_usd)
        return Decision(next="recover", attempt=attempt.number)
    return Decision(next="claim", attempt=max((a.number for a in facts.attempts), default=0) + 1)


@dataclass(frozen=True)
class Ending:
    """How a job ended, by its ledger.

    Attributes:
        at: When its last object was written; None where a record does not say so.
        result, error: One of them is given.
    """

    phase: Phase
    at: datetime | None
    result: VideoResult | None = None
    error: JobError | None = None


def ending(facts: Facts) -> Ending | None:
    """Return how the job ended; None while it is open, and where the ledger does not say that it ended."""
    decision = decide(facts)
    if decision.next == "stored":
        return Ending("stored", facts.stored_at, result=decision.result)
    attempt = facts.attempt(decision.attempt)
    if decision.error is None or attempt is None:
        return None
    last = attempt.end or attempt.outcome
    return Ending(phase_of(decision.error), last.at if last is not None else None, error=decision.error)


def decide_from(facts: Facts, settings: Settings) -> Decision:
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
    if _age(attempt) > FORGOTTEN_AFTER:
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
