"""Replay histories with the present workflow.

A worker replays a history when it loads a run, and code that then gives other commands blocks the job.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecution, WorkflowHandle, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from seedance_temporal.contract import LISTER, PLACES, WORKFLOW
from workers.build import WORKFLOWS

FAILED = Path("build/not-replayed")


async def replay_histories(
    histories: Iterable[WorkflowHistory], *workflows: type, converter: DataConverter = pydantic_data_converter
) -> int:
    """Replay runs, as far as they have come.

    Args:
        workflows: By default the present ones.
        converter: That of the worker.

    Returns:
        How many have begun; the Replayer would wait for ever for the others.

    Raises:
        NondeterminismError: The workflow would give other commands.
    """
    to_replay = begun(histories)
    replayer = Replayer(
        workflows=workflows or WORKFLOWS,
        data_converter=converter,
        # The sandbox was active in the first execution; here only the commands are compared.
        workflow_runner=UnsandboxedWorkflowRunner(),
        # On a busy machine a turn can take longer than the two seconds that the SDK gives it.
        debug_mode=True,
    )

    async def one_by_one() -> AsyncIterator[WorkflowHistory]:
        for history in to_replay:
            yield history

    async with replayer.workflow_replay_iterator(one_by_one()) as results:
        async for result in results:
            if result.replay_failure is not None:
                kept = _keep(result.history)
                result.replay_failure.add_note(f"{result.history.workflow_id}, run {result.history.run_id}: see {kept}")
                raise result.replay_failure
    return len(to_replay)


def _keep(history: WorkflowHistory) -> Path:
    """Write a history that cannot be replayed to a file: its server may be gone when somebody looks."""
    FAILED.mkdir(parents=True, exist_ok=True)
    path = FAILED / f"{history.workflow_id}.json"
    path.write_text(history.to_json(), encoding="utf-8")
    return path


def begun(histories: Iterable[WorkflowHistory]) -> list[WorkflowHistory]:
    """Return the runs that have completed a workflow task."""
    completed = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    return [history for history in histories if any(event.event_type == completed for event in history.events)]


async def replay(handle: WorkflowHandle[Any, Any]) -> int:
    """Replay a job from the run that its handle started, and the runs that it was continued in.

    Returns:
        How many runs these were.
    """
    runs = await runs_of(handle)
    for events in runs:
        await replay_histories([WorkflowHistory(handle.id, events)])
    return len(runs)


async def runs_of(handle: WorkflowHandle[Any, Any]) -> list[list[HistoryEvent]]:
    """Return the histories of the run that a handle started, and of those that it was continued in."""
    run_id, runs = handle.first_execution_run_id or handle.run_id, list[list[HistoryEvent]]()
    while not runs or run_id:
        events = [event async for event in handle_of(handle, run_id).fetch_history_events()]
        runs.append(events)
        run_id = events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return runs


def handle_of(handle: WorkflowHandle[Any, Any], run_id: str | None) -> WorkflowHandle[Any, Any]:
    """Return a handle of the same job in one of its runs."""
    return handle._client.get_workflow_handle(handle.id, run_id=run_id)


async def histories_of(client: Client) -> list[WorkflowHistory]:
    """Return the histories of all jobs and listers of a namespace; the last may be missing, as visibility lags."""
    at_once = asyncio.Semaphore(8)

    async def history(run: WorkflowExecution) -> WorkflowHistory:
        async with at_once:
            return await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()

    runs = [run async for run in client.list_workflows(f"WorkflowType IN ('{WORKFLOW}', '{LISTER}', '{PLACES}')")]
    return await asyncio.gather(*map(history, runs))
