"""The end that callers or Temporal request of a job."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.poll import GetTaskInput
    from seedance_temporal.contract import CancelOutcome, Carried
    from seedance_temporal.events import EventSource
    from workflows import messages, policies
    from workflows.progress import Progress
    from workflows.steps import Steps


class Cancel:
    """A request to end the job, and its answer.

    Attributes:
        requested: Whether there is one.
        outcome: The answer to it, once it is known.
        trouble: Advice on a cancel that the provider has not served for an hour; or nothing.
    """

    def __init__(self, steps: Steps, progress: Progress, carried: Carried) -> None:
        self._steps = steps
        self._progress = progress
        self.fails_since = carried.cancel_fails_since
        self.requested = carried.cancel_requested
        self.outcome: CancelOutcome | None = None
        self.trouble = ""

    @property
    def pending(self) -> bool:
        return self.requested and self.outcome is None

    def request(self, by: EventSource) -> None:
        if not self.requested:
            self.requested = True
            self._progress.note("cancel_requested", by)

    async def send(self, task: GetTaskInput) -> None:
        """Cancel a task that is queued; where the provider does not serve that, leave the request for the next poll."""
        try:
            cancelled = await self._steps.cancel_task(task)
        except ActivityError as error:
            reason = str(messages.last_failure(error) or "no worker took it")
            self._progress.note("cancel_not_served", "poll", reason, task_id=task.task_id)
            since = self.fails_since = self.fails_since or workflow.now()
            if workflow.now() - since >= policies.PATIENCE:
                self.trouble = messages.advice_on_cancel(since, reason)
            return
        self.trouble, self.fails_since = "", None
        self.outcome = cancelled.outcome
        answer = f"{cancelled.outcome}, {cancelled.status}"
        self._progress.note("cancel_answered", "poll", answer, task_id=task.task_id)
