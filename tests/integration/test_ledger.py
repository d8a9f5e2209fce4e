"""The attempt ledger, on the bucket in memory and on a real bucket server: facts are never changed, and obeyed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest

from activities.ledger import EndInput, EndResult, LedgerActivities, OutcomeInput, ReadLedgerInput, ReadLedgerResult
from seedance_temporal.contract import Resubmit
from seedance_temporal.events import Event
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import JobError
from seedance_temporal.ledger.decisions import Decision, decide, decide_at
from seedance_temporal.ledger.facts import Attempt, Claim, Outcome
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.task import Usage
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import Bucket, GoogleBucket
from tests.support.jobs import (
    FINGERPRINT,
    a_claim,
    a_record,
    a_request,
    absent,
    accepted_without_id,
    an_end,
    content,
    created,
    in_activity,
    make_older,
    names,
    not_sent,
    refused,
    some_settings,
)
from tests.support.memory_bucket import MemoryBucket


@pytest.fixture(params=["google", "memory"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    if request.param == "memory":
        return MemoryBucket()
    google: GoogleBucket = request.getfixturevalue("google")
    return google


@pytest.fixture
def ledger(bucket: Bucket) -> Ledger:
    return Ledger(bucket, "seedance")


@pytest.fixture
def activities(ledger: Ledger) -> LedgerActivities:
    return LedgerActivities(ledger, some_settings())


@pytest.fixture
def request_() -> VideoRequest:
    return a_request()


@pytest.fixture
def job_id(request_: VideoRequest) -> str:
    return job_id_of(request_)


async def objects(bucket: Bucket, request: VideoRequest) -> list[str]:
    root = names(request).root
    return [stored.name.removeprefix(root) for stored in await bucket.list(root)]


class Lying(MemoryBucket):
    """A bucket whose answers get lost: the write landed, and its repetition met it. So the library reports a 412."""

    async def create(self, name: str, content: bytes, *, seconds: float = 60) -> bool:
        await super().create(name, content, seconds=seconds)
        return False


# --- the objects in the bucket ---------------------------------------------------------------------------------------


async def test_facts_have_documented_names(bucket: Bucket, ledger: Ledger, request_: VideoRequest, job_id: str) -> None:
    assert await ledger.claim(a_claim(request_))
    await ledger.settle(job_id, 1, accepted_without_id())
    await ledger.settle(job_id, 1, absent())
    await ledger.settle(job_id, 1, created("cgt-1"))
    await ledger.settle(job_id, 1, created("cgt/2 ä"))
    await ledger.end(job_id, 1, an_end(1, "cgt-1"))
    await ledger.grant_resubmit(job_id, Resubmit(attempt=1))
    assert await ledger.claim(a_claim(request_, 2))

    root = f"seedance/{job_id.removeprefix('seedance-')}/attempts/"
    assert [stored.name for stored in await bucket.list("seedance/" + job_id.removeprefix("seedance-"))] == [
        f"{root}0001.again.json",
        f"{root}0001.claim.json",
        f"{root}0001.end.json",
        f"{root}0001.late-cgt%2F2%20%C3%A4.json",
        f"{root}0001.late-cgt-1.json",
        f"{root}0001.outcome.json",
        f"{root}0001.taken.json",
        f"{root}0002.claim.json",
    ]
    facts = await ledger.read(job_id)
    first, second = facts.attempts
    assert (first.number, first.accepted_without_id, first.tasks) == (1, True, ("cgt-1", "cgt/2 ä"))
    assert first.outcome is not None
    assert first.outcome.kind == "absent"
    assert first.end is not None
    assert first.resubmit_grant is not None
    assert (second.number, second.counts, second.tasks) == (2, True, ())


async def test_empty_ledger_allows_claim(ledger: Ledger, job_id: str) -> None:
    facts = await ledger.read(job_id)
    assert (facts.record, facts.attempts) == (None, ())
    assert await ledger.record(job_id) is None


async def test_other_objects_are_no_attempts(
    bucket: Bucket, ledger: Ledger, request_: VideoRequest, job_id: str
) -> None:
    root = names(request_).root
    for name in ("cgt-1/task.json", "attempts/readme", "attempts/x.claim.json", "0001.claim.json"):
        await bucket.create(f"{root}{name}", b"{}")
    assert (await ledger.read(job_id)).attempts == ()


async def test_record_is_read_from_ledger(bucket: Bucket, ledger: Ledger, request_: VideoRequest, job_id: str) -> None:
    await bucket.create(names(request_).record, a_record("cgt-1"))
    record = (await ledger.read(job_id)).record
    assert record is not None
    assert (record.task_id, record.record_uri) == ("cgt-1", f"gs://videos/{names(request_).record}")


async def test_newer_fact_is_read(ledger: Ledger, bucket: Bucket, request_: VideoRequest) -> None:
    claim = a_claim(request_)
    value = claim.model_dump(mode="json", by_alias=True) | {"new": {"field": 1}}
    await bucket.create(names(request_).attempt(1, "claim"), json.dumps(value).encode())
    assert (await ledger.read(claim.job_id)).attempts[0].claim == claim


async def test_claim_age_comes_from_bucket(request_: VideoRequest, job_id: str) -> None:
    bucket = MemoryBucket()
    ledger = Ledger(bucket, "seedance")
    # The claim's own clock is far off.
    claim = a_claim(request_).model_copy(update={"claimed_at": datetime(2020, 1, 1, tzinfo=UTC)})
    await ledger.claim(claim)
    decision = await read_decision(LedgerActivities(ledger, some_settings()), request_)
    assert decision.recovery is not None
    assert (decision.next, decision.recovery.needs_operator) == ("recover", False)

    make_older(bucket, names(request_).attempt(1, "claim"), seconds=700)
    decision = await read_decision(LedgerActivities(ledger, some_settings()), request_)
    assert decision.recovery is not None
    assert (decision.next, decision.recovery.needs_operator) == ("recover", True)
    claimed_at = (await ledger.read(job_id)).attempts[0].claimed_at
    assert claimed_at is not None
    assert timedelta(seconds=690) < datetime.now(UTC) - claimed_at < timedelta(seconds=800)


# --- rule 3: a 412 on one's own write --------------------------------------------------------------------------------


async def test_attempt_is_claimed_once(ledger: Ledger, request_: VideoRequest) -> None:
    first, second = a_claim(request_), a_claim(request_)
    assert await ledger.claim(first)
    assert not await ledger.claim(second)
    assert await ledger.claim(first)  # its nonce is in the bucket
    existing = (await ledger.read(first.job_id)).attempts[0].claim
    assert existing == first


async def test_claim_with_lost_answer_is_ours(request_: VideoRequest) -> None:
    bucket = Lying()
    assert await Ledger(bucket, "seedance").claim(a_claim(request_))
    assert not await Ledger(bucket, "seedance").claim(a_claim(request_)), "the claim has another nonce"


async def test_outcome_with_lost_answer_is_no_second_task(request_: VideoRequest, job_id: str) -> None:
    bucket = Lying()
    await Ledger(bucket, "seedance").settle(job_id, 1, created("cgt-1"))
    assert await objects(bucket, request_) == ["attempts/0001.outcome.json"]


# --- rule 2: an outcome is decided once ------------------------------------------------------------------------------


async def test_repeated_task_changes_nothing(
    bucket: Bucket, ledger: Ledger, request_: VideoRequest, job_id: str
) -> None:
    await ledger.settle(job_id, 1, created("cgt-1"))
    await ledger.settle(job_id, 1, created("cgt-1", source="callback"))
    assert await objects(bucket, request_) == ["attempts/0001.outcome.json"]


@pytest.mark.parametrize("first", [created("cgt-1"), not_sent(), refused(), absent()], ids=lambda o: o.kind)
async def test_task_after_other_outcome_is_late(
    bucket: Bucket, ledger: Ledger, request_: VideoRequest, job_id: str, first: Outcome
) -> None:
    await ledger.settle(job_id, 1, first)
    for _ in range(2):
        await ledger.settle(job_id, 1, created("cgt-2", source="callback"))
    assert await objects(bucket, request_) == ["attempts/0001.late-cgt-2.json", "attempts/0001.outcome.json"]
    attempt = (await ledger.read(job_id)).attempts[0]
    assert attempt.outcome == first
    assert attempt.late == ("cgt-2",)
    assert attempt.tasks[-1] == "cgt-2"


async def test_late_tasks_keep_order(request_: VideoRequest, job_id: str) -> None:
    bucket = MemoryBucket()
    ledger = Ledger(bucket, "seedance")
    await ledger.settle(job_id, 1, absent())
    for task_id in ("cgt-b", "cgt-a"):
        await ledger.settle(job_id, 1, created(task_id))
    make_older(bucket, names(request_).late(1, "cgt-b"), seconds=5)
    assert (await ledger.read(job_id)).attempts[0].tasks == ("cgt-b", "cgt-a")


@pytest.mark.parametrize("second", [not_sent(), refused(), absent()], ids=lambda o: o.kind)
async def test_outcome_without_task_obeys_existing_one(
    bucket: Bucket, ledger: Ledger, request_: VideoRequest, job_id: str, second: Outcome
) -> None:
    await ledger.settle(job_id, 1, created("cgt-1"))
    await ledger.settle(job_id, 1, second)
    assert await objects(bucket, request_) == ["attempts/0001.outcome.json"]
    assert (await ledger.read(job_id)).attempts[0].tasks == ("cgt-1",)


# --- rule 4: an outcome that the create could not write ------------------------------------------------------------


async def test_outcome_writes_missing_claim(
    activities: LedgerActivities, ledger: Ledger, request_: VideoRequest
) -> None:
    claim = a_claim(request_)
    await in_activity(activities.write_outcome, OutcomeInput(claim=claim, outcome=not_sent()))
    attempt = (await ledger.read(claim.job_id)).attempts[0]
    assert attempt.claim == claim
    assert attempt.outcome is not None
    assert attempt.outcome.kind == "not_sent"


async def test_outcome_follows_existing_claim(
    activities: LedgerActivities, ledger: Ledger, request_: VideoRequest
) -> None:
    claim = a_claim(request_)
    await ledger.claim(claim)
    for _ in range(2):
        await in_activity(activities.write_outcome, OutcomeInput(claim=claim, outcome=created("cgt-1")))
    attempt = (await ledger.read(claim.job_id)).attempts[0]
    assert (attempt.claim, attempt.tasks, attempt.late) == (claim, ("cgt-1",), ())


async def test_outcome_is_not_written_to_foreign_claim(
    bucket: Bucket, activities: LedgerActivities, ledger: Ledger, request_: VideoRequest
) -> None:
    theirs = a_claim(request_)
    await ledger.claim(theirs)
    await in_activity(activities.write_outcome, OutcomeInput(claim=a_claim(request_), outcome=not_sent()))
    assert await objects(bucket, request_) == ["attempts/0001.claim.json"]
    assert (await ledger.read(theirs.job_id)).attempts[0].claim == theirs


async def test_accepted_without_id_is_written(
    bucket: Bucket, activities: LedgerActivities, ledger: Ledger, request_: VideoRequest
) -> None:
    claim = a_claim(request_)
    await ledger.claim(claim)
    accepted = Outcome(kind="accepted_without_id", source="create", at=datetime.now(UTC), code="no_task_id")
    for _ in range(2):
        await in_activity(activities.write_outcome, OutcomeInput(claim=claim, outcome=accepted))
    assert await objects(bucket, request_) == ["attempts/0001.claim.json", "attempts/0001.taken.json"]
    attempt = (await ledger.read(claim.job_id)).attempts[0]
    assert (attempt.accepted_without_id, attempt.outcome, attempt.counts) == (True, None, True)


# --- ends and resubmits ----------------------------------------------------------------------------------------------


async def test_first_end_counts(
    activities: LedgerActivities, ledger: Ledger, request_: VideoRequest, job_id: str
) -> None:
    seen = Event(at=datetime.now(UTC), event="status", source="poll", detail="failed")
    first, second = an_end(1, "cgt-1").error, an_end(1, "cgt-1", "expired", "expired").error
    await ledger.claim(a_claim(request_))
    input = EndInput(
        job_id=job_id, error=first, source="poll", usage=Usage(total_tokens=7), cost_usd=0.5, timeline=(seen,)
    )
    assert await in_activity(activities.write_end, input) == EndResult(error=first)
    later = EndInput(job_id=job_id, error=second)
    assert await in_activity(activities.write_end, later) == EndResult(error=first)
    end = (await ledger.read(job_id)).attempts[0].end
    assert end is not None
    assert (end.error, end.usage, end.cost_usd, end.timeline) == (first, Usage(total_tokens=7), 0.5, (seen,))
    assert (end.namespace, end.run_id, end.source) == ("default", "run-1", "poll")
    assert [one.name for one in end.ledger] == [ledger.names(job_id).attempt(1, "claim")]


async def test_repeated_resubmit_is_granted_once(ledger: Ledger, job_id: str) -> None:
    await ledger.grant_resubmit(job_id, Resubmit(attempt=1, accept_second_charge=True))
    await ledger.grant_resubmit(job_id, Resubmit(attempt=1))
    again = (await ledger.read(job_id)).attempts[0].resubmit_grant
    assert again is not None
    assert again.accept_second_charge


# --- automatic resubmits ---------------------------------------------------------------------------------------------


async def ended(
    bucket: Bucket, request: VideoRequest, attempt: int, failure_class: str, resubmits: int | None
) -> tuple[bool, Attempt]:
    """End an attempt that was created; return whether another one follows, and the facts about it."""
    ledger = Ledger(bucket, "seedance")
    claim = a_claim(request, attempt)
    await ledger.claim(claim)
    await ledger.settle(claim.job_id, attempt, created(f"cgt-{attempt}"))
    given: dict[str, Any] = {} if resubmits is None else {"seedance_automatic_resubmits": resubmits}
    error = an_end(attempt, f"cgt-{attempt}", failure_class).error
    activities = LedgerActivities(ledger, some_settings(**given))
    result = await in_activity(activities.write_end, EndInput(job_id=claim.job_id, error=error))
    assert result.error == error
    existing = (await ledger.read(claim.job_id)).attempt(attempt)
    assert existing is not None
    assert existing.end is not None
    return result.continues, existing


@pytest.mark.parametrize("failure_class", ["expired", "provider"])
async def test_automatic_resubmits_follow_setting(bucket: Bucket, request_: VideoRequest, failure_class: str) -> None:
    for attempt in (1, 2):
        again, existing = await ended(bucket, request_, attempt, failure_class, 2)
        assert again
        assert existing.resubmit_grant is not None
        assert (existing.resubmit_grant.automatic, existing.resubmit_grant.accept_second_charge) == (True, False)
    again, existing = await ended(bucket, request_, 3, failure_class, 2)
    assert (again, existing.resubmit_grant) == (False, None)


@pytest.mark.parametrize("resubmits", [None, 0])
async def test_no_automatic_resubmit_without_setting(
    bucket: Bucket, request_: VideoRequest, resubmits: int | None
) -> None:
    assert await ended(bucket, request_, 1, "expired", resubmits) == (False, ANY)
    assert "attempts/0001.again.json" not in await objects(bucket, request_)


@pytest.mark.parametrize("failure_class", ["moderation", "invalid", "cancelled", "lost"])
async def test_final_or_lost_failure_is_not_resubmitted(
    bucket: Bucket, request_: VideoRequest, failure_class: str
) -> None:
    again, existing = await ended(bucket, request_, 1, failure_class, 5)
    assert (again, existing.resubmit_grant) == (False, None)


async def test_first_end_decides_automatic_resubmit(bucket: Bucket, request_: VideoRequest) -> None:
    ledger = Ledger(bucket, "seedance")
    await ledger.end(job_id_of(request_), 1, an_end(1, "cgt-1", "moderation"))
    activities = LedgerActivities(ledger, some_settings(seedance_automatic_resubmits=1))
    input = EndInput(job_id=job_id_of(request_), error=an_end(1, "cgt-1", "expired").error)
    result = await in_activity(activities.write_end, input)
    assert (result.continues, result.error.failure_class) == (False, "moderation")


async def test_caller_resubmit_leaves_setting_unused(bucket: Bucket, request_: VideoRequest) -> None:
    await ended(bucket, request_, 1, "expired", 0)
    await Ledger(bucket, "seedance").grant_resubmit(job_id_of(request_), Resubmit(attempt=1))
    assert (await ended(bucket, request_, 2, "expired", 1))[0]
    assert not (await ended(bucket, request_, 3, "expired", 1))[0]


async def test_end_written_twice_is_resubmitted_once(bucket: Bucket, request_: VideoRequest) -> None:
    """The answer of the first try was lost: Temporal repeats it."""
    for _ in range(2):
        assert (await ended(bucket, request_, 1, "expired", 1))[0]
    assert not (await ended(bucket, request_, 2, "expired", 1))[0]


# --- whether identifiers are listed ----------------------------------------------------------------------------------


async def test_identifiers_listed_is_noted_per_route_and_key(
    bucket: Bucket, activities: LedgerActivities, request_: VideoRequest
) -> None:
    ledger = Ledger(bucket, f"seedance-{request_.take}")
    assert not await ledger.identifiers_listed("byteplus", FINGERPRINT)
    for _ in range(2):
        await ledger.note_identifiers_listed("byteplus", FINGERPRINT)
    assert await ledger.identifiers_listed("byteplus", FINGERPRINT)
    assert await Ledger(bucket, f"seedance-{request_.take}").identifiers_listed("byteplus", FINGERPRINT), (
        "it outlives the worker"
    )
    assert not await ledger.identifiers_listed("volcengine", FINGERPRINT)
    assert not await ledger.identifiers_listed("byteplus", "01234567"), "another key may see other tasks"
    assert [stored.name for stored in await bucket.list(f"seedance-{request_.take}/")] == [
        f"seedance-{request_.take}/echo-byteplus-{FINGERPRINT}.json"
    ]


async def test_context_and_facts_show_listed_identifiers(request_: VideoRequest) -> None:
    ledger = Ledger(MemoryBucket(), "seedance")
    activities = LedgerActivities(ledger, some_settings())
    await ledger.claim(a_claim(request_))
    for known in (False, True):
        context = (await read(activities, request_)).context
        assert context is not None
        assert context.identifiers_listed is known
        assert (await ledger.read(job_id_of(request_))).identifiers_listed is known
        await ledger.note_identifiers_listed("byteplus", FINGERPRINT)


async def test_identifiers_listed_is_read_once(request_: VideoRequest) -> None:
    bucket = MemoryBucket()
    ledger = Ledger(bucket, "seedance")
    await ledger.note_identifiers_listed("byteplus", FINGERPRINT)
    await ledger.identifiers_listed("byteplus", FINGERPRINT)
    bucket.broken = ConnectionError("must not be asked")
    assert await ledger.identifiers_listed("byteplus", FINGERPRINT)
    await ledger.note_identifiers_listed("byteplus", FINGERPRINT)


# --- reading the ledger for a run ------------------------------------------------------------------------------------


async def read(
    activities: LedgerActivities, request: VideoRequest, attempt: int | None = None, *, accept: bool = False
) -> ReadLedgerResult:
    resubmit = Resubmit(attempt=attempt, accept_second_charge=accept) if attempt is not None else None
    input = ReadLedgerInput(job_id=job_id_of(request), request=request, resubmit=resubmit, with_context=True)
    result: ReadLedgerResult = await in_activity(activities.read_ledger, input)
    return result


async def read_decision(
    activities: LedgerActivities, request: VideoRequest, attempt: int | None = None, *, accept: bool = False
) -> Decision:
    return (await read(activities, request, attempt, accept=accept)).decision


async def test_read_ledger_returns_context(ledger: Ledger, request_: VideoRequest) -> None:
    activities = LedgerActivities(ledger, some_settings(seedance_create_timeout_seconds=77), {"SeedanceUser", "A"})
    seen = await read(activities, request_)
    assert (seen.decision.next, seen.decision.attempt) == ("claim", 1)
    assert seen.context is not None
    assert seen.context.create_seconds == 77
    assert seen.context.search_attributes == ("A", "SeedanceUser")
    assert not seen.context.limited
    limited = (await read(LedgerActivities(ledger, some_settings(seedance_max_usd_per_request=1)), request_)).context
    assert limited is not None
    assert limited.limited


@pytest.mark.parametrize("foreign", ["my-own-id", "seedance-" + "0" * 64, "../../etc", ""])
async def test_foreign_job_id_is_refused_first(request_: VideoRequest, foreign: str) -> None:
    bucket = MemoryBucket(broken=ConnectionError("must not be asked"))
    activities = LedgerActivities(Ledger(bucket, "seedance"), some_settings())
    input = ReadLedgerInput(job_id=foreign, request=request_, resubmit=Resubmit(attempt=1))
    seen = (await in_activity(activities.read_ledger, input)).decision
    assert seen.next == "ended"
    assert seen.error is not None
    assert (seen.error.code, seen.error.attempt) == ("job_id_mismatch", None)
    assert job_id_of(request_) in seen.error.message


async def test_record_beats_everything(
    bucket: Bucket, activities: LedgerActivities, ledger: Ledger, request_: VideoRequest, job_id: str
) -> None:
    await ledger.claim(a_claim(request_))
    await ledger.settle(job_id, 1, created("cgt-1"))
    await ledger.end(job_id, 1, an_end(1, "cgt-1"))
    await bucket.create(names(request_).record, a_record("cgt-1"))
    for attempt in (None, 1):
        seen = await read_decision(activities, request_, attempt, accept=True)
        assert (seen.next, seen.task_id) == ("stored", "cgt-1")


async def test_unreachable_bucket_is_retryable(request_: VideoRequest) -> None:
    bucket = MemoryBucket(broken=ConnectionError("no bucket"))
    with pytest.raises(ConnectionError):
        await read_decision(LedgerActivities(Ledger(bucket, "seedance"), some_settings()), request_)


async def test_resubmit_of_refused_attempt_is_granted(
    activities: LedgerActivities, ledger: Ledger, request_: VideoRequest, job_id: str
) -> None:
    await ledger.claim(a_claim(request_))
    await ledger.settle(job_id, 1, refused())
    assert (await read_decision(activities, request_)).next == "ended"
    for _ in range(2):  # a second click, and a Reset, change nothing
        seen = await read_decision(activities, request_, 1)
        assert (seen.next, seen.attempt) == ("claim", 2)


async def test_resubmit_of_ended_attempt_is_granted(
    activities: LedgerActivities, ledger: Ledger, request_: VideoRequest, job_id: str
) -> None:
    await ledger.claim(a_claim(request_))
    await ledger.settle(job_id, 1, created("cgt-1"))
    assert (await read_decision(activities, request_, 1)).next == "adopt", "it runs: there is nothing to answer"
    await ledger.end(job_id, 1, an_end(1, "cgt-1"))
    seen = await read_decision(activities, request_)
    assert (seen.next, seen.attempt) == ("ended", 1)
    assert seen.error is not None
    assert seen.error.code == "failed"
    seen = await read_decision(activities, request_, 1)
    assert (seen.next, seen.attempt) == ("claim", 2)

    # A Reset brings the old resubmit back, after the next attempt ended, too: it allows no third one.
    await ledger.claim(a_claim(request_, 2))
    await ledger.settle(job_id, 2, created("cgt-2"))
    await ledger.end(job_id, 2, an_end(2, "cgt-2"))
    seen = await read_decision(activities, request_, 1)
    assert (seen.next, seen.attempt) == ("ended", 2)


@pytest.mark.parametrize("task_id", ["cgt-1", None])
async def test_resubmit_of_lost_attempt_needs_consent(
    bucket: Bucket,
    activities: LedgerActivities,
    ledger: Ledger,
    request_: VideoRequest,
    job_id: str,
    task_id: str | None,
) -> None:
    await ledger.claim(a_claim(request_))
    if task_id is not None:
        await ledger.settle(job_id, 1, created(task_id))
    await ledger.end(job_id, 1, an_end(1, task_id, "lost", "video_lost"))
    before = await objects(bucket, request_)

    seen = await read_decision(activities, request_, 1)
    assert (seen.next, seen.attempt) == ("ended", 1)
    assert seen.error is not None
    assert (seen.error.code, seen.error.failure_class) == ("second_charge_not_accepted", "lost")
    assert await objects(bucket, request_) == before, "a refused resubmit leaves no trace"

    seen = await read_decision(activities, request_, 1, accept=True)
    assert (seen.next, seen.attempt) == ("claim", 2)
    again = (await ledger.read(job_id)).attempts[0].resubmit_grant
    assert again is not None
    assert again.accept_second_charge


@pytest.mark.parametrize("named", [0, 1, 2, 3, 99])
async def test_resubmit_of_unknown_attempt_changes_nothing(
    bucket: Bucket, activities: LedgerActivities, ledger: Ledger, request_: VideoRequest, job_id: str, named: int
) -> None:
    await ledger.claim(a_claim(request_))
    await ledger.settle(job_id, 1, not_sent())
    await ledger.claim(a_claim(request_, 2))
    before = await objects(bucket, request_)
    seen = await read_decision(activities, request_, named, accept=True)
    assert (seen.next, seen.attempt) == ("recover", 2)
    assert await objects(bucket, request_) == before


async def test_claim_identifies_its_task(bucket: Bucket, ledger: Ledger) -> None:
    request = a_request(rights={"depicts_real_person": True, "consent_reference": "contract 7"})
    claim = a_claim(request)
    await ledger.claim(claim)
    existing = (await ledger.read(claim.job_id)).attempts[0].claim
    assert isinstance(existing, Claim)
    assert existing.request == request
    assert existing.safety_identifier == claim.safety_identifier
    assert existing.safety_identifier.endswith(f"-{claim.nonce}")


async def test_fact_is_readable_json(request_: VideoRequest, job_id: str) -> None:
    bucket = MemoryBucket()
    error = JobError(code="x", message="Größe", failure_class="provider", attempt=1)
    await Ledger(bucket, "seedance").end(job_id, 1, an_end(1, "cgt-1").model_copy(update={"error": error}))
    name = names(request_).attempt(1, "end")
    assert content(bucket, name)["error"]["class"] == "provider"
    assert "Größe" in bucket.contents[name].decode()


async def test_key_of_lost_attempt_bars_no_later_one() -> None:
    request = a_request()
    ledger, job_id = Ledger(MemoryBucket(), "seedance"), job_id_of(request)
    await ledger.claim(a_claim(request).model_copy(update={"key": "01234567"}))
    await ledger.end(job_id, 1, an_end(1, None, "lost"))
    await ledger.grant_resubmit(job_id, Resubmit(attempt=1, accept_second_charge=True))
    await ledger.claim(a_claim(request, 2))
    await ledger.note_identifiers_listed("byteplus", FINGERPRINT)
    decision = decide_at(await ledger.read(job_id), some_settings())
    assert (decision.next, decision.attempt, decision.recovery and decision.recovery.doubt) == ("recover", 2, None)


async def test_stray_object_is_no_attempt() -> None:
    bucket, request = MemoryBucket(), a_request()
    ledger = Ledger(bucket, "seedance")
    for kind in ("notes", "copy-of-claim", "claim.old"):
        await bucket.create(names(request).attempt(7, kind), b"{}")
    assert (await ledger.read(job_id_of(request))).attempts == ()


async def test_live_task_beats_automatic_resubmit() -> None:
    request = a_request()
    ledger, job_id = Ledger(MemoryBucket(), "seedance"), job_id_of(request)
    activities = LedgerActivities(ledger, some_settings(seedance_automatic_resubmits=1))
    await ledger.claim(a_claim(request))
    await ledger.settle(job_id, 1, created("cgt-1"))
    await ledger.settle(job_id, 1, created("cgt-2", "callback"))
    input = EndInput(job_id=job_id, error=an_end(1, "cgt-1", "expired").error)
    assert (await in_activity(activities.write_end, input)).continues, "the other task follows"
    decision = decide(await ledger.read(job_id))
    assert (decision.next, decision.task_id) == ("adopt", "cgt-2")
    assert not [stored.name for stored in await ledger.objects(job_id) if "again" in stored.name]


async def test_record_beats_resubmit_without_consent() -> None:
    """An attempt that was given up gets its end later, when the video of another one is stored, or its task lives."""
    for alive in (True, False):
        request = a_request()
        bucket = MemoryBucket()
        ledger, job_id = Ledger(bucket, "seedance"), job_id_of(request)
        activities = LedgerActivities(ledger, some_settings())
        for number in (1, 2):
            await ledger.claim(a_claim(request, number))
        await ledger.end(job_id, 1, an_end(1, None, "lost"))
        await ledger.settle(job_id, 2, created("cgt-2"))
        if not alive:
            await bucket.create(names(request).record, a_record("cgt-2"))
        input = ReadLedgerInput(job_id=job_id, request=request, resubmit=Resubmit(attempt=1))
        decision = (await in_activity(activities.read_ledger, input)).decision
        assert (decision.next, decision.task_id) == ("adopt" if alive else "stored", "cgt-2")
        assert not [name for name in bucket.contents if ".again" in name]
