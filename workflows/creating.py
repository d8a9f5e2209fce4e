"""Prepare a create, have it sent, and say what follows."""

from __future__ import annotations

from typing import Protocol

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from seedance_temporal.contract import Carried, GenerateVideoInput
    from seedance_temporal.ledger.decisions import Decision
    from seedance_temporal.reference_media import Medium, is_readable
    from workflows import messages
    from workflows.ended import Ended
    from workflows.inbox import Inbox
    from workflows.place import HeldPlace
    from workflows.progress import Progress
    from workflows.sending import Sending
    from workflows.steps import Steps


class Run(Protocol):
    """The run that creates."""

    async def read_ledger(self) -> Decision:
        """Read the ledger, and return what follows."""

    async def continue_as_new_where_long(self) -> None:
        """Let a new run take over where the history has grown long."""


class Creating:
    """The steps from the decision to claim an attempt to the outcome of its create.

    Attributes:
        place: The job's place among the tasks at the provider.
        gate: What the job knows of the gate of its queue.
    """

    def __init__(
        self, job: GenerateVideoInput, carried: Carried, steps: Steps, inbox: Inbox, progress: Progress, run: Run
    ) -> None:
        self._job = job
        self._steps = steps
        self._inbox = inbox
        self._progress = progress
        self._run = run
        self.place = HeldPlace(job.request, carried, steps, inbox, progress)
        self._sending = Sending(steps, inbox, progress, carried)
        self.gate = self._sending.gate
        self._media = carried.media
        self._limited = False
        self._waits = 0
        self._seconds_until_poll = 0.0

    async def create(self, decision: Decision) -> Decision:
        """Prepare and send one create; return the decision that follows.

        Each preparation that took time returns to the loop, which looks at cancels and callbacks before money is spent.

        Raises:
            Ended: Nothing can be created.
        """
        if not self._job.may_create:
            raise Ended(messages.unsettled(decision.attempt), "workflow")
        if self._inbox.cancel.requested:
            # After a Reset the decision may be stale; read the ledger again.
            decision = await self._run.read_ledger()
            if decision.next != "claim":
                return decision
            raise Ended(messages.cancelled_before_create(decision), "caller")
        if self._inbox.ledger_changed:
            return await self._run.read_ledger()
        if self._media is None:
            self._media = await self._check_references()
            return decision  # the same one: the next round goes on with the references checked
        if not await self.place.take(self._run.continue_as_new_where_long):
            return decision
        # After the place: jobs that wait for one must not use up the budgets.
        if (self._progress.context.limited or self._limited) and not await self._reserve_quota():
            return decision
        if await self._inbox.await_named_tasks() or self._inbox.cancel.requested:
            return decision
        result = await self._sending.send(decision.attempt, self._media, placed=self.place.is_held)
        match result.kind:
            case "impossible":
                assert result.error is not None
                raise Ended(result.error, "workflow")
            case "created":
                assert result.outcome is not None
                self._seconds_until_poll = result.wait_seconds
                return Decision(next="adopt", attempt=decision.attempt, task_id=result.outcome.task_id)
            case "unknown":
                return Decision(next="recover", attempt=decision.attempt)
            case "not_sent" if result.over_budget:
                # The limits were set since the run began.
                self._limited = True
                await self.place.give_up()
                return decision
            case "not_sent" | "conflict":
                if result.needs_place:
                    self.place.refuse()
                if not self.gate.holds:
                    # Behind the gate it is kept: the job can be asked to probe, and needs it for that.
                    await self.place.give_up()
                await self._sending.wait_before_next(result)
                await self._run.continue_as_new_where_long()
            case "refused":
                pass  # the ledger has it, and says that the job has ended
        return await self._run.read_ledger()

    def take_seconds_until_poll(self) -> float:
        """Return the seconds until the first poll of the task that this run has just created; 0 for any other."""
        seconds, self._seconds_until_poll = self._seconds_until_poll, 0.0
        return seconds

    def carry(self, carried: Carried) -> Carried:
        """Add what the next run needs."""
        return self.place.carry(self._sending.carry(carried.model_copy(update={"media": self._media})))

    async def _reserve_quota(self) -> bool:
        """Reserve quota for the create; return False after a wait for a budget. No operator is called for that.

        Raises:
            Ended: A limit forbids the create.
        """
        quota = await self._steps.reserve_quota(self._waits)
        if quota.error is not None:
            raise Ended(quota.error, "ledger")
        if quota.warnings:
            self._progress.warn(*quota.warnings)
        if not quota.waits_for:
            self._waits = 0
            return True
        self._waits += 1
        await self.place.give_up()
        self._progress.enter("waiting")
        self._progress.note("over_budget", "ledger", quota.waits_for)
        await self._progress.wait_for(
            quota.waits_for, lambda: self._inbox.interrupts, quota.wait_seconds, "budget, looked at again"
        )
        await self._run.continue_as_new_where_long()
        return False

    async def _check_references(self) -> tuple[Medium, ...] | None:
        """Check the reference media, once in a run; None where a cancel, or a task of the job, interrupts the check."""
        count = sum(map(is_readable, self._job.request.references))
        if not count:
            return ()
        self._progress.enter("checking")
        try:
            result = await self._steps.check_references(count, lambda: self._inbox.interrupts)
        except ActivityError as error:
            raise Ended(messages.unreachable(error), "references") from None
        if result is None:
            return None
        self._progress.warn(*result.warnings)
        if result.error is not None:
            raise Ended(result.error, "references")
        self._progress.note("references_checked", "references", messages.media(result.media))
        return result.media
