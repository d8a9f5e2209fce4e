"""Finding the task of a create whose outcome is unknown, against the local Ark: only our own nonce is proof."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

import activities.ark
from activities import recover
from activities.ark import Ark
from activities.facts import Claim, Look, Outcome
from activities.ledger import Ledger
from activities.recover import RecoverActivities, RecoverOrder, ResolveOrder
from dev.ark.control import ArkControl
from seedance_temporal.identity import safety_identifier
from seedance_temporal.job import Resolve, ResolveAnswer, Resubmit, TimelineEntry
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from tests.unit.jobs import (
    BODY,
    KEY,
    a_claim,
    a_client,
    a_record,
    a_request,
    absent,
    an_end,
    as_new,
    content,
    created,
    in_activity,
    local_ark,
    make_older,
    names,
    not_sent,
    refused,
    some_settings,
)
from tests.unit.memory_bucket import MemoryBucket
from tests.unit.raw_host import RawHost, raw_host


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ArkControl]:
    async with local_ark() as control:
        yield control


@pytest.fixture
async def ark(server: ArkControl, monkeypatch: pytest.MonkeyPatch) -> ArkControl:
    monkeypatch.setattr(activities.ark, "_LIST_SPACING_SECONDS", 0)
    await server.configure(list_echo=True)
    return await as_new(server)


@dataclass
class World:
    """One job whose first attempt was claimed, and whose outcome nobody knows."""

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
        return sorted(name.removeprefix(names(self.request).root + "attempts/") for name in self.bucket.contents)

    @property
    def activities(self) -> RecoverActivities:
        return RecoverActivities(self.ledger, self.client, self.settings)

    async def task(self, identifier: str | None = None, **fields: Any) -> str:
        """A task at the provider: of the claim, if no identifier is given."""
        answer = await self.client.create(
            BODY | {"safety_identifier": identifier or self.claim.safety_identifier} | fields
        )
        assert answer.task_id is not None
        return answer.task_id

    async def identify(self, task_id: str, attempt: int = 1) -> Look:
        order = RecoverOrder(job_id=self.job_id, attempt=attempt, task_id=task_id)
        return await in_activity(self.activities.identify_task, order)

    async def find(self, attempt: int = 1) -> Look:
        return await in_activity(self.activities.find_task, RecoverOrder(job_id=self.job_id, attempt=attempt))

    async def resolve(self, action: str, task_id: str | None = None, attempt: int = 1) -> ResolveAnswer:
        word = Resolve.model_validate({"attempt": attempt, "action": action, "task_id": task_id})
        entry = TimelineEntry(at=self.claim.claimed_at, what="unknown", how="create")
        order = ResolveOrder(job_id=self.job_id, resolve=word, timeline=(entry,))
        return await in_activity(self.activities.resolve_attempt, order)

    async def settle(self, outcome: Outcome, attempt: int = 1) -> None:
        await self.ledger.settle(self.job_id, attempt, outcome)

    def outcome(self, attempt: int = 1) -> dict[str, Any]:
        return content(self.bucket, names(self.request).attempt(attempt, "outcome"))

    def make_older(self, **by: float) -> None:
        make_older(self.bucket, names(self.request).attempt(1, "claim"), **by)

    async def gets(self, task_id: str) -> int:
        asked = (await self.ark.requests()).tasks.get(task_id)
        return asked.get if asked is not None else 0

    async def lists(self) -> int:
        return (await self.ark.requests()).list.get("byteplus", 0)


async def a_world(ark: ArkControl, **fields: Any) -> World:
    world = World(ark, a_client(ark), a_claim(a_request(**fields)), some_settings(ark))
    await world.ledger.claim(world.claim)
    return world


UNKNOWN = ["0001.claim.json"]


# --- a callback names a task -----------------------------------------------------------------------------------------


async def test_a_task_that_shows_our_nonce_is_ours(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    look = await world.identify(task_id)
    assert (look.next, look.attempt, look.task_id) == ("adopt", 1, task_id)
    assert (world.outcome()["kind"], world.outcome()["task_id"], world.outcome()["how"]) == (
        "created",
        task_id,
        "callback",
    )


async def test_a_task_that_shows_another_nonce_is_not_ours(ark: ArkControl) -> None:
    world = await a_world(ark)
    same_user = safety_identifier(world.request.user_id, "f" * 32)
    others = [await world.task(identifier) for identifier in (same_user, "somebody-else", world.claim.nonce)]
    without = await world.task(safety_identifier=None)
    for task_id in [*others, without]:
        assert (await world.identify(task_id)).next == "recover"
        assert await world.gets(task_id) == 1
    assert world.objects == UNKNOWN


@pytest.mark.parametrize("task_id", ["cgt-nobody", "../tasks", "a b", ""])
async def test_a_task_that_the_provider_does_not_know_is_not_ours(ark: ArkControl, task_id: str) -> None:
    world = await a_world(ark)
    assert (await world.identify(task_id)).next == "recover"
    assert world.objects == UNKNOWN


async def test_a_task_belongs_to_the_attempt_whose_nonce_it_shows(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    await world.settle(not_sent())
    await world.ledger.claim(a_claim(world.request, 2))
    look = await world.identify(task_id, attempt=2)
    assert (look.next, look.attempt) == ("recover", 2)
    assert world.objects == ["0001.claim.json", "0001.outcome.json", "0002.claim.json"]

    look = await world.identify(task_id, attempt=1)
    assert (look.next, look.attempt, look.second_task) == ("recover", 2, task_id), "shown, not dropped"
    assert f"0001.late-{task_id}.json" in world.objects


@pytest.mark.parametrize("first", [absent(), not_sent(), refused()], ids=lambda o: o.kind)
async def test_a_task_that_comes_after_another_outcome_is_adopted(ark: ArkControl, first: Outcome) -> None:
    world = await a_world(ark)
    await world.settle(first)
    task_id = await world.task()
    look = await world.identify(task_id)
    assert (look.next, look.attempt, look.task_id) == ("adopt", 1, task_id)
    assert world.objects == ["0001.claim.json", f"0001.late-{task_id}.json", "0001.outcome.json"]


async def test_a_second_task_of_a_created_attempt_is_shown(ark: ArkControl) -> None:
    world = await a_world(ark)
    await world.settle(created("cgt-first"))
    task_id = await world.task()
    look = await world.identify(task_id)
    assert (look.next, look.task_id, look.second_task) == ("adopt", "cgt-first", task_id)


async def test_a_taken_create_is_found(ark: ArkControl) -> None:
    world = await a_world(ark)
    await world.ledger.take(world.job_id, 1, "accepted")
    task_id = await world.task()
    look = await world.identify(task_id)
    assert (look.next, look.task_id) == ("adopt", task_id)


async def test_a_task_that_is_known_costs_no_get(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    await world.settle(created(task_id))
    look = await world.identify(task_id)
    assert (look.next, look.task_id, await world.gets(task_id)) == ("adopt", task_id, 0)
    assert len(world.objects) == 2


async def test_an_attempt_that_nobody_claimed_costs_no_get(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    look = await world.identify(task_id, attempt=7)
    assert (look.next, look.attempt, await world.gets(task_id)) == ("recover", 1, 0)
    assert world.objects == UNKNOWN


@pytest.mark.parametrize("fault", ["401", "404", "429", "500", "502", "reset"])
async def test_a_callback_that_cannot_be_checked_is_not_believed(ark: ArkControl, fault: str) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    fields = {"code": "NotFound"} if fault == "404" else {}
    await ark.fault("get", fault, **fields)
    with pytest.raises(ApplicationError) as caught:
        await world.identify(task_id)
    assert (caught.value.type, caught.value.non_retryable) == ("ProviderUnavailable", False)
    assert world.objects == UNKNOWN


# --- LIST ------------------------------------------------------------------------------------------------------------


async def test_our_task_is_found_among_those_of_others_on_several_pages(
    ark: ArkControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover, "_PAGE_SIZE", 2)
    world = await a_world(ark)
    others = [safety_identifier(world.request.user_id, f"{n:032x}") for n in range(3)]
    for identifier in others[:2]:
        await world.task(identifier)
    task_id = await world.task()
    for identifier in [*others, "somebody-else"]:
        await world.task(identifier)
    await world.task(safety_identifier=None)

    before = await world.lists()
    look = await world.find()
    assert (look.next, look.attempt, look.task_id) == ("adopt", 1, task_id)
    assert (world.outcome()["task_id"], world.outcome()["how"]) == (task_id, "list")
    assert await world.lists() - before == 3  # newest first: five others on two pages and a half
    assert world.objects == ["0001.claim.json", "0001.outcome.json"]


async def test_a_task_that_ended_is_found_as_well(ark: ArkControl) -> None:
    world = await a_world(ark)
    await ark.fault("task", "seconds", queued_seconds=0, running_seconds=0)
    task_id = await world.task()
    async with asyncio.timeout(10):
        while (await world.client.get(task_id) or {})["status"] != "succeeded":
            await asyncio.sleep(0.02)
    assert (await world.find()).task_id == task_id


async def test_tasks_of_others_are_not_ours(ark: ArkControl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover, "_PAGE_SIZE", 3)
    world = await a_world(ark)
    for identifier in (safety_identifier(world.request.user_id, "e" * 32), "", world.claim.nonce, None):
        await world.task(safety_identifier=identifier)
    before = await world.lists()
    look = await world.find()
    assert (look.next, look.attempt, look.look_again_after) == ("recover", 1, 30)
    assert await world.lists() - before > 1, "all pages were read"
    assert world.objects == UNKNOWN


async def test_a_listing_without_identifiers_proves_nothing(ark: ArkControl) -> None:
    world = await a_world(ark)
    await world.task()
    await ark.configure(list_echo=False)
    assert (await world.find()).next == "recover"
    assert world.objects == UNKNOWN


async def test_the_tier_of_the_request_is_listed(ark: ArkControl) -> None:
    world = await a_world(ark, service_tier="flex")
    task_id = await world.task(model="seedance-1-5-pro-251215", service_tier="flex")
    assert (await world.find()).task_id == task_id


@pytest.fixture
async def host(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RawHost]:
    monkeypatch.setattr(activities.ark, "_LIST_SPACING_SECONDS", 0)
    async with raw_host() as host:
        yield host


@pytest.mark.parametrize("total", [0, 99])
async def test_an_empty_listing_ends(host: RawHost, total: int) -> None:
    world = World(ArkControl(host.url), Ark(host.url, KEY), a_claim(a_request()), some_settings())
    await world.ledger.claim(world.claim)
    host.answers(200, f'{{"items": [], "total": {total}}}')
    assert (await world.find()).next == "recover"
    assert (len(host.requests), world.objects) == (1, UNKNOWN)
    await world.ark.aclose()


async def test_a_listing_that_does_not_end_is_given_up(host: RawHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover, "_MOST_PAGES", 3)
    world = World(ArkControl(host.url), Ark(host.url, KEY), a_claim(a_request()), some_settings())
    await world.ledger.claim(world.claim)
    host.answers(200, '{"items": [{"id": "cgt-1", "status": "queued"}], "total": 1000000}')
    assert (await world.find()).next == "recover"
    assert len(host.requests) == 3
    await world.ark.aclose()


async def test_a_listed_task_without_an_id_is_none(host: RawHost) -> None:
    world = World(ArkControl(host.url), Ark(host.url, KEY), a_claim(a_request()), some_settings())
    await world.ledger.claim(world.claim)
    host.answers(200, f'{{"items": [{{"safety_identifier": "{world.claim.safety_identifier}"}}], "total": 1}}')
    assert (await world.find()).next == "recover"
    assert world.objects == UNKNOWN
    await world.ark.aclose()


@pytest.mark.parametrize("fault", ["429", "500", "502", "503", "reset"])
async def test_a_list_without_a_usable_answer_is_to_be_repeated(ark: ArkControl, fault: str) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    fault_id = await ark.fault("list", fault)
    with pytest.raises(ApplicationError) as caught:
        await world.find()
    assert (caught.value.type, caught.value.non_retryable) == ("ProviderUnavailable", False)
    assert (len(await ark.fired(fault_id)), world.objects) == (1, UNKNOWN)
    assert (await world.find()).task_id == task_id


@pytest.mark.parametrize("fault", ["401", "403"])
async def test_an_account_in_trouble_leaves_the_attempt_unknown(ark: ArkControl, fault: str) -> None:
    world = await a_world(ark)
    await world.task()
    await ark.fault("list", fault)
    look = await world.find()
    assert (look.next, look.attempt, world.objects) == ("recover", 1, UNKNOWN)


async def test_a_listing_without_our_task_says_when_it_needs_a_person(ark: ArkControl) -> None:
    world = await a_world(ark)
    assert not (await world.find()).recovery_over
    world.make_older(seconds=601)
    look = await world.find()
    assert (look.next, look.recovery_over, look.look_again_after) == ("recover", True, 100)
    assert world.objects == UNKNOWN, "what is not listed may exist all the same"


@pytest.mark.parametrize("outcome", [created("cgt-1"), not_sent(), refused(), absent()], ids=lambda o: o.kind)
async def test_an_attempt_that_is_known_costs_no_list(ark: ArkControl, outcome: Outcome) -> None:
    world = await a_world(ark)
    await world.settle(outcome)
    before = await world.lists()
    look = await world.find()
    assert look.next == {"created": "adopt", "refused": "ended"}.get(outcome.kind, "claim")
    assert await world.lists() == before


async def test_a_job_that_is_stored_or_given_up_costs_no_list(ark: ArkControl) -> None:
    stored, given_up = await a_world(ark), await a_world(ark)
    await stored.bucket.create(names(stored.request).record, a_record("cgt-1"))
    await given_up.ledger.end(given_up.job_id, 1, an_end(1, None, "lost"))
    before = await stored.lists()
    assert (await stored.find()).next == "stored"
    assert (await given_up.find()).next == "ended"
    assert await stored.lists() == before


async def test_a_known_attempt_costs_no_list_while_another_one_is_unknown(ark: ArkControl) -> None:
    world = await a_world(ark)
    await world.settle(refused())
    await world.ledger.again(world.job_id, Resubmit(attempt=1))
    await world.ledger.claim(a_claim(world.request, 2))
    before = await world.lists()
    for attempt in (1, 7):
        look = await world.find(attempt)
        assert (look.next, look.attempt) == ("recover", 2)
    assert await world.lists() == before


# --- an operator's word ----------------------------------------------------------------------------------------------


async def test_an_operator_adopts_a_task_that_fits(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    answer = await world.resolve("adopt", task_id)
    assert answer.accepted
    assert task_id in answer.message
    assert (world.outcome()["task_id"], world.outcome()["how"]) == (task_id, "operator")
    assert world.objects == ["0001.claim.json", "0001.outcome.json"]


async def test_an_operator_cannot_adopt_the_task_of_another(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task(safety_identifier(world.request.user_id, "d" * 32))
    answer = await world.resolve("adopt", task_id)
    assert not answer.accepted
    assert world.claim.safety_identifier in answer.message
    assert world.objects == UNKNOWN


@pytest.mark.parametrize("task_id", ["cgt-nobody", "cgt 1", "../tasks", "", None])
async def test_an_operator_cannot_adopt_a_task_that_is_none(ark: ArkControl, task_id: str | None) -> None:
    world = await a_world(ark)
    assert not (await world.resolve("adopt", task_id)).accepted
    assert world.objects == UNKNOWN


async def test_an_adoption_that_cannot_be_checked_is_to_be_repeated(ark: ArkControl) -> None:
    world = await a_world(ark)
    task_id = await world.task()
    await ark.fault("get", "500")
    with pytest.raises(ApplicationError):
        await world.resolve("adopt", task_id)
    assert world.objects == UNKNOWN


async def test_not_created_is_too_early_before_the_window_is_over(ark: ArkControl) -> None:
    world = await a_world(ark)
    world.make_older(seconds=590)
    answer = await world.resolve("not_created")
    assert not answer.accepted
    assert "still being looked for" in answer.message
    assert world.objects == UNKNOWN


async def test_not_created_opens_another_attempt_after_the_window(ark: ArkControl) -> None:
    world = await a_world(ark)
    world.make_older(seconds=601)
    assert (await world.resolve("not_created")).accepted
    assert (world.outcome()["kind"], world.outcome()["how"]) == ("absent", "operator")
    assert world.objects == ["0001.claim.json", "0001.outcome.json"]
    look = await world.find()
    assert (look.next, look.attempt) == ("claim", 2)


async def test_not_created_is_refused_for_what_was_taken(ark: ArkControl) -> None:
    world = await a_world(ark)
    world.make_older(days=1)
    await world.ledger.take(world.job_id, 1, "accepted")
    answer = await world.resolve("not_created")
    assert not answer.accepted
    assert "a task exists" in answer.message
    assert world.objects == ["0001.claim.json", "0001.taken.json"]


@pytest.mark.parametrize("taken", [False, True])
async def test_an_operator_gives_an_attempt_up(ark: ArkControl, taken: bool) -> None:
    world = await a_world(ark)
    if taken:
        await world.ledger.take(world.job_id, 1, "accepted")
    before = world.objects
    answer = await world.resolve("lost")
    assert answer.accepted
    assert sorted({*world.objects} - {*before}) == ["0001.end.json"]
    look = await world.find()
    assert (look.next, look.attempt) == ("ended", 1)
    assert look.error is not None
    assert (look.error.failure_class, look.error.task_id, look.error.resubmit_could_help) == ("lost", None, True)
    assert content(world.bucket, names(world.request).attempt(1, "end"))["timeline"][0]["what"] == "unknown"


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
async def test_a_word_on_an_attempt_that_is_known_changes_nothing(ark: ArkControl, how: str, action: str) -> None:
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
async def test_a_word_on_an_attempt_that_was_never_made_changes_nothing(ark: ArkControl, action: str) -> None:
    world = await a_world(ark)
    for attempt in (0, 2, -1):
        assert not (await world.resolve(action, "cgt-1", attempt)).accepted
    assert world.objects == UNKNOWN


async def test_an_old_word_does_not_reach_a_later_attempt(ark: ArkControl) -> None:
    """Updates come back after a Reset: this one was meant for the attempt before."""
    world = await a_world(ark)
    world.make_older(days=1)
    await world.settle(not_sent())
    await world.ledger.claim(a_claim(world.request, 2))
    assert not (await world.resolve("not_created", attempt=1)).accepted
    assert world.objects == ["0001.claim.json", "0001.outcome.json", "0002.claim.json"]
