"""Finding the task of a create whose outcome is unknown, against the local Ark: only our own nonce is proof."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError

from dev.ark.control import ArkControl
from seedance_temporal.identity import safety_identifier
from seedance_temporal.ledger.facts import End, Listing, Outcome
from tests.support.jobs import (
    FINGERPRINT,
    a_listing,
    absent,
    accepted,
    an_end,
    created,
    not_sent,
    present,
    refused,
    some_settings,
)
from tests.support.memory_bucket import MemoryBucket
from tests.support.world import World


@pytest.fixture
async def world(ark: ArkControl) -> World:
    """A job whose first attempt was claimed, and whose outcome is unknown."""
    world = await World.at(ark)
    await world.claim()
    return world


UNKNOWN = ["0001.claim.json"]


# --- a callback names a task -----------------------------------------------------------------------------------------


async def test_task_with_our_nonce_is_ours(world: World) -> None:
    task_id = await world.create_task()
    assert await world.identify(task_id) == "ours"
    decision = await world.decision()
    assert (decision.next, decision.attempt, decision.task_id) == ("adopt", 1, task_id)
    assert (await world.fact("outcome")).items() >= {
        "kind": "created",
        "task_id": task_id,
        "source": "callback",
    }.items()


async def test_task_with_other_nonce_is_not_ours(world: World) -> None:
    same_user = safety_identifier(world.request.user_id, "f" * 32)
    others = [await world.create_task(identifier) for identifier in (same_user, "somebody-else", world.claims[0].nonce)]
    without = await world.create_task(safety_identifier=None)
    for task_id, answer in [*((other, "other") for other in others), (without, "not_yet")]:
        assert await world.identify(task_id) == answer
        assert (await world.asked(task_id)).get == 1
    assert await world.facts() == UNKNOWN


@pytest.mark.parametrize("task_id", ["cgt-nobody", "../tasks", "a b", ""])
async def test_unknown_task_is_not_ours_yet(world: World, task_id: str) -> None:
    assert await world.identify(task_id) == "not_yet"
    assert await world.facts() == UNKNOWN


async def test_task_is_ours_once_get_shows_it(world: World) -> None:
    task_id = await world.create_task()
    await world.ark.fault("get", "404", code="ResourceNotFound")
    assert await world.identify(task_id) == "not_yet"
    assert await world.facts() == UNKNOWN
    assert await world.identify(task_id) == "ours"
    assert (await world.decision()).task_id == task_id


async def test_nonce_names_attempt_of_task(world: World) -> None:
    task_id = await world.create_task()
    await world.write(not_sent())
    await world.claim(2)
    assert await world.identify(task_id, attempt=2) == "other"
    decision = await world.decision()
    assert (decision.next, decision.attempt) == ("recover", 2)
    assert await world.facts() == ["0001.claim.json", "0001.outcome.json", "0002.claim.json"]

    assert await world.identify(task_id, attempt=1) == "ours"
    decision = await world.decision()
    assert (decision.next, decision.attempt, decision.task_id) == ("adopt", 1, task_id), "a live task decides"
    assert f"0001.late-{task_id}.json" in await world.facts()


@pytest.mark.parametrize("first", [absent(), not_sent(), refused()], ids=lambda o: o.kind)
async def test_task_after_other_outcome_is_adopted(world: World, first: Outcome) -> None:
    await world.write(first)
    task_id = await world.create_task()
    assert await world.identify(task_id) == "ours"
    decision = await world.decision()
    assert (decision.next, decision.attempt, decision.task_id) == ("adopt", 1, task_id)
    assert await world.facts() == ["0001.claim.json", f"0001.late-{task_id}.json", "0001.outcome.json"]


async def test_second_task_of_created_attempt_is_shown(world: World) -> None:
    await world.write(created("cgt-first"))
    task_id = await world.create_task()
    assert await world.identify(task_id) == "ours"
    decision = await world.decision()
    assert (decision.next, decision.task_id, decision.second_task) == ("adopt", "cgt-first", task_id)


async def test_accepted_create_is_found(world: World) -> None:
    await world.write(accepted())
    task_id = await world.create_task()
    assert await world.identify(task_id) == "ours"
    decision = await world.decision()
    assert (decision.next, decision.task_id) == ("adopt", task_id)


async def test_known_task_costs_no_get(world: World) -> None:
    task_id = await world.create_task()
    await world.write(created(task_id))
    assert await world.identify(task_id) == "known"
    decision = await world.decision()
    assert (decision.next, decision.task_id, (await world.asked(task_id)).get) == ("adopt", task_id, 0)
    assert len(await world.facts()) == 2


async def test_unclaimed_attempt_costs_no_get(world: World) -> None:
    task_id = await world.create_task()
    assert await world.identify(task_id, attempt=7) == "not_yet"
    decision = await world.decision()
    assert (decision.next, decision.attempt, (await world.asked(task_id)).get) == ("recover", 1, 0)
    assert await world.facts() == UNKNOWN


@pytest.mark.parametrize("fault", ["401", "404", "429", "500", "502", "reset"])
async def test_unchecked_callback_is_not_believed(world: World, fault: str) -> None:
    task_id = await world.create_task()
    fields = {"code": "NotFound"} if fault == "404" else {}
    await world.ark.fault("get", fault, **fields)
    with pytest.raises(ApplicationError) as caught:
        await world.identify(task_id)
    assert (caught.value.type, caught.value.non_retryable) == ("ProviderUnavailable", False)
    assert await world.facts() == UNKNOWN


# --- absence ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def silent() -> World:
    """A job without an answer, whose attempt is old enough to count as absent."""
    world = World()
    await world.claim()
    await world.ledger.note_identifiers_listed("byteplus", FINGERPRINT)
    world.make_older(seconds=800)
    return world


def proofs(world: World, *ages: float, **given: Any) -> tuple[Listing, ...]:
    """Complete listings, so many seconds ago, that do not show the attempt."""
    now = datetime.now(UTC)
    return tuple(a_listing(world.claims[0], now - timedelta(seconds=age), **given) for age in ages)


async def test_two_listings_prove_absence_and_allow_claim(silent: World) -> None:
    decision = await silent.settle_absent(proofs(silent, 100, 10))
    assert (decision.next, decision.attempt) == ("claim", 2)
    assert (await silent.fact("outcome")).items() >= {"kind": "absent", "source": "list"}.items()
    assert await silent.facts() == ["0001.claim.json", "0001.outcome.json"]
    # The same resolution again, as after a Reset, changes nothing.
    assert (await silent.settle_absent(proofs(silent, 100, 10))).next == "claim"
    assert await silent.facts() == ["0001.claim.json", "0001.outcome.json"]


async def test_second_attempt_is_never_absent(silent: World) -> None:
    await silent.settle_absent(proofs(silent, 100, 10))
    second = await silent.claim(2)
    silent.make_older(2, seconds=800)
    decision = await silent.settle_absent(
        proofs(silent, 100, 10, attempt=2, safety_identifier=second.safety_identifier), attempt=2
    )
    assert (decision.next, decision.attempt, present(decision.recovery).needs_operator) == ("recover", 2, True)
    assert "0002.outcome.json" not in await silent.facts()


async def test_unproven_absence_stays_unknown(silent: World) -> None:
    for listings in (
        proofs(silent),
        proofs(silent, 10),
        proofs(silent, 100, 10, complete=False),
        proofs(silent, 100, 10, unmarked=True),
        proofs(silent, 100, 10, task_id="cgt-1"),
        proofs(silent, 100, 10, safety_identifier="another"),
        proofs(silent, 100, 10, key="01234567"),
        proofs(silent, 100, 10, key=""),
        (*proofs(silent, 100), *proofs(silent, 10, key="01234567")),
    ):
        decision = await silent.settle_absent(listings)
        assert (decision.next, decision.attempt) == ("recover", 1)
    assert await silent.facts() == UNKNOWN


async def test_unlisted_identifiers_prove_no_absence(silent: World) -> None:
    del silent.memory.stored[f"seedance/echo-byteplus-{FINGERPRINT}.json"]
    decision = await silent.settle_absent(proofs(silent, 100, 10))
    assert (decision.next, present(decision.recovery).needs_operator) == ("recover", True)
    await silent.ledger.note_identifiers_listed("volcengine", FINGERPRINT)
    assert (await silent.settle_absent(proofs(silent, 100, 10))).next == "recover", "each route is another provider"
    assert await silent.facts() == UNKNOWN


@pytest.mark.parametrize("outcome", [created("cgt-1"), refused(), not_sent()], ids=lambda o: o.kind)
async def test_newer_ledger_facts_are_obeyed(silent: World, outcome: Outcome) -> None:
    await silent.write(outcome)
    decision = await silent.settle_absent(proofs(silent, 100, 10))
    assert decision.next == {"created": "adopt", "refused": "ended"}.get(outcome.kind, "claim")
    assert (await silent.fact("outcome"))["kind"] == outcome.kind


async def test_accepted_create_is_never_absent(silent: World) -> None:
    await silent.write(accepted())
    assert (await silent.settle_absent(proofs(silent, 100, 10))).next == "recover"
    assert await silent.facts() == ["0001.claim.json", "0001.taken.json"]


async def test_proofs_of_other_attempt_settle_nothing(silent: World) -> None:
    for attempt in (0, 2, 7):
        decision = await silent.settle_absent(proofs(silent, 100, 10), attempt=attempt)
        assert (decision.next, decision.attempt) == ("recover", 1)
    assert await silent.facts() == UNKNOWN


async def test_late_task_after_absence_is_adopted(silent: World) -> None:
    await silent.settle_absent(proofs(silent, 100, 10))
    await silent.write(created("cgt-slow"))
    decision = await silent.decision()
    assert (decision.next, decision.attempt, decision.task_id) == ("adopt", 1, "cgt-slow")


async def test_404_under_other_key_is_no_answer(world: World) -> None:
    """A key sees only the tasks of its own project."""
    await world.claim(2, key="0123abcd")
    with pytest.raises(ApplicationError, match=r"does not show task cgt-9: .* of fingerprint 0123abcd") as raised:
        await world.identify("cgt-9", attempt=2)
    assert raised.value.type == "ProviderUnavailable"


async def test_id_that_no_task_can_have_is_not_asked_for_again(world: World) -> None:
    """A leaked callback URL can name any text. What the provider calls invalid is no outage."""
    await world.ark.fault("get", "400", code="InvalidParameter", times=2)
    assert await world.identify("no task") == "not_yet"
    answer = await world.resolve("adopt", "no task")
    assert not answer.accepted
    assert "does not show task no task" in answer.message


# --- an operator's resolution ----------------------------------------------------------------------------------------


async def test_operator_adopts_matching_task(world: World) -> None:
    task_id = await world.create_task()
    answer = await world.resolve("adopt", task_id)
    assert answer.accepted
    assert task_id in answer.message
    assert (await world.fact("outcome")).items() >= {"task_id": task_id, "source": "operator"}.items()
    assert await world.facts() == ["0001.claim.json", "0001.outcome.json"]


async def test_operator_cannot_adopt_foreign_task(world: World) -> None:
    task_id = await world.create_task(safety_identifier(world.request.user_id, "d" * 32))
    answer = await world.resolve("adopt", task_id)
    assert not answer.accepted
    assert world.claims[0].safety_identifier in answer.message
    assert await world.facts() == UNKNOWN


@pytest.mark.parametrize("task_id", ["cgt-nobody", "cgt 1", "../tasks", "", None])
async def test_operator_cannot_adopt_missing_task(world: World, task_id: str | None) -> None:
    assert not (await world.resolve("adopt", task_id)).accepted
    assert await world.facts() == UNKNOWN


async def test_unchecked_adoption_is_retryable(world: World) -> None:
    task_id = await world.create_task()
    await world.ark.fault("get", "500")
    with pytest.raises(ApplicationError):
        await world.resolve("adopt", task_id)
    assert await world.facts() == UNKNOWN


async def test_not_created_before_end_of_search_is_refused(world: World) -> None:
    """A task can come by the provider's clock until the window ends, and clocks differ by 30 seconds at most."""
    world.make_older(seconds=620)
    answer = await world.resolve("not_created")
    assert not answer.accepted
    assert "search for its task was not over" in answer.message
    assert await world.facts() == UNKNOWN


