"""Places: never more than the limit, shared by users, and never lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest_asyncio
from temporalio import workflow
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.limits import QuotaResult
from activities.places import CheckInput, CheckResult, TasksResult
from seedance_temporal.contract import (
    PLACES,
    QUERY_PLACE,
    SIGNAL_PLACE_FREED,
    SIGNAL_PLACE_GRANTED,
    SIGNAL_PLACE_UNUSED,
    SIGNAL_PLACES_ASKED,
    Queues,
    places_id,
)
from seedance_temporal.places import Asked, Lease, Place, PlaceRequest, PlacesInput
from tests.support.polling import until
from tests.workflows.fakes import (
    RESULT,
    Held,
    Planned,
    adopt,
    claim,
    created,
    ended,
    failure,
    not_sent,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, Job
from workflows import policies

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
CHECK_SECONDS = policies.PLACE_CHECK.total_seconds() + 5


@workflow.defn(name="PlacedJob")
class PlacedJob:
    """A job that counts the places that it was granted."""

    def __init__(self) -> None:
        self._granted = 0
        self._over = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self._over)

    @workflow.signal(name=SIGNAL_PLACE_GRANTED)
    def granted(self) -> None:
        self._granted += 1

    @workflow.signal
    def end(self) -> None:
        self._over = True

    @workflow.query
    def count(self) -> int:
        return self._granted


@dataclass
class Grants:
    """The places of a route's creates, and jobs that ask for them."""

    harness: Harness
    jobs: dict[str, WorkflowHandle[Any, Any]] = field(default_factory=dict)

    @property
    def queue(self) -> str:
        return Queues(self.harness.route).create

    def id_of(self, name: str) -> str:
        return f"{self.harness.route}-{name}"

    @property
    def handle(self) -> Job:
        return Job(self.harness.client.get_workflow_handle(places_id(self.queue)))

    async def start(self, limit: int | None = 1, *, known: bool = True, **given: Any) -> None:
        handle = await self.harness.client.start_workflow(
            PLACES,
            PlacesInput(route=self.harness.route, queue=self.queue, limit=limit, known=known, **given),
            id=places_id(self.queue),
            task_queue=Queues(self.harness.route).workflows,
        )
        self.harness.jobs.append(Job(handle))

    def request(self, name: str, user: str = "user", **given: Any) -> PlaceRequest:
        since = given.pop("since", LONG_AGO + timedelta(seconds=len(self.jobs)))
        return PlaceRequest(job_id=self.id_of(name), user=user, since=since, **given)

    async def start_job(self, name: str) -> None:
        if name not in self.jobs:
            self.jobs[name] = await self.harness.client.start_workflow(
                "PlacedJob", id=self.id_of(name), task_queue=f"{self.harness.route}-jobs"
            )

    async def ask(self, *names: str, user: str = "user", limit: int | None = 1, **given: Any) -> None:
        for name in names:
            await self.start_job(name)
        requests = tuple(self.request(name, user, **given) for name in names)
        await self.handle.newest().signal(SIGNAL_PLACES_ASKED, Asked(limit=limit, requests=requests))

    async def free(self, *names: str) -> None:
        await self.handle.newest().signal(SIGNAL_PLACE_FREED, args=[self.id_of(name) for name in names])

    async def place(self, name: str) -> Place:
        place: Place = await self.handle.newest().query(QUERY_PLACE, self.id_of(name), result_type=Place)
        return place

    async def granted(self, name: str, times: int = 1) -> None:
        async def is_granted() -> bool:
            count: int = await self.jobs[name].query("count")
            return count == times

        await until(is_granted, f"{name} is granted a place, {times} times")
        assert (await self.place(name)).held

    async def order(self, *, beside: int) -> list[str]:
        """Free each place that is granted, and return the jobs in the order in which they got theirs."""
        order: list[str] = []
        while (await self.place("")).taken > beside or (await self.place("")).waiting:
            for name in self.jobs:
                if name not in order and (await self.place(name)).held:
                    order.append(name)
                    await self.free(name)
        return order


