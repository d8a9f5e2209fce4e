"""The audit of a job, built from what the bucket holds and what Temporal tells; the same from either.

The objects that end a part of a job's story hold that story, as it was handed to the activity that wrote them. That
order stands in the history of the run as well, as long as Temporal keeps it: so both sources end at the same step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from seedance_temporal.audit.bucket_evidence import BucketEvidence, Story
from seedance_temporal.audit.document import Audit, AuditedAttempt, AuditedObject, Charge, Source, Step
from seedance_temporal.audit.temporal_evidence import Order, Run
from seedance_temporal.identity import hash_of_job
from seedance_temporal.job import Attention, Job, JobError, JobState, Phase, TimelineEntry, VideoResult, phase_of
from seedance_temporal.ledger.decisions import decide
from seedance_temporal.ledger.facts import Attempt, Claim, Facts, Outcome
from seedance_temporal.ledger.record import Record
from seedance_temporal.provider.task import SUCCEEDED
from seedance_temporal.storage.bucket import StoredObject


@dataclass(frozen=True)
class TemporalEvidence:
    """What Temporal tells of a job.

    Attributes:
        job: What its newest run shows: a JobState where a worker answers.
        runs: All that are evidence, the oldest first.
    """

    namespace: str
    job: Job
    runs: Sequence[Run]

    def order_of(self, story: Story) -> Order | None:
        """The order to write a story's object, in the history of the run that wrote it."""
        if story.writer is None or story.namespace != self.namespace:
            return None
        run = next((run for run in self.runs if run.shown.run_id == story.run_id), None)
        return run.order(story.writer, story.attempt) if run is not None else None

    def stories(self) -> Iterator[tuple[TimelineEntry, ...]]:
        """All that the runs tell, as far as they can without a worker."""
        for run in self.runs:
            yield from (order.timeline for order in run.orders)
        if isinstance(self.job, JobState):
            yield self.job.timeline


@dataclass(frozen=True)
class _Standing:
    """How the job stands, or ended."""

    phase: Phase | None = None
    attention: Attention | None = None
    advice: str | None = None
    result: VideoResult | None = None
    error: JobError | None = None
    ended_at: datetime | None = None


def audit_of(
    job_id: str, evidence: BucketEvidence | None, told: TemporalEvidence | None, missing: Sequence[str] = ()
) -> Audit | None:
    """The audit of a job; None where nobody knows it.

    Args:
        job_id: The job.
        evidence: What the bucket holds; None where it cannot be asked.
        told: What Temporal tells; None where it cannot be asked, or knows no such job.
        missing: What could not be asked, in sentences.
    """
    if told is None and (evidence is None or not evidence.objects):
        return None
    facts = evidence.facts if evidence is not None else Facts(None, _attempts_told(told))
    record = evidence.record if evidence is not None else None
    # Where objects say how it ended, they and the runs that wrote them have the word: a later run only read them.
    over = _ended_by(facts, evidence)
    standing = over or _told_standing(told)
    source, stories = _stories(evidence, told, over=over is not None)
    starts = [] if over is not None or told is None else told.runs
    steps = _steps([*stories, [*_starts(facts, starts), *_facts_as_steps(facts, evidence)]])
    attempts = tuple(_audited(attempt, record, steps) for attempt in facts.attempts)
    claims = [attempt.claim for attempt in facts.attempts if attempt.claim is not None]
    state = told.job if told is not None and isinstance(told.job, JobState) and over is None else None
    request = _request(facts, record, told)
    warnings = [warning for claim in claims for warning in claim.warnings]
    warnings += [*(record.warnings if record is not None else ()), *(state.warnings if state is not None else ())]
    submitted = next((step.at for step in steps if step.what == _STARTED), None)
    ended = standing.ended_at
    return Audit(
        job_id=job_id,
        request_hash=hash_of_job(job_id),
        source=source,
        missing=(*missing, *_gaps(evidence, told, over=over is not None)),
        phase=standing.phase,
        attention=standing.attention,
        advice=standing.advice,
        result=standing.result,
        error=standing.error,
        submitted_at=submitted,
        ended_at=ended,
        seconds=_seconds(submitted, ended),
        steps=steps,
        # A look notes the provider's own word for the status; a callback, what it said, as a hint.
        looks=sum(step.times for step in steps if step.how in {"poll", "callback"} and " " not in step.what),
        callbacks=sum(step.times for step in steps if step.what.startswith("callback: ")),
        attempts=attempts,
        charge=_total(attempts, state),
        objects=tuple(_object(stored) for stored in evidence.objects.values()) if evidence is not None else (),
        warnings=tuple(dict.fromkeys(warnings)),
        request=request,
        rights=request.get("rights", {}),
        media=_media(claims, record),
    )


