"""Reading pages of the account's tasks, and asking the lister on a real Temporal server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from activities import task_list as listing
from activities.task_list import (
    Answer,
    AnswerJobsInput,
    AskListerInput,
    ListedTask,
    ListingRequest,
    ListPageInput,
    Page,
    TaskListActivities,
)
from dev.ark.control import ArkControl
from seedance_temporal.contract import LISTER, SIGNAL_LISTED, SIGNAL_LISTING_REQUESTED, lister_id
from seedance_temporal.identity import key_fingerprint, safety_identifier
from seedance_temporal.ledger.facts import Outcome
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark
from seedance_temporal.settings import Settings
from tests.support.jobs import (
    BODY,
    FINGERPRINT,
    KEY,
    a_claim,
    a_client,
    a_listing,
    a_request,
    absent,
    accepted,
    an_end,
    as_new,
    created,
    in_activity,
    not_sent,
    present,
    refused,
    some_settings,
)
from tests.support.memory_bucket import MemoryBucket
from tests.support.raw_host import RawHost
from tests.support.servers import dev_server
from tests.support.world import World

IDENTIFIERS_LISTED = f"seedance/echo-byteplus-{FINGERPRINT}.json"
OURS = safety_identifier("user-42", "c" * 32)
# A server's own limit is 10,000 for a run.
_MOST_SIGNALS = 20
CUSTOM = "key-of-one-model"
FAST = "dreamina-seedance-2-0-fast-260128"


@pytest.fixture
async def ark(server: ArkControl) -> ArkControl:
    await server.configure(list_echo=True)
    return await as_new(server)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def temporal() -> AsyncIterator[Client]:
    most_signals = f"history.maximumSignalsPerExecution={_MOST_SIGNALS}"
    async with dev_server("--dynamic-config-value", most_signals, attributes=()) as client:
        yield client


# --- a page ----------------------------------------------------------------------------------------------------------


@dataclass
class Reader:
    """Reads pages, and records whether identifiers are listed."""

    client: Ark
    settings: Settings = field(default_factory=some_settings)
    bucket: MemoryBucket = field(default_factory=MemoryBucket)

    async def page(self, number: int = 1, service_tier: str = "default", model: str = "") -> Page:
        activities = TaskListActivities(Ledger(self.bucket, "seedance"), self.client, self.settings)
        asked = ListPageInput(page=number, service_tier=service_tier, model=model)
        return await in_activity(activities.list_page, asked)

    async def task(self, identifier: str | None = None, **given: Any) -> str:
        answer = await self.client.create(BODY | {"safety_identifier": identifier} | given)
        return present(answer.task_id)


async def test_pages_show_tasks_with_identifiers(ark: ArkControl, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(a_client(ark))
    monkeypatch.setattr(listing, "_PAGE_SIZE", 2)
    before = (await reader.page()).total
    mine = [await reader.task(OURS), await reader.task("somebody-else"), await reader.task(None)]
    pages = [await reader.page(number) for number in (1, 2)]
    assert [page.total for page in pages] == [before + 3] * 2
    assert [len(page.tasks) for page in pages] == [2, min(2, before + 1)]
    newest_first = [task for page in pages for task in page.tasks][:3]
    assert [task.id for task in newest_first] == mine[::-1]
    assert [task.safety_identifier for task in newest_first] == [None, "somebody-else", OURS]
    assert {task.model for task in newest_first} == {BODY["model"]}
    created_at = (await reader.client.get(mine[0]) or {})["created_at"]
    assert newest_first[2].created_at == float(created_at)


async def test_page_shows_one_tier(ark: ArkControl) -> None:
    reader = Reader(a_client(ark))
    task_id = await reader.task(OURS, model="seedance-1-5-pro-251215", service_tier="flex")
    assert task_id in {task.id for task in (await reader.page(service_tier="flex")).tasks}
    assert task_id not in {task.id for task in (await reader.page()).tasks}


async def test_custom_key_shows_one_model(ark: ArkControl) -> None:
    model = str(BODY["model"])
    await ark.set_key("byteplus", CUSTOM, models=[model])
    reader = Reader(a_client(ark, key=CUSTOM), some_settings(ark_api_key=SecretStr(CUSTOM)))
    task_id = await reader.task(OURS)
    with pytest.raises(ApplicationError, match=r"filter\.model") as needed:
        await reader.page()
    assert (needed.value.type, needed.value.non_retryable) == ("ModelNeeded", True)
    page = await reader.page(model=model)
    assert task_id in {task.id for task in page.tasks}
    assert reader.bucket.writes == [f"seedance/echo-byteplus-{key_fingerprint(CUSTOM)}-{model}.json"]
    with pytest.raises(ApplicationError, match="does not exist or you do not have access") as refused:
        await reader.page(model="ep-another")
    assert (refused.value.type, refused.value.non_retryable) == ("ModelHidden", True)
    await ark.remove_key("byteplus", CUSTOM)


@pytest.mark.parametrize(
    ("asked", "shown", "is_other"),
    [("m-1", "m-1", False), ("m-1", "m-2", True), ("m-1", None, True), ("ep-1", FAST, False), ("ep-2", FAST, True)],
)
async def test_task_of_another_model_proves_nothing(
    raw: RawHost, asked: str, shown: str | None, is_other: bool
) -> None:
    """LIST may not heed the model that it is asked for; of an endpoint, the settings name the model."""
    reader = listed(raw, {"id": "cgt-1", "safety_identifier": OURS, "model": shown})
    reader.settings = some_settings(seedance_endpoints={"ep-1": FAST})
    page = await reader.page(model=asked)
    assert [task.is_other for task in page.tasks] == [is_other]
    assert bool(reader.bucket.writes) == (not is_other)


async def test_identifiers_listed_is_noted_once(ark: ArkControl) -> None:
    reader = Reader(a_client(ark))
    await ark.configure(list_echo=False)
    await reader.task(OURS)
    await reader.page()
    assert reader.bucket.writes == [], "a listing without identifiers proves nothing"
    await ark.configure(list_echo=True)
    for _ in range(3):
        await reader.page()
    assert reader.bucket.writes == [IDENTIFIERS_LISTED]


def listed(raw: RawHost, *items: Any, total: int | None = None) -> Reader:
    raw.answers(200, json.dumps({"items": items, "total": len(items) if total is None else total}))
    return Reader(Ark(raw.url, KEY, list_spacing=0))


@pytest.mark.parametrize(
    "identifier",
    ["c" * 32, f"{'c' * 16}-{'c' * 31}", f"{'C' * 16}-{'C' * 32}", f"x{OURS}", f"{OURS}\n", "somebody", "", 7, None],
)
async def test_foreign_identifiers_prove_nothing(raw: RawHost, identifier: object) -> None:
    reader = listed(raw, {"id": "cgt-1", "safety_identifier": identifier})
    await reader.page()
    assert reader.bucket.writes == []


async def test_odd_tasks_are_read_partly(raw: RawHost) -> None:
    reader = listed(
        raw,
        {"id": "cgt-1"},
        {"id": "cgt-2", "safety_identifier": "", "model": 7, "created_at": "yesterday"},
        {"id": "cgt-3", "safety_identifier": ["x"], "model": None, "created_at": None},
        {"safety_identifier": OURS},
        {"id": 7, "safety_identifier": OURS},
        {"id": None},
        "cgt-9",
        None,
        total=99,
    )
    page = await reader.page()
    nothing = {"safety_identifier": None, "model": None, "created_at": None}
    assert page.tasks == tuple(ListedTask.model_validate({"id": f"cgt-{n}"} | nothing) for n in (1, 2, 3))
    assert page.total == 99, "an unreadable entry makes the listing incomplete"
    assert reader.bucket.writes == []


@pytest.mark.parametrize("created_at", ["1e999", "-1e999", "NaN", "true", "1" + "0" * 400])
async def test_invalid_age_is_unknown(raw: RawHost, created_at: str) -> None:
    """An unmarked task of unknown age could be the attempt's; one that is never young could not."""
    reader = listed(raw)
    raw.answers(200, f'{{"items": [{{"id": "cgt-1", "created_at": {created_at}}}], "total": 1}}')
    (task,) = (await reader.page()).tasks
    assert task.created_at is None