@pytest_asyncio.fixture(loop_scope="session")
async def grants(harness: Harness) -> AsyncIterator[Grants]:
    async with jobs_of(harness) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def skipping_grants(skipping: Harness) -> AsyncIterator[Grants]:
    async with jobs_of(skipping) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def renewing_grants(renewing: Harness) -> AsyncIterator[Grants]:
    async with jobs_of(renewing) as found:
        yield found


class jobs_of:  # noqa: N801 - used like a function
    """Serve the jobs that ask."""

    def __init__(self, harness: Harness) -> None:
        self._grants = Grants(harness)
        self._worker = Worker(
            harness.client,
            task_queue=f"{harness.route}-jobs",
            workflows=[PlacedJob],
            workflow_runner=UnsandboxedWorkflowRunner(),
        )

    async def __aenter__(self) -> Grants:
        await self._worker.__aenter__()
        return self._grants

    async def __aexit__(self, *given: Any) -> None:
        for job in self._grants.jobs.values():
            await job.terminate()
        await self._worker.__aexit__(*given)


async def test_no_more_places_than_limit(grants: Grants) -> None:
    await grants.start(2)
    await grants.ask("a", "b", "c", "d", limit=2)
    await grants.granted("a")
    await grants.granted("b")
    shown = await grants.place("d")
    assert (shown.held, shown.taken, shown.limit, shown.before, shown.waiting) == (False, 2, 2, 1, 2)
    await grants.free("a")
    await grants.granted("c")
    assert not (await grants.place("a")).held
    assert "2 of 2 places are taken. Jobs that wait: 1." in await grants.handle.current_details()


async def test_free_places_are_granted_in_one_turn(grants: Grants) -> None:
    """A turn takes long on a busy server, so that places granted one by one would stay empty meanwhile."""
    names = [f"job-{number}" for number in range(12)]
    await grants.start(12)
    await grants.ask(*names, limit=12)
    for name in names:
        await grants.granted(name)
    told = [
        event.signal_external_workflow_execution_initiated_event_attributes.workflow_task_completed_event_id
        for event in await grants.handle.events()
        if event.HasField("signal_external_workflow_execution_initiated_event_attributes")
    ]
    assert len(told) == 12
    assert len(set(told)) == 1


async def test_users_have_equal_shares(grants: Grants) -> None:
    await grants.start(1)
    await grants.ask(*(f"many-{number}" for number in range(6)), user="many")
    await grants.granted("many-0")
    await grants.ask("few-1", "few-2", user="few")
    assert (await grants.place("few-2")).before == 2
    order = await grants.order(beside=0)
    assert order[:5] == ["many-0", "few-1", "many-1", "few-2", "many-2"]


async def test_higher_priority_goes_first_within_user(grants: Grants) -> None:
    await grants.start(1)
    await grants.ask("first")
    await grants.granted("first")
    await grants.ask("low")
    await grants.ask("high", priority=9)
    assert await grants.order(beside=0) == ["first", "high", "low"]


async def test_lower_rank_goes_first(grants: Grants) -> None:
    await grants.start(1)
    await grants.ask("first", rank=4)
    await grants.granted("first")
    await grants.ask("batch", user="another", rank=4)
    await grants.ask("interactive", rank=3)
    assert await grants.order(beside=0) == ["first", "interactive", "batch"]


async def test_job_that_asks_again_keeps_place(grants: Grants) -> None:
    await grants.start(1)
    await grants.ask("a")
    await grants.ask("b")
    await grants.granted("a")
    await grants.ask("a")
    await grants.granted("a", times=2)
    shown = await grants.place("b")
    assert (shown.taken, shown.before) == (1, 0)


async def test_removed_limit_grants_all(grants: Grants) -> None:
    await grants.start(1)
    await grants.ask("a", "b")
    await grants.granted("a")
    await grants.ask("c", limit=None)
    await grants.granted("b")
    await grants.granted("c")
    assert (await grants.place("c")).limit is None


async def test_lower_limit_grants_nothing_before_it_fits(grants: Grants) -> None:
    await grants.start(3)
    await grants.ask("a", "b", "c", limit=3)
    await grants.granted("c")
    await grants.ask("d", limit=1)
    await grants.free("a", "b")
    assert (await grants.place("d")).before == 0
    await grants.free("c")
    await grants.granted("d")