# How it stands


def _ended_by(facts: Facts, evidence: BucketEvidence | None) -> _Standing | None:
    """How the job ended, by the objects alone; None where they do not say that it did."""
    look = decide(facts)
    attention: Attention | None = "second_task" if look.second_task is not None else None
    if evidence is None or look.next not in {"stored", "ended"}:
        return None
    if evidence.record is not None:
        return _Standing("stored", attention, result=facts.record, ended_at=evidence.record.stored_at)
    assert look.error is not None
    attempt = facts.attempt(look.attempt)
    assert attempt is not None
    last = attempt.end or attempt.outcome
    return _Standing(phase_of(look.error), attention, error=look.error, ended_at=last.at if last else None)


def _told_standing(told: TemporalEvidence | None) -> _Standing:
    if told is None:
        return _Standing()
    job = told.job
    advice = job.advice if isinstance(job, JobState) else None
    ended = job.result is not None or job.error is not None
    closed_at = told.runs[-1].shown.closed_at if ended and told.runs else None
    return _Standing(job.phase, job.attention, advice, job.result, job.error, closed_at)


def _gaps(evidence: BucketEvidence | None, told: TemporalEvidence | None, *, over: bool) -> Iterator[str]:
    for name, why in evidence.damaged.items() if evidence is not None else ():
        yield f"{name} cannot be read ({why}): what it says is not shown."
    if over:
        return
    if told is None:
        yield "Nothing in the bucket says how the job ended, and Temporal does not tell."
    elif not isinstance(told.job, JobState):
        yield "No worker answers for this job: its newest steps are not shown."


# The story


def _stories(
    evidence: BucketEvidence | None, told: TemporalEvidence | None, *, over: bool
) -> tuple[Source, list[Iterable[TimelineEntry]]]:
    """All parts of the story, and where the newest one was read."""
    source: Source = "ledger"
    stories: list[Iterable[TimelineEntry]] = []
    for story in evidence.stories if evidence is not None else ():
        if story.writer is None:
            continue
        order = told.order_of(story) if told is not None else None
        source = story.object if order is None else "temporal"
        stories.append(story.timeline if order is None else order.timeline)
    if told is not None and not over:
        source = "temporal"
        stories += told.stories()
    return source, stories


_STARTED = "run started"


def _starts(facts: Facts, runs: Iterable[Run]) -> Iterator[TimelineEntry]:
    starts = {attempt.claim.run_id: attempt.claim.submitted_at for attempt in facts.attempts if attempt.claim}
    starts |= {run.shown.run_id: run.shown.started_at for run in runs if starts.get(run.shown.run_id) is None}
    for run_id, at in starts.items():
        if at is not None:
            yield TimelineEntry(at=at, what=_STARTED, how="caller", note=f"run {run_id}")


def _facts_as_steps(facts: Facts, evidence: BucketEvidence | None) -> Iterator[TimelineEntry]:
    """What the ledger's objects say, in the words in which a run notes the same."""
    for attempt in facts.attempts:
        number, claim, again = attempt.number, attempt.claim, attempt.resubmit_grant
        if claim is not None:
            where = f"run {claim.run_id} in namespace {claim.namespace}"
            yield TimelineEntry(at=claim.claimed_at, what=f"attempt {number} claimed", how="create", note=where)
        if attempt.outcome is not None:
            yield _outcome_as_step(number, attempt.outcome)
        if again is not None:
            note = "a second charge was accepted" if again.accept_second_charge else None
            how = "workflow" if again.automatic else "caller"
            yield TimelineEntry(at=again.at, what="another attempt was asked for", how=how, note=note)
    if evidence is None:
        return
    for late in evidence.late.values():
        yield TimelineEntry(at=late.at, what="a task came to light late", how=late.how, note=late.task_id)
    for end in evidence.ends.values():
        what = f"ended: {end.error.failure_class}"
        yield TimelineEntry(at=end.at, what=what, how=end.how or "ledger", note=end.error.code)
    if evidence.record is not None and evidence.record.stored_at is not None and facts.record is not None:
        yield TimelineEntry(at=evidence.record.stored_at, what="stored", how="copy", note=facts.record.video_uri)


