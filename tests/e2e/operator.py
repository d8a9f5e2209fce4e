"""What an operator does in the Temporal UI."""

from __future__ import annotations

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest

from dev.stack import Stack


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
