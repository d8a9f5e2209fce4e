"""The attempt ledger, on the bucket in memory and on a real bucket server: facts are never changed, and obeyed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest

from activities.ledger import EndResult, LedgerActivities, ReadLedgerInput
from seedance_temporal.contract import Resubmit
from seedance_temporal.events import Event
from seedance_temporal.job import JobError
from seedance_temporal.ledger.facts import Attempt, Claim, Outcome
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.task import Usage
from seedance_temporal.request import Reference
from tests.support.jobs import (
    FINGERPRINT,
    a_claim,
    a_request,
    absent,
    accepted,
    an_end,
    created,
    in_activity,
    make_older,
    not_sent,
    present,
    refused,
    some_settings,
)
from tests.support.memory_bucket import LosingAnswers, MemoryBucket
from tests.support.world import World

MODEL = "dreamina-seedance-2-0-260128"


@pytest.fixture(params=["google", "memory"])
def world(request: pytest.FixtureRequest) -> World:
    """A job on each kind of bucket; ``World()`` is one on the bucket in memory."""
    return World() if request.param == "memory" else World(bucket=request.getfixturevalue("google"))


# --- the objects in the bucket ---------------------------------------------------------------------------------------


async def test_facts_have_documented_names(world: World) -> None:
    await world.claim(1, accepted(), absent(), created("cgt-1"), created("cgt/2 ä"), an_end(1, "cgt-1"))
    await world.grant()
    await world.claim(2)

    job = f"seedance/{world.job_id.removeprefix('seedance-')}"
    root = f"{job}/attempts/"
    assert [stored.name for stored in await world.bucket.list(job)] == [
        f"{root}0001.again.json",
        f"{root}0001.claim.json",
        f"{root}0001.end.json",
        f"{root}0001.late-cgt%2F2%20%C3%A4.json",
        f"{root}0001.late-cgt-1.json",
        f"{root}0001.outcome.json",
        f"{root}0001.taken.json",
        f"{root}0002.claim.json",
    ]
    first, second = (await world.ledger.read(world.job_id)).attempts
    assert (first.number, first.accepted_without_id, first.tasks) == (1, True, ("cgt-1", "cgt/2 ä"))
    assert present(first.outcome).kind == "absent"
    assert first.end is not None
    assert first.resubmit_grant is not None
    assert (second.number, second.counts, second.tasks) == (2, True, ())


async def test_empty_ledger_allows_claim(world: World) -> None:
    facts = await world.ledger.read(world.job_id)
    assert (facts.record, facts.attempts) == (None, ())
    assert await world.ledger.record(world.job_id) is None


async def test_other_objects_are_no_attempts(world: World) -> None:
    root = world.names.root
    for name in ("cgt-1/task.json", "attempts/readme", "attempts/x.claim.json", "0001.claim.json"):
        await world.bucket.create(f"{root}{name}", b"{}")
    for kind in ("notes", "copy-of-claim", "claim.old"):
        await world.bucket.create(world.names.attempt(7, kind), b"{}")
    assert (await world.ledger.read(world.job_id)).attempts == ()


async def test_record_is_read_from_ledger(world: World) -> None:
    await world.write_record()
    record = present((await world.ledger.read(world.job_id)).record)
    assert (record.task_id, record.record_uri) == ("cgt-1", f"gs://videos/{world.names.record}")


async def test_newer_fact_is_read(world: World) -> None:
    claim = a_claim(world.request)
    value = claim.model_dump(mode="json", by_alias=True) | {"new": {"field": 1}}
    await world.bucket.create(world.names.attempt(1, "claim"), json.dumps(value).encode())
    assert (await world.read_attempt()).claim == claim


async def test_newer_request_is_read() -> None:
    """A worker of the release before can meet it: the task is paid for, and must be followed."""
    reference = {"role": "reference_image", "url": "https://cdn.example.com/a.png"}
    world = World()
    claim = a_claim(world.request.model_copy(update={"references": (Reference.model_validate(reference),)}))
    value = claim.model_dump(mode="json", by_alias=True)
    value["request"] |= {"new": 1, "rights": value["request"]["rights"] | {"new": [1]}}
    value["request"]["references"] = [value["request"]["references"][0] | {"new": {}}]
    await world.bucket.create(world.names.attempt(1, "claim"), json.dumps(value).encode())
    assert (await world.read_attempt()).claim == claim


async def test_claim_age_comes_from_bucket() -> None:
    world = World()
    # The claim's own clock is far off.
    await world.claim(claimed_at=datetime(2020, 1, 1, tzinfo=UTC))
    decision = await world.read_decision()
    assert decision.recovery is not None
    assert (decision.next, decision.recovery.needs_operator) == ("recover", False)

    world.make_older(seconds=700)
    decision = await world.read_decision()
    assert (decision.next, present(decision.recovery).needs_operator) == ("recover", True)
    claimed_at = present((await world.read_attempt()).claimed_at)
    assert timedelta(seconds=690) < datetime.now(UTC) - claimed_at < timedelta(seconds=800)


# --- rule 3: a 412 on one's own write --------------------------------------------------------------------------------


async def test_attempt_is_claimed_once(world: World) -> None:
    first, second = a_claim(world.request), a_claim(world.request)
    assert await world.ledger.claim(first)
    assert not await world.ledger.claim(second)
    assert await world.ledger.claim(first)  # its nonce is in the bucket
    assert (await world.read_attempt()).claim == first


async def test_claim_with_lost_answer_is_ours() -> None:
    world = World(bucket=LosingAnswers())
    assert await world.ledger.claim(a_claim(world.request))
    assert not await world.ledger.claim(a_claim(world.request)), "the claim has another nonce"


async def test_outcome_with_lost_answer_is_no_second_task() -> None:
    world = World(bucket=LosingAnswers())
    await world.write(created("cgt-1"))
    assert await world.facts() == ["0001.outcome.json"]


# --- rule 2: an outcome is decided once ------------------------------------------------------------------------------


async def test_repeated_task_changes_nothing(world: World) -> None:
    await world.write(created("cgt-1"), created("cgt-1", source="callback"))
    assert await world.facts() == ["0001.outcome.json"]


@pytest.mark.parametrize("first", [created("cgt-1"), not_sent(), refused(), absent()], ids=lambda o: o.kind)
async def test_task_after_other_outcome_is_late(world: World, first: Outcome) -> None:
    await world.write(first)
    for _ in range(2):
        await world.write(created("cgt-2", source="callback"))
    assert await world.facts() == ["0001.late-cgt-2.json", "0001.outcome.json"]
    attempt = await world.read_attempt()
    assert attempt.outcome == first
    assert attempt.late == ("cgt-2",)
    assert attempt.tasks[-1] == "cgt-2"


async def test_late_tasks_keep_order() -> None:
    world = World()
    await world.write(absent())
    for task_id in ("cgt-b", "cgt-a"):
        await world.write(created(task_id))
    make_older(world.memory, world.names.late(1, "cgt-b"), seconds=5)
    assert (await world.read_attempt()).tasks == ("cgt-b", "cgt-a")


@pytest.mark.parametrize("second", [not_sent(), refused(), absent()], ids=lambda o: o.kind)
async def test_outcome_without_task_obeys_existing_one(world: World, second: Outcome) -> None:
    await world.write(created("cgt-1"), second)
    assert await world.facts() == ["0001.outcome.json"]
    assert (await world.read_attempt()).tasks == ("cgt-1",)


# --- rule 4: an outcome that the create could not write ------------------------------------------------------------


async def test_outcome_writes_missing_claim(world: World) -> None:
    claim = a_claim(world.request)
    await world.write_outcome(claim, not_sent())
    attempt = await world.read_attempt()
    assert attempt.claim == claim
    assert present(attempt.outcome).kind == "not_sent"


async def test_outcome_follows_existing_claim(world: World) -> None:
    claim = await world.claim()
    for _ in range(2):
        await world.write_outcome(claim, created("cgt-1"))
    attempt = await world.read_attempt()
    assert (attempt.claim, attempt.tasks, attempt.late) == (claim, ("cgt-1",), ())


async def test_outcome_is_not_written_to_foreign_claim(world: World) -> None:
    theirs = await world.claim()
    await world.write_outcome(a_claim(world.request), not_sent())
    assert await world.facts() == ["0001.claim.json"]
    assert (await world.read_attempt()).claim == theirs


async def test_accepted_without_id_is_written(world: World) -> None:
    claim = await world.claim()
    for _ in range(2):
        await world.write_outcome(claim, accepted())
    assert await world.facts() == ["0001.claim.json", "0001.taken.json"]
    attempt = await world.read_attempt()
    assert (attempt.accepted_without_id, attempt.outcome, attempt.counts) == (True, None, True)


# --- ends and resubmits ----------------------------------------------------------------------------------------------


async def test_first_end_counts(world: World) -> None:
    seen = Event(at=datetime.now(UTC), event="status", source="poll", detail="failed")
    first, second = an_end(1, "cgt-1").error, an_end(1, "cgt-1", "expired", "expired").error
    await world.claim()
    known = {"source": "poll", "usage": Usage(total_tokens=7), "cost_usd": 0.5, "timeline": (seen,)}
    assert await world.write_end(first, **known) == EndResult(error=first)
    assert await world.write_end(second) == EndResult(error=first)
    end = present((await world.read_attempt()).end)
    assert (end.error, end.usage, end.cost_usd, end.timeline) == (first, Usage(total_tokens=7), 0.5, (seen,))
    assert (end.namespace, end.run_id, end.source) == ("default", "run-1", "poll")
    assert [one.name for one in end.ledger] == [world.ledger.names(world.job_id).attempt(1, "claim")]


async def test_repeated_resubmit_is_granted_once(world: World) -> None:
    await world.grant(accept=True)
    await world.grant()
    again = present((await world.read_attempt()).resubmit_grant)
    assert again.accept_second_charge


# --- automatic resubmits ---------------------------------------------------------------------------------------------


async def ended(
    world: World, number: int = 1, failure_class: str = "expired", resubmits: int | None = 1
) -> tuple[bool, Attempt]:
    """End an attempt that was created; return whether another one follows, and the facts about it."""
    await world.ledger.claim(a_claim(world.request, number))
    await world.write(created(f"cgt-{number}"), attempt=number)
    given: dict[str, Any] = {} if resubmits is None else {"seedance_automatic_resubmits": resubmits}
    world.settings = some_settings(**given)
    error = an_end(number, f"cgt-{number}", failure_class).error
    result = await world.write_end(error)
    assert result.error == error
    existing = await world.read_attempt(number)
    assert existing.end is not None
    return result.continues, existing


@pytest.mark.parametrize("failure_class", ["expired", "provider"])
async def test_automatic_resubmits_follow_setting(world: World, failure_class: str) -> None:
    for attempt in (1, 2):
        again, existing = await ended(world, attempt, failure_class, 2)
        assert again
        assert existing.resubmit_grant is not None
        assert (existing.resubmit_grant.automatic, existing.resubmit_grant.accept_second_charge) == (True, False)
    again, existing = await ended(world, 3, failure_class, 2)
    assert (again, existing.resubmit_grant) == (False, None)


async def test_run_that_may_not_create_grants_nothing(world: World) -> None:
    """It would end over the grant, and hide how the task ended."""
    await world.claim(1, created("cgt-1"))
    world.settings = some_settings(seedance_automatic_resubmits=1)
    result = await world.write_end(an_end(1, "cgt-1", "provider").error, may_create=False)
    assert (result.continues, result.error.failure_class) == (False, "provider")
    assert "0001.again.json" not in await world.facts()


@pytest.mark.parametrize("resubmits", [None, 0])
async def test_no_automatic_resubmit_without_setting(world: World, resubmits: int | None) -> None:
    assert await ended(world, resubmits=resubmits) == (False, ANY)
    assert "0001.again.json" not in await world.facts()


@pytest.mark.parametrize("failure_class", ["moderation", "invalid", "cancelled", "lost"])
async def test_final_or_lost_failure_is_not_resubmitted(world: World, failure_class: str) -> None:
    again, existing = await ended(world, 1, failure_class, 5)
    assert (again, existing.resubmit_grant) == (False, None)


async def test_first_end_decides_automatic_resubmit(world: World) -> None:
    await world.write(an_end(1, "cgt-1", "moderation"))
    world.settings = some_settings(seedance_automatic_resubmits=1)
    result = await world.write_end(an_end(1, "cgt-1", "expired").error)
    assert (result.continues, result.error.failure_class) == (False, "moderation")


async def test_caller_resubmit_leaves_setting_unused(world: World) -> None:
    await ended(world, resubmits=0)
    await world.grant()
    assert (await ended(world, 2))[0]
    assert not (await ended(world, 3))[0]


async def test_end_written_twice_is_resubmitted_once(world: World) -> None:
    """The answer of the first try was lost: Temporal repeats it."""
    for _ in range(2):
        assert (await ended(world))[0]
    assert not (await ended(world, 2))[0]


# --- whether identifiers are listed ----------------------------------------------------------------------------------


async def test_identifiers_listed_is_noted_per_route_and_key(world: World) -> None:
    prefix = f"seedance-{world.request.take}"
    ledger = Ledger(world.bucket, prefix)
    assert not await ledger.identifiers_listed("byteplus", FINGERPRINT, MODEL)
    for _ in range(2):
        await ledger.note_identifiers_listed("byteplus", FINGERPRINT)
    assert await ledger.identifiers_listed("byteplus", FINGERPRINT, MODEL)
    assert await Ledger(world.bucket, prefix).identifiers_listed("byteplus", FINGERPRINT, MODEL), (
        "it outlives the worker"
    )
    assert not await ledger.identifiers_listed("volcengine", FINGERPRINT, MODEL)
    assert not await ledger.identifiers_listed("byteplus", "01234567", MODEL), "another key may see other tasks"
    listed = [stored.name for stored in await world.bucket.list(f"{prefix}/")]
    assert listed == [f"{prefix}/echo-byteplus-{FINGERPRINT}.json"]


async def test_identifiers_listed_is_noted_per_model_of_a_custom_key(world: World) -> None:
    ledger = Ledger(world.bucket, f"seedance-{world.request.take}")
    for _ in range(2):
        await ledger.note_identifiers_listed("byteplus", FINGERPRINT, MODEL)
    again = Ledger(world.bucket, f"seedance-{world.request.take}")
    for known in (ledger, again):
        assert await known.identifiers_listed("byteplus", FINGERPRINT, MODEL)
        assert not await known.identifiers_listed("byteplus", FINGERPRINT, "ep-a"), "another listing shows its tasks"
        assert not await known.identifiers_listed("byteplus", "01234567", MODEL)


async def test_context_and_facts_show_listed_identifiers() -> None:
    world = World()
    await world.claim()
    for known in (False, True):
        context = present((await world.read_ledger()).context)
        assert context.identifiers_listed is known
        assert (await world.ledger.read(world.job_id)).identifiers_listed is known
        await world.ledger.note_identifiers_listed("byteplus", FINGERPRINT)


async def test_identifiers_listed_is_read_once() -> None:
    bucket = MemoryBucket()
    ledger = Ledger(bucket, "seedance")
    await ledger.note_identifiers_listed("byteplus", FINGERPRINT)
    await ledger.identifiers_listed("byteplus", FINGERPRINT, MODEL)
    bucket.broken = ConnectionError("must not be asked")
    assert await ledger.identifiers_listed("byteplus", FINGERPRINT, MODEL)
    await ledger.note_identifiers_listed("byteplus", FINGERPRINT)


# --- reading the ledger for a run ------------------------------------------------------------------------------------


async def test_read_ledger_returns_context(world: World) -> None:
    world.settings = some_settings(seedance_create_timeout_seconds=77)
    seen = await world.read_ledger(search_attributes={"SeedanceUser", "A"})
    assert (seen.decision.next, seen.decision.attempt) == ("claim", 1)
    assert seen.context is not None
    assert seen.context.create_seconds == 77
    assert seen.context.search_attributes == ("A", "SeedanceUser")
    assert not seen.context.limited
    world.settings = some_settings(seedance_max_usd_per_request=1)
    limited = present((await world.read_ledger()).context)
    assert limited.limited


async def test_run_that_only_follows_takes_newer_request(world: World) -> None:
    """A worker that does not know all fields of a claim's request gets another job id from those that it knows."""
    await world.claim(1, created("cgt-1"))
    activities = LedgerActivities(world.ledger, world.settings)
    older = world.request.model_copy(update={"take": 7})
    input = ReadLedgerInput(job_id=world.job_id, request=older, may_create=False)
    seen = (await in_activity(activities.read_ledger, input)).decision
    assert (seen.next, seen.task_id) == ("adopt", "cgt-1")


