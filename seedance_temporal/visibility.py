"""Runs of Temporal's visibility store: queries for them, and the states that they show."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import datetime
from typing import TypedDict, Unpack

from pydantic import ValidationError
from temporalio import exceptions
from temporalio.client import WorkflowExecution, WorkflowExecutionStatus, WorkflowFailureError

from seedance_temporal import contract
from seedance_temporal.job import JobError, JobState

# The most job ids in one query, which then has some kilobytes.
_IDS_IN_A_QUERY = 50


class Wanted(TypedDict, total=False):
    """The filters of runs; one that is absent or None does not filter.

    Attributes:
        model: A model or inference endpoint, by the id in the request.
        since, until: Runs started at ``since`` or later, and before ``until``. Both need a time zone.
        is_open: True for runs that have not ended.
    """

    user: str | None
    phase: str | None
    attention: str | None
    model: str | None
    route: str | None
    since: datetime | None
    until: datetime | None
    is_open: bool
    job_ids: Collection[str] | None


def queries(*further: str, **wanted: Unpack[Wanted]) -> Iterator[str]:
    """Write the queries that together find the wanted runs: one, unless there are many job ids."""
    attributes = {
        contract.SEEDANCE_USER: wanted.get("user"),
        contract.SEEDANCE_PHASE: wanted.get("phase"),
        contract.SEEDANCE_ATTENTION: wanted.get("attention"),
        contract.SEEDANCE_MODEL: wanted.get("model"),
    }
    terms = [f"WorkflowType = {_quoted(contract.WORKFLOW)}", *further]
    terms += [f"{key.name} = {_quoted(value)}" for key, value in attributes.items() if value is not None]
    if (route := wanted.get("route")) is not None:
        # Every run has its queue, also where the search attributes are missing, or no worker has begun with it.
        terms.append(f"TaskQueue = {_quoted(contract.Queues(route).workflows)}")
    if (since := wanted.get("since")) is not None:
        terms.append(f"StartTime >= {_time(since)}")
    if (until := wanted.get("until")) is not None:
        terms.append(f"StartTime < {_time(until)}")
    if wanted.get("is_open"):
        terms.append("ExecutionStatus = 'Running'")
    if (job_ids := wanted.get("job_ids")) is None:
        yield " AND ".join(terms)
        return
    ids = sorted(set(job_ids))
    for start in range(0, len(ids), _IDS_IN_A_QUERY):
        some = ", ".join(map(_quoted, ids[start : start + _IDS_IN_A_QUERY]))
        yield " AND ".join([*terms, f"WorkflowId IN ({some})"])


def is_user(names: Collection[str]) -> str:
    """Write the term that finds the jobs of a user, who can have several names."""
    return f"{contract.SEEDANCE_USER.name} IN ({', '.join(map(_quoted, dict.fromkeys(names)))})"


def _time(at: datetime) -> str:
    if at.tzinfo is None:
        raise ValueError(f"{at} has no time zone")
    return _quoted(at.isoformat())


def _quoted(value: str) -> str:
    """Write a text as a literal of a query."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


_ENDS_FROM_OUTSIDE: dict[type[BaseException], str] = {
    exceptions.CancelledError: "cancelled",
    exceptions.TerminatedError: "terminated",
    exceptions.TimeoutError: "timed_out",
}


async def described(run: WorkflowExecution) -> JobState:
    """Return a run's state without asking a worker: by its status, memo and search attributes."""
    shown = run.typed_search_attributes
    phase = shown.get(contract.SEEDANCE_PHASE)
    phases: dict[WorkflowExecutionStatus | None, str] = {
        WorkflowExecutionStatus.RUNNING: phase or "checking",
        WorkflowExecutionStatus.FAILED: phase or "failed",
        WorkflowExecutionStatus.COMPLETED: "stored",
    }
    memo = await run.memo()
    waits_for_task = run.status == WorkflowExecutionStatus.RUNNING and phase in {"queued", "running"}
    return JobState.model_validate(
        {
            "job_id": run.id,
            "request_hash": run.id.removeprefix("seedance-"),
            "phase": phases.get(run.status, "checking"),
            "attention": shown.get(contract.SEEDANCE_ATTENTION),
            "task_id": shown.get(contract.SEEDANCE_TASK_ID),
            "attempt": memo.get(contract.MEMO_ATTEMPT),
            "user": shown.get(contract.SEEDANCE_USER),
            # Every run has its queue, also where the search attributes are missing, or no worker has begun with it.
            "route": run.task_queue.removeprefix(contract.Queues("").workflows),
            "model": shown.get(contract.SEEDANCE_MODEL),
            "started_at": memo.get(contract.MEMO_STARTED_AT, run.start_time),
            "closed_at": run.close_time,
            "expected_at": memo.get(contract.MEMO_EXPECTED_AT) if waits_for_task else None,
            "tokens": shown.get(contract.SEEDANCE_TOKENS),
            "cost_usd": shown.get(contract.SEEDANCE_COST_USD),
            "cost_cny": shown.get(contract.SEEDANCE_COST_CNY),
            "estimated_tokens": memo.get(contract.MEMO_ESTIMATED_TOKENS),
            "estimated_usd": memo.get(contract.MEMO_ESTIMATED_USD),
            "estimated_cny": memo.get(contract.MEMO_ESTIMATED_CNY),
        }
    )


def error_of(failure: WorkflowFailureError) -> JobError:
    """Return the error that a run failed with, or ``unsettled`` where it was ended from outside."""
    cause = failure.cause
    if isinstance(cause, exceptions.ApplicationError) and cause.details:
        with suppress(ValidationError):
            return JobError.model_validate(cause.details[0])
    how = _ENDS_FROM_OUTSIDE.get(type(cause), "failed")
    return JobError(
        code=f"run_{how}",
        message=f"The run ended from outside ({how.replace('_', ' ')}: {cause}). Its claims are in the bucket: "
        "submitting the same request again continues from there, without paying twice.",
        failure_class="unsettled",
    )
