"""Finding the task of a create whose outcome is unknown, against the local Ark: only our own nonce is proof."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError

from activities.recover import AbsentInput, IdentifyInput, RecoverActivities, ResolveInput
from dev.ark.control import ArkControl
from seedance_temporal.contract import Resolve, ResolveAnswer
from seedance_temporal.events import Event
from seedance_temporal.identity import safety_identifier
from seedance_temporal.ledger.decisions import Decision, decide_at
from seedance_temporal.ledger.facts import Claim, Listing, Outcome
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from tests.support.jobs import (
    BODY,
    FINGERPRINT,
    KEY,
    a_claim,
    a_client,
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


@dataclass
class World:
    """One job whose first attempt was claimed, and whose outcome is unknown."""

    ark: ArkControl
    client: Ark
    claim: Claim
    settings: Settings
    bucket: MemoryBucket = field(default_factory=MemoryBucket)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.bucket, "seedance")

    @property
    def request(self) -> VideoRequest:
        return self.claim.request

    @property
    def job_id(self) -> str:
        return self.claim.job_id

    @property
    def objects(self) -> list[str]:
        root = names(self.request).root
        return sorted(name.removeprefix(root + "attempts/") for name in self.bucket.contents if name.startswith(root))

    @property
    def activities(self) -> RecoverActivities:
        return RecoverActivities(self.ledger, self.client, self.settings)

    async def task(self, identifier: str | None = None, **fields: Any) -> str:
        """Create a task at the provider: of the claim, if no identifier is given."""
        answer = await self.client.create(
            BODY | {"safety_identifier": identifier or self.claim.safety_identifier} | fields
        )
        assert answer.task_id is not None
        return answer.task_id

    async def identify(self, task_id: str, attempt: int = 1) -> str:
        input = IdentifyInput(job_id=self.job_id, attempt=attempt, task_id=task_id)
        return (await in_activity(self.activities.identify_task, input)).answer

    async def absent(self, *listings: Listing, attempt: int = 1) -> Decision:
        input = AbsentInput(job_id=self.job_id, attempt=attempt, listings=listings)
        return await in_activity(self.activities.settle_absent, input)

    async def decision(self) -> Decision:
        return decide_at(await self.ledger.read(self.job_id), self.settings)

    async def resolve(self, action: str, task_id: str | None = None, attempt: int = 1) -> ResolveAnswer:
        resolution = Resolve.model_validate({"attempt": attempt, "action": action, "task_id": task_id})
        entry = Event(at=self.claim.claimed_at, event="outcome_unknown", source="create")
        input = ResolveInput(job_id=self.job_id, resolution=resolution, timeline=(entry,))
        return await in_activity(self.activities.resolve_attempt, input)

    async def settle(self, outcome: Outcome, attempt: int = 1) -> None:
        await self.ledger.settle(self.job_id, attempt, outcome)

    def outcome(self, attempt: int = 1) -> dict[str, Any]:
        return content(self.bucket, names(self.request).attempt(attempt, "outcome"))

    def make_older(self, **by: float) -> None:
        make_older(self.bucket, names(self.request).attempt(1, "claim"), **by)

    async def gets(self, task_id: str) -> int:
        asked = (await self.ark.requests()).tasks.get(task_id)
        return asked.get if asked is not None else 0


async def a_world(ark: ArkControl, **fields: Any) -> World:
    world = World(ark, a_client(ark), a_claim(a_request(**fields)), some_settings(ark))
    await world.ledger.claim(world.claim)
    return world


UNKNOWN = ["0001.claim.json"]


# --- a callback names a task -----------------------------------------------------------------------------------------


async def test_task_with_our_nonce_is_ours(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    assert await world.identify(task_id) == "ours"
    decision = await world.decision()
    assert (decision.next, decision.attempt, decision.task_id) == ("adopt", 1, task_id)
    assert (world.outcome()["kind"], world.outcome()["task_id"], world.outcome()["source"]) == (
        "created",
        task_id,
        "callback",
    )


async def test_task_with_other_nonce_is_not_ours(ark: ArkControl) -> None:
    world = await a_world(ark)
    same_user = safety_identifier(world.request.user_id, "f" * 32)
    others = [await world.task(identifier) for identifier in (same_user, "somebody-else", world.claim.nonce)]
    without = await world.task(safety_identifier=None)
    for task_id, answer in [*((other, "other") for other in others), (without, "not_yet")]:
        assert await world.identify(task_id) == answer
        assert await world.gets(task_id) == 1
    assert world.objects == UNKNOWN


@pytest.mark.parametrize("task_id", ["cgt-nobody", "../tasks", "a b", ""])
async def test_unknown_task_is_not_ours_yet(ark: ArkControl, task_id: str) -> None:
    world = await a_world(ark)
    assert await world.identify(task_id) == "not_yet"
    assert world.objects == UNKNOWN


async def test_task_is_ours_once_get_shows_it(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    await ark.fault("get", "404", code="ResourceNotFound")
    assert await world.identify(task_id) == "not_yet"
    assert world.objects == UNKNOWN
    assert await world.identify(task_id) == "ours"
    assert (await world.decision()).task_id == task_id


async def test_nonce_names_attempt_of_task(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    await world.settle(not_sent())
    await world.ledger.claim(a_claim(world.request, 2))
    assert await world.identify(task_id, attempt=2) == "other"
    decision = await world.decision()
    assert (decision.next, decision.attempt) == ("recover", 2)
    assert world.objects == ["0001.claim.json", "0001.outcome.json", "0002.claim.json"]

    assert await world.identify(task_id, attempt=1) == "ours"
    decision = await world.decision()
    assert (decision.next, decision.attempt, decision.task_id) == ("adopt", 1, task_id), "a live task decides"
    assert f"0001.late-{task_id}.json" in world.objects


@pytest.mark.parametrize("first", [absent(), not_sent(), refused()], ids=lambda o: o.kind)
async def test_task_after_other_outcome_is_adopted(ark: ArkControl, first: Outcome) -> None:
    world = await a_world(ark)
    await world.settle(first)
    task_id = await world.task()
    assert await world.identify(task_id) == "ours"
    decision = await world.decision()
    assert (decision.next, decision.attempt, decision.task_id) == ("adopt", 1, task_id)
    assert world.objects == ["0001.claim.json", f"0001.late-{task_id}.json", "0001.outcome.json"]


async def test_second_task_of_created_attempt_is_shown(ark: ArkControl) -> None:
    world = await a_world(ark)
    await world.settle(created("cgt-first"))
    task_id = await world.task()
    assert await world.identify(task_id) == "ours"
    decision = await world.decision()
    assert (decision.next, decision.task_id, decision.second_task) == ("adopt", "cgt-first", task_id)


async def test_accepted_create_is_found(ark: ArkControl) -> None:
    world = await a_world(ark)
    await world.ledger.settle(world.job_id, 1, accepted_without_id())
    task_id = await world.task()
    assert await world.identify(task_id) == "ours"
    decision = await world.decision()
    assert (decision.next, decision.task_id) == ("adopt", task_id)


async def test_known_task_costs_no_get(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    await world.settle(created(task_id))
    assert await world.identify(task_id) == "known"
    decision = await world.decision()
    assert (decision.next, decision.task_id, await world.gets(task_id)) == ("adopt", task_id, 0)
    assert len(world.objects) == 2


async def test_unclaimed_attempt_costs_no_get(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    assert await world.identify(task_id, attempt=7) == "not_yet"
    decision = await world.decision()
    assert (decision.next, decision.attempt, await world.gets(task_id)) == ("recover", 1, 0)
    assert world.objects == UNKNOWN


@pytest.mark.parametrize("fault", ["401", "404", "429", "500", "502", "reset"])
async def test_unchecked_callback_is_not_believed(ark: ArkControl, fault: str) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    fields = {"code": "NotFound"} if fault == "404" else {}
    await ark.fault("get", fault, **fields)
    with pytest.raises(ApplicationError) as caught:
        await world.identify(task_id)
    assert (caught.value.type, caught.value.non_retryable) == ("ProviderUnavailable", False)
    assert world.objects == UNKNOWN


# --- absence ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def silent() -> World:
    """A job without an answer, whose attempt is old enough to count as absent."""
    claim = a_claim(a_request())
    world = World(ArkControl("http://127.0.0.1:1"), Ark("http://127.0.0.1:1", KEY), claim, some_settings())
    await world.ledger.claim(claim)
    await world.ledger.note_identifiers_listed("byteplus", FINGERPRINT)
    world.make_older(seconds=800)
    return world


def proofs(world: World, *ages: float, **given: Any) -> tuple[Listing, ...]:
    """Complete listings, so many seconds ago, that do not show the attempt."""
    nothing = {
        "attempt": 1,
        "safety_identifier": world.claim.safety_identifier,
        "complete": True,
        "task_id": None,
        "unmarked": False,
        "key": FINGERPRINT,
    }
    now = datetime.now(UTC)
    return tuple(Listing.model_validate(nothing | {"began_at": now - timedelta(seconds=age)} | given) for age in ages)


async def test_two_listings_prove_absence_and_allow_claim(silent: World) -> None:
    decision = await silent.absent(*proofs(silent, 100, 10))
    assert (decision.next, decision.attempt) == ("claim", 2)
    assert (silent.outcome()["kind"], silent.outcome()["source"]) == ("absent", "list")
    assert silent.objects == ["0001.claim.json", "0001.outcome.json"]
    # The same resolution again, as after a Reset, changes nothing.
    assert (await silent.absent(*proofs(silent, 100, 10))).next == "claim"
    assert silent.objects == ["0001.claim.json", "0001.outcome.json"]


async def test_second_attempt_is_never_absent(silent: World) -> None:
    await silent.absent(*proofs(silent, 100, 10))
    second = a_claim(silent.request, 2)
    await silent.ledger.claim(second)
    make_older(silent.bucket, names(silent.request).attempt(2, "claim"), seconds=800)
    decision = await silent.absent(
        *proofs(silent, 100, 10, attempt=2, safety_identifier=second.safety_identifier), attempt=2
    )
    assert decision.recovery is not None
    assert (decision.next, decision.attempt, decision.recovery.needs_operator) == ("recover", 2, True)
    assert "0002.outcome.json" not in silent.objects


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
        decision = await silent.absent(*listings)
        assert (decision.next, decision.attempt) == ("recover", 1)
    assert silent.objects == UNKNOWN


async def test_unlisted_identifiers_prove_no_absence(silent: World) -> None:
    del silent.bucket.stored[f"seedance/echo-byteplus-{FINGERPRINT}.json"]
    decision = await silent.absent(*proofs(silent, 100, 10))
    assert decision.recovery is not None
    assert (decision.next, decision.recovery.needs_operator) == ("recover", True)
    await silent.ledger.note_identifiers_listed("volcengine", FINGERPRINT)
    assert (await silent.absent(*proofs(silent, 100, 10))).next == "recover", "each route is another provider"
    assert silent.objects == UNKNOWN


@pytest.mark.parametrize("outcome", [created("cgt-1"), refused(), not_sent()], ids=lambda o: o.kind)
async def test_newer_ledger_facts_are_obeyed(silent: World, outcome: Outcome) -> None:
    await silent.settle(outcome)
    decision = await silent.absent(*proofs(silent, 100, 10))
    assert decision.next == {"created": "adopt", "refused": "ended"}.get(outcome.kind, "claim")
    assert silent.outcome()["kind"] == outcome.kind


async def test_accepted_create_is_never_absent(silent: World) -> None:
    await silent.ledger.settle(silent.job_id, 1, accepted_without_id())
    assert (await silent.absent(*proofs(silent, 100, 10))).next == "recover"
    assert silent.objects == ["0001.claim.json", "0001.taken.json"]


async def test_proofs_of_other_attempt_settle_nothing(silent: World) -> None:
    for attempt in (0, 2, 7):
        decision = await silent.absent(*proofs(silent, 100, 10), attempt=attempt)
        assert (decision.next, decision.attempt) == ("recover", 1)
    assert silent.objects == UNKNOWN


async def test_late_task_after_absence_is_adopted(silent: World) -> None:
    await silent.absent(*proofs(silent, 100, 10))
    await silent.settle(created("cgt-slow"))
    decision = await silent.decision()
    assert (decision.next, decision.attempt, decision.task_id) == ("adopt", 1, "cgt-slow")


# --- an operator's resolution ----------------------------------------------------------------------------------------


async def test_operator_adopts_matching_task(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    answer = await world.resolve("adopt", task_id)
    assert answer.accepted
    assert task_id in answer.message
    assert (world.outcome()["task_id"], world.outcome()["source"]) == (task_id, "operator")
    assert world.objects == ["0001.claim.json", "0001.outcome.json"]


async def test_operator_cannot_adopt_foreign_task(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task(safety_identifier(world.request.user_id, "d" * 32))
    answer = await world.resolve("adopt", task_id)
    assert not answer.accepted
    assert world.claim.safety_identifier in answer.message
    assert world.objects == UNKNOWN


@pytest.mark.parametrize("task_id", ["cgt-nobody", "cgt 1", "../tasks", "", None])
async def test_operator_cannot_adopt_missing_task(ark: ArkControl, task_id: str | None) -> None:
    world = await a_world(ark)
    assert not (await world.resolve("adopt", task_id)).accepted
    assert world.objects == UNKNOWN


async def test_unchecked_adoption_is_retryable(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    await ark.fault("get", "500")
    with pytest.raises(ApplicationError):
        await world.resolve("adopt", task_id)
    assert world.objects == UNKNOWN


async def test_not_created_before_window_is_refused(ark: ArkControl) -> None:
    world = await a_world(ark)
    world.make_older(seconds=590)
    answer = await world.resolve("not_created")
    assert not answer.accepted
    assert "search for its task is not over" in answer.message
    assert world.objects == UNKNOWN


async def test_not_created_after_window_allows_claim(ark: ArkControl) -> None:
    world = await a_world(ark)
    world.make_older(seconds=601)
    assert (await world.resolve("not_created")).accepted
    assert (world.outcome()["kind"], world.outcome()["source"]) == ("absent", "operator")
    assert world.objects == ["0001.claim.json", "0001.outcome.json"]
    decision = await world.decision()
    assert (decision.next, decision.attempt) == ("claim", 2)


async def test_not_created_is_refused_for_accepted_create(ark: ArkControl) -> None:
    world = await a_world(ark)
    world.make_older(days=1)
    await world.ledger.settle(world.job_id, 1, accepted_without_id())
    answer = await world.resolve("not_created")
    assert not answer.accepted
    assert "a task exists" in answer.message
    assert world.objects == ["0001.claim.json", "0001.taken.json"]


@pytest.mark.parametrize("accepted", [False, True])
async def test_operator_gives_attempt_up(ark: ArkControl, accepted: bool) -> None:
    world = await a_world(ark)
    if accepted:
        await world.ledger.settle(world.job_id, 1, accepted_without_id())
    before = world.objects
    answer = await world.resolve("lost")
    assert answer.accepted
    assert sorted({*world.objects} - {*before}) == ["0001.end.json"]
    decision = await world.decision()
    assert (decision.next, decision.attempt) == ("ended", 1)
    assert decision.error is not None
    assert (decision.error.failure_class, decision.error.task_id, decision.error.resubmit_could_help) == (
        "lost",
        None,
        True,
    )
    assert content(world.bucket, names(world.request).attempt(1, "end"))["timeline"][0]["event"] == "outcome_unknown"


async def _known(world: World, how: str) -> None:
    match how:
        case "ended":
            await world.settle(created("cgt-1"))
            await world.ledger.end(world.job_id, 1, an_end(1, "cgt-1"))
        case "given up":
            await world.ledger.end(world.job_id, 1, an_end(1, None, "lost"))
        case "late":
            await world.settle(absent())
            await world.settle(created("cgt-1"))
        case _:
            kinds = {"created": created("cgt-1"), "refused": refused(), "not_sent": not_sent(), "absent": absent()}
            await world.settle(kinds[how])


@pytest.mark.parametrize("action", ["adopt", "not_created", "lost"])
@pytest.mark.parametrize("how", ["created", "refused", "not_sent", "absent", "late", "ended", "given up"])
async def test_resolution_of_known_attempt_changes_nothing(ark: ArkControl, how: str, action: str) -> None:
    world = await a_world(ark)
    world.make_older(days=1)
    task_id = await world.task()
    await _known(world, how)
    before = world.objects
    answer = await world.resolve(action, task_id)
    assert not answer.accepted
    assert "not unknown" in answer.message
    assert (world.objects, await world.gets(task_id)) == (before, 0)


@pytest.mark.parametrize("action", ["adopt", "not_created", "lost"])
async def test_resolution_of_missing_attempt_changes_nothing(ark: ArkControl, action: str) -> None:
    world = await a_world(ark)
    for attempt in (0, 2, -1):
        assert not (await world.resolve(action, "cgt-1", attempt)).accepted
    assert world.objects == UNKNOWN


async def test_old_resolution_spares_later_attempt(ark: ArkControl) -> None:
    """Updates come back after a Reset: this one was meant for the attempt before."""
    world = await a_world(ark)
    world.make_older(days=1)
    await world.settle(not_sent())
    await world.ledger.claim(a_claim(world.request, 2))
    assert not (await world.resolve("not_created", attempt=1)).accepted
    assert world.objects == ["0001.claim.json", "0001.outcome.json", "0002.claim.json"]


async def test_not_created_under_other_key_is_refused(silent: World) -> None:
    """An operator sees the project of the present key, where a task of the first key never shows."""
    silent.settings = some_settings(ark_api_key=SecretStr("a key of another project"))
    answer = await silent.resolve("not_created")
    assert not answer.accepted
    assert FINGERPRINT in answer.message
    assert "--lost" in answer.message
    assert silent.objects == UNKNOWN