@pytest.mark.parametrize("foreign", ["my-own-id", "seedance-" + "0" * 64, "../../etc", ""])
async def test_foreign_job_id_is_refused_first(foreign: str) -> None:
    world = World(bucket=MemoryBucket(broken=ConnectionError("must not be asked")))
    activities = LedgerActivities(world.ledger, world.settings)
    input = ReadLedgerInput(job_id=foreign, request=world.request, resubmit=Resubmit(attempt=1))
    seen = (await in_activity(activities.read_ledger, input)).decision
    assert seen.next == "ended"
    assert seen.error is not None
    assert (seen.error.code, seen.error.attempt) == ("job_id_mismatch", None)
    assert world.job_id in seen.error.message


async def test_record_beats_everything(world: World) -> None:
    await world.claim(1, created("cgt-1"), an_end(1, "cgt-1"))
    await world.write_record()
    for attempt in (None, 1):
        seen = await world.read_decision(attempt, accept=True)
        assert (seen.next, seen.task_id) == ("stored", "cgt-1")


async def test_unreachable_bucket_is_retryable() -> None:
    world = World(bucket=MemoryBucket(broken=ConnectionError("no bucket")))
    with pytest.raises(ConnectionError):
        await world.read_decision()


async def test_resubmit_of_refused_attempt_is_granted(world: World) -> None:
    await world.claim(1, refused())
    assert (await world.read_decision()).next == "ended"
    for _ in range(2):  # a second click, and a Reset, change nothing
        seen = await world.read_decision(1)
        assert (seen.next, seen.attempt) == ("claim", 2)


