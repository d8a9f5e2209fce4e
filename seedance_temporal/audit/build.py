"""Build the audit of a job from the evidence in the bucket and in Temporal; either gives the same audit.

The objects that end a part of a job's timeline hold that part, as it was in the input of the activity that wrote them.
The input is also in the history of the run, while Temporal keeps it: so both sources end at the same event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from seedance_temporal.audit.bucket_evidence import BucketEvidence
from seedance_temporal.audit.document import Audit, AuditedAttempt, Source, Step
from seedance_temporal.audit.temporal_evidence import Run, TemporalEvidence
from seedance_temporal.events import Event, EventName
from seedance_temporal.identity import ObjectNames, hash_of_job
from seedance_temporal.job import JobState, phase_of
from seedance_temporal.ledger.decisions import Ending, decide, ending
from seedance_temporal.ledger.facts import Attempt, Claim, Facts, Outcome
from seedance_temporal.ledger.record import Record
from seedance_temporal.provider import billing
from seedance_temporal.provider.billing import NOT_BILLED, Charge
from seedance_temporal.provider.prices import cost_in


def audit_of(
    job_id: str, bucket: BucketEvidence | None, temporal: TemporalEvidence | None, missing: Sequence[str] = ()
) -> Audit | None:
    """Build the audit of a job; return None where neither source knows it.

    Args:
        job_id: The job.
        bucket: The evidence in the bucket; None where the bucket cannot be read.
        temporal: The evidence in Temporal; None where it cannot be reached, or has no such job.
        missing: Sources that could not be read, in sentences.
    """
    if temporal is None and (bucket is None or not bucket.objects):
        return None
    temporal = temporal or TemporalEvidence()
    end = ending(bucket.facts) if bucket is not None else None
    # Where objects say how the job ended, only they and the runs that wrote them count: a later run only read them.
    current = temporal if end is None else TemporalEvidence()
    bucket = bucket or _evidence_of_creates(job_id, temporal)
    facts, record = bucket.facts, bucket.record
    state = _state(current) if end is None else _state_at(end, facts)
    source, timelines = _timelines(bucket, temporal, current)
    timeline = _merged(timelines, [*_starts(facts, current.runs), *_events(bucket)])
    attempts = tuple(_audited(attempt, record, timeline) for attempt in facts.attempts)
    claims = [attempt.claim for attempt in facts.attempts if attempt.claim is not None]
    detail = current.job.detail if current.job is not None else None
    request = _request(claims, record, temporal)
    warnings = [warning for claim in claims for warning in claim.warnings]
    warnings += [*(record.warnings if record is not None else ()), *(detail.warnings if detail is not None else ())]
    submitted = next((step.at for step in timeline if step.event == "run_started"), None)
    damaged = (f"{name} cannot be read ({why}): its content is not shown." for name, why in bucket.damaged.items())
    return Audit(
        job_id=job_id,
        request_hash=hash_of_job(job_id),
        source=source,
        missing=(*missing, *damaged, *(_gaps(current) if end is None else ())),
        **state,
        submitted_at=submitted,
        seconds=_seconds(submitted, state.get("ended_at")),
        timeline=timeline,
        polls=_count(timeline, "status"),
        callbacks=_count(timeline, "callback_received"),
        attempts=attempts,
        charge=_charge_of_job(attempts, current.job),
        objects=tuple(bucket.objects.values()),
        warnings=tuple(dict.fromkeys(warnings)),
        request=request,
        rights=request.get("rights", {}),
        media=_media(claims, record),
    )


# The state


def _state_at(end: Ending, facts: Facts) -> dict[str, Any]:
    decision = decide(facts)
    attention = "second_task" if decision.second_task or decision.unknown_attempt else None
    return {"phase": end.phase, "attention": attention, "result": end.result, "error": end.error, "ended_at": end.at}


def _state(temporal: TemporalEvidence) -> dict[str, Any]:
    if (job := temporal.job) is None:
        return {}
    return {
        "phase": job.phase,
        "attention": job.attention,
        "advice": job.detail.advice if job.detail is not None else None,
        "result": job.result,
        "error": job.error,
        "ended_at": temporal.runs[-1].shown.closed_at if job.ended and temporal.runs else None,
    }


def _gaps(temporal: TemporalEvidence) -> Iterator[str]:
    if temporal.job is None:
        yield "Nothing in the bucket says how the job ended, and Temporal does not show it."
    elif temporal.job.detail is None:
        yield "No worker answers for this job: its newest events are not shown."


# The timeline


def _timelines(
    bucket: BucketEvidence, temporal: TemporalEvidence, current: TemporalEvidence
) -> tuple[Source, list[Iterable[Event]]]:
    """Return all parts of the timeline, and the origin of the newest one."""
    source: Source = "ledger"
    timelines: list[Iterable[Event]] = []
    for part in bucket.parts:
        if part.writer is None:
            continue
        call = temporal.call_for(part)
        source = part.object if call is None else "temporal"
        timelines.append(part.provenance.timeline if call is None else call.timeline)
    return "temporal" if current.job is not None else source, [*timelines, *current.timelines()]


def _starts(facts: Facts, runs: Iterable[Run]) -> Iterator[Event]:
    starts = {attempt.claim.run_id: attempt.claim.submitted_at for attempt in facts.attempts if attempt.claim}
    starts |= {run.shown.run_id: run.shown.started_at for run in runs if starts.get(run.shown.run_id) is None}
    for run_id, at in starts.items():
        if at is not None:
            yield Event(at=at, event="run_started", source="caller", detail=f"run {run_id}")


def _events(bucket: BucketEvidence) -> Iterator[Event]:
    """Write the ledger's objects as events, with the names, sources and ids of those that a run notes."""
    number: int | None
    for attempt in bucket.facts.attempts:
        number, claim, again = attempt.number, attempt.claim, attempt.resubmit_grant
        if claim is not None:
            where = f"run {claim.run_id} in namespace {claim.namespace}"
            yield Event(at=claim.claimed_at, event="attempt_claimed", source="create", attempt=number, detail=where)
        if attempt.outcome is not None:
            yield _outcome_event(number, attempt.outcome)
        if again is not None:
            detail = "a second charge was accepted" if again.accept_second_charge else None
            source = "workflow" if again.automatic else "caller"
            yield Event(at=again.at, event="resubmit_granted", source=source, attempt=number, detail=detail)
    for late in bucket.late.values():
        number = next((attempt.number for attempt in bucket.facts.attempts if late.task_id in attempt.late), None)
        yield Event(at=late.at, event="task_found", source=late.source, task_id=late.task_id, attempt=number)
    for end in bucket.ends.values():
        ids = {"task_id": end.error.task_id, "attempt": end.error.attempt}
        yield Event(at=end.at, event="ended", source=end.source, detail=end.error.summary, **ids)
    record, result = bucket.record, bucket.facts.record
    if record is not None and record.stored_at is not None and result is not None:
        ids = {"task_id": record.task_id, "attempt": record.attempt}
        source = "copy" if record.run_id else "operator"
        yield Event(at=record.stored_at, event="stored", source=source, detail=result.video_uri, **ids)