@pytest.mark.parametrize("fault", ["401", "403", "429", "500", "502", "503", "reset"])
async def test_unusable_list_answer_is_retryable(ark: ArkControl, fault: str) -> None:
    reader = Reader(a_client(ark))
    await ark.fault("list", fault)
    with pytest.raises(ApplicationError) as caught:
        await reader.page()
    assert (caught.value.type, caught.value.non_retryable) == ("ProviderUnavailable", False)
    assert KEY not in str(caught.value)
    await reader.page()


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"items": {}, "total": 1}', '{"items": [], "total": "1"}', "<html>"])
async def test_non_list_answer_is_retryable(raw: RawHost, body: str) -> None:
    reader = listed(raw)
    raw.answers(200, body)
    with pytest.raises(ApplicationError):
        await reader.page()


async def test_failed_note_rereads_page(raw: RawHost) -> None:
    reader = listed(raw, {"id": "cgt-1", "safety_identifier": OURS})
    reader.bucket.broken = ConnectionError("no bucket")
    with pytest.raises(ConnectionError):
        await reader.page()


# --- asking the lister -----------------------------------------------------------------------------------------------


async def requests(temporal: Client) -> list[ListingRequest]:
    """Return the requests that the lister has received."""
    lister = temporal.get_workflow_handle(lister_id("byteplus"))
    requests: list[ListingRequest] = []
    with suppress(RPCError):
        if (await lister.describe()).status is not WorkflowExecutionStatus.RUNNING:
            return requests  # it is the one that another test left
        async for event in lister.fetch_history_events():
            if event.HasField("workflow_execution_signaled_event_attributes"):
                signal = event.workflow_execution_signaled_event_attributes
                assert signal.signal_name == SIGNAL_LISTING_REQUESTED
                payloads = signal.input.payloads
                requests += await temporal.data_converter.decode(payloads, [ListingRequest] * len(payloads))
    return requests