async def test_not_created_after_window_allows_claim(world: World) -> None:
    world.make_older(seconds=631)
    assert (await world.resolve("not_created")).accepted
    assert (await world.fact("outcome")).items() >= {"kind": "absent", "source": "operator"}.items()
    assert await world.facts() == ["0001.claim.json", "0001.outcome.json"]
    decision = await world.decision()
    assert (decision.next, decision.attempt) == ("claim", 2)


async def test_not_created_is_refused_for_accepted_create(world: World) -> None:
    world.make_older(days=1)
    await world.write(accepted())
    answer = await world.resolve("not_created")
    assert not answer.accepted
    assert "a task exists" in answer.message
    assert await world.facts() == ["0001.claim.json", "0001.taken.json"]


@pytest.mark.parametrize("facts", [(), (accepted(),)], ids=["unknown", "accepted"])
async def test_operator_gives_attempt_up(world: World, facts: tuple[Outcome, ...]) -> None:
    await world.write(*facts)
    before = await world.facts()
    answer = await world.resolve("lost")
    assert answer.accepted
    assert sorted({*await world.facts()} - {*before}) == ["0001.end.json"]
    decision = await world.decision()
    assert (decision.next, decision.attempt) == ("ended", 1)
    error = present(decision.error)
    assert (error.failure_class, error.task_id, error.resubmit_could_help) == ("lost", None, True)
    assert (await world.fact("end"))["timeline"][0]["event"] == "outcome_unknown"


