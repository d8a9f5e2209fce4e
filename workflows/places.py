"""Grant places: one workflow for each create queue, where the settings cap the tasks at the provider."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.places import CheckInput, PlaceActivities, TasksInput
    from seedance_temporal import contract
    from seedance_temporal.contract import Queues
    from seedance_temporal.places import Asked, HeldAmong, Lease, Place, PlaceRequest, PlacesInput
    from seedance_temporal.waiting_line import WaitingLine
    from workflows import policies
    from workflows.waits import history_is_long, until

# The holders of places that Temporal's UI names, the oldest first.
_MOST_SHOWN = 20


@workflow.defn(name=contract.PLACES)
class Places:
    """Grant places for ever, never more than there are.

    A job frees its place by a signal. A job that cannot (it was terminated, or forgotten) is found by a check: its
    place is freed where the ledger, or the provider, shows that it has no task and can create none.
    """

    @workflow.init
    def __init__(self, input: PlacesInput) -> None:
        # Handlers can run before the run's first step.
        self._queues = Queues(input.route)
        self._queue = input.queue
        self._limit = input.limit
        self._leases = {lease.job_id: lease for lease in input.leases}
        self._known = input.known
        self._line = WaitingLine()
        for request in input.waiting:
            self._line.add(request)
        self._asked_again: dict[str, PlaceRequest] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._unused: set[str] = set()
        self._in_doubt: frozenset[str] = frozenset()
        self._checked_at = datetime.min.replace(tzinfo=UTC)

    @workflow.run
    async def run(self, input: PlacesInput) -> None:
        """Grant places as they come free, and check those that are not freed while jobs wait."""
        bytes_before = workflow.info().get_current_history_size()
        while True:
            if not self._known:
                await until(lambda: False, policies.PLACES_REST, "until open jobs are listed")
                await self._learn()
            # First: a job that gives its place back can ask for one again.
            while self._unused:
                await self._check_unused()
            is_long = history_is_long(bytes_before)
            self._grant(only_again=is_long)
            if is_long:
                # The next run knows what was granted, and not what was told.
                await until(lambda: not self._telling)
            if is_long and not (self._unused or self._asked_again):
                break
            self._show()
            waits = bool(self._line)
            check_at = self._check_at if waits else None
            within = max(check_at - workflow.now(), timedelta(0)) if check_at is not None else None
            await until(partial(self._has_changed, waits), within, "check the places that were not freed")
            if check_at is not None and workflow.now() >= check_at:
                await self._check()
        workflow.continue_as_new(
            input.model_copy(
                update={
                    "limit": self._limit,
                    "leases": tuple(self._leases.values()),
                    "waiting": self._line.oldest(policies.MOST_WAITING),
                    "known": True,
                }
            )
        )

    @property
    def _has_free(self) -> bool:
        return self._limit is None or len(self._leases) < self._limit

    @property
    def _has_grant(self) -> bool:
        return bool(self._line) and self._has_free

    @property
    def _may_tell(self) -> bool:
        return len(self._telling) < policies.TOLD_AT_ONCE

    @property
    def _has_work(self) -> bool:
        return bool(self._unused) or (self._may_tell and (bool(self._asked_again) or self._has_grant))

    @property
    def _oldest(self) -> list[Lease]:
        return sorted(self._leases.values(), key=lambda lease: lease.since)[:_MOST_SHOWN]

    @property
    def _check_at(self) -> datetime | None:
        """When the oldest place is to be checked; None where no place is taken."""
        oldest = min((lease.since for lease in self._leases.values()), default=None)
        return max(oldest, self._checked_at) + policies.PLACE_CHECK if oldest is not None else None

    def _has_changed(self, waits: bool) -> bool:
        return self._has_work or bool(self._line) is not waits or not self._known

    @property
    def _places(self) -> Counter[str]:
        return Counter(lease.user for lease in self._leases.values())

    def _grant(self, *, only_again: bool) -> None:
        """Grant the places that are free, and tell jobs again that they have one.

        Nobody is waited for: on a busy server a signal can take seconds.
        """
        while self._may_tell and (self._asked_again or (self._has_grant and not only_again)):
            if self._asked_again:
                _, request = self._asked_again.popitem()
                if request.job_id not in self._leases:
                    self._line.add(request)
                    continue
            else:
                request = self._line.take(self._places)
            self._leases[request.job_id] = Lease(job_id=request.job_id, user=request.user, since=workflow.now())
            telling = asyncio.create_task(self._tell(request.job_id))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    async def _tell(self, job_id: str) -> None:
        # Where the job has ended meanwhile, the next check frees its place.
        with suppress(FailureError):
            await workflow.get_external_workflow_handle(job_id).signal(contract.SIGNAL_PLACE_GRANTED)

    async def _learn(self) -> None:
        """Take in the tasks that the account has already: of jobs that began before, or after a run that was lost."""
        found = await workflow.execute_activity_method(
            PlaceActivities.open_tasks,
            TasksInput(queue=self._queue),
            task_queue=self._queues.workflows,
            start_to_close_timeout=policies.PLACES_READ_TIMEOUT,
            retry_policy=policies.PLACES_READ_RETRY,
            summary="which jobs have a task at the provider?",
        )
        for lease in found.leases:
            self._leases.setdefault(lease.job_id, lease)
            self._line.remove(lease.job_id)
        self._known = True

    async def _check(self) -> None:
        """Check the places that were not freed for long."""
        self._checked_at = workflow.now()
        overdue = self._checked_at - policies.PLACE_CHECK
        await self._free_unneeded(tuple(lease for lease in self._leases.values() if lease.since <= overdue))

    async def _check_unused(self) -> None:
        """Check the places of jobs that have created nothing.

        After a Reset, the run before can have a create on its way.
        """
        unused, self._unused = self._unused, set()
        leases = tuple(lease for job_id, lease in self._leases.items() if job_id in unused)
        if leases:
            await self._free_unneeded(leases, are_unused=True)

    async def _free_unneeded(self, doubted: tuple[Lease, ...], *, are_unused: bool = False) -> None:
        """Free the places that nothing needs any more.

        Meanwhile they are in doubt, and no create that has one may send its POST: so one that has not claimed by now
        cannot be missed.
        """
        self._in_doubt = frozenset(lease.job_id for lease in doubted)
        try:
            found = await workflow.execute_activity_method(
                PlaceActivities.check_places,
                CheckInput(leases=doubted, are_unused=are_unused),
                task_queue=self._queues.get,
                schedule_to_close_timeout=policies.PLACE_CHECK,
                start_to_close_timeout=policies.LEDGER_TIMEOUT,
                retry_policy=policies.PLACES_READ_RETRY,
                summary=f"are these places still needed: {len(doubted)}",
            )
        except ActivityError:
            return  # the next check follows
        finally:
            self._in_doubt = frozenset()
        for job_id in found.unneeded:
            self._leases.pop(job_id, None)

    def _show(self) -> None:
        of = f" of {self._limit}" if self._limit is not None else ""
        holders = "".join(f"\n- {lease.job_id}, since {lease.since:%Y-%m-%d %H:%M} UTC" for lease in self._oldest)
        workflow.set_current_details(
            f"{len(self._leases)}{of} places are taken. Jobs that wait: {len(self._line)}.\n{holders}"
        )

    # Handlers: they never raise

    @workflow.signal(name=contract.SIGNAL_PLACES_ASKED)
    async def places_asked(self, *args: Any) -> None:
        """Take in requests. A job that has a place is told again: it may have been reset since."""
        for arg in args:
            try:
                asked = Asked.model_validate(arg)
            except ValidationError:
                continue
            # While there was no limit, jobs created tasks without a place.
            self._known = self._known and (self._limit is not None or asked.limit is None)
            self._limit = asked.limit
            for request in asked.requests:
                if request.job_id in self._leases:
                    self._asked_again[request.job_id] = request
                else:
                    self._line.add(request)

    @workflow.signal(name=contract.SIGNAL_PLACE_FREED)
    async def place_freed(self, *args: Any) -> None:
        """Free the place of a job, or forget its request."""
        for job_id in args:
            if isinstance(job_id, str):
                self._leases.pop(job_id, None)
                self._line.remove(job_id)

    @workflow.signal(name=contract.SIGNAL_PLACE_UNUSED)
    async def place_unused(self, *args: Any) -> None:
        """Free the place of a job that has created nothing, once the ledger says so; forget its request."""
        for job_id in args:
            if isinstance(job_id, str):
                self._unused.add(job_id)
                self._line.remove(job_id)

    @workflow.query(name=contract.QUERY_HELD_PLACES)
    def held_places(self, job_ids: list[str]) -> HeldAmong:
        """Return which of some jobs have a place."""
        asked = frozenset(job_ids)
        return HeldAmong(held=asked & self._leases.keys(), in_doubt=asked & self._in_doubt)

    @workflow.query(name=contract.QUERY_PLACE)
    def place(self, job_id: str) -> Place:
        """Return the place of a job, or how many get one before it."""
        return Place(
            held=job_id in self._leases,
            in_doubt=job_id in self._in_doubt,
            limit=self._limit,
            taken=len(self._leases),
            before=self._line.before(job_id, self._places),
            waiting=len(self._line),
        )
