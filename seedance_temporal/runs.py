"""What Temporal itself knows of a job's run, without any worker."""

from __future__ import annotations

from contextlib import suppress

from pydantic import ValidationError
from temporalio import exceptions
from temporalio.client import WorkflowExecution, WorkflowExecutionStatus, WorkflowFailureError

from seedance_temporal.job import SEEDANCE_ATTENTION, SEEDANCE_PHASE, SEEDANCE_TASK_ID, Job, JobError

_ENDS_FROM_OUTSIDE: dict[type[BaseException], str] = {
    exceptions.CancelledError: "cancelled",
    exceptions.TerminatedError: "terminated",
    exceptions.TimeoutError: "timed_out",
}


def described(run: WorkflowExecution) -> Job:
    """What Temporal itself shows of a run: its status, and the search attributes where the namespace has them."""
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
    return Job.model_validate(
        {
            "job_id": run.id,
            "request_hash": run.id.removeprefix("seedance-"),
            "phase": phase,
            "attention": shown.get(SEEDANCE_ATTENTION),
            "task_id": shown.get(SEEDANCE_TASK_ID),
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
