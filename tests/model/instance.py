"""A workflow run as the SDK executes it: its real instance, fed with activations, evicted and replayed.

The SDK's Python half is the real one. Its other half (Core) and the server are replaced by :mod:`tests.model.server`:
only so is each step of an example decided by its script, and repeated exactly when the example is shrunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio import workflow
from temporalio.bridge.proto.workflow_activation import (
    InitializeWorkflow,
    RemoveFromCache,
    WorkflowActivation,
    WorkflowActivationJob,
)
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.common import MetricMeter, Priority, TypedSearchAttributes
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker._workflow_instance import (
    UnsandboxedWorkflowRunner,
    WorkflowInstance,
    WorkflowInstanceDetails,
    _WorkflowLogicFlag,
)

from workers.build import WORKFLOWS

_DEFINITIONS = {definition.name: definition for definition in map(workflow._Definition.must_from_class, WORKFLOWS)}
SINGLE_BATCH = _WorkflowLogicFlag.PROCESS_WORKFLOW_ACTIVATION_JOBS_AS_SINGLE_BATCH
_SEED = 7


class NotDeterministic(AssertionError):
    """A replay gave other commands than the run itself."""


class WorkflowTaskFailed(AssertionError):
    """The workflow's code raised: a real run would be blocked."""


@dataclass
class Hosted:
    """One run, in the cache of its worker or only as its history.

    Attributes:
        started_at: Unix seconds.
        single_batch: The order in which a coming SDK delivers what arrives at once.
        history: The activations so far, each with its commands.
        bytes: About how large that is.
    """

    namespace: str
    workflow_id: str
    run_id: str
    kind: str
    task_queue: str
    started_at: float
    initialize: InitializeWorkflow
    single_batch: bool
    history: list[tuple[WorkflowActivation, list[Any]]] = field(default_factory=list)
    _instance: WorkflowInstance | None = None

    def __post_init__(self) -> None:
        self.bytes = sum(map(_size, self.history))

    @property
    def object(self) -> Any:
        """The workflow's own object; a run without any step has none."""
        return getattr(self._instance or self._rebuilt(), "_object", None)

    def activate(self, activation: WorkflowActivation) -> list[Any]:
        """Take one step, and return its commands."""
        instance = self._instance or self._rebuilt()
        commands = _commands(instance, activation)
        self.history.append((activation, commands))
        self.bytes += _size(self.history[-1])
        return commands

    def evict(self) -> None:
        """Remove the run from its worker's cache: its tasks end, and must neither act nor remain."""
        instance, self._instance = self._instance, None
        if instance is not None:
            activation = WorkflowActivation(run_id=self.run_id)
            activation.jobs.append(WorkflowActivationJob(remove_from_cache=RemoveFromCache()))
            with _no_loop():
                completion = instance.activate(activation)
            assert not completion.successful.commands, f"an evicted run acts: {completion}"

    def _rebuilt(self) -> WorkflowInstance:
        """Replay the history, as a worker does that does not know the run."""
        self._instance = instance = _instance(self)
        for activation, commands in self.history:
            replayed = WorkflowActivation()
            replayed.CopyFrom(activation)
            replayed.is_replaying = True
            if (again := _commands(instance, replayed)) != commands:
                raise NotDeterministic(f"{self.workflow_id}: {commands} became {again}")
        return instance


def _size(step: tuple[WorkflowActivation, list[Any]]) -> int:
    activation, commands = step
    size: int = activation.ByteSize() + sum(command.ByteSize() for command in commands)
    return size


def timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return stamp


def _commands(instance: WorkflowInstance, activation: WorkflowActivation) -> list[Any]:
    with _no_loop():
        completion: WorkflowActivationCompletion = instance.activate(activation)
    if completion.HasField("failed"):
        raise WorkflowTaskFailed(str(completion.failed.failure))
    return list(completion.successful.commands)


@contextmanager
def _no_loop() -> Iterator[None]:
    """Let an instance set its own loop, inside of a call of ours."""
    outer, task = asyncio._get_running_loop(), None
    if outer is not None:
        task = asyncio.current_task(outer)
        if task is not None:
            asyncio.tasks._leave_task(outer, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        if outer is not None and task is not None:
            asyncio.tasks._enter_task(outer, task)


def _instance(run: Hosted) -> WorkflowInstance:
    converter = pydantic_data_converter
    start = datetime.fromtimestamp(run.started_at, UTC)
    info = workflow.Info(
        attempt=1,
        continued_run_id=run.initialize.continued_from_execution_run_id or None,
        cron_schedule=None,
        execution_timeout=None,
        first_execution_run_id=run.initialize.first_execution_run_id,
        headers={},
        namespace=run.namespace,
        original_execution_run_id=run.run_id,
        parent=None,
        root=None,
        raw_memo=dict(run.initialize.memo.fields),
        retry_policy=None,
        run_id=run.run_id,
        run_timeout=None,
        search_attributes={},
        start_time=start,
        workflow_start_time=start,
        task_queue=run.task_queue,
        task_timeout=timedelta(seconds=10),
        typed_search_attributes=TypedSearchAttributes([]),
        workflow_id=run.workflow_id,
        workflow_type=run.kind,
        priority=Priority.default,
    )
    details = WorkflowInstanceDetails(
        payload_converter_factory=converter._new_payload_converter,
        failure_converter_class=converter.failure_converter_class,
        interceptor_classes=(),
        defn=_DEFINITIONS[run.kind],
        info=info,
        randomness_seed=_SEED,
        extern_functions={"__temporal_get_metric_meter": lambda: MetricMeter.noop},
        disable_eager_activity_execution=True,
        worker_level_failure_exception_types=(),
        patch_activation_callback=None,
        last_completion_result=run.initialize.last_completion_result,
        last_failure=None,
        default_workflow_logic_flags=frozenset(),
    )
    outer = asyncio._get_running_loop()
    holder = None if outer is not None else asyncio.new_event_loop()
    if holder is not None:
        asyncio._set_running_loop(holder)
    try:
        return UnsandboxedWorkflowRunner().create_instance(details)
    finally:
        if holder is not None:
            asyncio._set_running_loop(None)
            holder.close()
