"""Reading the ledger costs little, however many attempts were not sent; damaged objects are named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dev.ark.control import ArkControl
from seedance_temporal.ledger.store import LedgerDamaged
from tests.support.jobs import absent, an_end, created, not_sent, refused
from tests.support.memory_bucket import CountingBucket
from tests.support.world import World


@pytest.mark.parametrize("attempts", [3, 400, 2_000])
async def test_attempts_without_task_cost_no_reads(attempts: int) -> None:
    bucket = CountingBucket()
    world = World(bucket=bucket)
    for number in range(1, attempts + 1):
        await world.claim(number, not_sent())
    bucket.requests.clear()
    decision = await world.decision()
    assert (decision.next, decision.attempt) == ("claim", attempts + 1)
    # Of the first and the newest attempt, the claim and the outcome.
    assert bucket.requests == {"list": 1, "read": 4}


@pytest.mark.parametrize("real", [False, True])
async def test_listing_tells_what_an_attempt_came_to(real: bool, request: pytest.FixtureRequest) -> None:
    world = World(bucket=request.getfixturevalue("google")) if real else World()
    for number, outcome in enumerate([not_sent(), not_sent(), absent(), refused(), created("cgt-5"), not_sent()], 1):
        await world.claim(number, outcome)
    facts = await world.ledger.read(world.job_id)
    read = [attempt.claim is not None for attempt in facts.attempts]
    assert [attempt.outcome and attempt.outcome.kind for attempt in facts.attempts] == [
        "not_sent",
        "not_sent",
        "absent",
        "refused",
        "created",
        "not_sent",
    ]
    assert read == [True, False, True, True, True, True]
    assert (await world.ledger.read(world.job_id, 2)).attempts[1].claim is not None


async def test_operators_word_on_a_middle_attempt_is_read() -> None:
    """What the operator called absent can be billed all the same, so the job does not say that nothing is."""
    world = World()
    for number, outcome in enumerate([not_sent(), absent(), not_sent()], 1):
        await world.claim(number, outcome)
    decision = await world.decision()
    assert (decision.next, decision.attempt, decision.may_be_billed) == ("claim", 4, True)


async def test_late_task_of_attempt_without_task_is_followed() -> None:
    world = World()
    for number in range(1, 4):
        await world.claim(number, not_sent())
    await world.write(created("cgt-2", "callback"), attempt=2)
    decision = await world.decision()
    assert (decision.next, decision.attempt, decision.task_id) == ("adopt", 2, "cgt-2")


async def test_outcome_without_kind_is_read() -> None:
    """An object of an older worker has none, and one whose metadata changed counts as one without."""
    world = World()
    for number in range(1, 4):
        await world.claim(number, not_sent())
    assert (await world.read_attempt(2)).claim is None
    name = world.names.attempt(2, "outcome")
    world.memory.stored[name] = replace(world.memory.stored[name], kind=None)
    assert (await world.read_attempt(2)).claim is not None


async def test_written_outcome_returns_no_list(ark: ArkControl) -> None:
    world = await World.at(ark)
    result = await world.create()
    assert result.outcome is not None
    assert (result.kind, result.written, result.outcome.ledger) == ("created", True, ())
    assert (await world.fact("outcome"))["ledger"], "the bucket holds it"


# Damage

BAD_CONTENTS = {
    "empty": b"",
    "cut": b'{"job_id": "seed',
    "another value": b"[]",
    "another object": b'{"hello": "world"}',
    "not UTF-8": b"\xff\xfe",
    "a thousand brackets": b"[" * 1_000,
}


@pytest.mark.parametrize("kind", ["claim", "outcome", "end", "again", "record"])
@pytest.mark.parametrize("bad", BAD_CONTENTS)
async def test_damaged_object_is_named(kind: str, bad: str) -> None:
    world = World()
    await world.claim(1, created("cgt-1"), an_end(1, "cgt-1"))
    await world.grant()
    await world.write_record()
    name = world.names.record if kind == "record" else world.names.attempt(1, kind)
    world.memory.contents[name] = BAD_CONTENTS[bad]
    with pytest.raises(LedgerDamaged, match=f"gs://videos/{name} "):
        await world.ledger.read(world.job_id)


@pytest.mark.parametrize("kind", ["claim", "outcome"])
async def test_changed_object_is_named(kind: str) -> None:
    """Valid fields that are not those which were written, such as another nonce."""
    world = World()
    await world.claim(1, created("cgt-1"))
    name = world.names.attempt(1, kind)
    content = world.memory.contents[name]
    world.memory.contents[name] = content.replace(b"cgt-1", b"cgt-2").replace(b'"attempt": 1', b'"attempt": 2')
    with pytest.raises(LedgerDamaged, match="does not match the SHA-256"):
        await world.ledger.read(world.job_id)


async def test_paid_task_is_followed_beside_damage(ark: ArkControl) -> None:
    world = await World.at(ark)
    await world.create()
    world.task_id = (await world.fact("outcome"))["task_id"]
    name = world.names.attempt(1, "claim")
    world.memory.contents[name] = b""
    seen = await world.poll()
    assert (seen.next, seen.attention) == ("wait", "ledger_damaged")
    assert seen.note is not None
    assert f"gs://videos/{name} is empty, cut, or another object" in seen.note