def _outcome_event(number: int, outcome: Outcome) -> Event:
    event: EventName
    match outcome.kind:
        case "refused" | "not_sent":
            event, detail = outcome.kind, f"{outcome.code} {outcome.message}".strip()
        case "created":
            event, detail = "task_created" if outcome.source == "create" else "task_found", ""
        case _:
            event, detail = "attempt_absent", outcome.message
    ids = {"task_id": outcome.task_id, "attempt": number}
    return Event(at=outcome.at, event=event, source=outcome.source, detail=detail or None, **ids)


def _merged(timelines: Iterable[Iterable[Event]], facts: Iterable[Event]) -> tuple[Step, ...]:
    """Merge timelines into one in the order of time, with each event once: the timelines of one run begin alike.

    Args:
        timelines: Noted by runs.
        facts: Written from the ledger's objects, by other clocks: used only where no run noted the same event.
    """
    found: dict[Event, Event] = {}
    for event in (event for timeline in timelines for event in timeline):
        key = event.model_copy(update={"count": 1})
        if key not in found or found[key].count < event.count:
            found[key] = event
    known = {_subject(event) for event in found}
    events = sorted([*found.values(), *(fact for fact in facts if _subject(fact) not in known)], key=lambda e: e.at)
    before = [*events[:1], *events]
    return tuple(
        Step(**vars(event), after=_seconds(earlier.at, event.at) or 0)
        for earlier, event in zip(before, events, strict=False)
    )


def _subject(event: Event) -> tuple[object, ...]:
    return event.event, event.source, event.task_id, event.attempt


def _count(timeline: Iterable[Step], event: EventName) -> int:
    return sum(step.count for step in timeline if step.event == event)


def _seconds(since: datetime | None, until: datetime | None) -> float | None:
    return round((until - since).total_seconds(), 3) if since is not None and until is not None else None


# Attempts, and their charges


