"""A small Temporal server in simulated time: runs, timers, activities, signals, Reset and Terminate.

It does what the server and the SDK's Core are documented, or were measured, to do, as far as this project's workflows
can tell. What it simplifies: a workflow task is atomic (what arrives during it is delivered with the next one), and
event ids and history sizes are rough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import Payload, SearchAttributes
from temporalio.api.failure.v1 import Failure
from temporalio.bridge.proto.workflow_activation import (
    CancelWorkflow,
    FireTimer,
    InitializeWorkflow,
    SignalWorkflow,
    UpdateRandomSeed,
    WorkflowActivation,
    WorkflowActivationJob,
)
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import decode_typed_search_attributes

from tests.model.activity_task import ActivityTask
from tests.model.clock import JumpingLoop
from tests.model.executions import Executions
from tests.model.instance import SINGLE_BATCH, Hosted, timestamp

_EVENTS_OF_A_TASK = 3
# Of what an activation and its commands do not hold, such as identities.
_BYTES_OF_AN_EVENT = 200
_CONVERTER = pydantic_data_converter.payload_converter


@dataclass(eq=False)
class Run:
    """A run: its history with its worker, and what the server keeps for it.

    Attributes:
        status: ``running``, ``completed``, ``failed``, ``terminated`` or ``continued``.
        told: When each callback's task id was delivered to it, by attempt and id.
    """

    server: Server
    hosted: Hosted
    inbox: list[WorkflowActivationJob] = field(default_factory=list)
    timers: dict[int, tuple[float, asyncio.TimerHandle | None]] = field(default_factory=dict)
    activities: dict[int, ActivityTask] = field(default_factory=dict)
    status: str = "running"
    result: Any = None
    failure: Failure | None = None
    attributes: dict[str, Payload] = field(default_factory=dict)
    memo: dict[str, Payload] = field(default_factory=dict)
    events: int = 3
    closed_at: float | None = None
    _scheduled: bool = False

    @property
    def namespace(self) -> str:
        return self.hosted.namespace

    @property
    def workflow_id(self) -> str:
        return self.hosted.workflow_id

    @property
    def run_id(self) -> str:
        return self.hosted.run_id

    @property
    def open(self) -> bool:
        return self.status == "running"

    def attribute(self, key: Any) -> Any:
        """Return a search attribute as visibility has it."""
        return decode_typed_search_attributes(SearchAttributes(indexed_fields=self.attributes)).get(key)

    def deliver(self, job: WorkflowActivationJob) -> None:
        """Add an event that the workflow learns of with its next workflow task."""
        if self.open:
            self.inbox.append(job)
            self.events += 1
            self.wake()

    def wake(self) -> None:
        if not self._scheduled and self.open:
            self._scheduled = True
            self.server.loop.call_later(self.server.task_seconds, self._task)

    def _task(self) -> None:
        """Execute one workflow task."""
        self._scheduled = False
        if not self.open:
            return
        if self.server.paused():
            self._scheduled = True
            self.server.loop.call_later(1.0, self._task)
            return
        jobs, self.inbox = self.inbox, []
        while jobs and self.open:
            self.events += _EVENTS_OF_A_TASK
            commands = self.hosted.activate(self._activation(jobs))
            self.events += len(commands)
            jobs = [job for command in commands if (job := self._obey(command)) is not None]
        if self.open and self.server.evicts():
            self.hosted.evict()

    def _activation(self, jobs: list[WorkflowActivationJob]) -> WorkflowActivation:
        activation = WorkflowActivation(
            run_id=self.run_id,
            timestamp=timestamp(self.server.loop.now()),
            is_replaying=False,
            history_length=self.events,
            history_size_bytes=self.hosted.bytes + self.events * _BYTES_OF_AN_EVENT,
            continue_as_new_suggested=self.events >= self.server.renew_after,
            jobs=jobs,
        )
        if self.hosted.single_batch:
            activation.available_internal_flags.append(SINGLE_BATCH)
        return activation

    def _obey(self, command: Any) -> WorkflowActivationJob | None:
        """Obey a command; return what the workflow learns of it in the same workflow task."""
        kind = command.WhichOneof("variant")
        if kind == "request_cancel_activity":
            task = self.activities.get(command.request_cancel_activity.seq)
            return task.cancel() if task is not None else None
        if kind == "cancel_timer":
            _, handle = self.timers.pop(command.cancel_timer.seq, (0, None))
            if handle is not None:
                handle.cancel()
        elif kind == "complete_workflow_execution":
            self.result = command.complete_workflow_execution.result
            self.close("completed")
        elif kind == "fail_workflow_execution":
            self.failure = command.fail_workflow_execution.failure
            self.close("failed")
        elif kind == "continue_as_new_workflow_execution":
            self.close("continued")
            self.server.continued(self, command.continue_as_new_workflow_execution)
        elif kind == "upsert_workflow_search_attributes":
            self.attributes |= dict(command.upsert_workflow_search_attributes.search_attributes.indexed_fields)
        elif kind == "modify_workflow_properties":
            self.memo |= dict(command.modify_workflow_properties.upserted_memo.fields)
        else:
            self.begin(command, at=self.server.loop.time())
        return None

    def begin(self, command: Any, at: float) -> None:
        """Begin a timer or an activity; ``at``: when the workflow asked for it."""
        loop = self.server.loop
        if command.HasField("start_timer"):
            seq, seconds = command.start_timer.seq, _seconds(command.start_timer.start_to_fire_timeout)
            self.timers[seq] = at + seconds, loop.call_at(max(loop.time(), at + seconds), self._fire, seq)
        elif command.HasField("schedule_activity"):
            task = ActivityTask(self.server, self, command.schedule_activity, loop.time())
            self.activities[task.command.seq] = task
            task.schedule()
        else:
            raise AssertionError(f"the model knows no such command: {command}")

    def _fire(self, seq: int) -> None:
        if self.timers.pop(seq, None) is not None:
            self.deliver(WorkflowActivationJob(fire_timer=FireTimer(seq=seq)))

    def close(self, status: str) -> None:
        self.status = status
        self.closed_at = self.server.loop.now()
        for _, handle in self.timers.values():
            if handle is not None:
                handle.cancel()
        for task in list(self.activities.values()):
            task.abandon()

    # What others do to it

    def signal(self, name: str, *args: Any) -> None:
        signal = SignalWorkflow(signal_name=name, input=_CONVERTER.to_payloads(list(args)) if args else [])
        self.deliver(WorkflowActivationJob(signal_workflow=signal))

    def request_cancel(self) -> None:
        self.deliver(WorkflowActivationJob(cancel_workflow=CancelWorkflow(reason="asked for")))


class Server:
    """The server of one namespace.

    Attributes:
        renew_after: How many events make it suggest a new run.
        task_seconds: How long a workflow task waits for a worker.
    """

    def __init__(self, namespace: str, loop: JumpingLoop, executions: Executions, *, single_batch: bool) -> None:
        self.namespace = namespace
        self.loop = loop
        self.executions = executions
        self.single_batch = single_batch
        self.client: Any = None
        self.runs: list[Run] = []
        self.renew_after = 10_000
        self.task_seconds = 0.01
        self.paused: Callable[[], bool] = lambda: False
        self.evicts: Callable[[], bool] = lambda: False
        self.serves: Callable[[ActivityTask], bool] = lambda _: True

    def newest(self, workflow_id: str) -> Run | None:
        return next((run for run in reversed(self.runs) if run.workflow_id == workflow_id), None)

    def chain(self, run: Run) -> list[Run]:
        """Return a run, and those that it was continued in."""
        chain = [run]
        for following in self.runs[self.runs.index(run) + 1 :]:
            if following.hosted.initialize.continued_from_execution_run_id == chain[-1].run_id:
                chain.append(following)
        return chain

    def origins(self, run: Run) -> list[Run]:
        """Return the runs that were continued as this one, oldest first, and itself."""
        return [earlier for earlier in self.runs if run in self.chain(earlier)]

    def start(self, kind: str, workflow_id: str, task_queue: str, argument: Any) -> Run:
        """Start a run. Whether one may start is the client's to say."""
        arguments = _CONVERTER.to_payloads([argument])
        return self._run(kind, workflow_id, task_queue, InitializeWorkflow(arguments=arguments))

    def _run(self, kind: str, workflow_id: str, task_queue: str, initialize: InitializeWorkflow) -> Run:
        run_id = f"{self.namespace}-run-{len(self.runs) + 1}"
        initialize.workflow_type, initialize.workflow_id = kind, workflow_id
        initialize.first_execution_run_id = initialize.first_execution_run_id or run_id
        now = self.loop.now()
        hosted = Hosted(self.namespace, workflow_id, run_id, kind, task_queue, now, initialize, self.single_batch)
        run = Run(self, hosted)
        self.runs.append(run)
        run.deliver(WorkflowActivationJob(initialize_workflow=initialize))
        return run

    def continued(self, run: Run, command: Any) -> None:
        initialize = InitializeWorkflow(
            arguments=command.arguments,
            continued_from_execution_run_id=run.run_id,
            first_execution_run_id=run.hosted.initialize.first_execution_run_id,
        )
        for name, value in command.memo.items():
            initialize.memo.fields[name].CopyFrom(value)
        following = self._run(run.hosted.kind, run.workflow_id, run.hosted.task_queue, initialize)
        following.attributes = dict(run.attributes)

    def terminate(self, run: Run) -> None:
        if run.open:
            run.close("terminated")
            run.hosted.evict()

    def reset(self, run: Run, to: int) -> Run:
        """Reset a run to one of its workflow tasks, which is executed again, in a new run.

        Later signals are delivered once more. Activities and timers that were open then begin anew: a try
        that a worker executes goes on, and nobody reads its result.
        """
        self.terminate(run)
        old = run.hosted
        kept, again = old.history[:to], old.history[to:]
        new = Hosted(
            *(old.namespace, old.workflow_id, f"{self.namespace}-run-{len(self.runs) + 1}", old.kind, old.task_queue),
            old.started_at,
            old.initialize,
            old.single_batch,
            list(kept),
        )
        following = Run(self, new, attributes=dict(run.attributes), memo=dict(run.memo))
        self.runs.append(following)
        begun = _open_commands(kept, again[0][0] if again else None)
        following.events = kept[-1][0].history_length if kept else 3
        jobs = list(again[0][0].jobs) if again else []
        for activation, _ in again[1:]:
            jobs += [job for job in activation.jobs if _is_message(job)]
        jobs += [job for job in run.inbox if _is_message(job)]
        seed = UpdateRandomSeed(randomness_seed=len(self.runs))
        for job in [*jobs, WorkflowActivationJob(update_random_seed=seed)]:
            following.deliver(job)
        for command, at in begun:
            following.begin(command, at - self.loop.now() + self.loop.time())
        return following


def _open_commands(kept: list[tuple[WorkflowActivation, list[Any]]], last: WorkflowActivation | None) -> list[Any]:
    """Return the timers and activities that a history leaves open, each with the Unix time of its beginning."""
    begun: dict[tuple[str, int], tuple[Any, float]] = {}
    for activation, commands in [*kept, *([(last, [])] if last is not None else [])]:
        for job in activation.jobs:
            if job.HasField("resolve_activity"):
                begun.pop(("activity", job.resolve_activity.seq), None)
            elif job.HasField("fire_timer"):
                begun.pop(("timer", job.fire_timer.seq), None)
        at = activation.timestamp.ToNanoseconds() / 1e9
        for command in commands:
            if command.HasField("schedule_activity"):
                begun["activity", command.schedule_activity.seq] = command, at
            elif command.HasField("start_timer"):
                begun["timer", command.start_timer.seq] = command, at
            elif command.HasField("cancel_timer"):
                begun.pop(("timer", command.cancel_timer.seq), None)
    return list(begun.values())


def _is_message(job: WorkflowActivationJob) -> bool:
    return job.HasField("signal_workflow")


def _seconds(duration: Duration) -> float:
    return duration.ToTimedelta().total_seconds()
