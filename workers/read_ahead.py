"""Keep queries from reading ahead of the history.

A query that waits for a worker comes with the events of that time, also with those whose workflow task has not started
yet. The SDK then applies these alone, and applies what follows until that task starts after them; a replay applies all
together. So a run could take a way that no replay takes, and be stuck from its next replay on. Such a query fails here:
the SDK then drops the run from its cache, and begins the next task with a replay. Asked again, the query is answered,
because the server adds it to the workflow task that waits.
"""

from __future__ import annotations

from typing import Any

from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import Info

REFUSAL = "The query came before the workflow task whose events it brought. Ask again."
_NO_EVENTS = {"query_workflow", "remove_from_cache"}


class NoReadAhead(SandboxedWorkflowRunner):
    """Run workflows in the sandbox, and refuse queries that read ahead."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return _Guarded(super().create_instance(det))


class _Guarded(WorkflowInstance):
    """A run whose events come with the workflow task that has started for them, or not at all."""

    def __init__(self, inner: WorkflowInstance) -> None:
        self._inner = inner
        self._last = WorkflowActivation()

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        if self._reads_ahead(act):
            refused = WorkflowActivationCompletion(run_id=act.run_id)
            refused.failed.failure.message = REFUSAL
            return refused
        self._last = act
        return self._inner.activate(act)

    def _reads_ahead(self, act: WorkflowActivation) -> bool:
        """Say whether there are new events without a new task: the time of an activation is the start of its task."""
        if act.is_replaying or {job.WhichOneof("variant") for job in act.jobs} <= _NO_EVENTS:
            return False
        is_new = act.history_length > self._last.history_length
        return is_new and act.timestamp == self._last.timestamp

    def get_serialization_context(self, command_info: Any) -> Any:
        return self._inner.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> Any:
        return self._inner.get_external_store_context(command_info)

    def get_info(self) -> Info:
        return self._inner.get_info()

    def get_thread_id(self) -> int | None:
        return self._inner.get_thread_id()
