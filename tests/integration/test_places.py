"""Which places are still needed, by ledger, provider and Temporal; and the create that asks for its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import Client, Interceptor, OutboundInterceptor, QueryWorkflowInput
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.places import AskInput, CheckInput, HeldPlaces, PlaceActivities, TasksInput
from dev.ark.control import ArkControl
from seedance_temporal.contract import PLACES, WORKFLOW, Queues, places_id
from seedance_temporal.identity import job_id_of
from seedance_temporal.places import Lease, PlaceRequest, PlacesInput, place_of
from seedance_temporal.request import VideoRequest
from tests.support.jobs import a_request, an_end, created, in_activity, not_sent
from tests.support.memory_bucket import MemoryBucket
from tests.support.polling import until
from tests.support.world import World
from workflows.messages import failing_part
from workflows.places import Places

QUEUES = Queues("byteplus")
ANCIENT = timedelta(hours=80)
Situation = Callable[[World], Awaitable[None]]


async def start_run(client: Client, request: VideoRequest) -> None:
    await client.start_workflow(WORKFLOW, id=job_id_of(request), task_queue=QUEUES.workflows)


def activities(world: World) -> PlaceActivities:
    return PlaceActivities(world.ledger, world.client, world.settings)


async def is_used(world: World) -> bool:
    """Check the place of a job that says that it has created nothing."""
    lease = Lease(job_id=world.job_id, user="user", since=datetime.now(UTC))
    result = await in_activity(activities(world).check_places, CheckInput(leases=(lease,), are_unused=True))
    return world.job_id not in result.unneeded


async def is_needed(client: Client, world: World, *, granted: timedelta = timedelta(hours=1)) -> bool:
    """Check the place of a job, which it was granted so long ago."""
    lease = Lease(job_id=world.job_id, user="user", since=datetime.now(UTC) - granted)
    result = await in_activity(activities(world).check_places, CheckInput(leases=(lease,)), client=client)
    assert set(result.unneeded) <= {world.job_id}
    return world.job_id not in result.unneeded


async def nothing(world: World) -> None:
    """No attempt was claimed."""


async def unknown(world: World) -> None:
    await world.claim()


async def unknown_of_long_ago(world: World) -> None:
    await world.claim()
    world.make_older(hours=80)


async def unsent(world: World) -> None:
    await world.claim(1, not_sent())


async def queued(world: World) -> None:
    claim = await world.claim()
    await world.write(created(await world.create_task(claim.safety_identifier)))


async def forgotten(world: World) -> None:
    await world.claim(1, created("cgt-20261122-unknown"))


async def unreachable(world: World) -> None:
    await queued(world)
    await world.ark.fault("get", "503", times=9)


async def cancelled(world: World) -> None:
    await queued(world)
    await world.client.delete(world.task_id)


async def ended(world: World) -> None:
    await queued(world)
    await world.write(an_end(1, world.task_id))


async def ended_long_ago(world: World) -> None:
    await ended(world)
    world.make_older(hours=80)


async def stored(world: World) -> None:
    await queued(world)
    await world.write_record(world.task_id)


async def damaged(world: World) -> None:
    await world.claim()
    world.memory.contents[world.names.attempt(1, "claim")] = b"{"


@pytest.mark.parametrize(
    ("situation", "of_open", "of_closed"),
    [
        (nothing, True, False),
        (unknown, True, True),
        (unknown_of_long_ago, True, False),
        # Another attempt may be on its way, such as that of a probe.
        (unsent, True, False),
        (queued, True, True),
        (forgotten, True, True),
        (unreachable, True, True),
        (cancelled, True, False),
        (ended, False, False),
        # The place is one for the attempt after it.
        (ended_long_ago, True, False),
        (stored, False, False),
        (damaged, True, True),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
async def test_place_is_needed_for_task(
    temporal: Client, ark: ArkControl, situation: Situation, of_open: bool, of_closed: bool
) -> None:
    world = await World.at(ark)
    await situation(world)
    assert await is_needed(temporal, world) is of_closed
    await start_run(temporal, world.request)
    assert await is_needed(temporal, world) is of_open
    await temporal.get_workflow_handle(world.job_id).terminate()
    assert await is_needed(temporal, world) is of_closed


@pytest.mark.parametrize(
    ("situation", "used"),
    [
        (nothing, False),
        (unknown, True),
        (unsent, False),
        (queued, True),
        (ended, False),
        (stored, False),
        (damaged, True),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
async def test_unused_place_is_freed_without_open_attempt(ark: ArkControl, situation: Situation, used: bool) -> None:
    world = await World.at(ark)
    await situation(world)
    assert await is_used(world) is used


async def test_open_tasks_of_class_are_found(temporal: Client) -> None:
    bucket = MemoryBucket()
    await temporal.start_workflow(WORKFLOW, id="somebody-elses", task_queue=QUEUES.workflows)
    expected = set()
    for number, (resolution, claims, ends) in enumerate(
        [
            ("720p", True, False),
            ("720p", True, True),
            ("4k", True, False),
            ("720p", False, False),
            ("480p", True, False),
        ]
    ):
        request = a_request(take=number + 1, resolution=resolution)
        world = World(request, bucket)
        await start_run(temporal, request)
        if claims:
            await world.claim(1, created(f"cgt-{number}"))
        if ends:
            await temporal.get_workflow_handle(world.job_id).terminate()
        if claims and resolution != "4k":
            expected.add(world.job_id)
    found: set[str] = set()

    async def all_found() -> bool:
        result = await in_activity(activities(world).open_tasks, TasksInput(queue=QUEUES.create), client=temporal)
        found.clear()
        found.update(lease.job_id for lease in result.leases)
        return len(found) >= len(expected)

    await until(all_found, "the visibility store shows the runs")
    assert found == expected


# The create


async def grant(client: Client, *requests: VideoRequest, known: bool = True) -> None:
    leases = tuple(Lease(job_id=job_id_of(each), user="user", since=datetime.now(UTC)) for each in requests)
    await client.start_workflow(
        PLACES,
        PlacesInput(route="byteplus", queue=QUEUES.create, limit=1, leases=leases, known=known),
        id=places_id(QUEUES.create),
        task_queue="places",
    )


@asynccontextmanager
async def granting(client: Client, *requests: VideoRequest, known: bool = True) -> AsyncIterator[None]:
    """Grant places to these jobs alone."""
    runner = UnsandboxedWorkflowRunner()
    async with Worker(client, task_queue="places", workflows=[Places], workflow_runner=runner):
        await grant(client, *requests, known=known)
        yield
        await client.get_workflow_handle(places_id(QUEUES.create)).terminate()


async def test_create_without_place_claims_nothing(ark: ArkControl) -> None:
    world = await World.at(ark, seedance_tasks_at_once=1)
    result = await world.create()
    assert (result.kind, result.needs_place) == ("not_sent", True)
    assert await world.facts() == []
    assert await world.posts() == []


async def test_create_with_lost_place_sends_nothing(temporal: Client, ark: ArkControl) -> None:
    world = await World.at(ark, seedance_tasks_at_once=1)
    async with granting(temporal, a_request(take=77)):
        result = await world.create(placed=True, temporal=temporal)
    assert (result.kind, result.needs_place) == ("not_sent", True)
    assert await world.facts() == ["0001.claim.json", "0001.outcome.json"]
    assert await world.posts() == []


async def test_create_with_place_is_sent(temporal: Client, ark: ArkControl) -> None:
    world = await World.at(ark, seedance_tasks_at_once=1)
    async with granting(temporal, world.request):
        result = await world.create(placed=True, temporal=temporal)
    assert result.kind == "created"
    assert len(await world.posts()) == 1


async def test_limit_of_other_class_needs_no_place(ark: ArkControl) -> None:
    world = await World.at(ark, seedance_tasks_at_once_4k=1)
    assert (await world.create()).kind == "created"


async def test_places_that_nobody_grants_send_nothing(temporal: Client, ark: ArkControl) -> None:
    """The limit was set, and no job has asked so far."""
    world = await World.at(ark, a_request(resolution="4k"), seedance_tasks_at_once_4k=1)
    result = await world.create(placed=True, temporal=temporal)
    assert (result.kind, result.needs_place) == ("not_sent", True)
    assert await world.posts() == []


async def test_requests_of_a_moment_are_sent_together(temporal: Client) -> None:
    world = World(settings=World().settings.model_copy(update={"seedance_tasks_at_once": 3}))
    asking = activities(world)
    requests = [a_request(take=number + 1) for number in range(60)]
    inputs = [
        AskInput(
            queue=QUEUES.create, request=PlaceRequest(job_id=job_id_of(each), user="user", since=datetime.now(UTC))
        )
        for each in requests
    ]
    await asyncio.gather(*(in_activity(asking.ask_for_place, input, client=temporal) for input in inputs))
    history = await temporal.get_workflow_handle(places_id(QUEUES.create)).fetch_history()
    signals: list[Any] = [
        event.workflow_execution_signaled_event_attributes
        for event in history.events
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert len(signals) <= 3
    await temporal.get_workflow_handle(places_id(QUEUES.create)).terminate()


async def ask_again(client: Client, world: World) -> None:
    request = PlaceRequest(job_id=world.job_id, user="user", since=datetime.now(UTC))
    asked = AskInput(queue=QUEUES.create, request=request, again=True)
    await in_activity(activities(world).ask_for_place, asked, client=client)


async def test_free_places_that_stay_free_are_told(temporal: Client) -> None:
    """The workflow runs, and what it asks the ledger does not: without a voice, all its jobs would wait for ever."""
    world = World(settings=World().settings.model_copy(update={"seedance_tasks_at_once": 1}))
    async with granting(temporal, known=False):
        with pytest.raises(ApplicationError, match="grants none of its free places") as raised:
            await ask_again(temporal, world)
    assert raised.value.type == "PlacesStuck"
    assert failing_part(raised.value) == "places"


async def test_job_waits_quietly_for_taken_places(temporal: Client) -> None:
    world = World(settings=World().settings.model_copy(update={"seedance_tasks_at_once": 1}))
    async with granting(temporal, a_request(take=77)):
        await ask_again(temporal, world)
        place = await place_of(temporal, QUEUES.create, world.job_id)
    assert place is not None
    assert (place.held, place.taken, place.waiting) == (False, 1, 1)


class Counting(Interceptor):
    """Count the queries of a client."""

    def __init__(self) -> None:
        self.queries = 0

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - the SDK names it
        counting = self

        class Outbound(OutboundInterceptor):
            async def query_workflow(self, input: QueryWorkflowInput) -> Any:
                counting.queries += 1
                return await super().query_workflow(input)

        return Outbound(next)


async def test_creates_of_a_moment_share_a_query(temporal: Client) -> None:
    counting = Counting()
    client = Client(**(temporal.config() | {"interceptors": [counting]}))
    requests = [a_request(take=number + 1) for number in range(60)]
    held = HeldPlaces()
    async with granting(temporal, *requests[:50]):
        answers = await asyncio.gather(
            *(in_activity(held.has, each, job_id_of(each), client=client) for each in requests)
        )
    assert answers == [True] * 50 + [False] * 10
    assert counting.queries <= 3


async def test_place_of_unkept_class_is_none(temporal: Client) -> None:
    assert await place_of(temporal, QUEUES.create_4k, World().job_id) is None


@pytest.mark.parametrize("are_unused", [False, True])
async def test_place_of_foreign_id_is_freed(temporal: Client, are_unused: bool) -> None:
    """A check that fails for one place frees none of the others."""
    lease = Lease(job_id="a-run-of-others", user="user", since=datetime.now(UTC) - timedelta(hours=1))
    checked = CheckInput(leases=(lease,), are_unused=are_unused)
    result = await in_activity(activities(World()).check_places, checked, client=temporal)
    assert result.unneeded == (lease.job_id,)
