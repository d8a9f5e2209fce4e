"""A query that waited for a worker makes no history that cannot be replayed: a fault of the SDK, kept out."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle, WorkflowHistory, WorkflowQueryFailedError
from temporalio.worker import Replayer, Worker, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from tests.support.polling import until
from workers.read_ahead import REFUSAL, NoReadAhead

TRIES = 8


@activity.defn
async def step() -> None:
    """Do the step that follows where no signal came in time."""


@workflow.defn
class Waits:
    """Wait for a signal, or else do the step: the order of signal and timer decides."""

    def __init__(self) -> None:
        self._signals = 0

    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.wait_condition(lambda: self._signals > 0, timeout=1)
        except TimeoutError:
            await workflow.execute_activity(step, start_to_close_timeout=timedelta(seconds=5))
        await workflow.wait_condition(lambda: self._signals > 1)

    @workflow.signal
    def told(self) -> None:
        self._signals += 1

    @workflow.query
    def slow(self) -> int:
        # Until the signal has come, so that it comes with the next workflow task.
        with workflow.unsafe.sandbox_unrestricted():
            time.sleep(0.5)
        return self._signals


def a_worker(client: Client, queue: str, runner: WorkflowRunner) -> Worker:
    """Make a worker that takes one task at a time: the query first, where it came first."""
    return Worker(
        client,
        task_queue=queue,
        workflows=[Waits],
        activities=[step],
        workflow_runner=runner,
        max_concurrent_workflow_tasks=1,
        max_concurrent_workflow_task_polls=2,
    )


async def has(run: WorkflowHandle[Waits, None], event: EventType.ValueType, times: int = 1) -> bool:
    events = (await run.fetch_history()).events
    return sum(each.event_type == event for each in events) >= times


async def queried_without_worker(client: Client, name: str, runner: WorkflowRunner) -> tuple[WorkflowHistory, str]:
    """Query a run without a worker, let its timer fire, and signal it while a worker has the query.

    Returns:
        Its history, and why the query was refused.
    """
    async with a_worker(client, name, runner):
        run = await client.start_workflow(Waits.run, id=name, task_queue=name)
        await until(lambda: has(run, EventType.EVENT_TYPE_TIMER_STARTED), "the run waits")
    query = asyncio.create_task(run.query(Waits.slow))
    await until(lambda: has(run, EventType.EVENT_TYPE_TIMER_FIRED), "the timer has fired")
    completed, refused = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED, ""
    async with a_worker(client, name, runner):
        await asyncio.sleep(0.3)
        await run.signal(Waits.told)
        try:
            await query
        except WorkflowQueryFailedError as error:
            refused = str(error)
            await run.query(Waits.slow)
        await until(lambda: has(run, completed, 2), "the signal is taken in")
    history = await run.fetch_history()
    await run.terminate()
    return history, refused


async def can_be_replayed(history: WorkflowHistory) -> bool:
    found = await Replayer(workflows=[Waits]).replay_workflow(history, raise_on_replay_failure=False)
    return found.replay_failure is None


@pytest.mark.timeout(180)
async def test_query_reads_ahead_in_the_sdk(temporal: Client) -> None:
    """Where this fails, the SDK is mended, and ``workers/read_ahead.py`` can go."""
    for number in range(TRIES):
        history, _ = await queried_without_worker(temporal, f"ahead-{number}", SandboxedWorkflowRunner())
        if not await can_be_replayed(history):
            return
    pytest.fail("each history can be replayed")


@pytest.mark.timeout(180)
async def test_refused_query_leaves_history_whole(temporal: Client) -> None:
    for number in range(TRIES):
        history, refused = await queried_without_worker(temporal, f"refused-{number}", NoReadAhead())
        assert await can_be_replayed(history)
        assert not any(e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED for e in history.events)
        if refused:
            assert REFUSAL in refused
            return
    pytest.fail("no query was refused")