@pytest_asyncio.fixture(loop_scope="session")
async def world(temporal: Client) -> AsyncIterator[World]:
    """A claimed attempt, and a server without workers, which records the lister's signals."""
    world = World()
    await world.claim()
    yield world
    with suppress(RPCError):
        await temporal.get_workflow_handle(lister_id("byteplus")).terminate()


async def test_unknown_attempt_is_requested(temporal: Client, world: World) -> None:
    world.make_older(seconds=100)
    decision = await world.ask_lister(temporal)
    assert decision.recovery is not None
    assert (decision.next, decision.attempt) == ("recover", 1)
    assert (decision.recovery.needs_operator, decision.recovery.wait_seconds) == (False, 30)
    claimed_at = present((await world.ledger.read(world.job_id)).attempts[0].claimed_at)
    assert await requests(temporal) == [
        ListingRequest(
            job_id=world.job_id,
            attempt=1,
            safety_identifier=world.claims[0].safety_identifier,
            model="dreamina-seedance-2-0-260128",
            service_tier="default",
            since=claimed_at.timestamp() - 30,
        )
    ]
    run = await temporal.get_workflow_handle(lister_id("byteplus")).describe()
    assert (run.workflow_type, run.task_queue) == (LISTER, "seedance-byteplus")


async def test_running_lister_is_signalled(temporal: Client, world: World) -> None:
    for _ in range(3):
        await world.ask_lister(temporal)
    assert len(await requests(temporal)) == 3, "one run has them all in its history"


async def test_concurrent_requests_share_one_signal(temporal: Client, world: World) -> None:
    """A server accepts the signals of a workflow one after another: 500 blocked one for minutes."""
    claims = [a_claim(a_request()) for _ in range(100)]
    for claim in claims:
        await world.ledger.claim(claim)
    activities = TaskListActivities(world.ledger, world.client, world.settings)
    inputs = [AskListerInput(job_id=claim.job_id, attempt=1) for claim in claims]
    await asyncio.gather(*(in_activity(activities.ask_lister, input, client=temporal) for input in inputs))
    assert sorted(str(request.job_id) for request in await requests(temporal)) == sorted(
        claim.job_id for claim in claims
    )
    history = await temporal.get_workflow_handle(lister_id("byteplus")).fetch_history()
    assert sum(event.HasField("workflow_execution_signaled_event_attributes") for event in history.events) <= 3
    await world.ask_lister(temporal)
    assert len(await requests(temporal)) == 101, "and it goes on"


