"""Executions of activities by workers: the real activities, each of whose calls to bucket and provider is a gate.

At a gate an execution can die, as with its process: it does nothing more, and its server learns of it by a time-out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import httpx
from temporalio import activity
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import CancelledError
from temporalio.testing import ActivityEnvironment

from activities.create import CreateActivities
from activities.gate import ReportCreateInput
from activities.ledger import LedgerActivities
from activities.limits import LimitActivities
from activities.poll import PollActivities
from activities.recover import RecoverActivities
from activities.store import StoreActivities
from activities.task_list import TaskListActivities
from seedance_temporal import contract
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket
from tests.model.activity_task import ActivityTask

_CURRENT: ContextVar[Execution | None] = ContextVar("execution", default=None)


@dataclass(eq=False)
class Execution:
    """One try of an activity.

    Attributes:
        began_at: When, in Unix seconds.
        gates: How many gates it has passed.
        dies_at: The gate that it never passes.
    """

    task: ActivityTask
    environment: ActivityEnvironment
    began_at: float
    dies_at: int | None = None
    gates: int = 0
    dead: bool = False
    running: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        if not self.dead:
            self.environment.cancel()

    def die(self) -> None:
        """End as a killed process does: no line of it runs any more."""
        if self.dead or (self.running is not None and self.running.done()):
            return
        self.dead = True
        self.task.worker_died(self)


class Executions:
    """All workers' executions of activities.

    Attributes:
        activities: The activities by name, as methods of the present worker's objects.
        deaths: Where the next execution of an activity dies, by its name.
        running: Executions that are under way.
    """

    def __init__(self) -> None:
        self.activities: dict[str, Callable[..., Any]] = {}
        self.deaths: dict[str, int] = {}
        self.running: set[Execution] = set()
        self.begun: Counter[str] = Counter()
        self.on_begin: Callable[[Execution, Any], None] = lambda _, __: None

    def begin(self, task: ActivityTask) -> Execution:
        environment = ActivityEnvironment(client=task.server.client)
        environment.payload_converter = pydantic_data_converter.payload_converter
        environment.info = replace(
            environment.info,
            activity_type=task.name,
            attempt=task.attempt,
            namespace=task.run.namespace,
            workflow_namespace=task.run.namespace,
            workflow_id=task.run.workflow_id,
            workflow_run_id=task.run.run_id,
            task_queue=task.command.task_queue,
            started_time=task.started_time,
        )
        execution = Execution(task, environment, task.server.loop.now(), dies_at=self.deaths.pop(task.name, None))
        self.begun[task.name] += 1
        self.running.add(execution)
        execution.running = task.server.loop.create_task(self._run(execution))
        return execution

    async def _run(self, execution: Execution) -> None:
        _CURRENT.set(execution)
        task = execution.task
        call = self.activities[task.name]
        definition = activity._Definition.must_from_callable(call)
        arguments = pydantic_data_converter.payload_converter.from_payloads(
            task.command.arguments, definition.arg_types
        )
        self.on_begin(execution, arguments[0] if arguments else None)
        try:
            result = await execution.environment.run(call, *arguments)
        except asyncio.CancelledError:
            if not execution.dead:
                task.failed(execution, CancelledError("cancelled"))
        except Exception as error:
            if not execution.dead:
                task.failed(execution, error)
        else:
            if not execution.dead:
                task.succeeded(execution, result)
        finally:
            self.running.discard(execution)

    def kill_all(self) -> None:
        """Kill the worker process."""
        for execution in list(self.running):
            execution.die()


def activities_of(
    bucket: Bucket, ark: Ark, settings: Settings, results: Callable[[], httpx.AsyncBaseTransport]
) -> dict[str, Callable[..., Any]]:
    """Return the activities of a new worker process by name. ``results``: the transport of the host of results."""
    ledger = Ledger(bucket, settings.seedance_prefix)
    bookkeeping = LedgerActivities(ledger, settings, [key.name for key in contract.SEARCH_ATTRIBUTES])
    poll, recover = PollActivities(ledger, ark, settings), RecoverActivities(ledger, ark, settings)
    task_list = TaskListActivities(ledger, ark, settings)
    store = StoreActivities(bucket, ark, settings, results)
    calls: list[Any] = [
        *(bookkeeping.read_ledger, bookkeeping.write_outcome, bookkeeping.write_end),
        LimitActivities(ledger, bucket, settings).reserve_quota,
        CreateActivities(ledger, bucket, ark, settings).create_task,
        *(poll.get_task, poll.cancel_task),
        *(
            recover.identify_task,
            recover.resolve_attempt,
            recover.settle_absent,
            recover.follow_known_task,
            recover.ask_later,
        ),
        *(task_list.list_page, task_list.answer_jobs, task_list.ask_lister),
        *(store.store_video, store.why_not_stored),
        report_create,
    ]
    return {call.__name__: call for call in calls}


@activity.defn
async def report_create(input: ReportCreateInput) -> bool:
    """Answer as a gate that may not set rates: the model's queues have none, and each job waits for itself."""
    return False


async def gate(name: str) -> None:
    """Pass a gate, before or after a call's effect; an execution that is dead stays here."""
    execution = _CURRENT.get()
    if execution is None:
        return
    if execution.gates == execution.dies_at:
        execution.die()
    execution.gates += 1
    if execution.dead:
        await asyncio.get_running_loop().create_future()


def current() -> Execution | None:
    """Return the execution in which a call is made."""
    return _CURRENT.get()