def _outcome_as_step(number: int, outcome: Outcome) -> TimelineEntry:
    what, note = {
        "created": (f"created as attempt {number}", outcome.task_id),
        "refused": ("refused", f"{outcome.code} {outcome.message}".strip()),
        "not_sent": ("not sent", f"{outcome.code}: {outcome.message}"),
    }.get(outcome.kind, (f"attempt {number} counts as absent", outcome.message or None))
    if outcome.kind == "created" and outcome.how != "create":
        what = f"the task of attempt {number} was found"
    return TimelineEntry(at=outcome.at, what=what, how=outcome.how, note=note)


def _steps(stories: Iterable[Iterable[TimelineEntry]]) -> tuple[Step, ...]:
    """Everything in the order of time, and once: the stories of one run begin alike.

    The last story is that of the facts, by other clocks: of it counts what no other one tells.
    """
    *told, facts = stories
    found: dict[tuple[Any, ...], TimelineEntry] = {}
    for entry in (entry for story in told for entry in story):
        key = (entry.at, entry.what, entry.how, entry.note)
        if key not in found or found[key].times < entry.times:
            found[key] = entry
    known = {key[1:] for key in found}
    entries = [*found.values(), *(fact for fact in facts if (fact.what, fact.how, fact.note) not in known)]
    entries.sort(key=lambda entry: entry.at)
    before = [entry.at for entry in entries[:1]] + [entry.at for entry in entries]
    return tuple(
        Step(**entry.model_dump(), after=_seconds(earlier, entry.at) or 0)
        for earlier, entry in zip(before, entries, strict=False)
    )


def _seconds(since: datetime | None, until: datetime | None) -> float | None:
    return round((until - since).total_seconds(), 3) if since is not None and until is not None else None


# Attempts, and what they cost


def _attempts_told(told: TemporalEvidence | None) -> tuple[Attempt, ...]:
    """Claims and their outcomes, as the creates returned them, where the ledger itself cannot be read."""
    found: dict[int, Attempt] = {}
    for order in (order for run in told.runs for order in run.orders) if told is not None else ():
        answer = order.answer if isinstance(order.answer, dict) and order.activity == "create_task" else {}
        with suppress(ValidationError):
            claim = Claim.model_validate(answer.get("claim"))
            found[claim.attempt] = Attempt(claim.attempt, claim=claim, claimed_at=claim.claimed_at)
            outcome = Outcome.model_validate(answer.get("outcome"))
            accepted = outcome.kind == "accepted_without_id"
            found[claim.attempt] = replace(
                found[claim.attempt], outcome=None if accepted else outcome, accepted_without_id=accepted
            )
    return tuple(found[number] for number in sorted(found))


def _audited(attempt: Attempt, record: Record | None, steps: Sequence[Step]) -> AuditedAttempt:
    claim, outcome, again = attempt.claim, attempt.outcome, attempt.resubmit_grant
    stored = record is not None and record.attempt == attempt.number
    ended_at = record.stored_at if record is not None and stored else attempt.end.at if attempt.end else None
    settled_at = outcome.at if outcome is not None else None
    # When the task's end was seen: that of a stored one is a step, any other is written at once.
    seen_at = ended_at
    if stored and ended_at is not None:
        seen = [step.at for step in steps if step.what == SUCCEEDED and step.at <= ended_at]
        seen_at = seen[-1] if seen else None
    return AuditedAttempt(
        attempt=attempt.number,
        claimed_at=claim.claimed_at if claim is not None else None,
        namespace=claim.namespace if claim is not None else None,
        run_id=claim.run_id if claim is not None else None,
        outcome=(
            outcome.kind if outcome is not None else "accepted_without_id" if attempt.accepted_without_id else "unknown"
        ),
        known_by=outcome.how if outcome is not None else None,
        outcome_at=settled_at,
        message=f"{outcome.code} {outcome.message}".strip() if outcome is not None else "",
        task_ids=attempt.tasks,
        accepted_without_id=attempt.accepted_without_id,
        error=attempt.error,
        ended_at=ended_at,
        asked_again_at=again.at if again is not None else None,
        asked_again_by=None if again is None else "setting" if again.automatic else "caller",
        accepted_second_charge=again is not None and again.accept_second_charge,
        create_seconds=_seconds(claim.claimed_at if claim is not None else None, settled_at),
        task_seconds=_seconds(settled_at, seen_at) if attempt.tasks else None,
        copy_seconds=_seconds(seen_at, ended_at) if stored else None,
        charge=_charge(attempt, record if stored else None),
    )


