"""Have the video copied into the bucket while its URL lives, and call an operator in time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, CancelledError

with workflow.unsafe.imports_passed_through():
    from activities.poll import GetTaskInput
    from seedance_temporal.job import JobError, VideoResult
    from seedance_temporal.provider.task import RESULT_URL_LIFE
    from workflows import messages, policies
    from workflows.progress import Progress
    from workflows.steps import Steps
    from workflows.waits import until


class Copying:
    """Have a paid video copied, as often as it takes."""

    def __init__(self, steps: Steps, progress: Progress) -> None:
        self._steps = steps
        self._progress = progress
        self._retries = 0

    async def copy(self, task: GetTaskInput, within: timedelta) -> VideoResult | JobError:
        """Copy the video; return how the job ended where its URL died before.

        Args:
            within: How long the URL lives.
        """
        give_up_at = workflow.now() + max(within, policies.COPY_AT_LEAST)
        at_risk = give_up_at - RESULT_URL_LIFE + policies.COPY_AT_RISK
        while True:
            try:
                return await self._try(task, give_up_at, at_risk)
            except ActivityError as error:
                if isinstance(error.cause, CancelledError):
                    self._retries += 1  # an operator asked for the next try
                    continue
                conflict = messages.object_conflict(error)
                if conflict is None or workflow.now() + policies.CONFLICT_PAUSE >= give_up_at:
                    return messages.lost(task, error)
                self._progress.need("object_conflict", messages.advice_on_conflict(conflict, give_up_at))
            pause = policies.CONFLICT_PAUSE.total_seconds()
            await self._progress.wait(lambda: False, pause, "copy again, if the other object is gone", shown=False)

    async def copy_at_once(self, task: GetTaskInput, interrupted: Callable[[], bool]) -> VideoResult | None:
        """Copy the video of a task whose success a callback announced; return None where one try does not store it.

        A callback proves nothing, and the copy begins with a GET of its own: a poll before it would only say the same.
        Nor must a forged one hold up a cancel, hence ``interrupted``.
        """
        phase = self._progress.phase
        self._progress.enter("storing")
        copy = self._steps.start_copy(task, policies.COPY_AT_ONCE, policies.COPY_AT_ONCE_RETRY)
        await self._progress.until(lambda: copy.done() or interrupted())
        if not copy.done():
            copy.cancel()
        try:
            return await copy
        except ActivityError:
            self._progress.enter(phase)
            return None

    async def _try(self, task: GetTaskInput, give_up_at: datetime, at_risk: datetime) -> VideoResult:
        """Copy, repeated by Temporal until the URL is dead; raise an Attention where that takes long."""
        # At least one try: a wait before it can have ended late.
        left = give_up_at - workflow.now()
        priority = policies.BEFORE_URL_ENDS if left < policies.URL_ENDS_SOON else policies.AS_THE_JOB
        copy = self._steps.start_copy(task, max(left, policies.COPY_AT_LEAST), priority=priority)
        # Where its hour is over already, a minute from now: a backlog that is copied at once alerts nobody.
        patience = max(at_risk - workflow.now(), policies.COPY_GRACE)
        if self._progress.attention == "object_conflict":
            # It says more, while it is true: a copy that meets the object again ends soon.
            patience = max(patience, policies.CONFLICT_PAUSE)
        # More retries than that would use up the URL.
        done = self._progress.until if self._retries < policies.MOST_COPY_RETRIES else until
        if not await done(copy.done, patience, f"the copy is at risk in {patience.total_seconds():.0f} s"):
            reason = await self._steps.why_not_stored()
            if not copy.done():
                self._progress.need("video_at_risk", messages.advice_on_risk(task.task_id, give_up_at, reason))
                await done(copy.done)
        if not copy.done():
            copy.cancel()
        return await copy