async def test_resubmit_of_ended_attempt_is_granted(world: World) -> None:
    await world.claim(1, created("cgt-1"))
    assert (await world.read_decision(1)).next == "adopt", "it runs: there is nothing to answer"
    await world.write(an_end(1, "cgt-1"))
    seen = await world.read_decision()
    assert (seen.next, seen.attempt) == ("ended", 1)
    assert present(seen.error).code == "failed"
    seen = await world.read_decision(1)
    assert (seen.next, seen.attempt) == ("claim", 2)

    # A Reset brings the old resubmit back, after the next attempt ended, too: it allows no third one.
    await world.claim(2, created("cgt-2"), an_end(2, "cgt-2"))
    seen = await world.read_decision(1)
    assert (seen.next, seen.attempt) == ("ended", 2)


@pytest.mark.parametrize("task_id", ["cgt-1", None])
async def test_resubmit_of_lost_attempt_needs_consent(world: World, task_id: str | None) -> None:
    await world.claim()
    if task_id is not None:
        await world.write(created(task_id))
    await world.write(an_end(1, task_id, "lost", "video_lost"))
    before = await world.facts()

    seen = await world.read_decision(1)
    assert (seen.next, seen.attempt) == ("ended", 1)
    assert seen.error is not None
    assert (seen.error.code, seen.error.failure_class) == ("second_charge_not_accepted", "lost")
    assert await world.facts() == before, "a refused resubmit leaves no trace"

    seen = await world.read_decision(1, accept=True)
    assert (seen.next, seen.attempt) == ("claim", 2)
    again = present((await world.read_attempt()).resubmit_grant)
    assert again.accept_second_charge


