"""Every history that a test made, replayed against the workflow as it is now.

A worker replays a history whenever a run comes back to it. Code that would then do something else than it did leaves
the job stuck, so whatever a test let happen has to replay.
"""

from __future__ import annotations

from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from seedance_temporal.job import LISTER, WORKFLOW
from workflows.generate_video import GenerateVideo
from workflows.list_tasks import ListTasks


async def replay_history(history: WorkflowHistory, *workflows: type) -> None:
    """Replays one run, as far as it has come.

    Args:
        workflows: Other ones than those of today.

    Raises:
        NondeterminismError: The workflow would do something else today.
    """
    if not any(event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED for event in history.events):
        return  # it has not begun, and the Replayer would wait for ever for it to begin
    replayer = Replayer(
        workflows=workflows or [GenerateVideo, ListTasks],
        data_converter=pydantic_data_converter,
        # The sandbox looked on while it happened; what is asked here is whether the commands are the same.
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    await replayer.replay_workflow(history)


async def replay(handle: WorkflowHandle[Any, Any]) -> int:
    """Replays a job from the run that its handle started, and the runs that it was continued in.

    Returns:
        How many runs these were.
    """
    run_id, runs = handle.first_execution_run_id or handle.run_id, 0
    while runs == 0 or run_id:
        history = WorkflowHistory(
            handle.id, [event async for event in handle_of(handle, run_id).fetch_history_events()]
        )
        await replay_history(history)
        runs += 1
        run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return runs


def handle_of(handle: WorkflowHandle[Any, Any], run_id: str | None) -> WorkflowHandle[Any, Any]:
    """The same job in one of its runs."""
    return handle._client.get_workflow_handle(handle.id, run_id=run_id)


async def replay_all(client: Client) -> int:
    """Replays all jobs and listers of a namespace, running ones too.

    Returns:
        How many runs these were. Visibility lags a little, so the last ones may be missing.
    """
    runs = 0
    async for run in client.list_workflows(f"WorkflowType IN ('{WORKFLOW}', '{LISTER}')"):
        await replay_history(await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history())
        runs += 1
    return runs
