"""Three workers of one account keep its rates, and users take turns: a real server, and a provider that counts.

tests/faults/test_fleet.py does the same with processes, a thousand jobs and the local Ark.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.create import CreateInput
from activities.poll import GetTaskInput
from activities.store import StoreInput
from activities.task_list import ListPageInput
from seedance_temporal import VideoJobs, VideoRequest
from seedance_temporal.connection import connect
from seedance_temporal.contract import Queues
from seedance_temporal.identity import job_id_of
from seedance_temporal.provider.ark import Ark
from tests.faults.fleets import ended
from tests.support.jobs import KEY, a_request, some_settings
from tests.support.memory_bucket import MemoryBucket
from tests.support.polling import until
from tests.support.servers import dev_server
from workers.build import build_workers
from workers.rates import GETS_PER_SECOND, Rates

pytestmark = pytest.mark.timeout(120)
BASE = "https://ark.example.com/api/v3"
QUEUES = Queues("byteplus")
_FLOOD = "flood"
_FLOODS = 8


@workflow.defn
class Flood:
    """Many activities at once, and pages one after the other, as the lister reads them. Each is tried once."""

    @workflow.run
    async def run(self, calls: list[tuple[str, str, dict[str, Any]]], pages: int) -> None:
        async def call(name: str, queue: str, given: dict[str, Any]) -> None:
            try:
                await workflow.execute_activity(
                    name,
                    given,
                    task_queue=queue,
                    start_to_close_timeout=timedelta(minutes=1),
                    retry_policy=RetryPolicy(maximum_attempts=1),
                )
            except Exception:
                return  # there is nothing to copy

        async def read_pages() -> None:
            for page in range(1, pages + 1):
                given = ListPageInput(page=page, service_tier="default").model_dump(mode="json")
                await call("list_page", QUEUES.list, given)

        await asyncio.gather(read_pages(), *(call(*each) for each in calls))


@dataclass
class Provider:
    """Count requests, by when their activities started. Refuse creates, or accept them; know no task."""

    refuses: bool = False
    posts: list[tuple[float, str]] = field(default_factory=list)
    gets: list[float] = field(default_factory=list)
    lists: list[float] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        # By the server's clock, because a busy machine delays some activities more than others.
        started = activity.info().started_time.timestamp()
        if request.method == "POST":
            self.posts.append((started, json.loads(request.content)["content"][0]["text"]))
            if self.refuses:
                return _error(429, "RateLimitExceeded")
            return httpx.Response(200, json={"id": f"cgt-{uuid.uuid4().hex}"})
        if request.url.path.endswith("/tasks"):
            self.lists.append(time.monotonic())
            return httpx.Response(200, json={"items": [], "total": 0})
        self.gets.append(started)
        return _error(404, "ResourceNotFound")


def _error(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": "no", "type": "", "param": ""}})


@pytest.fixture
async def temporal() -> AsyncIterator[Client]:
    async with dev_server() as client:
        yield client


@asynccontextmanager
async def fleet(client: Client, provider: Provider, workers: int = 3, **settings: Any) -> AsyncIterator[None]:
    """Run workers that share a bucket and an account, and nothing else."""
    bucket, given = MemoryBucket(), some_settings(**settings)
    async with AsyncExitStack() as stack:
        for _ in range(workers):
            # A client cannot serve a queue twice.
            own = await connect(target_host=client.service_client.config.target_host, namespace=client.namespace)
            ark = Ark(BASE, KEY, transport=lambda: httpx.MockTransport(provider))
            for each in build_workers(own, given, bucket, ark, frozenset()):
                await stack.enter_async_context(each)
        yield


async def flood(client: Client, calls: Sequence[tuple[str, str, dict[str, Any]]], pages: int) -> None:
    flooding = Worker(client, task_queue=_FLOOD, workflows=[Flood], workflow_runner=UnsandboxedWorkflowRunner())
    async with flooding:
        shares = [list(calls[number::_FLOODS]) for number in range(_FLOODS)]
        await asyncio.gather(
            *(
                ended(client, f"{_FLOOD}-{number}", [share, 0 if number else pages], _FLOOD)
                for number, share in enumerate(shares)
            )
        )


def create(request: VideoRequest) -> tuple[str, str, dict[str, Any]]:
    input = CreateInput(job_id=job_id_of(request), request=request, attempt=1)
    return "create_task", QUEUES.create_for(request.resolution), input.model_dump(mode="json")


def poll(request: VideoRequest) -> tuple[str, str, dict[str, Any]]:
    input = GetTaskInput(job_id=job_id_of(request), request=request, attempt=1, task_id="cgt-none")
    return "get_task", QUEUES.get, input.model_dump(mode="json")


def copy(request: VideoRequest) -> tuple[str, str, dict[str, Any]]:
    input = StoreInput(job_id=job_id_of(request), request=request, attempt=1, task_id="cgt-none")
    return "store_video", QUEUES.transfer, input.model_dump(mode="json")


def most_within(times: Sequence[float], seconds: float) -> int:
    return max(sum(first <= each < first + seconds for each in times) for first in times)


async def test_fleet_keeps_rates(temporal: Client) -> None:
    """Also where the provider refuses every create: a re-send counts there, and would not here."""
    provider, request = Provider(refuses=True), a_request()
    settings = {"seedance_creates_per_minute": 120, "seedance_creates_per_minute_4k": 30, "seedance_copies_at_once": 50}
    calls = [*[poll(request)] * 140, *[copy(request)] * 60]
    calls += [create(a_request()) for _ in range(20)]
    calls += [create(a_request(resolution="4k", prompt="4k")) for _ in range(4)]
    async with fleet(temporal, provider, **settings):
        await flood(temporal, calls, pages=5)
    creates = [at for at, prompt in provider.posts if prompt != "4k"]
    creates_4k = [at for at, prompt in provider.posts if prompt == "4k"]
    assert (len(creates), len(creates_4k), len(provider.gets), len(provider.lists)) == (20, 4, 200, 5)
    for seconds in (1, 5):
        # One second's worth at once after a pause, and one activity that each queue may give out early.
        assert most_within(provider.gets, seconds) <= GETS_PER_SECOND * (seconds + 1) + 5
        assert most_within(creates, seconds) <= 2 * (seconds + 1) + 2
        assert most_within(creates_4k, seconds) <= 0.5 * seconds + 2
    assert most_within(provider.lists, 1) == 1


@pytest.mark.parametrize("creates", [1, 15, 180, 600, 60_000])
def test_shares_sum_up_to_limits(creates: float) -> None:
    rates = Rates.of(some_settings(seedance_creates_per_minute=creates))
    assert rates.create * 60 + max(rates.create, 1) <= creates + 1, "a minute that begins with a burst"
    if creates <= 600:
        # Each create can be one of a final, which takes a GET of its draft.
        assert rates.get + rates.transfer + rates.create + rates.create_4k <= GETS_PER_SECOND


async def test_users_take_turns(temporal: Client) -> None:
    """A batch and a backlog wait when another user's jobs, and one with a priority, come last."""
    provider, mark = Provider(), uuid.uuid4().hex
    jobs = VideoJobs(temporal, settings=some_settings())

    async def submit(count: int, name: str, *, batch: bool = False, **fields: Any) -> None:
        for number in range(count):
            await jobs.submit(a_request(prompt=f"{mark} {name} {number}", **fields), batch=batch)

    await submit(20, "batch", user_id="third", batch=True)
    await submit(60, "backlog", user_id="busy")
    await submit(10, "other", user_id="other")
    await submit(1, "first", user_id="busy", priority=5)
    async with fleet(temporal, provider, 1, seedance_creates_per_minute=300):
        await until(lambda: len(provider.posts) == 91, "all are created", seconds=90)
    order = [prompt.split()[1] for _, prompt in provider.posts]
    others_done = max(place for place, name in enumerate(order) if name == "other")
    before = order[:others_done]
    # They take turns: ten of the busy user for the ten of the other, and those that were under way.
    assert before.count("backlog") <= 20, order
    assert before.count("batch") == 0, order
    assert order.index("first") < 20, order
    assert order[:71].count("batch") <= 5, order
