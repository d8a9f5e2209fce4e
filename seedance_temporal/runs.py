"""What Temporal itself knows of a job's run, without any worker."""

from __future__ import annotations

from contextlib import suppress

from pydantic import ValidationError
from temporalio import exceptions
from temporalio.client import WorkflowExecution, WorkflowExecutionStatus, WorkflowFailureError

from seedance_temporal.job import (
    MEMO_ATTEMPT,
    MEMO_ESTIMATED_TOKENS,
    MEMO_ESTIMATED_USD,
    SEEDANCE_ATTENTION,
    SEEDANCE_COST_USD,
    SEEDANCE_MODEL,
    SEEDANCE_PHASE,
    SEEDANCE_TASK_ID,
    SEEDANCE_TOKENS,
    SEEDANCE_USER,
    JobError,
    JobSummary,
    Queues,
)

_ENDS_FROM_OUTSIDE: dict[type[BaseException], str] = {
    exceptions.CancelledError: "cancelled",
    exceptions.TerminatedError: "terminated",
    exceptions.TimeoutError: "timed_out",
}


async def described(run: WorkflowExecution) -> JobSummary:
    """What Temporal itself shows of a run: its status, its memo, and the search attributes where there are some."""
    shown = run.typed_search_attributes
    phase: str | None = shown.get(SEEDANCE_PHASE)
    match run.status:
        case WorkflowExecutionStatus.COMPLETED:
            phase = "stored"
        case WorkflowExecutionStatus.FAILED:
            phase = phase or "failed"
        case WorkflowExecutionStatus.RUNNING:
            phase = phase or "checking"
        case _:
            phase = "checking"
    memo = await run.memo()
    return JobSummary.model_validate(
        {
            "job_id": run.id,
            "request_hash": run.id.removeprefix("seedance-"),
            "phase": phase,
            "attention": shown.get(SEEDANCE_ATTENTION),
            "task_id": shown.get(SEEDANCE_TASK_ID),
            "attempt": memo.get(MEMO_ATTEMPT),
            "user": shown.get(SEEDANCE_USER),
            # Every run has its queue, also where the search attributes are missing, or no worker has begun with it.
            "route": run.task_queue.removeprefix(Queues("").workflows),
            "model": shown.get(SEEDANCE_MODEL),
            "started_at": run.start_time,
            "closed_at": run.close_time,
            "tokens": shown.get(SEEDANCE_TOKENS),
            "cost_usd": shown.get(SEEDANCE_COST_USD),
            "estimated_tokens": memo.get(MEMO_ESTIMATED_TOKENS),
            "estimated_usd": memo.get(MEMO_ESTIMATED_USD),
        }
    )


def error_of(failure: WorkflowFailureError) -> JobError:
    """The run's own account of its failure; or, where it had no chance to give one, that nothing is settled."""
    cause = failure.cause
    if isinstance(cause, exceptions.ApplicationError) and cause.details:
        with suppress(ValidationError):
            return JobError.model_validate(cause.details[0])
    how = _ENDS_FROM_OUTSIDE.get(type(cause), "failed")
    return JobError(
        code=f"run_{how}",
        message=f"The run ended from outside ({how.replace('_', ' ')}: {cause}). What it claimed stands in the bucket: "
        "submitting the same request again goes on from there, without paying twice.",
        failure_class="unsettled",
    )
