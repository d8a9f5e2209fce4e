"""A task of an ended job that came to light is followed by a run that may not create, and only where that is of use."""

from __future__ import annotations

from contextlib import suppress

import pytest
from temporalio.client import Client
from temporalio.service import RPCError

from activities.ledger import LedgerActivities, ReadLedgerInput
from activities.recover import FollowInput, RecoverActivities
from seedance_temporal.client import VideoJobs
from seedance_temporal.contract import MEMO_NAMED, GenerateVideoInput, late_tasks_id
from seedance_temporal.errors import JobFailed
from tests.support.jobs import absent, an_end, created, in_activity, not_sent
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


async def test_new_run_learns_what_is_in_question(temporal: Client) -> None:
    """Of attempts that may have a task, where LateTasks is open; any other names nothing."""
    world = World(request("late names"))
    await world.claim(1, absent())
    await world.claim(2, not_sent())
    for attempt, task_id in {1: "cgt-1", 2: "cgt-2"}.items():
        await temporal.start_workflow(
            "LateTasks",
            id=late_tasks_id(world.job_id, attempt),
            task_queue="nobody-works-here",
            memo={MEMO_NAMED: [task_id]},
        )
    activities = LedgerActivities(world.ledger, world.settings)
    input = ReadLedgerInput(job_id=world.job_id, request=world.request, with_context=True)
    result = await in_activity(activities.read_ledger, input, client=temporal)
    assert (result.decision.next, [(named.attempt, named.task_id) for named in result.named]) == (
        "claim",
        [(1, "cgt-1")],
    )
    await temporal.get_workflow_handle(late_tasks_id(world.job_id, 1)).terminate()
    assert (await in_activity(activities.read_ledger, input, client=temporal)).named == ()
    await temporal.get_workflow_handle(late_tasks_id(world.job_id, 2)).terminate()
