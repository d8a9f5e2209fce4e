"""Ask later for tasks that callbacks named, where the job's run has ended or is about to."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from seedance_temporal.connection import is_unknown_workflow
from seedance_temporal.contract import (
    LATE_TASKS,
    MEMO_NAMED,
    SIGNAL_TASK_CHANGED,
    LateTasksInput,
    NamedTask,
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


async def name_in_question(client: Client, job_id: str, attempts: Iterable[int]) -> str | None:
    """Say which task was named for one of some attempts while the job had no run, and is still asked for; or None.

    It is asked for again at once: what kept the provider from answering can be over.

    Raises:
        RPCError: Temporal does not answer.
    """
    for attempt in attempts:
        late = client.get_workflow_handle(late_tasks_id(job_id, attempt))
        try:
            shown = await late.describe()
            if shown.status is not WorkflowExecutionStatus.RUNNING:
                continue
            names = list(await shown.memo_value(MEMO_NAMED, default=[], type_hint=list[str]))
        except RPCError as error:
            if not is_unknown_workflow(error):
                raise
            continue
        for name in names:
            wanted = NamedTask(task_id=name, status="", attempt=attempt, source="ledger")
            with suppress(RPCError):  # it has ended by now, or takes in no more signals
                await late.signal(SIGNAL_TASK_CHANGED, wanted)
        # A name that has just arrived is not in the memo before a worker has read it.
        if names or shown.raw_description.HasField("pending_workflow_task"):
            task = f"Task {names[0]}" if names else "A task"
            return f"{task} was named for attempt {attempt} after a run of the job had ended, and is being checked."
    return None