async def test_request_after_free_waits_again(idle: Harness) -> None:
    """Both come while no worker runs: the job asks again in its place, and then frees it."""
    await idle.start_workers()
    async with jobs_of(idle) as grants:
        await grants.start(1)
        await grants.ask("a")
        await grants.granted("a")
        await idle.stop("workflows")
        await grants.ask("a")
        await grants.free("a")
        await idle.start_workers("workflows")
        await grants.granted("a", times=2)
        assert (await grants.place("a")).taken == 1


async def test_foreign_signals_change_nothing(grants: Grants) -> None:
    await grants.start(1)
    await grants.ask("a")
    await grants.granted("a")
    await grants.handle.signal(SIGNAL_PLACES_ASKED, args=["nonsense", {"limit": "many"}, None])
    nobody = {"job_id": "", "user": "user", "since": LONG_AGO.isoformat()}
    wide = {"job_id": "x", "user": "u" * 1_800_000, "since": LONG_AGO.isoformat()}
    for foreign in (nobody, wide):
        await grants.handle.signal(SIGNAL_PLACES_ASKED, {"limit": 9, "requests": [foreign]})
    await grants.handle.signal(SIGNAL_PLACE_FREED, args=[None, 7, {"job_id": grants.id_of("a")}, "unknown"])
    await grants.handle.signal(SIGNAL_PLACE_FREED)
    shown = await grants.place("a")
    assert (shown.held, shown.limit) == (True, 1)


async def test_existing_tasks_hold_places(skipping_grants: Grants) -> None:
    """Jobs began before the limit was set, or the workflow that granted their places was ended."""
    held = Held(TasksResult(leases=(Lease(job_id="before", user="user", since=LONG_AGO),)))
    skipping_grants.harness.fake.plan("open_tasks", held)
    skipping_grants.harness.fake.always("check_places", CheckResult(unneeded=()))
    await skipping_grants.start(2, known=False)
    await skipping_grants.ask("a", "b", limit=2)
    await skipping_grants.harness.skip(policies.PLACES_REST.total_seconds() + 1)
    await held.reached.wait()
    assert (await skipping_grants.place("a")).before == 0
    held.release()
    await skipping_grants.granted("a")
    assert (await skipping_grants.place("b")).taken == 2
    await skipping_grants.handle.signal(SIGNAL_PLACE_FREED, "before")
    await skipping_grants.granted("b")


async def test_unneeded_place_is_found(skipping_grants: Grants) -> None:
    skipping_grants.harness.fake.plan(
        "check_places",
        ApplicationError("the bucket is away", non_retryable=True),
        CheckResult(unneeded=()),
        CheckResult(unneeded=(skipping_grants.id_of("lost"),)),
    )
    await skipping_grants.start(1)
    await skipping_grants.ask("lost")
    await skipping_grants.granted("lost")
    await skipping_grants.ask("next")
    for count in range(1, 4):
        await skipping_grants.harness.skip(CHECK_SECONDS)
        await skipping_grants.harness.fake.called("check_places", count)
    await skipping_grants.granted("next")
    assert not (await skipping_grants.place("lost")).held


async def test_checked_place_is_in_doubt(skipping_grants: Grants) -> None:
    """A create asks for its place after its claim, and waits while that is in doubt."""
    held = Held(CheckResult(unneeded=()))
    skipping_grants.harness.fake.plan("check_places", held)
    skipping_grants.harness.fake.always("check_places", CheckResult(unneeded=()))
    await skipping_grants.start(1)
    await skipping_grants.ask("a")
    await skipping_grants.granted("a")
    assert not (await skipping_grants.place("a")).in_doubt
    await skipping_grants.ask("b")
    await skipping_grants.harness.skip(CHECK_SECONDS)
    await held.reached.wait()
    assert (await skipping_grants.place("a")).in_doubt
    held.release()

    async def is_sure() -> bool:
        place = await skipping_grants.place("a")
        return place.held and not place.in_doubt

    await until(is_sure, "the place is held")


