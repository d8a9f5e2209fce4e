"""A stub of the workflow that keeps the contract of ``contract.py``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from seedance_temporal.contract import (
    SEEDANCE_ATTENTION,
    SEEDANCE_MODEL,
    SEEDANCE_PHASE,
    SEEDANCE_TASK_ID,
    SEEDANCE_USER,
    CancelOutcome,
    GenerateVideoInput,
    Queues,
    Resolve,
    ResolveAnswer,
)
from seedance_temporal.events import Event
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import JobError, JobState, VideoResult, phase_of
from seedance_temporal.request import VideoRequest
from tests.support.jobs import a_result

MODELS = {"byteplus": "dreamina-seedance-2-0-260128", "volcengine": "doubao-seedance-2-0-260128"}
TASK_ID = "cgt-20261122-stub"
RESULT = a_result(TASK_ID)
ERRORS = {
    "failed": JobError(
        code="InternalServiceError", message="It broke.", failure_class="provider", task_id=TASK_ID, attempt=1
    ),
    "refused": JobError(code="InvalidParameter", message="Refused.", failure_class="invalid", attempt=1),
    "unclaimed": JobError(code="reference_unreachable", message="No claim.", failure_class="invalid"),
    "unsettled": JobError(code="may_not_create", message="Unsettled.", failure_class="unsettled", attempt=1),
    "cancelled": JobError(code="cancelled", message="Cancelled.", failure_class="cancelled", attempt=1),
}


@activity.defn
async def write_outcome() -> None:
    """Fail, as a bucket does whose role was forgotten."""
    raise ApplicationError("Forbidden: 403 POST, the account lacks storage.objects.create")


@workflow.defn(name="GenerateVideo")
class StandIn:
    """Does what the prompt says: ``stored`` or a key of ERRORS ends it so; any other prompt waits for a signal."""

    def __init__(self) -> None:
        self._end: str | None = None
        self._signals: list[Any] = []
        self._resolutions: list[Resolve] = []
        self._input: GenerateVideoInput | None = None
        self._attention: str | None = None

    @workflow.run
    async def run(self, given: GenerateVideoInput) -> VideoResult:
        self._input = given
        prompt = given.request.prompt or ""
        self._attention = prompt.partition("attention:")[2] or None
        if "no-attributes" not in prompt:
            workflow.upsert_search_attributes(
                [
                    SEEDANCE_USER.value_set(given.request.user_id),
                    SEEDANCE_MODEL.value_set(given.request.model),
                    SEEDANCE_PHASE.value_set("running"),
                    SEEDANCE_TASK_ID.value_set(TASK_ID),
                    *([SEEDANCE_ATTENTION.value_set(self._attention)] if self._attention else []),
                ]
            )
        if prompt == "failing":
            await workflow.execute_activity(write_outcome, start_to_close_timeout=timedelta(seconds=10))
        if prompt == "stored" or prompt in ERRORS:
            self._end = prompt
        await workflow.wait_condition(lambda: self._end is not None)
        if self._end == "stored":
            return RESULT
        error = ERRORS[self._end or ""]
        if "no-attributes" not in prompt:
            workflow.upsert_search_attributes([SEEDANCE_PHASE.value_set(phase_of(error))])
        raise ApplicationError(error.message, error, type=error.failure_class, non_retryable=True)

    @workflow.query
    def state(self) -> JobState:
        assert self._input is not None
        job_id = workflow.info().workflow_id
        at = workflow.info().start_time
        return JobState.model_validate(
            {
                "job_id": job_id,
                "request_hash": job_id.removeprefix("seedance-"),
                "phase": "running",
                "attention": self._attention,
                "task_id": TASK_ID,
                "attempt": 1,
                "route": self._input.request.route,
                "started_at": at,
                "detail": {
                    "request": self._input.request,
                    "timeline": [
                        Event(
                            at=at,
                            event="task_created",
                            source="create",
                            task_id=TASK_ID,
                            attempt=1,
                            count=1 + len(self._signals),
                        )
                    ],
                },
            }
        )

    @workflow.query
    def signals(self) -> list[Any]:
        return self._signals

    @workflow.query
    def given(self) -> GenerateVideoInput | None:
        return self._input

    @workflow.signal
    def task_changed(self, *args: Any) -> None:
        self._signals.append(args[0])

    @workflow.signal
    def end(self, how: str) -> None:
        self._end = how

    @workflow.signal
    def cancel(self) -> None:
        self._end = "cancelled"

    @workflow.query
    def cancel_outcome(self) -> CancelOutcome | None:
        return "cancelled" if self._end == "cancelled" else None

    @workflow.signal
    def resolve(self, resolution: Resolve) -> None:
        self._resolutions.append(resolution)

    @workflow.query
    def resolutions(self) -> list[str]:
        return [one.action for one in self._resolutions]

    @workflow.query
    def resolution(self, resolution_id: str) -> ResolveAnswer | None:
        for one in self._resolutions:
            if one.id == resolution_id:
                return ResolveAnswer(accepted=one.attempt == 1, message=f"{one.action} {one.task_id}")
        return None


def address(client: Client) -> str:
    return client.service_client.config.target_host


def worker(client: Client, route: str = "byteplus") -> Worker:
    return Worker(
        client,
        task_queue=Queues(route).workflows,
        workflows=[StandIn],
        activities=[write_outcome],
        workflow_runner=UnsandboxedWorkflowRunner(),
        # A worker that comes back finds its jobs at once.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )


def request(user: str, prompt: str = "hold", route: str = "byteplus") -> VideoRequest:
    """Return a valid request; another user makes another job."""
    return VideoRequest(user_id=user, route=route, model=MODELS[route], prompt=prompt)


def handle(client: Client, of: VideoRequest) -> WorkflowHandle[Any, Any]:
    return client.get_workflow_handle(job_id_of(of))


async def run_of(client: Client, of: VideoRequest) -> str:
    return (await handle(client, of).describe()).run_id
