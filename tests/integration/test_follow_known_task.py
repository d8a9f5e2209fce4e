"""A task of an ended job that came to light is followed by a run that may not create, and only where that is of use."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.recover import AskLaterInput, FollowInput, RecoverActivities
from dev.ark.control import ArkControl
from seedance_temporal.client import VideoJobs
from seedance_temporal.contract import MEMO_NAMED, GenerateVideoInput, NamedTask, late_tasks_id
from seedance_temporal.errors import JobFailed
from seedance_temporal.late_tasks import name_in_question
from tests.support.jobs import a_listing, absent, an_end, created, in_activity, not_sent
from tests.support.temporal_stub import request
from tests.support.world import World


async def follow(world: World, temporal: Client) -> GenerateVideoInput | None:
    """Follow the job's task; return the argument of its run, if it has one."""
    activities = RecoverActivities(world.ledger, world.client, world.settings)
    await in_activity(activities.follow_known_task, FollowInput(job_id=world.job_id, attempt=1), client=temporal)
    with suppress(RPCError):
        handle = temporal.get_workflow_handle(world.job_id)
        given: GenerateVideoInput = await handle.query("given", result_type=GenerateVideoInput)
        return given
    return None


async def test_live_task_is_followed_once(temporal: Client) -> None:
    world = World(request("late and live"))
    await world.claim(1, not_sent(), created("cgt-1", "callback"))
    runs = set()
    for _ in range(2):
        given = await follow(world, temporal)
        assert given is not None
        assert (given.request, given.may_create) == (world.request, False)
        runs.add((await temporal.get_workflow_handle(world.job_id).describe()).run_id)
    assert len(runs) == 1
    # The run can have read the ledger before, and be about to end.
    told = await temporal.get_workflow_handle(world.job_id).query("signals")
    assert [(each["task_id"], each["attempt"], each["source"]) for each in told] == [("cgt-1", 1, "ledger")] * 2


async def test_failed_run_is_followed_by_another(temporal: Client) -> None:
    world = World(request("late after failure", "failed"))
    job = await VideoJobs(temporal).submit(world.request)
    with pytest.raises(JobFailed):
        await job.result(20)
    before = await temporal.get_workflow_handle(world.job_id).describe()
    await world.claim(1, not_sent(), created("cgt-1", "callback"))
    await follow(world, temporal)
    after = await temporal.get_workflow_handle(world.job_id).describe()
    assert after.run_id != before.run_id


async def test_second_task_of_stored_job_calls_operator(temporal: Client) -> None:
    world = World(request("late beside a video", "stored"))
    before = await (await VideoJobs(temporal).submit(world.request)).result(20)
    await world.claim(1, not_sent(), created("cgt-1", "callback"))
    await world.write_record()
    await world.write(created("cgt-2", "callback"))
    given = await follow(world, temporal)
    assert given is not None
    assert before is not None
    told = await temporal.get_workflow_handle(world.job_id).query("signals")
    assert [each["task_id"] for each in told] == ["cgt-2"]


@pytest.mark.parametrize("known", ["no task", "its end", "the video", "no attempt"])
async def test_nothing_is_started_without_live_task(temporal: Client, known: str) -> None:
    world = World(request(f"late: {known}"))
    if known != "no attempt":
        await world.claim(1, not_sent())
    if known in {"its end", "the video"}:
        await world.write(created("cgt-1", "callback"))
    if known == "its end":
        await world.write(an_end(1, "cgt-1"))
    if known == "the video":
        await world.write_record()
    assert await follow(world, temporal) is None


async def late_tasks(temporal: Client, world: World, attempt: int, *task_ids: str) -> None:
    """Run LateTasks without a worker: one that has read its names, or that has only just got one."""
    memo = {MEMO_NAMED: list(task_ids)} if task_ids else None
    await temporal.start_workflow("LateTasks", id=late_tasks_id(world.job_id, attempt), task_queue="nobody", memo=memo)


