"""Ask for places, and find out which of them are still needed.

A place is needed as long as its job has a task at the provider, or may have one, or can still create one. The ledger
shows that; for a job without a run, which nobody follows, the provider does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from activities.batches import Batches
from seedance_temporal import contract
from seedance_temporal.connection import is_unknown_workflow
from seedance_temporal.contract import Queues
from seedance_temporal.errors import InvalidJobId
from seedance_temporal.identity import job_id_from, user_hash
from seedance_temporal.job import Shape
from seedance_temporal.ledger.facts import Attempt, Facts
from seedance_temporal.ledger.store import Ledger, LedgerDamaged
from seedance_temporal.places import Asked, Lease, PlaceRequest, PlacesInput, held_of, place_of, places_in, queue_of
from seedance_temporal.provider.ark import Ark, ArkError
from seedance_temporal.provider.create_answer import CreateAnswer
from seedance_temporal.provider.task import TERMINAL, parse_task
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings

# The longest that a task can wait or run at the provider before it expires, and an hour.
_LONGEST_TASK = timedelta(seconds=259_200) + timedelta(hours=1)
_SIDE_BY_SIDE = 20
# A result may have 2 MiB. So many tasks are far over any running limit.
_MOST_LEASES = 4_000


# A place is in doubt while the ledgers of some jobs are read.
_DOUBT_PAUSE_SECONDS = 0.5
# Free places are granted within a second. A workflow that grants places and has just begun reads the ledgers first,
# for ten seconds and more: that is one failed try.
_GRANT_LOOKS = 4
_GRANT_LOOK_SECONDS = 0.5
NO_PLACE = CreateAnswer(
    "not_sent", code="no_place", message="the job has no place; as many tasks as the settings allow are at the provider"
)


class AskInput(Shape):
    """The request of a job, and the create queue that it needs a place of.

    Attributes:
        again: Whether the job has asked before, and still waits.
    """

    queue: str
    request: PlaceRequest
    again: bool = False


class TasksInput(Shape):
    queue: str


class TasksResult(Shape):
    """The places of the jobs that have a task, or may have one."""

    leases: tuple[Lease, ...]


class CheckInput(Shape):
    """The places to check; ``are_unused``: their jobs say that they have created nothing."""

    leases: tuple[Lease, ...]
    are_unused: bool = False


class CheckResult(Shape):
    """The jobs whose places are not needed any more."""

    unneeded: tuple[str, ...]


class PlaceActivities:
    """Ask for places, and check them."""

    def __init__(self, ledger: Ledger, ark: Ark, settings: Settings) -> None:
        self._ledger = ledger
        self._ark = ark
        self._settings = settings
        self._queues = Queues(settings.ark_route)
        self._requests: dict[str, Batches[PlaceRequest]] = {}

    @activity.defn
    async def ask_for_place(self, input: AskInput) -> None:
        """Ask for a place of a create queue.

        Raises:
            ApplicationError: ``PlacesStuck``: the job has asked before, and free places are not granted, or the
                workflow that grants them does not answer.
            RPCError: Temporal does not answer.
        """
        queue = input.queue

        async def deliver(client: Client, requests: list[PlaceRequest]) -> None:
            limit = places_in(queue, self._settings)
            await client.start_workflow(
                contract.PLACES,
                PlacesInput(route=self._settings.ark_route, queue=queue, limit=limit),
                id=contract.places_id(queue),
                task_queue=self._queues.workflows,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                start_signal=contract.SIGNAL_PLACES_ASKED,
                start_signal_args=[Asked(limit=limit, requests=tuple(requests))],
                static_summary=f"places for tasks of {queue}",
            )

        await self._requests.setdefault(queue, Batches(deliver)).send(input.request)
        if input.again:
            await _expect_grants(queue, input.request.job_id)

    @activity.defn
    async def open_tasks(self, input: TasksInput) -> TasksResult:
        """Find the jobs that have a task at the provider, or may have one."""
        client = activity.client()
        side_by_side = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def lease(job_id: str) -> Lease | None:
            async with side_by_side:
                try:
                    facts = await self._ledger.read(job_id)
                except LedgerDamaged:
                    # It may have one. The place is checked like any other that is not freed.
                    return Lease(job_id=job_id, user="", since=datetime.now(UTC))
            for attempt in _open(facts):
                request = attempt.claim.request if attempt.claim is not None else None
                if request is None or self._queues.create_for(request.resolution) == input.queue:
                    user = user_hash(request.user_id) if request is not None else ""
                    return Lease(job_id=job_id, user=user, since=datetime.now(UTC))
            return None

        job_ids = {job_id async for job_id in self._jobs(client)}
        found = await asyncio.gather(*map(lease, sorted(job_ids)))
        leases = [each for each in found if each is not None]
        return TasksResult(leases=tuple(leases[:_MOST_LEASES]))

    async def _jobs(self, client: Client) -> AsyncIterator[str]:
        """Yield the jobs that can have a task: those that are open, and those whose run was ended from outside."""
        since = f"CloseTime > '{(datetime.now(UTC) - _LONGEST_TASK).isoformat()}'"
        query = (
            f"WorkflowType = '{contract.WORKFLOW}' AND TaskQueue = '{self._queues.workflows}' AND "
            f"(ExecutionStatus = 'Running' OR (ExecutionStatus IN ('Terminated', 'TimedOut') AND {since}))"
        )
        async for run in client.list_workflows(query):
            with suppress(InvalidJobId):  # somebody else's run
                yield job_id_from(run.id)

    @activity.defn
    async def check_places(self, input: CheckInput) -> CheckResult:
        """Find the places that no task needs, and no job that could create one."""
        is_needed = self._is_used if input.are_unused else self._is_needed
        side_by_side = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def checked(lease: Lease) -> bool:
            async with side_by_side:
                return await is_needed(lease)

        needed = await asyncio.gather(*map(checked, input.leases))
        unneeded = [lease.job_id for lease, each in zip(input.leases, needed, strict=True) if not each]
        return CheckResult(unneeded=tuple(unneeded))

    async def _is_used(self, lease: Lease) -> bool:
        try:
            return bool(_open(await self._ledger.read(lease.job_id)))
        except LedgerDamaged:
            return True
        except InvalidJobId:  # somebody else's signal: it must not keep the places of all others from being checked
            return False

    async def _is_needed(self, lease: Lease) -> bool:
        is_open = await _has_run(activity.client(), lease.job_id)
        try:
            facts = await self._ledger.read(lease.job_id)
        except LedgerDamaged:
            return True
        except InvalidJobId:
            return False
        attempts = _open(facts)
        if is_open:
            # It follows its task, or is about to create one: then none has ended since the place was granted.
            return bool(attempts) or not any(_ended_since(attempt, lease) for attempt in facts.attempts)
        return any([await self._may_exist(attempt, facts) for attempt in attempts])

    async def _may_exist(self, attempt: Attempt, facts: Facts) -> bool:
        """Return whether the provider may have a task of an attempt that nobody follows."""
        if attempt.claimed_at is not None and datetime.now(UTC) - attempt.claimed_at > _LONGEST_TASK:
            return False
        if not attempt.tasks:
            return True
        return any([await self._runs(task_id) for task_id in _followed(attempt, facts)])

    async def _runs(self, task_id: str) -> bool:
        try:
            payload = await self._ark.get(task_id)
        except (ArkError, httpx.HTTPError):
            return True
        return payload is None or parse_task(payload).status not in TERMINAL


async def tell_limits(client: Client, settings: Settings) -> None:
    """Tell the workflows that grant places, where they run, how many there are: jobs may not ask for a long time.

    Without a limit none asks. Once it is set again, the tasks that were created meanwhile have to be counted.

    Raises:
        RPCError: Temporal does not answer.
    """
    for queue in Queues(settings.ark_route).creates:
        told = Asked(limit=places_in(queue, settings), requests=())
        try:
            await client.get_workflow_handle(contract.places_id(queue)).signal(contract.SIGNAL_PLACES_ASKED, told)
        except RPCError as error:
            if not is_unknown_workflow(error):
                raise


async def _expect_grants(queue: str, job_id: str) -> None:
    """Return once a job has a place, or all places are taken: otherwise it could wait for ever, and nobody see it."""
    granting = contract.places_id(queue)
    for _ in range(_GRANT_LOOKS):
        try:
            place = await place_of(activity.client(), queue, job_id)
        except RPCError as error:
            raise ApplicationError(
                f"workflow {granting} does not answer: {error.message}", type="PlacesStuck"
            ) from None
        if place is None or place.held or (place.limit is not None and place.taken >= place.limit):
            return
        await asyncio.sleep(_GRANT_LOOK_SECONDS)
    raise ApplicationError(f"workflow {granting} grants none of its free places", type="PlacesStuck")


def needs_place(request: VideoRequest, settings: Settings) -> bool:
    """Return whether a create needs a place."""
    return places_in(Queues(request.route).create_for(request.resolution), settings) is not None


class HeldPlaces:
    """Ask whether jobs have a place, just before they create."""

    def __init__(self) -> None:
        self._questions: dict[str, Batches[_Question]] = {}

    async def has(self, request: VideoRequest, job_id: str) -> bool:
        """Return whether a job has a place; while that is being checked, wait.

        Raises:
            RPCError: Temporal does not answer.
        """
        queue = queue_of(request)
        while True:
            question = _Question(job_id)
            await self._questions.setdefault(queue, Batches(partial(_ask, queue))).send(question)
            if not question.in_doubt:
                return question.held
            await asyncio.sleep(_DOUBT_PAUSE_SECONDS)


@dataclass
class _Question:
    """Whether a job has a place: the answer is filled in."""

    job_id: str
    held: bool = False
    in_doubt: bool = False


async def _ask(queue: str, client: Client, questions: list[_Question]) -> None:
    held = await held_of(client, queue, [question.job_id for question in questions])
    for question in questions:
        question.held = question.job_id in held.held
        question.in_doubt = question.job_id in held.in_doubt


def _open(facts: Facts) -> list[Attempt]:
    """Return the attempts that have a task which is not known to have ended, or may have one."""
    return [each for each in facts.attempts if (each.unknown and facts.record is None) or _followed(each, facts)]


def _followed(attempt: Attempt, facts: Facts) -> list[str]:
    stored = facts.record.task_id if facts.record is not None else None
    return [task_id for task_id in attempt.live if task_id != stored]


def _ended_since(attempt: Attempt, lease: Lease) -> bool:
    return bool(attempt.tasks) and attempt.claimed_at is not None and attempt.claimed_at >= lease.since


async def _has_run(client: Client, job_id: str) -> bool:
    try:
        run = await client.get_workflow_handle(job_id).describe()
    except RPCError as error:
        if is_unknown_workflow(error):
            return False
        raise
    return run.status is WorkflowExecutionStatus.RUNNING
