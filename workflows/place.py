"""The place that a job needs before a create, where the settings cap the tasks at the provider."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from seedance_temporal import contract
    from seedance_temporal.contract import Carried, Queues
    from seedance_temporal.identity import user_hash
    from seedance_temporal.places import PlaceRequest, queue_of
    from seedance_temporal.request import VideoRequest
    from workflows import policies
    from workflows.inbox import Inbox
    from workflows.progress import Progress
    from workflows.steps import Steps
    from workflows.waits import until


class HeldPlace:
    """Take a place before a create, and free it once the job has no task at the provider.

    Attributes:
        is_held: Whether the job was granted a place. The create asks once more, between claim and POST.
    """

    def __init__(self, request: VideoRequest, carried: Carried, steps: Steps, inbox: Inbox, progress: Progress) -> None:
        self._request = request
        self._queue = queue_of(request)
        is_4k = self._queue == Queues(request.route).create_4k
        self._setting = "SEEDANCE_TASKS_AT_ONCE_4K" if is_4k else "SEEDANCE_TASKS_AT_ONCE"
        self._steps = steps
        self._inbox = inbox
        self._progress = progress
        self._since = carried.place_since
        self._refused = False
        self.is_held = False
        # A run before this one can have taken a place.
        self._to_free = True

    @property
    def may_be_held(self) -> bool:
        """Whether the job may have a place, which others wait for while its video is copied."""
        return self._is_needed and self._to_free

    @property
    def _is_needed(self) -> bool:
        return self._progress.context.capped or self._refused

    def grant(self) -> None:
        """Take in the answer to a request."""
        self.is_held = True

    def refuse(self) -> None:
        """Note that a create was not sent because the job has no place."""
        self._refused, self.is_held = True, False

    async def take(self, renew: Callable[[], Awaitable[None]]) -> bool:
        """Wait for a place, where one is needed; return False where a cancel, or a task of the job, comes first.

        Args:
            renew: Lets a new run take over where the history has grown long.
        """
        if not self._is_needed or self.is_held:
            return True
        self._since = self._since or workflow.now()
        self._to_free = True
        pause = policies.PLACE_ASK_AGAIN
        self._progress.enter("waiting")
        again = False
        while not self.is_held:
            await self._steps.ask_for_place(self._queue, self._as_request(), again=again)
            await self._progress.wait_for(
                f"The job waits for a place: as many tasks as {self._setting} allows are at the provider.",
                lambda: self.is_held or self._inbox.interrupts,
                pause.total_seconds(),
                "a place at the provider, or ask for one again",
            )
            if self._inbox.interrupts:
                return False
            pause = min(pause * 2, policies.LONGEST_PLACE_PAUSE)
            again = True
            if not self.is_held:
                await renew()
        return True

    async def free(self) -> None:
        """Free the place, if the job may have one: its task has ended."""
        if self.may_be_held:
            self._to_free = False
            await self._give_back(contract.SIGNAL_PLACE_FREED)

    async def give_up(self) -> None:
        """Give the place back, if the job may have one: it created nothing. It keeps its turn, by the first request.

        After a Reset, a create of the run before can be on its way: so the ledger is asked before the place is freed.
        """
        if self.may_be_held:
            await self._give_back(contract.SIGNAL_PLACE_UNUSED)

    async def _give_back(self, signal: str) -> None:
        self.is_held = False
        sending = asyncio.create_task(self._send(signal))
        # Before a request for another one.
        await until(sending.done)

    def carry(self, carried: Carried) -> Carried:
        """Add what the next run needs. It asks again, and learns that it has a place."""
        return carried.model_copy(update={"place_since": self._since})

    async def _send(self, signal: str) -> None:
        places = workflow.get_external_workflow_handle(contract.places_id(self._queue))
        with suppress(FailureError):  # nobody grants places any more
            await places.signal(signal, workflow.info().workflow_id)

    def _as_request(self) -> PlaceRequest:
        assert self._since is not None
        return PlaceRequest(
            job_id=workflow.info().workflow_id,
            user=user_hash(self._request.user_id),
            # A client of an older release gave none.
            rank=workflow.info().priority.priority_key or contract.INTERACTIVE,
            priority=self._request.priority or 0,
            since=self._since,
        )