async def test_unreachable_lister_is_error(temporal: Client, world: World) -> None:
    nowhere = await Client.connect("127.0.0.1:1", lazy=True, data_converter=pydantic_data_converter)
    activities = TaskListActivities(world.ledger, world.client, world.settings)

    async def ask(client: Client) -> None:
        await in_activity(activities.ask_lister, AskListerInput(job_id=world.job_id, attempt=1), client=client)

    answers = await asyncio.gather(*(ask(nowhere) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [RuntimeError] * 3, "a server that is not there"
    await ask(temporal)
    assert len(await requests(temporal)) == 1


@pytest.mark.parametrize("taken", [None, _MOST_SIGNALS], ids=["missing", "full"])
async def test_answer_that_no_job_takes_delays_no_other(temporal: Client, world: World, taken: int | None) -> None:
    """One job has ended, or its run takes no more signals; another takes its answer."""
    not_there = "seedance-" + "0" * 64
    if taken is not None:
        handle = await temporal.start_workflow("ListTasks", id=not_there, task_queue="nobody")
        for _ in range(taken):
            await handle.signal("anything")
        with pytest.raises(RPCError, match="limit for signal events"):
            await handle.signal("anything")
    await world.ask_lister(temporal)
    listing = a_listing(world.claims[0], datetime.now(UTC))
    # Any running workflow can be signalled; the lister itself is available.
    there = lister_id("byteplus")
    answers = tuple(Answer(job_id=job_id, listing=listing) for job_id in (not_there, there, not_there))
    activities = TaskListActivities(world.ledger, world.client, world.settings)
    await in_activity(activities.answer_jobs, AnswerJobsInput(answers=answers), client=temporal)
    history = await temporal.get_workflow_handle(there).fetch_history()
    signals = [event.workflow_execution_signaled_event_attributes.signal_name for event in history.events]
    assert signals.count(SIGNAL_LISTED) == 1


async def test_listing_request_follows_claim(temporal: Client) -> None:
    request = a_request(model="ep-20261122-abc", service_tier="flex")
    world = World(request, settings=some_settings(seedance_clock_skew_seconds=7))
    await world.claim()
    await world.ask_lister(temporal)
    (sent,) = await requests(temporal)
    claimed_at = present((await world.ledger.read(world.job_id)).attempts[0].claimed_at)
    assert (sent.model, sent.service_tier) == ("ep-20261122-abc", "flex")
    assert sent.since == claimed_at.timestamp() - 7
    await temporal.get_workflow_handle(lister_id("byteplus")).terminate()


async def test_identifier_check_needs_no_attempt(temporal: Client, world: World) -> None:
    await world.write(created("cgt-1"))
    await world.write_record()
    assert (await world.ask_lister(temporal, None)).next == "stored"
    (request,) = await requests(temporal)
    assert (request.job_id, request.service_tier) == (None, "default")


@pytest.mark.parametrize("outcome", [created("cgt-1"), not_sent(), refused(), absent()], ids=lambda o: o.kind)
async def test_known_attempt_is_not_requested(temporal: Client, world: World, outcome: Outcome) -> None:
    await world.write(outcome)
    decision = await world.ask_lister(temporal)
    assert decision.next == {"created": "adopt", "refused": "ended"}.get(outcome.kind, "claim")
    assert await requests(temporal) == []


async def test_stored_or_lost_job_requests_nothing(temporal: Client, world: World) -> None:
    await world.write(an_end(1, None, "lost"))
    assert (await world.ask_lister(temporal)).next == "ended"
    await world.write_record()
    assert (await world.ask_lister(temporal)).next == "stored"
    assert await requests(temporal) == []


async def test_only_deciding_attempt_is_requested(temporal: Client, world: World) -> None:
    await world.write(refused())
    await world.grant()
    await world.claim(2)
    for attempt in (0, 1, 7):
        decision = await world.ask_lister(temporal, attempt)
        assert (decision.next, decision.attempt) == ("recover", 2)
    assert await requests(temporal) == []
    await world.ask_lister(temporal, 2)
    assert [request.attempt for request in await requests(temporal)] == [2]


async def test_accepted_attempt_is_requested(temporal: Client, world: World) -> None:
    await world.write(accepted())
    assert (await world.ask_lister(temporal)).next == "recover"
    assert len(await requests(temporal)) == 1


async def test_unreadable_ledger_requests_nothing(temporal: Client, world: World) -> None:
    world.memory.broken = ConnectionError("no bucket")
    with pytest.raises(ConnectionError):
        await world.ask_lister(temporal)
    assert await requests(temporal) == []
