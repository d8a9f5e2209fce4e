"""Decide the next step of a run from the facts of its ledger. Pure functions without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from seedance_temporal.job import JobError, Moment, Phase, VideoResult, phase_of
from seedance_temporal.ledger.facts import ABSENCE_PROVABLE_WITHIN, Attempt, Fact, Facts, Listing
from seedance_temporal.provider.billing import is_billed
from seedance_temporal.provider.task import Usage
from seedance_temporal.settings import Settings

_LONGEST_SEARCH_PAUSE = timedelta(minutes=15)


class Recovery(Fact):
    """How an attempt whose outcome is unknown is searched for.

    Attributes:
        needs_operator: Whether the search has lasted so long that an operator must know of it.
        wait_seconds: Until the ledger is read again.
        doubt: Why absence cannot be proven from LIST; None where it can.
        key: Fingerprint of the API key that the attempt was sent with.
        accepted: Whether the provider accepted the create, so that a task exists.
        safety_identifier, claimed_at: What its task shows, and since when it can exist.
    """

    needs_operator: bool
    wait_seconds: float
    doubt: str | None = None
    key: str = ""
    accepted: bool = False
    safety_identifier: str = ""
    claimed_at: Moment | None = None


class Decision(Fact):
    """The next step of a job.

    Attributes:
        next: ``stored``: the video is there; ``ended``: the job ended without one; ``adopt``: follow the task;
            ``recover``: an attempt's outcome is unknown; ``claim``: a new attempt may be claimed.
        attempt: The attempt that decided, or with ``claim`` the number of the next one.
        usage, cost_usd, cost_cny: With ``ended``: the provider's count, and its cost, as far as they are known.
        second_task: Another task of the job, which may be billed and which nobody follows.
        unknown_attempt: Another attempt, whose task may be billed if there is one, and which nobody searches for.
        recovery: With ``recover``.
        may_be_billed: With ``claim``: whether an attempt before it is, or may be, billed.
    """

    next: Literal["stored", "ended", "adopt", "recover", "claim"]
    attempt: int
    task_id: str | None = None
    result: VideoResult | None = None
    error: JobError | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    cost_cny: float | None = None
    second_task: str | None = None
    unknown_attempt: int | None = None
    recovery: Recovery | None = None
    may_be_billed: bool = False


def decide(facts: Facts) -> Decision:
    """Decide by the facts alone.

    A record wins over everything, then a live task: the newest one, even where a later attempt was refused or not
    sent. Otherwise the highest attempt that is not settled decides; where all are, a new claim is allowed.
    """
    decision = _next(facts)
    has_task = decision.next in {"adopt", "stored"}
    unknown = next((attempt.number for attempt in facts.attempts if has_task and attempt.unknown), None)
    second = second_task(facts, decision.task_id)
    return decision.model_copy(update={"second_task": second, "unknown_attempt": unknown})


_STATED = ("absent", "operator")


def _next(facts: Facts) -> Decision:
    newest_first = sorted(facts.attempts, key=lambda a: a.number, reverse=True)
    highest = newest_first[0].number if newest_first else 0
    if facts.record is not None:
        return Decision(next="stored", attempt=highest, result=facts.record, task_id=facts.record.task_id)
    for attempt in newest_first:
        if attempt.live:
            return Decision(next="adopt", attempt=attempt.number, task_id=attempt.live[0])
    for attempt in newest_first:
        if attempt.allows_another:
            continue
        if attempt.error is not None:
            ended = Decision(next="ended", attempt=attempt.number, error=attempt.error)
            if (end := attempt.end) is None:
                return ended
            spent = {"usage": end.usage, "cost_usd": end.cost_usd, "cost_cny": end.cost_cny}
            return ended.model_copy(update=spent)
        return Decision(next="recover", attempt=attempt.number)
    errors = [attempt.error for attempt in newest_first if attempt.error is not None]
    # An operator who said that no task was made can be wrong.
    by_operator = any(a.outcome is not None and (a.outcome.kind, a.outcome.source) == _STATED for a in newest_first)
    may_be_billed = by_operator or any(is_billed(phase_of(error)) for error in errors)
    return Decision(next="claim", attempt=highest + 1, may_be_billed=may_be_billed)


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


def decide_at(facts: Facts, settings: Settings) -> Decision:
    """Decide, and add how to search where the outcome of an attempt is unknown. Depends on the time as well."""
    decision = decide(facts)
    if decision.next != "recover":
        return decision
    attempt = facts.attempt(decision.attempt)
    assert attempt is not None
    window, over = timedelta(seconds=settings.seedance_recovery_seconds), search_time(attempt, settings)
    # Two listings after that prove absence. Where they cannot, an operator must know at once.
    doubt = _no_proof_of_absence(facts, attempt)
    if doubt is None and attempt.claim is not None and attempt.claim.key != settings.key_fingerprint:
        doubt = other_key(attempt.claim.key, settings.key_fingerprint)
    age = _age(attempt)
    needs_operator = age > (over if doubt else over + window / 2)
    # Twenty reads in the window. Fewer and fewer where an operator is needed anyway: a night must not cost thousands.
    wait = max(window / 6, min(age / 10, _LONGEST_SEARCH_PAUSE)) if needs_operator else window / 20
    recovery = Recovery(
        needs_operator=needs_operator,
        wait_seconds=wait.total_seconds(),
        doubt=doubt,
        key=attempt.claim.key if attempt.claim is not None else "",
        accepted=attempt.accepted_without_id,
        safety_identifier=attempt.claim.safety_identifier if attempt.claim is not None else "",
        claimed_at=attempt.claimed_at,
    )
    return decision.model_copy(update={"recovery": recovery})


def is_absent(facts: Facts, attempt: Attempt, listings: Sequence[Listing], settings: Settings) -> bool:
    """Return whether the listings that were read for an attempt prove that it created no task."""
    if attempt.claim is None or attempt.claimed_at is None or _no_proof_of_absence(facts, attempt) is not None:
        return False
    over = attempt.claimed_at + search_time(attempt, settings)
    proofs = [
        listing.began_at
        for listing in listings
        if listing.safety_identifier == attempt.claim.safety_identifier
        and listing.key == attempt.claim.key
        and listing.complete
        and not listing.is_blind
        and listing.task_id is None
        and listing.began_at > over
    ]
    if any(listing.task_id is not None or listing.unmarked for listing in listings):
        return False
    apart = timedelta(seconds=settings.seedance_recovery_seconds) / 10
    return bool(proofs) and max(proofs) - min(proofs) >= apart


def search_time(attempt: Attempt, settings: Settings) -> timedelta:
    """Return how old a claim must be before its attempt can count as absent: also by the settings of who sent it."""
    of_sender = attempt.claim.search_seconds if attempt.claim is not None else 0
    return timedelta(seconds=max(settings.search_seconds, of_sender))


def _no_proof_of_absence(facts: Facts, attempt: Attempt) -> str | None:
    """Return why absence cannot be proven from LIST; None where it can."""
    if attempt.accepted_without_id:
        return "a task exists"
    if _age(attempt) > ABSENCE_PROVABLE_WITHIN:
        return "the provider may have forgotten the task by now"
    if attempt.claim is not None and not attempt.claim.key:
        return "its claim does not say which API key sent it, and a key shows only the tasks that it may see"
    if not facts.identifiers_listed:
        return "it is not known that LIST shows our identifiers under the API key that sent it"
    if any(other.outcome is not None and other.outcome.kind == "absent" for other in facts.attempts):
        return "an earlier attempt of this job counted as absent already"
    return None


def other_key(sent: str, now: str) -> str:
    """Return why a listing that another API key reads proves nothing.

    Args:
        sent: Fingerprint of the key that the create was sent with.
        now: Fingerprint of the key that reads listings; empty where several do.
    """
    reader = f"the key of fingerprint {now}, which may not see them" if now else "several keys"
    return (
        f"the create was sent with the API key of fingerprint {sent}, and tasks are now read with {reader}: "
        "a key shows only the tasks of its own project, and of the models it names. Start the worker with the first "
        "key again, and the job settles itself; without it, check the console of that key's project, not of this one"
    )


def _age(attempt: Attempt) -> timedelta:
    return datetime.now(UTC) - attempt.claimed_at if attempt.claimed_at is not None else timedelta(0)


def second_task(facts: Facts, followed: str | None) -> str | None:
    """Find a task besides the followed or stored one that may be billed, because no end of it is known."""
    return next((task for attempt in facts.attempts for task in attempt.live if task != followed), None)
