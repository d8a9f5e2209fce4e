"""One job, to wait for, follow, cancel and settle. ``VideoJobs.submit`` and ``VideoJobs.job`` return it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import (
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
)
from temporalio.exceptions import TemporalError
from temporalio.service import RPCError, RPCStatusCode

from seedance_temporal import contract
from seedance_temporal.connection import asking_temporal
from seedance_temporal.contract import (
    CancelAnswer,
    CancelOutcome,
    GenerateVideoInput,
    NamedTask,
    Queues,
    Resolve,
    ResolveAction,
    ResolveAnswer,
    Resubmit,
)
from seedance_temporal.data_converter import message_of
from seedance_temporal.errors import JobFailed, UnknownJob, WorkerUnavailable
from seedance_temporal.gate import hold_of
from seedance_temporal.gate_contract import Hold
from seedance_temporal.job import JobState, VideoResult, phase_of
from seedance_temporal.late_tasks import ask_later
from seedance_temporal.places import Place, place_of, queue_of
from seedance_temporal.provider.task import is_task_id
from seedance_temporal.visibility import described, error_of

if TYPE_CHECKING:
    from seedance_temporal.client import VideoJobs

# An idle worker's poll is answered, and renewed, about once a minute; the server remembers it for longer.
_POLLED_WITHIN = timedelta(seconds=90)
# How long to ask for the answer: that to a cancel is promised within 10 seconds; a resolve costs one GET.
_CANCEL_SECONDS = 8
_LONGEST_FAILURE = 500
_RESOLVE_SECONDS = 15
_ASK_EVERY = (0.1, 0.2, 0.4, 0.8, 1.6)
# A wait for the end is renewed this often: the run can have been reset, or followed by another one.
_RESULT_SECONDS = 60
# The status of a query that no worker answered or could answer, by the server or by the SDK in its place.
_NOBODY_ANSWERED = {RPCStatusCode.CANCELLED, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.FAILED_PRECONDITION}


class VideoJob:
    """A job of a :class:`~seedance_temporal.VideoJobs`.

    Every method raises UnknownJob where Temporal knows no such job, TemporalUnavailable where Temporal cannot be asked,
    and ProcessForked in a process that was forked after it had connected.

    Attributes:
        id: The job id, ``seedance-`` and the request hash.
        submitted: The job as ``submit`` started or found it, without ``detail``; None for one from ``job`` or ``find``.
        existing: Whether Temporal knew the job before it was submitted; None for one from ``job`` or ``find``.
        started: Whether ``submit`` started a run, also of an existing job; None for one from ``job`` or ``find``.
    """

    def __init__(
        self,
        jobs: VideoJobs,
        job_id: str,
        *,
        submitted: JobState | None = None,
        existing: bool | None = None,
        started: bool | None = None,
    ) -> None:
        self._jobs = jobs
        self.id = job_id
        self.submitted = submitted
        self.existing = existing
        self.started = started

    def __repr__(self) -> str:
        return f"VideoJob({self.id!r})"

    async def result(self, timeout: float | None = None) -> VideoResult:
        """Wait for the stored video.

        Args:
            timeout: Seconds to wait; without it, as long as it takes.

        Raises:
            JobFailed: The job ended without a video; a subclass says how.
            TimeoutError: It has not ended in this time. The job goes on.
        """
        try:
            async with asyncio.timeout(timeout) as within:
                while _is_open(run := await self._describe()):
                    await self._wait_for_end(_RESULT_SECONDS)
                state = await self._ended(run)
        except TimeoutError:
            if not within.expired():
                raise
            raise TimeoutError(f"{self.id} has not ended in {timeout:g} s; it goes on") from None
        if state.result is None:
            raise JobFailed.of(state)
        return state.result

    async def state(self, *, detail: bool = True) -> JobState:
        """Return the job as it is now.

        Args:
            detail: Whether to query the workflow for ``detail``, should a worker answer in time. On Temporal Cloud,
                each query is billed.
        """
        run = await self._describe()
        return await self._state(run, query=detail and await self._has_worker(run))

    async def follow(self, every: float = 2) -> AsyncIterator[JobState]:
        """Yield the job's state at once, then after each change, until it has ended. Restarts of workers do no harm.

        The workflow is queried only after the server's description of it has changed: on Temporal Cloud, each query is
        billed.

        Args:
            every: Seconds between two descriptions; the job's end is seen at once.
        """
        state: JobState | None = None
        seen: object = None
        while True:
            run = await self._describe()
            has_worker = await self._has_worker(run)
            shown = run.run_id, run.status, run.history_length, run.typed_search_attributes, has_worker
            if shown != seen or (has_worker and state is not None and state.detail is None):
                previous, seen = state, shown
                state = await self._state(run, query=has_worker)
                if state != previous:
                    yield state
            if not _is_open(run):
                return
            await self._wait_for_end(every)

    async def cancel(self) -> CancelAnswer:
        """Ask for the end of the job. A task that runs at the provider already is billed, and therefore still stored.

        Returns:
            The outcome; ``requested`` where it is not known yet, as when no worker answers.
        """
        run = await self._signal(contract.SIGNAL_CANCEL)
        if not _is_open(run):
            return CancelAnswer(outcome="already_closed")
        outcome: CancelOutcome | None = await self._answer(
            run, _CANCEL_SECONDS, lambda: self._query(contract.QUERY_CANCEL, CancelOutcome)
        )
        if outcome is None and not _is_open(await self._describe()):
            outcome = "already_closed"
        return CancelAnswer(outcome=outcome or "requested")

    async def failing(self) -> list[str]:
        """Return the steps that have failed, and wait for their next try: each with its tries and its last failure.

        An Attention comes only after an hour of that; Temporal's server knows it at once.
        """
        run = await self._describe()
        converter = self._jobs.client.data_converter
        return [
            f"{step.activity_type.name} has failed, and is at try {step.attempt}: "
            f"{(await message_of(step.last_failure, converter))[:_LONGEST_FAILURE]}"
            for step in run.raw_description.pending_activities
            if step.HasField("last_failure")
        ]

    async def place(self) -> Place | None:
        """Return the job's place among the tasks at the provider, or how many jobs get one before it.

        Returns:
            None where no worker answers, or ``SEEDANCE_TASKS_AT_ONCE`` sets no limit.
        """
        state = await self.state()
        if state.detail is None:
            return None
        with asking_temporal(self.id):
            try:
                return await place_of(
                    self._jobs.client, queue_of(state.detail.request), self.id, within=self._jobs.query_timeout
                )
            except RPCError as error:
                if error.status not in _NOBODY_ANSWERED:
                    raise
                return None

    async def retry(self) -> bool:
        """Have the job try at once what it waits for: a create, a poll, a listing, a copy, a step that keeps failing.

        Only the time of the next try changes. A copy that is under way begins anew.

        Returns:
            False where the job has ended.
        """
        return _is_open(await self._signal(contract.SIGNAL_RETRY))

    async def resubmit(self, *, attempt: int, accept_second_charge: bool = False) -> VideoJob:
        """Ask, and pay, for another attempt after one that ended without a video.

        Args:
            attempt: The attempt that this answers. Asking twice for the same changes nothing.
            accept_second_charge: Needed after ``lost``, where the first one may have been billed.
        """
        with asking_temporal(self.id):
            first = await anext(self._handle().fetch_history_events(page_size=1))
        payloads = first.workflow_execution_started_event_attributes.input.payloads
        (argument,) = await self._jobs.client.data_converter.decode(payloads, [GenerateVideoInput])
        grant = Resubmit(attempt=attempt, accept_second_charge=accept_second_charge)
        return await self._jobs.submit(argument.request, resubmit=grant)

    async def held(self) -> Hold | None:
        """Return what holds the job's next create; None where nothing does, or no create is to come.

        Where no worker says which class of creates the job needs, a hold of either class is returned.
        """
        state = await self.state()
        if state.phase not in {"checking", "waiting", "creating"}:
            return None
        queues = Queues(state.route)
        asked = (queues.create_for(state.detail.request.resolution),) if state.detail is not None else queues.creates
        with asking_temporal():
            holds = [await hold_of(self._jobs.client, queue) for queue in asked]
        return next((hold for hold in holds if hold is not None), None)

    async def resolve(self, *, attempt: int, action: ResolveAction, task_id: str | None = None) -> ResolveAnswer:
        """Resolve an attempt whose outcome is unknown.

        Args:
            attempt: The attempt.
            action: ``adopt`` its task, or state that it was ``not_created`` at the provider, or is ``lost``.
            task_id: The provider's task, with ``adopt``.

        Returns:
            Whether the ledger accepted it, and why not.

        Raises:
            WorkerUnavailable: No worker has answered yet. Unless one does within two minutes, nothing is written; a
                task that is to be adopted is kept for longer. Resolving again does no harm.
        """
        resolution = Resolve(id=uuid4().hex, sent_at=datetime.now(UTC), attempt=attempt, action=action, task_id=task_id)
        run = await self._signal(contract.SIGNAL_RESOLVE, resolution)
        if not _is_open(run):
            return await self._too_late(run, resolution)
        # Of this very run: one that follows it does not know the answer.
        answer: ResolveAnswer | None = await self._answer(
            run,
            _RESOLVE_SECONDS,
            lambda: self._query(contract.QUERY_RESOLUTION, ResolveAnswer, resolution.id, run_id=run.run_id),
        )
        if answer is not None:
            return answer
        if not _is_open(now := await self._describe()):
            return await self._too_late(now, resolution)
        raise WorkerUnavailable(self.id, run.task_queue)

    async def _too_late(self, run: WorkflowExecutionDescription, resolution: Resolve) -> ResolveAnswer:
        """Answer a resolution of a job that has ended; have its task followed, where it names one."""
        state = await self._ended(run)
        if resolution.action == "adopt" and is_task_id(resolution.task_id or ""):
            named = NamedTask(task_id=resolution.task_id, status="", attempt=resolution.attempt, source="operator")
            with asking_temporal(self.id):
                await ask_later(self._jobs.client, self.id, state.route, named)
            message = (
                f"The run has ended ({state.phase}). The provider is asked for task {named.task_id}: if it shows the "
                f"identifier of attempt {named.attempt}, a new run follows it, or shows it as second_task."
            )
            return ResolveAnswer(accepted=True, message=message)
        left = "Look for the attempt in its audit."
        if state.error is not None and state.error.failure_class == "unsettled":
            left = "Submit the same request again: the new run says what is unsettled, and takes the answer."
        return ResolveAnswer(accepted=False, message=f"The run has ended ({state.phase}). {left}")

    async def _signal(self, name: str, *args: Any) -> WorkflowExecutionDescription:
        """Signal the open run, and return it; return the last run where the job has ended."""
        while _is_open(run := await self._describe()):
            with suppress(UnknownJob), asking_temporal(self.id):  # where it has ended since
                await self._handle(run.run_id).signal(name, args=args)
                break
        return run

    async def _answer(
        self, run: WorkflowExecutionDescription, seconds: float, ask: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Return the answer to a signal, once a query has it; None where none has it in time."""
        if not await self._has_worker(run):
            return None
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for pause in chain(_ASK_EVERY, repeat(_ASK_EVERY[-1])):
                    if (answer := await ask()) is not None:
                        return answer
                    await asyncio.sleep(pause)
        return None

    async def _describe(self) -> WorkflowExecutionDescription:
        with asking_temporal(self.id):
            return await self._handle().describe()

    async def _state(self, run: WorkflowExecutionDescription, *, query: bool) -> JobState:
        state = await described(run) if _is_open(run) else await self._ended(run)
        answer: JobState | None = await self._query(contract.QUERY_STATE, JobState) if query else None
        if answer is None:
            return state
        # A run can end between its description and the query; the next description shows its result.
        return answer if _is_open(run) else state.model_copy(update={"detail": answer.detail})

    async def _query(self, name: str, answer: Any, *args: Any, run_id: str | None = None) -> Any:
        """Query the workflow; None where no worker answers in time."""
        with asking_temporal(self.id):
            # A worker refuses a query that reads ahead, and answers the next one.
            for _ in range(2):
                try:
                    with suppress(WorkflowQueryFailedError):
                        return await self._handle(run_id).query(
                            name, args=args, result_type=answer | None, rpc_timeout=self._jobs.query_timeout
                        )
                except RPCError as error:
                    if error.status not in _NOBODY_ANSWERED:
                        raise
                    break
        return None

    async def _ended(self, run: WorkflowExecutionDescription) -> JobState:
        state = await described(run)
        try:
            with asking_temporal(self.id):
                result = await self._handle(run.run_id).result()
        except WorkflowFailureError as failure:
            error = error_of(failure)
            of_error = {"task_id": error.task_id or state.task_id, "attempt": error.attempt, "phase": phase_of(error)}
            return state.model_copy(update={"error": error} | of_error)
        return state.model_copy(update={"result": result, "task_id": result.task_id})

    async def _has_worker(self, run: WorkflowExecutionDescription) -> bool:
        """Whether a worker has lately asked for work on the run's queue."""
        client = self._jobs.client
        question = DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=run.task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        ask = client.workflow_service.describe_task_queue
        with asking_temporal():
            try:
                answer = await ask(question, retry=True)
            except RPCError as error:
                if error.status is not RPCStatusCode.CANCELLED:
                    raise
                # A busy server has been seen to drop this question; it answers when asked again.
                answer = await ask(question, retry=True)
        since = datetime.now(UTC) - _POLLED_WITHIN
        return any(poller.last_access_time.ToDatetime(UTC) > since for poller in answer.pollers)

    async def _wait_for_end(self, seconds: float) -> None:
        """Wait, but not longer than until the run ends. Whichever way it ends, the next description shows it."""
        with suppress(TimeoutError, TemporalError):
            async with asyncio.timeout(seconds):
                await self._handle().result()

    def _handle(self, run_id: str | None = None) -> WorkflowHandle[Any, VideoResult]:
        return self._jobs.client.get_workflow_handle(self.id, run_id=run_id, result_type=VideoResult)


def may_follow(state: JobState, resubmit: Resubmit | None) -> bool:
    """Return whether a new run may follow a job that Temporal knows."""
    if state.error is None:
        return False
    if state.error.attempt is None or state.error.failure_class == "unsettled":
        return True
    # A resubmit that answers an older attempt was granted before: a second click changes nothing.
    return resubmit is not None and resubmit.attempt == state.error.attempt


def _is_open(run: WorkflowExecutionDescription) -> bool:
    return run.status is WorkflowExecutionStatus.RUNNING
