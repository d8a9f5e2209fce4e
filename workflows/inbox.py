"""Task ids that callbacks and listings name, until it is known whether they are ours.

Signal handlers leave them here and stay until that is known, whatever the run does meanwhile: it may wait before a
create, copy a video, or be about to end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Literal

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.recover import Identified, RecoverActivities, RecoverInput
    from seedance_temporal.contract import Queues, TaskChanged
    from workflows import policies
    from workflows.progress import Progress

Source = Literal["callback", "list"]


class Inbox:
    """The task ids of one run that nobody has identified yet.

    Args:
        job_id: The run's job.
        queues: Those of its route.
        progress: Where it is shown what was found.
        ready: Whether a task of this attempt can be identified now. The answer of a create that is under way names
            its task anyway.
    """

    def __init__(self, job_id: str, queues: Queues, progress: Progress, ready: Callable[[int], bool]) -> None:
        self._job_id = job_id
        self._queues = queues
        self._progress = progress
        self._ready = ready
        self._began = workflow.now()
        self._callbacks = 0
        self._open: set[tuple[int, str]] = set()
        self._awaited: set[tuple[int, str]] = set()
        self._settled: set[tuple[int, str]] = set()
        self._closed = False

    async def emptied(self) -> None:
        """Wait until each task id that has arrived is identified, or was asked for after every pause."""
        if not self._awaited:
            return
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: not self._awaited,
                timeout=policies.LISTEN_AT_MOST,
                timeout_summary="the tasks that were named are identified, or not waited for any longer",
            )

    def close(self) -> None:
        """Pause no longer: the run is over, and each task id that is still open is asked for once more."""
        self._closed = True

    async def identify(self, named: TaskChanged, source: Source) -> bool:
        """Find out whether a named task is one of ours, and have the ledger say so if it is.

        "The provider does not know it" can mean "not yet": such a task is asked for again, with growing pauses, and
        once more when it is named again. Only another identifier closes a task id for good.

        Args:
            named: The task, and the attempt that it may be of.
            source: What named it.

        Returns:
            Whether the ledger holds a task that this run may not have read yet.
        """
        key = named.attempt, named.task_id
        if key in self._open | self._settled or not self._accepts(source):
            return False
        self._open.add(key)
        self._awaited.add(key)
        try:
            await workflow.wait_condition(lambda: self._ready(named.attempt) or self._closed)
            return await self._find_out(named, source)
        finally:
            self._awaited.discard(key)
            self._open.discard(key)

    def _accepts(self, source: Source) -> bool:
        """Whether to look at a task id: a bound for what a leaked callback URL can cause, which passes with time.

        A listing names only tasks that show our identifier.
        """
        if source == "list":
            return True
        allowed = policies.MOST_HINTS + (workflow.now() - self._began) // policies.ONE_MORE_HINT
        if self._callbacks >= allowed or len(self._open) >= policies.MOST_HINTS:
            return False
        self._callbacks += 1
        return True

    async def _find_out(self, named: TaskChanged, source: Source) -> bool:
        key, pauses = (named.attempt, named.task_id), list(policies.IDENTIFY_PAUSES)
        while named.task_id != self._progress.task_id:
            answer = await self._ask(named, source)
            if answer in {"ours", "known", "other"}:
                self._settled.add(key)
                if answer == "ours":
                    self._progress.note("task_found", source, task_id=named.task_id, attempt=named.attempt)
                # "known" can be the answer to a second try, whose first one wrote it.
                return answer != "other"
            if answer == "not_yet" and not pauses:
                self._progress.note("task_not_found", source, task_id=named.task_id, attempt=named.attempt)
                return False
            if not pauses:
                # Provider or bucket is away: the question stands, and holds nothing up any longer.
                self._awaited.discard(key)
            if not await self._pause(pauses.pop(0) if pauses else policies.IDENTIFY_LATER):
                return False
        return False

    async def _pause(self, pause: timedelta) -> bool:
        """Wait before the next question; False where there is none, because the run ends or goes on in a new one."""
        if self._closed:
            return False
        lasts = pause >= policies.IDENTIFY_LATER
        try:
            await workflow.wait_condition(
                lambda: self._closed or (lasts and workflow.info().is_continue_as_new_suggested()),
                timeout=pause,
                timeout_summary="whether the provider shows the task by then",
            )
        except TimeoutError:
            return True
        return self._closed

    async def _ask(self, named: TaskChanged, source: Source) -> str:
        try:
            identified: Identified = await workflow.execute_activity_method(
                RecoverActivities.identify_task,
                RecoverInput(job_id=self._job_id, attempt=named.attempt, task_id=named.task_id, source=source),
                task_queue=self._queues.get,
                start_to_close_timeout=policies.OBSERVE_TIMEOUT,
                retry_policy=policies.IDENTIFY_RETRY,
                summary=f"GET {named.task_id}: is it the task of attempt {named.attempt}?",
            )
        except ActivityError as error:
            self._progress.note(
                "task_not_checked", source, str(error.cause), task_id=named.task_id, attempt=named.attempt
            )
            return "unanswered"
        return identified.answer
