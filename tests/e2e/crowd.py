"""Many jobs of one user, then a few of another, for few places, while workers die and runs are reset."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

from temporalio.client import WorkflowExecutionStatus

from dev.ark.ledger import CreateEntry
from dev.stack import Stack
from seedance_temporal import VideoRequest
from seedance_temporal.contract import QUERY_PLACE, Queues, places_id
from seedance_temporal.identity import job_id_of
from seedance_temporal.places import Place
from tests.e2e.operator import reset
from tests.e2e.requests import a_request
from tests.support.polling import until

# The only model of the list with videos at 4k.
WITH_4K = "dreamina-seedance-2-0-260128"


@dataclass
class Crowd:
    """Figures of a crowd.

    Attributes:
        left: How many jobs of the first user had not ended when the other's were submitted.
        meanwhile: How many of them ended before all of the other's had.
        created_before: How many of them were created before the last of the other's was.
        kills, resets: How often a worker was killed, and a run reset.
        most_alive: The most tasks at once, of each class.
    """

    left: int
    meanwhile: int
    created_before: int
    kills: int
    resets: int
    most_alive: dict[str, int]


async def place_counts(stack: Stack, queue: str) -> tuple[int, int]:
    """Return how many places are taken, and how many jobs wait."""
    place: Place = await stack.client.get_workflow_handle(places_id(queue)).query(QUERY_PLACE, "", result_type=Place)
    return place.taken, place.waiting


class _Trouble:
    """Kill the worker, and reset runs that have not ended, again and again; another job ends between two kills.

    Attributes:
        is_kind: Whether no worker is killed for now.
    """

    def __init__(
        self, stack: Stack, requests: list[VideoRequest], ended: set[str], worker: str, settings: dict[str, str]
    ) -> None:
        self._stack = stack
        self._ended = ended
        self._job_ids = [job_id_of(request) for request in requests]
        self._worker, self._settings = worker, settings
        self._random = random.Random(7)
        self.is_kind = False
        self.kills = self.resets = 0

    async def go_on(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            await self.reset_some()
            await asyncio.sleep(every)
            if self.is_kind:
                continue
            more = len(self._ended) + 1
            await self.kill()
            # On a busy machine a worker can need longer to start than the pause.
            await until(partial(self._have_ended, more), "another job ends", seconds=200)

    async def kill(self) -> None:
        await self._stack.children[self._worker].kill()
        self.kills += 1
        await self._stack.start_worker(self._worker, **self._settings)

    def _have_ended(self, jobs: int) -> bool:
        return len(self._ended) >= jobs

    async def reset_some(self) -> None:
        for job_id in self._random.sample(self._job_ids, min(4, len(self._job_ids))):
            run = await self._stack.client.get_workflow_handle(job_id).describe()
            if run.status is WorkflowExecutionStatus.RUNNING and run.history_length > 5:
                await reset(self._stack, job_id)
                self.resets += 1


async def crowded(
    stack: Stack,
    *,
    many: int,
    few: int,
    at_4k: int,
    places: int,
    trouble_every: float,
    seconds: float,
    kind_to_few: bool = False,
) -> Crowd:
    """Run a crowd, and assert that each job is stored, was paid for once, and has left no place behind.

    Assert as well that the limit was reached, and not exceeded.

    Args:
        stack: Without a worker.
        many, few, at_4k: Jobs of the first user, of the other one, and of the first one at 4k.
        places: How many tasks may be at the provider at once; one at 4k.
        trouble_every: Seconds between two troubles.
        seconds: The time for all of it.
        kind_to_few: Whether no worker is killed while the other user's jobs are open. A kill can delay one by a
            workflow task's 10 seconds, or by the search for its create: by many jobs of a small crowd.
    """
    settings = {"SEEDANCE_TASKS_AT_ONCE": str(places), "SEEDANCE_TASKS_AT_ONCE_4K": "1"}
    settings |= {"SEEDANCE_CREATES_PER_MINUTE": "60000", "SEEDANCE_CREATES_PER_MINUTE_4K": "60000"}
    await stack.ark.configure(create_per_minute=None, create_per_minute_4k=None)
    # Were the jobs to keep no limit, the provider would not either.
    await stack.ark.configure(running_limit=1_000, running_limit_4k=1_000)
    await stack.start_worker("crowd", **settings)
    first = [a_request(user_id="many") for _ in range(many)]
    first += [a_request(user_id="many", model=WITH_4K, resolution="4k") for _ in range(at_4k)]
    other = [a_request(user_id="few") for _ in range(few)]
    ended: set[str] = set()
    trouble = _Trouble(stack, first, ended, "crowd", settings)
    # On a busy machine a task could end before the next is created, and the limit would not be reached.
    held = await stack.ark.fault("task", "stay_running", times=None)
    async with asyncio.timeout(seconds):
        for request in first:
            await stack.jobs.submit(request)
        await until(partial(_is_reached, stack, places), "the limit is reached", seconds=seconds)
        await trouble.reset_some()
        await trouble.kill()
        await stack.ark.clear_faults(held)
        await stack.ark.release()
        results = [asyncio.create_task(_stored(stack, request, ended)) for request in first]
        troubling = asyncio.create_task(trouble.go_on(trouble_every))
        await until(lambda: ended, "the first of the many is stored", seconds=seconds)
        trouble.is_kind = kind_to_few
        submitted_at = time.time()
        for request in other:
            await stack.jobs.submit(request)
        before = len(ended)
        await asyncio.gather(*(_stored(stack, request, set()) for request in other))
        meanwhile = len(ended) - before
        trouble.is_kind = False
        # Each kill doubles the pause of the copies that it cuts, so the last jobs would need hours.
        await until(lambda: len(ended) >= len(first) - 2 * places, "few jobs are left", seconds=seconds)
        troubling.cancel()
        await asyncio.wait([troubling])
        assert trouble.kills, "no worker was killed"
        assert trouble.resets, "no run was reset"
        if stack.children["crowd"].process.returncode is not None:
            await stack.start_worker("crowd", **settings)
        await asyncio.gather(*results)
        for queue in (Queues("byteplus").create, Queues("byteplus").create_4k):

            async def is_empty(queue: str = queue) -> bool:
                return await place_counts(stack, queue) == (0, 0)

            await until(is_empty, f"no place of {queue} is taken", seconds=60)
    creates = [entry for entry in await stack.ark.ledger() if entry.committed]
    created = Counter(_prompt_of(entry) for entry in creates)
    assert created == Counter(request.prompt for request in (*first, *other)), "each job is paid for once"
    of_other = {request.prompt for request in other}
    last_of_other = max(entry.time for entry in creates if _prompt_of(entry) in of_other)
    created_before = [entry for entry in creates if submitted_at < entry.time < last_of_other]
    most = (await stack.ark.requests()).most_alive
    assert most["byteplus"] <= places, f"{most} tasks were at the provider at once"
    assert most["byteplus 4k"] <= 1, f"{most} tasks were at the provider at once"
    return Crowd(
        left=many + at_4k - before,
        meanwhile=meanwhile,
        created_before=len([entry for entry in created_before if _prompt_of(entry) not in of_other]),
        kills=trouble.kills,
        resets=trouble.resets,
        most_alive=most,
    )


async def _is_reached(stack: Stack, places: int) -> bool:
    return (await stack.ark.requests()).most_alive.get("byteplus") == places


def _prompt_of(entry: CreateEntry) -> object:
    return entry.body["content"][0]["text"]


async def _stored(stack: Stack, request: VideoRequest, ended: set[str]) -> None:
    job_id = job_id_of(request)
    await stack.jobs.job(job_id).result()
    ended.add(job_id)
