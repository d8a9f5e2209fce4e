"""Take in callbacks that name a task of a job whose run has ended. Nothing in here can create, or pay for, a task."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.recover import FollowInput, IdentifyInput, RecoverActivities
    from seedance_temporal import contract
    from seedance_temporal.contract import LateTasksInput, NamedTask, Queues
    from seedance_temporal.provider.task import is_task_id
    from workflows import policies
    from workflows.waits import Pauses, until


@workflow.defn(name=contract.LATE_TASKS)
class LateTasks:
    """Identify tasks that callbacks name for an attempt of an ended job; have one that is the job's followed."""

    @workflow.init
    def __init__(self, late: LateTasksInput) -> None:
        self._late = late
        self._queues = Queues(late.route)
        # Callbacks that named a new task, and one that is in question.
        self._heard = {False: 0, True: 0}
        self._in_question: set[str] = set()
        self._named_again: set[str] = set()
        self._wanted: set[str] = set()
        self._open: list[NamedTask] = []

    @workflow.run
    async def run(self, late: LateTasksInput) -> None:
        """Identify the tasks side by side, so that none holds up another; end after a while without names.

        That while limits what a leaked callback URL can cause: so many questions in so much time.
        """
        asking: list[asyncio.Task[None]] = []
        while await until(lambda: bool(self._open), policies.LATE_TASKS_IDLE, "end without names"):
            while self._open:
                asking.append(asyncio.create_task(self._take_in(self._open.pop())))
            self._show()
            await until(lambda: bool(self._open) or all(task.done() for task in asking))
        for task in asking:
            await task

    async def _take_in(self, named: NamedTask) -> None:
        if await self._is_ours(named):
            await self._follow()
        for tasks in (self._in_question, self._named_again, self._wanted):
            tasks.discard(named.task_id)
        self._show()

    def _show(self) -> None:
        """Show what is in question: nothing is paid for, and no attempt given up, over that."""
        workflow.upsert_memo({contract.MEMO_NAMED: sorted(self._in_question)})

    async def _is_ours(self, named: NamedTask) -> bool:
        """Find out whether a task is the attempt's; the ledger then says so.

        A task that is named again is asked for at once, and for as long as one that is new. So is one whose answer
        somebody waits for, but no longer for that.
        """
        pauses, give_up_at = self._patience()
        later = workflow.now()
        while (answer := await self._identify(named)) not in {"ours", "known", "other"}:
            if named.task_id in self._named_again:
                self._named_again.discard(named.task_id)
                pauses, give_up_at = self._patience()
            pause = pauses.after(answer)
            if pause == policies.IDENTIFY_LATER:
                later = workflow.now() + pause
            # A question that came early is not the last one.
            pause = later - workflow.now() if pause is None else pause
            if pause <= timedelta(0) or workflow.now() >= give_up_at:
                return False
            purpose = "ask again whether the provider shows the task"
            await until(lambda: named.task_id in self._named_again | self._wanted, pause, purpose)
            self._wanted.discard(named.task_id)
        return answer != "other"

    def _patience(self) -> tuple[Pauses, datetime]:
        return Pauses(
            policies.IDENTIFY_LATER, away=policies.LATE_TASK_PAUSE
        ), workflow.now() + policies.LATE_TASK_WITHIN

    async def _identify(self, named: NamedTask) -> str:
        input = IdentifyInput(
            job_id=self._late.job_id, attempt=self._late.attempt, task_id=named.task_id, source=named.source
        )
        try:
            result = await workflow.execute_activity_method(
                RecoverActivities.identify_task,
                input,
                task_queue=self._queues.get,
                start_to_close_timeout=policies.OBSERVE_TIMEOUT,
                retry_policy=policies.IDENTIFY_RETRY,
                summary=f"GET {named.task_id}: is it the task of attempt {self._late.attempt}?",
            )
        except ActivityError:
            return "unanswered"
        return result.answer

    async def _follow(self) -> None:
        """Have a run follow the task. A damaged ledger keeps it waiting no longer than an outage does."""
        with suppress(ActivityError):
            await workflow.execute_activity_method(
                RecoverActivities.follow_known_task,
                FollowInput(job_id=self._late.job_id, attempt=self._late.attempt),
                task_queue=self._queues.workflows,
                schedule_to_close_timeout=policies.LATE_TASK_WITHIN,
                start_to_close_timeout=policies.LEDGER_TIMEOUT,
                retry_policy=policies.FOLLOW_RETRY,
                summary="start a run that follows the task, where no video is stored",
            )

    @workflow.signal(name=contract.SIGNAL_TASK_CHANGED)
    async def task_changed(self, *args: Any) -> None:
        """Take in a name. Never raise: a failing signal would block the run."""
        try:
            named = NamedTask.model_validate(args[0])
        except (ValidationError, IndexError):
            return
        is_asked = named.task_id in self._in_question
        if named.source == "ledger":
            self._wanted |= {named.task_id} if is_asked else set()
        elif is_task_id(named.task_id) and self._accepts(named, is_asked):
            self._in_question.add(named.task_id)
            if is_asked:
                self._named_again.add(named.task_id)
            else:
                self._open.append(named)

    def _accepts(self, named: NamedTask, is_asked: bool) -> bool:
        """Limit the questions that a leaked callback URL can cause. Names that come again use up no new one's place.

        Nobody can make up what a listing names: it shows the attempt's identifier. An operator is trusted.
        """
        if named.source != "callback":
            return True
        self._heard[is_asked] += 1
        return self._heard[is_asked] <= policies.MOST_CALLBACKS
