"""A route that is paused, and one whose account is closed: its jobs wait, and each video is created once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from dev.ark.catalog import Route
from dev.ark.ledger import CreateEntry
from dev.stack import Stack
from seedance_temporal import Hold, VideoJob, VideoRequest
from seedance_temporal.contract import Queues
from seedance_temporal.gate_contract import gate_id
from tests.e2e.command import starter
from tests.e2e.requests import a_request, creates_of, until, until_created
from tests.support import polling

ROUTE: Route = "byteplus"


@pytest.fixture(autouse=True)
async def opened(stack: Stack) -> AsyncIterator[None]:
    """Leave the route to the next test as it was."""
    yield
    await stack.ark.set_standing(ROUTE, "ok")
    await stack.ark.set_key_valid(ROUTE, True)
    await stack.jobs.unpause(ROUTE)
    await until_open(stack)


async def until_open(stack: Stack) -> None:
    async def is_open() -> bool:
        return not await stack.jobs.held(ROUTE)

    await polling.until(is_open, "the gates are open", seconds=90)


async def until_held(stack: Stack, kind: str) -> Hold:
    async def held() -> Hold | None:
        return next((hold for hold in await stack.jobs.held(ROUTE) if hold.kind == kind), None)

    hold: Hold = await polling.until(held, f"creates are {kind}", seconds=60)
    return hold


async def submitted(stack: Stack, count: int) -> list[tuple[VideoRequest, VideoJob]]:
    requests = [a_request() for _ in range(count)]
    return [(request, await stack.jobs.submit(request)) for request in requests]


async def posts_of(stack: Stack, jobs: Sequence[tuple[VideoRequest, VideoJob]]) -> list[CreateEntry]:
    return [entry for request, _ in jobs for entry in await creates_of(stack, request)]


async def test_paused_route_creates_nothing(stack: Stack) -> None:
    """A task that runs is finished; jobs that wait are created once the pause is over, also by another worker."""
    running = await stack.jobs.submit(a_request(duration=10))
    await until_created(stack, running.id)
    assert not (await starter(stack, "unpause", "--route", ROUTE))[1]["was_paused"]
    code, answer, _ = await starter(stack, "pause", "--route", ROUTE, "--why", "the bill is checked")
    assert (code, answer) == (0, {"route": ROUTE, "paused": True})
    jobs = await submitted(stack, 5)
    await running.result()
    await stack.children["worker"].stop()
    await stack.start_worker()
    hold = await until_held(stack, "paused")
    assert hold.why == "the bill is checked"
    # Its gate has been replayed, and its queues been polled by the new worker.
    after = await stack.jobs.submit(a_request())
    await until(stack, after.id, lambda job: job.phase == "creating")
    await asyncio.sleep(3)
    assert await posts_of(stack, jobs) == []
    code, shown, _ = await starter(stack, "show", after.id)
    assert shown["held"]["why"] == "the bill is checked"
    code, answer, _ = await starter(stack, "unpause", "--route", ROUTE)
    assert (code, answer) == (0, {"route": ROUTE, "paused": False, "was_paused": True})
    for _, job in jobs:
        await job.result()
    await after.result()
    assert [entry.committed for entry in await posts_of(stack, jobs)] == [True] * 5


@pytest.mark.parametrize(
    "standing",
    [
        *(pytest.param(standing, marks=pytest.mark.faults) for standing in ("SetLimitExceeded", "the key")),
        "AccountOverdueError",
    ],
)
async def test_closed_account_is_probed_by_one_job(stack: Stack, standing: str) -> None:
    if standing == "the key":
        await stack.ark.set_key_valid(ROUTE, False)
    else:
        await stack.ark.set_standing(ROUTE, standing)
    (prober,) = await submitted(stack, 1)
    await until_held(stack, "closed")
    others = await submitted(stack, 20)
    if standing == "the key":
        # A free call says that the key is refused, so not even the prober sends a create.
        await polling.until(lambda: tried(stack, 3), "the key is tried three times", seconds=60)
        assert len(await posts_of(stack, [prober])) == 1
    else:
        await polling.until(lambda: refused(stack, prober, 4), "three probes are refused", seconds=60)
    assert await posts_of(stack, others) == []
    states = await stack.jobs.list(route=ROUTE, is_open=True, limit=None)
    assert [state.job_id for state in states if state.attention is not None] == [prober[1].id]
    await stack.ark.set_key_valid(ROUTE, True)
    await stack.ark.set_standing(ROUTE, "ok")
    for _, job in others:
        await job.result()
    entries = await posts_of(stack, others)
    assert [entry.committed for entry in entries] == [True] * len(others)
    assert [entry.committed for entry in await posts_of(stack, [prober])].count(True) == 1


async def free_calls(stack: Stack) -> int:
    """Return how often the gate had the key tried."""
    gate = stack.client.get_workflow_handle(gate_id(Queues(ROUTE).create))
    scheduled = [event.activity_task_scheduled_event_attributes async for event in gate.fetch_history_events()]
    return sum(each.activity_type.name == "is_key_accepted" for each in scheduled)


async def tried(stack: Stack, times: int) -> bool:
    return await free_calls(stack) >= times


async def refused(stack: Stack, job: tuple[VideoRequest, VideoJob], times: int) -> bool:
    return len(await posts_of(stack, [job])) >= times