def _evidence_of_creates(job_id: str, temporal: TemporalEvidence) -> BucketEvidence:
    """Return claims and their outcomes, as the creates returned them, where the ledger itself cannot be read."""
    found: dict[int, Attempt] = {}
    for call in (call for run in temporal.runs for call in run.calls):
        claim, outcome = call.created("claim", Claim), call.created("outcome", Outcome)
        if claim is not None:
            accepted = outcome is not None and outcome.kind == "accepted_without_id"
            found[claim.attempt] = Attempt(
                claim.attempt,
                claim=claim,
                claimed_at=claim.claimed_at,
                outcome=None if accepted else outcome,
                accepted_without_id=accepted,
            )
    attempts = tuple(found[number] for number in sorted(found))
    return BucketEvidence(ObjectNames("", hash_of_job(job_id)), {}, {}, facts=Facts(None, attempts))


def _audited(attempt: Attempt, record: Record | None, timeline: Sequence[Step]) -> AuditedAttempt:
    claim, outcome, again = attempt.claim, attempt.outcome, attempt.resubmit_grant
    stored = record if record is not None and record.attempt == attempt.number else None
    ended_at = stored.stored_at if stored is not None else attempt.end.at if attempt.end is not None else None
    # The end of a stored task was seen in its last status or callback; any other end is written when it is seen.
    seen_at = ended_at
    if stored is not None and ended_at is not None:
        told = {"status", "callback_received"}
        statuses = [step for step in timeline if step.event in told and step.task_id == stored.task_id]
        seen_at = max((step.at for step in statuses if step.at <= ended_at), default=None)
    claimed_at = claim.claimed_at if claim is not None else None
    outcome_at = outcome.at if outcome is not None else None
    # An attempt can be given up, and its task come to light later.
    given_up_first = outcome_at is not None and seen_at is not None and seen_at < outcome_at
    fields: dict[str, Any] = {}
    if claim is not None:
        fields |= {"namespace": claim.namespace, "run_id": claim.run_id}
    if outcome is not None:
        message = f"{outcome.code} {outcome.message}".strip()
        fields |= {"outcome": outcome.kind, "known_by": outcome.source, "message": message}
    elif attempt.accepted_without_id:
        fields["outcome"] = "accepted_without_id"
    if again is not None:
        by = "setting" if again.automatic else "caller"
        second_charge = again.accept_second_charge
        fields |= {"asked_again_at": again.at, "asked_again_by": by, "accepted_second_charge": second_charge}
    return AuditedAttempt(
        attempt=attempt.number,
        claimed_at=claimed_at,
        outcome_at=outcome_at,
        task_ids=attempt.tasks,
        accepted_without_id=attempt.accepted_without_id,
        error=attempt.error,
        ended_at=ended_at,
        create_seconds=_seconds(claimed_at, outcome_at),
        task_seconds=_seconds(outcome_at, seen_at) if attempt.tasks and not given_up_first else None,
        copy_seconds=_seconds(seen_at, ended_at) if stored is not None else None,
        charge=_charge(attempt, stored),
        **fields,
    )


def _charge(attempt: Attempt, record: Record | None) -> Charge:
    claim, end = attempt.claim, attempt.end
    estimated: Claim | Record | None = claim
    if record is not None:
        charge = billing.charge("stored", record.usage, cost_in(record))
        estimated = claim if claim is not None and claim.estimated_tokens is not None else record
    elif end is not None and attempt.error is not None:
        charge = billing.charge(phase_of(end.error), end.usage, cost_in(end))
    else:
        charge = Charge() if attempt.counts else NOT_BILLED
    return charge.model_copy(update=estimated.model_dump(include=_ESTIMATE) if estimated is not None else {})


def _charge_of_job(attempts: Sequence[AuditedAttempt], job: JobState | None) -> Charge:
    if attempts:
        return billing.total([attempt.charge for attempt in attempts])
    return NOT_BILLED.model_copy(update=job.model_dump(include=_ESTIMATE) if job is not None else {})


_ESTIMATE = {"estimated_tokens", "estimated_usd", "estimated_cny"}


# The request


def _request(claims: Sequence[Claim], record: Record | None, temporal: TemporalEvidence) -> dict[str, Any]:
    given: Any = temporal.runs[-1].argument.get("request", {}) if temporal.runs else {}
    if claims:
        given = claims[-1].request.model_dump(mode="json")
    elif record is not None:
        given = record.request
    return dict(_given(given))


def _given(value: Any) -> Any:
    """Leave out absent fields."""
    if isinstance(value, dict):
        return {name: _given(part) for name, part in value.items() if part is not None}
    return [_given(part) for part in value] if isinstance(value, list) else value


def _media(claims: Sequence[Claim], record: Record | None) -> tuple[dict[str, Any], ...]:
    for claim in reversed(claims):
        if claim.media:
            return tuple(_given(medium.model_dump(mode="json")) for medium in claim.media)
    return tuple(_given(medium) for medium in record.references) if record is not None else ()
