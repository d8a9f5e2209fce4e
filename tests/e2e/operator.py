"""What an operator does with Temporal."""

from __future__ import annotations

import asyncio
import contextlib

from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest, ResetWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.service import RPCError

from dev.stack import HOST, Stack
from seedance_temporal import connect


async def reset_to_the_first_task(stack: Stack, job_id: str) -> None:
    """What "Reset" to the first workflow task does in the Temporal UI."""
    run = await stack.client.get_workflow_handle(job_id).describe()
    handle = stack.client.get_workflow_handle(job_id, run_id=run.run_id)
    history = await handle.fetch_history()
    first = next(e for e in history.events if e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)
    await stack.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=stack.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=job_id, run_id=run.run_id),
            reason="a test",
            workflow_task_finish_event_id=first.event_id,
            request_id=f"reset-{run.run_id}",
        )
    )
    after = await stack.client.get_workflow_handle(job_id).describe()
    assert after.run_id != run.run_id, "the fault did not happen: no reset"


async def new_namespace(stack: Stack, name: str) -> Client:
    """A client of a namespace that did not exist before."""
    await stack.client.workflow_service.register_namespace(
        RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=Duration(seconds=86_400))
    )
    client = await connect(target_host=f"{HOST}:{stack.ports.temporal}", namespace=name)
    async with asyncio.timeout(90):
        while True:
            # The server's parts learn of it one after another.
            with contextlib.suppress(RPCError):
                await client.count_workflows()
                return client
            await asyncio.sleep(0.2)