async def test_unused_place_is_freed_by_the_ledger(grants: Grants) -> None:
    """A job created nothing; but the run before its Reset may have."""
    grants.harness.fake.plan(
        "check_places", CheckResult(unneeded=()), CheckResult(unneeded=(grants.id_of("a"),)), CheckResult(unneeded=())
    )
    await grants.start(1)
    await grants.ask("a")
    await grants.granted("a")
    await grants.ask("b")
    await grants.handle.signal(SIGNAL_PLACE_UNUSED, args=[grants.id_of("a"), None])
    await grants.harness.fake.called("check_places")
    assert grants.harness.fake.input("check_places").are_unused
    assert (await grants.place("a")).held
    await grants.handle.signal(SIGNAL_PLACE_UNUSED, args=[grants.id_of("a"), grants.id_of("b")])
    await grants.harness.fake.called("check_places", 2)

    async def is_empty() -> bool:
        place = await grants.place("")
        return (place.taken, place.waiting) == (0, 0)

    await until(is_empty, "the place is freed, and the request forgotten")


async def test_no_check_while_places_are_free(skipping_grants: Grants) -> None:
    await skipping_grants.start(2)
    await skipping_grants.ask("a", limit=2)
    await skipping_grants.granted("a")
    await skipping_grants.harness.skip(2 * CHECK_SECONDS)
    assert skipping_grants.harness.fake.of("check_places") == []


async def test_place_is_checked_while_others_are_freed(skipping_grants: Grants) -> None:
    """Where places are freed all the time, one that is not must be noticed as well."""
    grants = skipping_grants
    grants.harness.fake.always("check_places", CheckResult(unneeded=(grants.id_of("lost"),)))
    await grants.start(2)
    await grants.ask("lost", "other-0", limit=2)
    await grants.granted("other-0")
    await grants.ask("more", limit=2, since=LONG_AGO + timedelta(days=1))
    for number in range(1, 4):
        await grants.ask(f"other-{number}", limit=2)
        await grants.harness.skip(CHECK_SECONDS / 3)
        await grants.free(f"other-{number - 1}")
        await grants.granted(f"other-{number}")
    await grants.granted("more")
    assert not (await grants.place("lost")).held


async def test_place_of_ended_job_is_checked(skipping_grants: Grants) -> None:
    skipping_grants.harness.fake.always("check_places", CheckResult(unneeded=(skipping_grants.id_of("gone"),)))
    await skipping_grants.start(1)
    request = skipping_grants.request("gone")
    await skipping_grants.handle.signal(SIGNAL_PLACES_ASKED, Asked(limit=1, requests=(request,)))
    await skipping_grants.ask("next")
    await skipping_grants.harness.skip(CHECK_SECONDS)
    await skipping_grants.granted("next")


async def test_longest_line_is_granted(grants: Grants) -> None:
    """What a run begins with is no reason for the next one to take over."""
    grants.harness.fake.always("check_places", CheckResult(unneeded=()))
    await grants.start_job("next")
    others = (grants.request(f"other-{number}", since=LONG_AGO + timedelta(days=1)) for number in range(3_999))
    held = Lease(job_id=grants.id_of("held"), user="user", since=LONG_AGO)
    await grants.start(1, leases=(held,), waiting=(grants.request("next"), *others))
    assert (await grants.place("next")).before == 0
    await grants.free("held")
    await grants.granted("next")
    assert (await grants.handle.describe()).run_id == grants.harness.jobs[0].first_execution_run_id


async def test_limit_that_comes_back_counts_existing_tasks(skipping_grants: Grants) -> None:
    grants = skipping_grants
    grants.harness.fake.always("check_places", CheckResult(unneeded=()))
    grants.harness.fake.plan(
        "open_tasks", TasksResult(leases=(Lease(job_id="meanwhile", user="user", since=LONG_AGO),))
    )
    await grants.start(1)
    await grants.ask("a", limit=None)
    await grants.granted("a")
    await grants.free("a")
    await grants.ask("b")
    await grants.harness.skip(policies.PLACES_REST.total_seconds() + 1)
    await grants.harness.fake.called("open_tasks")
    assert (await grants.place("b")).before == 0
    await grants.handle.signal(SIGNAL_PLACE_FREED, "meanwhile")
    await grants.granted("b")