@pytest.mark.parametrize("named", [0, 1, 2, 3, 99])
async def test_resubmit_of_unknown_attempt_changes_nothing(world: World, named: int) -> None:
    await world.claim(1, not_sent())
    await world.claim(2)
    before = await world.facts()
    seen = await world.read_decision(named, accept=True)
    assert (seen.next, seen.attempt) == ("recover", 2)
    assert await world.facts() == before


async def test_claim_identifies_its_task(world: World) -> None:
    world.request = a_request(rights={"depicts_real_person": True, "consent_reference": "contract 7"})
    claim = await world.claim()
    existing = (await world.read_attempt()).claim
    assert isinstance(existing, Claim)
    assert existing.request == world.request
    assert existing.safety_identifier == claim.safety_identifier
    assert existing.safety_identifier.endswith(f"-{claim.nonce}")


async def test_fact_is_readable_json() -> None:
    world = World()
    error = JobError(code="x", message="Größe", failure_class="provider", attempt=1)
    await world.write(an_end(1, "cgt-1").model_copy(update={"error": error}))
    assert (await world.fact("end"))["error"]["class"] == "provider"
    assert "Größe" in world.memory.contents[world.names.attempt(1, "end")].decode()


async def test_key_of_lost_attempt_bars_no_later_one() -> None:
    world = World()
    await world.claim(key="01234567")
    await world.write(an_end(1, None, "lost"))
    await world.grant(accept=True)
    await world.claim(2)
    await world.ledger.note_identifiers_listed("byteplus", FINGERPRINT)
    decision = await world.decision()
    assert (decision.next, decision.attempt, decision.recovery and decision.recovery.doubt) == ("recover", 2, None)


async def test_live_task_beats_automatic_resubmit() -> None:
    world = World(settings=some_settings(seedance_automatic_resubmits=1))
    await world.claim(1, created("cgt-1"), created("cgt-2", "callback"))
    assert (await world.write_end(an_end(1, "cgt-1", "expired").error)).continues, "the other task follows"
    decision = await world.decision()
    assert (decision.next, decision.task_id) == ("adopt", "cgt-2")
    assert not [name for name in await world.facts() if "again" in name]


@pytest.mark.parametrize("alive", [True, False])
async def test_record_beats_resubmit_without_consent(alive: bool) -> None:
    """An attempt that was given up gets its end later, when the video of another one is stored, or its task lives."""
    world = World()
    for number in (1, 2):
        await world.claim(number)
    await world.write(an_end(1, None, "lost"))
    await world.write(created("cgt-2"), attempt=2)
    if not alive:
        await world.write_record("cgt-2")
    decision = await world.read_decision(1)
    assert (decision.next, decision.task_id) == ("adopt" if alive else "stored", "cgt-2")
    assert not [name for name in await world.facts() if ".again" in name]