async def test_names_in_question_are_asked_for_at_once(temporal: Client) -> None:
    world = World(request("late names"))
    assert await name_in_question(temporal, world.job_id, [1, 2]) is None
    await late_tasks(temporal, world, 2, "cgt-2", "cgt-3")
    answer = await name_in_question(temporal, world.job_id, [1, 2])
    assert answer is not None
    assert "Task cgt-2 was named for attempt 2" in answer
    late = temporal.get_workflow_handle(late_tasks_id(world.job_id, 2))
    signals = [
        event.workflow_execution_signaled_event_attributes.input.payloads[0].data
        async for event in late.fetch_history_events()
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    wanted = [json.loads(signal) for signal in signals]
    assert [(each["task_id"], each["source"]) for each in wanted] == [("cgt-2", "ledger"), ("cgt-3", "ledger")]
    await late.terminate()
    assert await name_in_question(temporal, world.job_id, [1, 2]) is None


async def test_name_that_no_worker_has_read_is_in_question(temporal: Client) -> None:
    world = World(request("unread name"))
    await late_tasks(temporal, world, 1)
    answer = await name_in_question(temporal, world.job_id, [1])
    assert answer is not None
    assert "A task was named for attempt 1" in answer
    await temporal.get_workflow_handle(late_tasks_id(world.job_id, 1)).terminate()


async def test_named_task_holds_back_create(temporal: Client, ark: ArkControl) -> None:
    """Of attempts that may have a task; of any other none can turn up."""
    world = await World.at(ark, request("held back"))
    await world.claim(1, absent())
    await world.claim(2, not_sent())
    await late_tasks(temporal, world, 2, "cgt-2")
    await late_tasks(temporal, world, 1, "cgt-1")
    held = await world.create(3, temporal=temporal)
    assert (held.kind, held.claim is not None, held.wait_seconds > 0) == ("not_sent", True, True)
    assert "Task cgt-1 was named for attempt 1" in held.message
    assert await world.posts() == []
    await temporal.get_workflow_handle(late_tasks_id(world.job_id, 1)).terminate()
    assert (await world.create(4, temporal=temporal)).kind == "created"
    await temporal.get_workflow_handle(late_tasks_id(world.job_id, 2)).terminate()


async def test_silent_temporal_holds_back_second_create(ark: ArkControl) -> None:
    world = await World.at(ark, request("without Temporal"))
    await world.claim(1, absent())
    held = await world.create(2, temporal=cast(Client, Unreachable()))
    assert (held.kind, "temporal_unreachable" in held.message) == ("not_sent", True)
    assert await world.posts() == []


class Full:
    """A client of a server on which LateTasks has all the signals that a run may have."""

    async def start_workflow(self, *_: object, **__: object) -> None:
        raise RPCError("exceeded workflow execution limit for signal events", RPCStatusCode.INVALID_ARGUMENT, b"")


async def test_flooded_late_tasks_keep_no_run_open() -> None:
    world = World(request("flooded"))
    named = (NamedTask(task_id="cgt-1", status="", attempt=1),)
    input = AskLaterInput(job_id=world.job_id, route=world.request.route, named=named)
    activities = RecoverActivities(world.ledger, world.client, world.settings)
    await in_activity(activities.ask_later, input, client=cast(Client, Full()))


class Unreachable:
    """A client of a server that does not answer."""

    def get_workflow_handle(self, workflow_id: str) -> Unreachable:
        return self

    async def describe(self) -> None:
        raise RPCError("down", RPCStatusCode.UNAVAILABLE, b"")


async def test_named_task_is_not_absent(temporal: Client, ark: ArkControl) -> None:
    """Neither by listings, nor by an operator."""
    world = await World.at(ark, request("not absent"))
    claim = await world.claim()
    world.make_older(hours=1)
    await world.ledger.note_identifiers_listed(world.request.route, claim.key)
    listings = [a_listing(claim, datetime.now(UTC) - timedelta(minutes=age)) for age in (10, 1)]
    await late_tasks(temporal, world, 1, "cgt-1")
    assert (await world.settle_absent(listings, temporal=temporal)).next == "recover"
    answer = await world.resolve("not_created", temporal=temporal)
    assert (answer.accepted, "Task cgt-1 was named" in answer.message) == (False, True)
    await temporal.get_workflow_handle(late_tasks_id(world.job_id, 1)).terminate()
    assert (await world.settle_absent(listings, temporal=temporal)).next == "claim"
