"""Task ids that callbacks and listings name, until it is known whether they are ours.

Signal handlers leave them here and stay until that is known, whatever the run does meanwhile: it may wait before a
create, copy a video, or be about to end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.recover import Identified, RecoverActivities, RecoverOrder
    from seedance_temporal.job import Queues, TaskChanged
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
        self._arrived: set[tuple[int, str]] = set()
        self._times: dict[tuple[int, str], int] = {}

    async def emptied(self) -> None:
        """Wait until every task id that has arrived is identified, or cannot be. Takes no longer than the pauses."""
        await workflow.wait_condition(lambda: not self._arrived)

    async def identify(self, named: TaskChanged, source: Source) -> bool:
        """Find out whether a named task is one of ours, and have the ledger say so if it is.

        "The provider does not know it" can mean "not yet": such a task is asked for again, with growing pauses, and
        once more when it is named again. Only another identifier closes a task id for good.

        Args:
            named: The task, and the attempt that it may be of.
            source: What named it.

        Returns:
            Whether the ledger holds a task that it did not hold before.
        """
        key = named.attempt, named.task_id
        if key in self._arrived or not self._accepts(key):
            return False
        self._arrived.add(key)
        try:
            await workflow.wait_condition(lambda: self._ready(named.attempt))
            for pause in (None, *policies.IDENTIFY_PAUSES):
                if pause is not None:
                    await workflow.sleep(pause, summary="whether the provider shows the task by then")
                if named.task_id == self._progress.task_id:
                    return False
                answer = await self._ask(named, source)
                if answer == "not_yet":
                    continue
                self._times[key] = policies.MOST_TIMES_NAMED
                if answer == "ours":
                    self._progress.note("a task of this job came to light", source, named.task_id)
                return answer == "ours"
        finally:
            self._arrived.discard(key)
        self._progress.note("not known to the provider", source, named.task_id)
        return False

    def _accepts(self, key: tuple[int, str]) -> bool:
        """Whether to look at a task id: a bound for what a leaked callback URL can cause."""
        if key not in self._times and len(self._times) >= policies.MOST_HINTS:
            return False
        self._times[key] = self._times.get(key, 0) + 1
        return self._times[key] <= policies.MOST_TIMES_NAMED

    async def _ask(self, named: TaskChanged, source: Source) -> str:
        try:
            identified: Identified = await workflow.execute_activity_method(
                RecoverActivities.identify_task,
                RecoverOrder(job_id=self._job_id, attempt=named.attempt, task_id=named.task_id, how=source),
                task_queue=self._queues.get,
                start_to_close_timeout=policies.OBSERVE_TIMEOUT,
                retry_policy=policies.IDENTIFY_RETRY,
                summary=f"GET {named.task_id}: is it the task of attempt {named.attempt}?",
            )
        except ActivityError as error:
            self._progress.note(f"a {source} could not be checked", source, str(error.cause))
            return "not_yet"
        return identified.answer