def _charge(attempt: Attempt, record: Record | None) -> Charge:
    claim, end = attempt.claim, attempt.end
    estimated = Charge(
        estimated_tokens=claim.estimated_tokens if claim is not None else None,
        estimated_usd=claim.estimated_usd if claim is not None else None,
    )
    if record is not None:
        if claim is None or claim.estimated_tokens is None:
            estimated = Charge(estimated_tokens=record.estimated_tokens, estimated_usd=record.estimated_usd)
        tokens = record.usage.total_tokens if record.usage is not None else None
        return estimated.model_copy(update={"tokens": tokens, "usd": record.cost_usd, "billed": True})
    lost = end is not None and end.error.failure_class == "lost"
    if not attempt.counts or (end is not None and not lost):
        # The provider bills what succeeded, and nothing else.
        return estimated.model_copy(update={"tokens": 0, "usd": 0.0, "billed": False})
    if end is None or end.usage is None:
        return estimated
    return estimated.model_copy(update={"tokens": end.usage.total_tokens, "usd": end.cost_usd, "billed": True})


def _total(attempts: Sequence[AuditedAttempt], state: JobState | None) -> Charge:
    """Of all attempts together. What is not billed was not expected to be, either."""
    if not attempts:
        return Charge(
            estimated_tokens=state.estimated_tokens if state is not None else None,
            estimated_usd=state.estimated_usd if state is not None else None,
            tokens=0,
            usd=0.0,
            billed=False,
        )
    charges = [attempt.charge for attempt in attempts]
    paid = [charge for charge in charges if charge.billed is not False]
    return Charge(
        estimated_tokens=_sum([charge.estimated_tokens for charge in paid]),
        estimated_usd=_sum([charge.estimated_usd for charge in paid]),
        tokens=_sum([charge.tokens for charge in paid]),
        usd=_sum([charge.usd for charge in paid]),
        billed=None if any(charge.billed is None for charge in charges) else bool(paid),
    )


def _sum(numbers: Sequence[Any]) -> Any:
    """None where one is not known."""
    return None if None in numbers else round(sum(numbers), 6)


# What was asked for


def _request(facts: Facts, record: Record | None, told: TemporalEvidence | None) -> dict[str, Any]:
    for attempt in reversed(facts.attempts):
        if attempt.claim is not None:
            return _given(attempt.claim.request.model_dump(mode="json"))
    if record is not None:
        return _given(record.request)
    return _given(told.runs[-1].argument.get("request", {})) if told is not None and told.runs else {}


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was not given."""
    return {name: _given_part(part) for name, part in fields.items() if part is not None}


def _given_part(value: Any) -> Any:
    if isinstance(value, dict):
        return _given(value)
    return [_given_part(part) for part in value] if isinstance(value, list) else value


def _media(claims: Sequence[Claim], record: Record | None) -> tuple[dict[str, Any], ...]:
    for claim in reversed(claims):
        if claim.media:
            return tuple(_given(medium.model_dump(mode="json")) for medium in claim.media)
    return tuple(_given(medium) for medium in record.references) if record is not None else ()


def _object(stored: StoredObject) -> AuditedObject:
    return AuditedObject(
        name=stored.name,
        generation=stored.generation,
        size=stored.size,
        crc32c=stored.crc32c,
        md5=stored.md5,
        created_at=stored.created_at,
    )