async def test_new_run_knows_places(renewing_grants: Grants) -> None:
    await renewing_grants.start(1)
    await renewing_grants.ask("held")
    await renewing_grants.granted("held")
    for number in range(12):
        await renewing_grants.ask(f"waiting-{number}")
    await renewing_grants.free("held")
    assert len(await renewing_grants.order(beside=0)) == 12
    assert (await renewing_grants.handle.describe()).run_id != renewing_grants.harness.jobs[0].first_execution_run_id


async def test_waiting_job_continues_as_new(renewing: Harness) -> None:
    await renewing.stop("ledger")
    renewing.tasks_at_once = 1
    await renewing.start_workers("ledger")

    async def by_ledger(_: Any) -> Planned:
        return adopt(capped=True) if renewing.fake.of("create_task") else claim(capped=True)

    renewing.fake.always("read_ledger", by_ledger)
    async with jobs_of(renewing) as grants:
        await grants.start(1)
        await grants.ask("other")
        await grants.granted("other")
        job = await renewing.start_until_state(phase="waiting")

        async def is_renewed() -> bool:
            await job.newest().signal("retry")
            return (await job.newest().describe()).run_id != job.first_execution_run_id

        await until(is_renewed, "a new run has taken over", seconds=60, every=0.5)
        assert (await place_of(grants, job)).before == 0
        renewing.fake.plan("create_task", created(seconds=0))
        renewing.fake.finish()
        await grants.free("other")
        assert await job.newest().result() == RESULT


# The job's side


@pytest_asyncio.fixture(loop_scope="session")
async def capped(idle: Harness) -> AsyncIterator[Grants]:
    """A route whose jobs need one of one places; its workers are sandboxed."""
    idle.tasks_at_once = 1
    await idle.start_workers()
    async with jobs_of(idle) as found:
        await found.start(1)
        yield found


async def place_of(renewing_grants: Grants, job: Job) -> Place:
    place: Place = await renewing_grants.handle.query(QUERY_PLACE, job.id, result_type=Place)
    return place


async def unneeded(input: CheckInput) -> CheckResult:
    """Answer that no task needs these places."""
    return CheckResult(unneeded=tuple(lease.job_id for lease in input.leases))


async def until_free(grants: Grants) -> None:
    """Wait until another job can have the place."""
    await grants.ask("other")
    await grants.granted("other")
    await grants.free("other")


async def until_in_line(renewing_grants: Grants, job: Job) -> None:
    async def is_next() -> bool:
        return (await place_of(renewing_grants, job)).before == 0

    await until(is_next, "the job waits for a place")


async def test_job_waits_for_place_then_frees_it(capped: Grants) -> None:
    harness = capped.harness
    await capped.ask("other")
    await capped.granted("other")
    harness.fake.create(created(seconds=0), capped=True)
    harness.fake.plan("get_task", waiting("running", 0.2))
    held = Held(RESULT)
    harness.fake.plan("get_task", to_store())
    harness.fake.plan("store_video", held)
    job = await harness.start_until_state(phase="waiting")
    await until_in_line(capped, job)
    assert harness.fake.of("create_task") == []
    await capped.free("other")
    await held.reached.wait()
    assert harness.fake.input("create_task").placed
    # The task has ended, and its video is still being copied.
    assert (await place_of(capped, job)).taken == 0
    held.release()
    assert await job.result() == RESULT


async def test_waiting_job_reserves_no_quota(capped: Grants) -> None:
    """A thousand jobs that wait for ten places must not use up a budget."""
    harness = capped.harness
    await capped.ask("other")
    await capped.granted("other")
    harness.fake.create(created(seconds=0), capped=True, limited=True)
    harness.fake.plan("reserve_quota", QuotaResult())
    harness.fake.finish()
    job = await harness.start()
    await until_in_line(capped, job)
    assert harness.fake.names() == ["read_ledger"]
    await capped.free("other")
    assert await job.result() == RESULT
    assert harness.fake.names()[1:3] == ["reserve_quota", "create_task"]


