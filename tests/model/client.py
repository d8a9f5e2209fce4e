"""The few calls that activities and the relay make to Temporal, answered by the model's server."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace
from typing import Any

from temporalio.api.common.v1 import ActivityType
from temporalio.api.workflow.v1 import PendingActivityInfo, PendingWorkflowTaskInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import WorkflowExecutionStatus
from temporalio.common import WorkflowIDReusePolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from tests.model.server import Run, Server


class ModelClient:
    """Stands for :class:`temporalio.client.Client`."""

    data_converter = pydantic_data_converter

    def __init__(self, server: Server) -> None:
        self._server = server

    async def start_workflow(
        self,
        workflow: str,
        argument: Any,
        *,
        id: str,  # noqa: A002 - Temporal's own name
        task_queue: str,
        id_reuse_policy: WorkflowIDReusePolicy = WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        start_signal: str | None = None,
        start_signal_args: list[Any] | None = None,
        **_: Any,
    ) -> Handle:
        """Start a run, or use the one that is open, as the conflict policy USE_EXISTING says."""
        run = self._server.newest(id)
        if run is None or not run.open:
            failed_only = id_reuse_policy is WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
            if run is not None and run.status == "completed" and failed_only:
                raise WorkflowAlreadyStartedError(id, workflow, run_id=run.run_id)
            run = self._server.start(workflow, id, task_queue, argument)
        if start_signal is not None:
            run.signal(start_signal, *(start_signal_args or []))
        return Handle(self._server, id)

    def get_workflow_handle(self, workflow_id: str, *, run_id: str | None = None) -> Handle:
        return Handle(self._server, workflow_id)


class Handle:
    """Stands for :class:`temporalio.client.WorkflowHandle` of the newest run."""

    def __init__(self, server: Server, workflow_id: str) -> None:
        self._server = server
        self._id = workflow_id

    async def signal(self, name: str, argument: Any) -> None:
        run = self._server.newest(self._id)
        if run is None or not run.open:
            raise _not_found()
        run.signal(name, argument)

    async def cancel(self) -> None:
        run = self._server.newest(self._id)
        if run is None or not run.open:
            raise _not_found()
        run.request_cancel()

    async def query(self, name: str, argument: Any, **_: Any) -> Any:
        run = self._server.newest(self._id)
        if run is None:
            raise _not_found()
        return getattr(run.hosted.object, name)(argument)

    async def describe(self) -> Any:
        run: Run | None = self._server.newest(self._id)
        if run is None:
            raise _not_found()
        pending = [
            PendingActivityInfo(activity_type=ActivityType(name=task.name), last_failure=task.last_failure)
            for task in run.activities.values()
            if not task.closed
        ]
        return SimpleNamespace(
            task_queue=run.hosted.task_queue,
            status=_STATUS[run.status],
            typed_search_attributes=SimpleNamespace(get=run.attribute),
            memo_value=partial(_memo_value, run),
            raw_description=DescribeWorkflowExecutionResponse(
                pending_activities=pending,
                pending_workflow_task=PendingWorkflowTaskInfo() if run.inbox else None,
            ),
        )


async def _memo_value(run: Run, name: str, default: Any, type_hint: Any) -> Any:
    given = run.memo.get(name)
    return default if given is None else json.loads(given.data)


_STATUS = {
    "running": WorkflowExecutionStatus.RUNNING,
    "completed": WorkflowExecutionStatus.COMPLETED,
    "failed": WorkflowExecutionStatus.FAILED,
    "terminated": WorkflowExecutionStatus.TERMINATED,
    "continued": WorkflowExecutionStatus.CONTINUED_AS_NEW,
}


def _not_found() -> RPCError:
    return RPCError("workflow not found for ID", RPCStatusCode.NOT_FOUND, b"")
