"""Ask later for tasks that callbacks named, where the job's run has ended or is about to."""

from __future__ import annotations

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy

from seedance_temporal.contract import (
    LATE_TASKS,
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