async def test_job_over_budget_gives_place_back(capped: Grants) -> None:
    harness = capped.harness
    harness.fake.always("check_places", unneeded)
    harness.fake.create(created(seconds=0), capped=True, limited=True)
    harness.fake.plan("reserve_quota", QuotaResult(waits_for="1 USD of the day's budget.", wait_seconds=3600))
    harness.fake.plan("reserve_quota", QuotaResult())
    harness.fake.finish()
    job = await harness.start()
    await harness.fake.called("check_places")
    await until_free(capped)
    await job.signal("retry")
    assert await job.result() == RESULT


async def test_job_without_limit_asks_for_no_place(capped: Grants) -> None:
    capped.harness.fake.create(created(seconds=0))
    capped.harness.fake.finish()
    await capped.harness.start_until_stored()
    assert not capped.harness.fake.input("create_task").placed
    assert (await capped.place("")).taken == 0


async def test_cancelled_job_leaves_line(capped: Grants) -> None:
    harness = capped.harness
    await capped.ask("other")
    await capped.granted("other")
    harness.fake.plan("read_ledger", claim(capped=True), claim())
    job = await harness.start_until_state(phase="waiting")
    await until_in_line(capped, job)
    await job.signal("cancel")
    assert (await job.failed()).failure_class == "cancelled"
    assert (await place_of(capped, job)).waiting == 0


async def test_refused_create_asks_for_place(capped: Grants) -> None:
    """The limit was set while the job ran, or its place was freed by mistake: nothing was sent."""
    harness = capped.harness
    harness.fake.plan("read_ledger", claim(), claim(2))
    harness.fake.plan("create_task", not_sent(0.2, "no_place", needs_place=True), created(seconds=0))
    harness.fake.always("check_places", CheckResult(unneeded=()))
    harness.fake.finish()
    await harness.start_until_stored()
    assert [call.input.placed for call in harness.fake.of("create_task")] == [False, True]
    assert (await capped.place("")).taken == 0


async def test_create_that_was_not_sent_frees_place(capped: Grants) -> None:
    harness = capped.harness
    harness.fake.plan("read_ledger", claim(capped=True), claim(2))
    harness.fake.plan("create_task", not_sent(3600), created(seconds=0))
    harness.fake.always("check_places", unneeded)
    harness.fake.finish()
    job = await harness.start()
    await harness.fake.called("create_task")
    await until_free(capped)
    await job.signal("retry")
    assert await job.result() == RESULT


async def test_failed_task_frees_place(capped: Grants) -> None:
    harness = capped.harness
    harness.fake.create(created(seconds=0), capped=True)
    harness.fake.end("failed", "provider")
    job = await harness.start()
    await job.failed()
    assert (await capped.place("")).taken == 0


async def test_paid_job_needs_no_place(capped: Grants) -> None:
    """Its task exists; it frees the place that a run before it had."""
    harness = capped.harness
    await capped.ask("other")
    await capped.granted("other")
    harness.fake.follow(to_store(), capped=True)
    harness.fake.plan("store_video", RESULT)
    await harness.start_until_stored()
    assert (await capped.place("other")).held


async def test_ended_job_needs_no_place(capped: Grants) -> None:
    harness = capped.harness
    harness.fake.plan("read_ledger", ended(failure("invalid"), capped=True))
    await (await harness.start()).failed()
    assert (await capped.place("")).waiting == 0


async def test_waiting_job_outlives_granting_workflow(capped: Grants) -> None:
    harness = capped.harness
    await capped.ask("other")
    await capped.granted("other")
    harness.fake.plan("read_ledger", claim(capped=True))
    harness.fake.plan("create_task", created(seconds=0))
    harness.fake.finish()
    harness.fake.always("open_tasks", TasksResult(leases=()))
    job = await harness.start_until_state(phase="waiting")
    await capped.handle.terminate()
    await job.signal("retry")
    assert await job.result() == RESULT


async def test_adopted_task_frees_place(capped: Grants) -> None:
    harness = capped.harness
    harness.fake.create(created(seconds=3600), capped=True)
    job = await harness.start_until_state(phase="queued")
    assert (await place_of(capped, job)).held
    await job.terminate()
    harness.fake.plan("read_ledger", adopt(capped=True))
    harness.fake.finish()
    await harness.start_until_stored()
    assert not (await place_of(capped, job)).held