# Seconds since the claim and since the sending, and why it is refused.
UNTIMELY: dict[str, tuple[float, float, str | None]] = {
    "in time": (700, 60, None),
    "by a clock that is ahead": (700, -25, None),
    "before the search was over": (700, 80, "was not over. Send this again in 0 s"),
    "before the claim": (100, 110, "before attempt 1 was made"),
    "before the claim of a Reset": (700, 701, "waited too long"),
    "too long ago": (7_000, 160, "waited too long"),
    "as the search began": (100, 90, "was not over. Send this again in 5"),
}

KNOWN: dict[str, tuple[Outcome | End, ...]] = {
    "created": (created("cgt-1"),),
    "refused": (refused(),),
    "not_sent": (not_sent(),),
    "absent": (absent().model_copy(update={"source": "list"}),),
    "late": (absent(), created("cgt-1")),
    "ended": (created("cgt-1"), an_end(1, "cgt-1")),
    "given up": (an_end(1, None, "lost"),),
}


@pytest.mark.parametrize("facts", KNOWN.values(), ids=KNOWN)
async def test_existing_task_of_known_attempt_is_adopted(world: World, facts: tuple[Outcome | End, ...]) -> None:
    """Such as one that an operator found after a wrong ``not_created``: a callback's would be followed as well."""
    task_id = await world.create_task()
    await world.write(*facts)
    for _ in range(2):
        assert (await world.resolve("adopt", task_id)).accepted
    decision = await world.decision()
    assert task_id in {decision.task_id, decision.second_task}


