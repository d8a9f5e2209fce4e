"""A fleet of workers on a stack of its own, and the requests that it sends, by second."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.poll import GetTaskInput
from activities.store import StoreInput
from dev.ark.catalog import Route
from dev.stack import Stack, running_stack
from seedance_temporal import VideoRequest
from seedance_temporal.contract import Queues
from seedance_temporal.handle import VideoJob
from seedance_temporal.identity import job_id_of
from tests.e2e.requests import a_request
from tests.support.polling import until

ROUTE: Route = "byteplus"
_AT_ONCE = 30
_FLOOD_QUEUE = "flood"
_FLOODS = 10
_ONE_TRY = RetryPolicy(maximum_attempts=1)


@workflow.defn
class Flood:
    """Polls and copies of tasks that the provider does not know: each is one GET, and little work."""

    @workflow.run
    async def run(self, request: VideoRequest, polls: int, copies: int) -> None:
        queues, job_id = Queues(ROUTE), job_id_of(request)

        async def get(number: int) -> None:
            task = GetTaskInput(job_id=job_id, request=request, attempt=1, task_id=f"cgt-none-{number}")
            await workflow.execute_activity(
                "get_task", task, task_queue=queues.get, start_to_close_timeout=timedelta(minutes=1)
            )

        async def copy(number: int) -> None:
            task = StoreInput(job_id=job_id, request=request, attempt=1, task_id=f"cgt-none-{number}")
            try:
                await workflow.execute_activity(
                    "store_video",
                    task,
                    task_queue=queues.transfer,
                    start_to_close_timeout=timedelta(minutes=1),
                    retry_policy=_ONE_TRY,
                )
            except ActivityError:
                return  # there is nothing to copy

        await asyncio.gather(*map(get, range(polls)), *map(copy, range(copies)))


async def ended(client: Client, name: str, args: list[Any], queue: str) -> None:
    """Run a flood to its end. A server calls a workflow busy when many of its activities end at once."""
    handle = await client.start_workflow("Flood", args=args, id=name, task_queue=queue)
    while True:
        try:
            await handle.result()
        except RPCError as error:
            if error.status is not RPCStatusCode.RESOURCE_EXHAUSTED:
                raise
            await asyncio.sleep(1)
        else:
            return


@asynccontextmanager
async def fleet_stack(**settings: str) -> AsyncIterator[Stack]:
    """Run a stack without workers, whose provider sends no callbacks, has no limits of its own, and counts."""
    polling = {
        "SEEDANCE_CALLBACK_URL": "",
        "SEEDANCE_POLL_FIRST_SECONDS": "2",
        "SEEDANCE_POLL_MAX_SECONDS": "3",
    }
    async with running_stack(speed=60, workers=False, settings=polling | settings) as stack:
        unlimited = dict.fromkeys(("create_per_minute", "create_per_minute_4k", "get_per_second", "list_per_second"))
        await stack.ark.configure(callbacks="off", running_limit=10_000, running_limit_4k=10_000, **unlimited)
        yield stack


async def start_workers(stack: Stack, count: int) -> None:
    await asyncio.gather(*(stack.start_worker(f"worker-{number}") for number in range(count)))


async def submit_all(stack: Stack, requests: Iterable[VideoRequest], *, batch: bool = False) -> list[VideoJob]:
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def submit(request: VideoRequest) -> VideoJob:
        async with at_once:
            return await stack.jobs.submit(request, batch=batch)

    return await asyncio.gather(*map(submit, requests))


async def flood(stack: Stack, polls: int, copies: int) -> None:
    """Have many polls and copies wait in their queues at once, and wait for them."""
    async with Worker(
        stack.client, task_queue=_FLOOD_QUEUE, workflows=[Flood], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        given = [a_request(), polls // _FLOODS, copies // _FLOODS]
        await asyncio.gather(
            *(ended(stack.client, f"flood-{number}", given, _FLOOD_QUEUE) for number in range(_FLOODS))
        )


async def creates_by_second(stack: Stack, *, is_4k: bool = False) -> Counter[int]:
    entries = await stack.ark.ledger()
    return Counter(int(entry.time) for entry in entries if (entry.body.get("resolution") == "4k") is is_4k)


async def requests_by_second(stack: Stack, operation: str) -> Counter[int]:
    seconds = (await stack.ark.requests()).seconds
    return Counter(seconds[ROUTE][operation]) if ROUTE in seconds else Counter()


def most_over(seconds: Counter[int], rate: float) -> float:
    """Return by how many requests any span of seconds is over a rate: the burst."""
    first, last = min(seconds), max(seconds)
    most = over = 0.0
    for second in range(first, last + 1):
        over = max(over, 0.0) + seconds[second] - rate
        most = max(most, over)
    return most


async def created_before_done(stack: Stack, backlog: str, jobs: list[VideoJob], most: int) -> int:
    """Return how many creates of one user come before other jobs are stored.

    Raises:
        AssertionError: More than ``most``.
    """

    async def creates() -> int:
        return sum(backlog in str(entry.body) for entry in await stack.ark.ledger())

    before = await creates()
    done = asyncio.gather(*(job.result() for job in jobs))

    async def is_over() -> bool:
        return done.done() or await creates() - before > most

    try:
        await until(is_over, "the jobs are stored, or many others were created", seconds=200, every=0.5)
        assert done.done(), f"{most} jobs of the other user were created before these"
        done.result()
        return await creates() - before
    finally:
        done.cancel()
