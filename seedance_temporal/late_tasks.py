"""Ask later for tasks that callbacks named, where the job's run has ended or is about to."""

from __future__ import annotations

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from seedance_temporal.connection import is_unknown_workflow
from seedance_temporal.contract import (
    LATE_TASKS,
    MEMO_NAMED,
    SIGNAL_TASK_CHANGED,
    LateTasksInput,
    Queues,
    TaskChanged,
    late_tasks_id,
)


async def ask_later(client: Client, job_id: str, route: str, named: TaskChanged) -> None:
    """Have a small workflow find out whether a task is the job's, and follow it then. It cannot pay for anything."""
    await client.start_workflow(
        LATE_TASKS,
        LateTasksInput(job_id=job_id, attempt=named.attempt, route=route),
        id=late_tasks_id(job_id, named.attempt),
        task_queue=Queues(route).workflows,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        start_signal=SIGNAL_TASK_CHANGED,
        start_signal_args=[named],
        static_summary=f"tasks that callbacks name for attempt {named.attempt} of an ended job",
    )


async def names_in_question(client: Client, job_id: str, attempt: int) -> list[str]:
    """Return the tasks that were named for an attempt after the end of a run, and are still asked for.

    Raises:
        RPCError: Temporal does not answer.
    """
    try:
        late = await client.get_workflow_handle(late_tasks_id(job_id, attempt)).describe()
    except RPCError as error:
        if not is_unknown_workflow(error):
            raise
        return []
    if late.status is not WorkflowExecutionStatus.RUNNING:
        return []
    return list(await late.memo_value(MEMO_NAMED, default=[], type_hint=list[str]))
