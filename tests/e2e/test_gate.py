"""A route that is paused, and one whose account is closed: its jobs wait, and each video is created once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from dev.ark.ledger import CreateEntry
from dev.stack import Stack
from seedance_temporal import Hold, VideoJob, VideoRequest
from tests.e2e.command import starter
from tests.e2e.requests import a_request, creates_of, until, until_created
from tests.support import polling

ROUTE = "byteplus"
REFUSED_FIRST = 10


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
    assert (await starter(stack, "unpause", "--route", ROUTE))[0] == 0
    for _, job in jobs:
        await job.result()
    await after.result()
    assert [entry.committed for entry in await posts_of(stack, jobs)] == [True] * 5


@pytest.mark.parametrize("standing", ["AccountOverdueError", "SetLimitExceeded", "the key"])
async def test_closed_account_is_probed_by_one_job(stack: Stack, standing: str) -> None:
    if standing == "the key":
        await stack.ark.set_key_valid(ROUTE, False)
    else:
        await stack.ark.set_standing(ROUTE, standing)
    jobs = await submitted(stack, 40)
    await until_held(stack, "closed")
    early = len(await posts_of(stack, jobs))
    assert early <= REFUSED_FIRST
    await asyncio.sleep(12)
    refused = await posts_of(stack, jobs)
    assert not any(entry.committed for entry in refused)
    if standing == "the key":
        assert len(refused) <= REFUSED_FIRST, "a free call says that the key is refused"
    else:
        # Half a second, one, two, four, eight.
        assert len(refused) <= REFUSED_FIRST + 6
    states = await stack.jobs.list(route=ROUTE, is_open=True, limit=None)
    assert sum(state.attention is not None for state in states) <= REFUSED_FIRST
    await stack.ark.set_key_valid(ROUTE, True)
    await stack.ark.set_standing(ROUTE, "ok")
    for _, job in jobs:
        await job.result()
    entries = [await creates_of(stack, request) for request, _ in jobs]
    assert [sum(entry.committed for entry in of_job) for of_job in entries] == [1] * len(jobs)
    assert sum(len(of_job) for of_job in entries) - len(jobs) <= REFUSED_FIRST + 10