@pytest.mark.parametrize("action", ["not_created", "lost"])
async def test_repeated_resolution_is_accepted(world: World, action: str) -> None:
    """The worker that wrote it can die before it says so."""
    world.make_older(days=1)
    first = await world.resolve(action)
    assert first.accepted
    assert (await world.resolve(action)).accepted
    assert not (await world.resolve({"lost": "not_created", "not_created": "lost"}[action])).accepted


@pytest.mark.parametrize("action", ["not_created", "lost"])
async def test_faster_callback_beats_resolution(world: World, action: str) -> None:
    """Its task is written while the resolution is: the operator must not be told that there is none."""
    world.make_older(days=1)
    bucket = world.bucket
    assert isinstance(bucket, MemoryBucket)

    async def race() -> None:
        bucket.before.clear()
        await world.write(created("cgt-1"))

    bucket.before["outcome" if action == "not_created" else "end"] = race
    answer = await world.resolve(action)
    assert not answer.accepted
    assert "its task is cgt-1" in answer.message


@pytest.mark.parametrize("action", ["not_created", "lost"])
@pytest.mark.parametrize(("claimed_ago", "sent_ago", "problem"), UNTIMELY.values(), ids=UNTIMELY)
async def test_resolution_counts_from_when_it_was_sent(
    world: World, claimed_ago: float, sent_ago: float, problem: str | None, action: str
) -> None:
    """It can wait for a worker, or come back after a Reset, when a task was made since, or people think otherwise."""
    world.make_older(seconds=claimed_ago)
    if action == "lost" and "was not over" in (problem or ""):
        problem = None  # a search may be given up
    answer = await world.resolve(action, sent_at=datetime.now(UTC) - timedelta(seconds=sent_ago))
    assert answer.accepted == (problem is None)
    assert (problem or "") in answer.message
    assert (await world.facts() == UNKNOWN) == (problem is not None)


@pytest.mark.parametrize("action", ["not_created", "lost"])
@pytest.mark.parametrize("facts", KNOWN.values(), ids=KNOWN)
async def test_resolution_of_known_attempt_changes_nothing(
    world: World, facts: tuple[Outcome | End, ...], action: str
) -> None:
    world.make_older(days=1)
    task_id = await world.create_task()
    await world.write(*facts)
    before = await world.facts()
    answer = await world.resolve(action, task_id)
    assert not answer.accepted
    assert "not unknown" in answer.message
    assert (await world.facts(), (await world.asked(task_id)).get) == (before, 0)


@pytest.mark.parametrize("action", ["adopt", "not_created", "lost"])
async def test_resolution_of_missing_attempt_changes_nothing(world: World, action: str) -> None:
    for attempt in (0, 2, -1):
        assert not (await world.resolve(action, "cgt-1", attempt)).accepted
    assert await world.facts() == UNKNOWN


async def test_old_resolution_spares_later_attempt(world: World) -> None:
    """Signals come back after a Reset: this one was meant for the attempt before."""
    world.make_older(days=1)
    await world.write(not_sent())
    await world.claim(2)
    assert not (await world.resolve("not_created", attempt=1)).accepted
    assert await world.facts() == ["0001.claim.json", "0001.outcome.json", "0002.claim.json"]


async def test_not_created_under_other_key_is_refused(silent: World) -> None:
    """An operator sees the project of the present key, where a task of the first key never shows."""
    silent.settings = some_settings(ark_api_key=SecretStr("a key of another project"))
    answer = await silent.resolve("not_created")
    assert not answer.accepted
    assert FINGERPRINT in answer.message
    assert "--lost" in answer.message
    assert await silent.facts() == UNKNOWN
