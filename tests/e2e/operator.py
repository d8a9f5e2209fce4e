"""Operations of an operator in Temporal."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    RegisterNamespaceRequest,
    ResetWorkflowExecutionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from dev.stack import HOST, Stack
from seedance_temporal import connect
from tests.support.polling import until

_RESETTABLE = (
    EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
)


async def newest_run(stack: Stack, job_id: str) -> str:
    return (await stack.client.get_workflow_handle(job_id).describe()).run_id


async def runs_of(stack: Stack, job_id: str) -> set[str]:
    """Return the ids of all runs of a job; visibility may not know the newest one yet."""
    known = {run.run_id async for run in stack.client.list_workflows(f"WorkflowId = '{job_id}'")}
    return known | {await newest_run(stack, job_id)}


async def reset_points(stack: Stack, job_id: str, run_id: str) -> list[int]:
    """Return the events of a run that it can be reset to."""
    handle = stack.client.get_workflow_handle(job_id, run_id=run_id)
    return [e.event_id async for e in handle.fetch_history_events() if e.event_type in _RESETTABLE]


async def reset(stack: Stack, job_id: str, run_id: str | None = None, point: int | None = None) -> None:
    """Reset a run, as the Temporal UI does: by default the newest one, to its first workflow task.

    Raises:
        LookupError: The run has not begun yet.
    """
    before = await newest_run(stack, job_id)
    run_id = run_id or before
    if point is None:
        points = await reset_points(stack, job_id, run_id)
        if not points:
            raise LookupError(f"run {run_id} has not begun")
        point = points[0]
    await stack.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=stack.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=job_id, run_id=run_id),
            reason="a test",
            workflow_task_finish_event_id=point,
            request_id=uuid.uuid4().hex,
        )
    )
    assert await newest_run(stack, job_id) != before, "the fault did not happen: no reset"


async def delete_runs(stack: Stack, job_id: str, run_ids: Iterable[str]) -> None:
    """Do what the end of retention does, for closed runs; an open one is ended by it."""
    for run_id in run_ids:
        await stack.client.workflow_service.delete_workflow_execution(
            DeleteWorkflowExecutionRequest(
                namespace=stack.client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=job_id, run_id=run_id),
            )
        )
    for run_id in run_ids:

        async def is_gone(run_id: str = run_id) -> bool:
            try:
                await stack.client.get_workflow_handle(job_id, run_id=run_id).describe()
            except RPCError:
                return True
            return False

        await until(is_gone, f"run {run_id} is deleted", seconds=180, every=0.2)


async def new_namespace(stack: Stack, name: str) -> Client:
    """Return a client of a namespace that did not exist before."""
    await stack.client.workflow_service.register_namespace(
        RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=Duration(seconds=3 * 86_400))
    )
    client = await connect(target_host=f"{HOST}:{stack.ports.temporal}", namespace=name)

    async def is_known() -> bool:
        # The server's parts load it one after another: ask the one of lists, and the one of histories.
        try:
            await client.count_workflows()
            await client.get_workflow_handle("nobody").describe()
        except RPCError as error:
            return error.status is RPCStatusCode.NOT_FOUND and "namespace" not in error.message.lower()
        return True

    await until(is_known, f"namespace {name} is known", seconds=200, every=0.2)
    return client
