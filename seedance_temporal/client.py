"""The typed client for backends. It starts the workflow by name, and needs no worker's code.

::

    jobs = VideoJobs(await connect())
    submitted = await jobs.submit(VideoRequest(...))   # the same request again gives the same job
    result = await jobs.result(submitted.job_id)
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Unpack

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import (
    Client,
    RPCTimeoutOrCancelledError,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import TemporalError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from seedance_temporal import contract
from seedance_temporal import temporal_ui as outline
from seedance_temporal.connection import asking_temporal, connect, refusal
from seedance_temporal.contract import CancelAnswer, GenerateVideoInput, Queues, Resolve, ResolveAnswer, Resubmit
from seedance_temporal.errors import (
    InvalidRequest,
    JobFailed,
    SeedanceError,
    TemporalUnavailable,
    UnknownJob,
    WorkerUnavailable,
)
from seedance_temporal.identity import hash_of_job, job_id_of, user_hash
from seedance_temporal.job import Job, JobState, JobSummary, Submitted, VideoResult, phase_of
from seedance_temporal.provider import rules as catalogue
from seedance_temporal.request import VideoRequest
from seedance_temporal.visibility import Wanted, described, error_of, queries

__all__ = ["VideoJobs", "connect"]

# An idle worker's poll is answered, and renewed, about once a minute; the server remembers it for longer.
_POLLED_WITHIN = timedelta(seconds=90)
# The workflow answers a cancel within 10 seconds, and a resolve after one GET at the provider.
_UPDATE_TIMEOUT = timedelta(seconds=15)
# A round more is needed only where somebody else's run started or ended in between.
_SUBMIT_ROUNDS = 5
# What the server, or the SDK in its place, says of a query that no worker answered or could answer.
_NOBODY_ANSWERED = frozenset(
    {RPCStatusCode.CANCELLED, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.FAILED_PRECONDITION}
)
_Handle = WorkflowHandle[Any, VideoResult]


def _fairness_key(user_id: str) -> str:
    """What keeps one user's backlog from holding up all others, where the server is set to fairness."""
    return hashlib.sha256(user_id.encode()).hexdigest()[:32]


def _makes_way(job: Job, resubmit: Resubmit | None) -> bool:
    """Whether a job that Temporal knows may be followed by a new run."""
    if job.error is None:
        return False
    if job.error.attempt is None or job.error.failure_class == "unsettled":
        return True
    # A wish that answers an older attempt was granted before: a second click changes nothing.
    return resubmit is not None and resubmit.attempt == job.error.attempt


class VideoJobs:
    """The jobs of one Temporal namespace.

    Every method raises ValueError for a text that is no job id, and TemporalUnavailable where Temporal cannot be asked.

    Args:
        client: From :func:`connect`.
        insecure_hosts: Hosts whose references may be plain http and private, for local stacks.
        endpoints: The model behind each inference endpoint, whose rules it then has; give the workers the same.
        hash_users: Whether a user is shown by a hash in summaries, and in the search attributes; as for the workers.
        query_seconds: How long a worker is given to answer.
    """

    def __init__(
        self,
        client: Client,
        *,
        insecure_hosts: Collection[str] = (),
        endpoints: Mapping[str, str] | None = None,
        hash_users: bool = False,
        query_seconds: float = 3,
    ) -> None:
        self._client = client
        self._insecure_hosts = frozenset(insecure_hosts)
        self._endpoints = dict(endpoints or {})
        self._hash_users = hash_users
        self._query_timeout = timedelta(seconds=query_seconds)

    async def submit(
        self, request: VideoRequest, *, resubmit: Resubmit | None = None, may_create: bool = True
    ) -> Submitted:
        """Start the job of a request, or find the one that the same request has already. Waits for no video.

        A job that runs, is stored or has failed is returned as it is. A run that ended before anything was claimed,
        or without knowing what came of its claim (terminated, timed out, ``unsettled``), is followed by a new one,
        which goes on from the ledger instead of paying twice.

        Args:
            request: What to generate.
            resubmit: Another paid attempt after the one that it names, if that one failed.
            may_create: With False, a run that would have to pay ends ``unsettled`` instead.

        Raises:
            InvalidRequest: Found before Temporal was asked; lists everything that is wrong.
        """
        if problems := catalogue.check(request, insecure_hosts=self._insecure_hosts, endpoints=self._endpoints):
            raise InvalidRequest(problems)
        job_id = job_id_of(request)
        argument = GenerateVideoInput(request=request, resubmit=resubmit, may_create=may_create)
        # Refusing any earlier run is what tells whether there was one, also among simultaneous submitters.
        reuse = WorkflowIDReusePolicy.REJECT_DUPLICATE
        for _ in range(_SUBMIT_ROUNDS):
            if await self._start(job_id, argument, reuse):
                known = reuse is not WorkflowIDReusePolicy.REJECT_DUPLICATE
                return Submitted(job_id=job_id, request_hash=hash_of_job(job_id), phase="checking", existing=known)
            try:
                job = await self.get(job_id)
            except UnknownJob:  # its retention ended just now
                reuse = WorkflowIDReusePolicy.REJECT_DUPLICATE
                continue
            if not _makes_way(job, resubmit):
                return Submitted(**{name: getattr(job, name) for name in Job.model_fields}, existing=True)
            reuse = WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
        raise TemporalUnavailable(f"{job_id} ends as fast as it is started; see what its runs say, and submit it then")

    async def resubmit(self, job_id: str, *, attempt: int, accept_second_charge: bool = False) -> Submitted:
        """Ask, and pay, for another attempt after one that ended without a video.

        Args:
            job_id: The job.
            attempt: The attempt that this answers. Saying it again changes nothing.
            accept_second_charge: Needed after ``lost``, where the first one may have been billed.

        Raises:
            UnknownJob: Temporal knows no such job; submit its request instead.
        """
        with asking_temporal(job_id):
            async for event in self._handle(job_id).fetch_history_events(page_size=1):
                payloads = event.workflow_execution_started_event_attributes.input.payloads
                break
        (argument,) = await self._client.data_converter.decode(payloads, [GenerateVideoInput])
        wish = Resubmit(attempt=attempt, accept_second_charge=accept_second_charge)
        return await self.submit(argument.request, resubmit=wish)

    async def _start(self, job_id: str, argument: GenerateVideoInput, reuse: WorkflowIDReusePolicy) -> bool:
        """Whether this call started a run; False where there is one that stands in its way."""
        request = argument.request
        try:
            with asking_temporal():
                await self._client.start_workflow(
                    contract.WORKFLOW,
                    argument,
                    id=job_id,
                    task_queue=Queues(request.route).workflows,
                    id_reuse_policy=reuse,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    priority=Priority(fairness_key=_fairness_key(request.user_id)),
                    static_summary=outline.summary(request, self._endpoints, hash_users=self._hash_users),
                    static_details=outline.details(job_id, request, self._endpoints, hash_users=self._hash_users),
                )
        except WorkflowAlreadyStartedError:
            return False
        return True

    async def get(self, job_id: str) -> Job:
        """A job as it is now: a JobState where a worker answers in time, otherwise what Temporal itself knows.

        Raises:
            UnknownJob: Temporal knows no such job.
        """
        return (await self._look(job_id))[0]

    async def _look(self, job_id: str) -> tuple[Job, bool]:
        """The job, and whether its run is closed."""
        with asking_temporal(job_id):
            run = await self._handle(job_id).describe()
        job: Job = await described(run)
        if run.status is not WorkflowExecutionStatus.RUNNING:
            return await self._ended(job, run.run_id), True
        if await self._is_polled(run.task_queue):
            with suppress(WorkerUnavailable):
                return await self.state(job_id), False
        return job, False

    async def _ended(self, job: Job, run_id: str) -> Job:
        try:
            with asking_temporal(job.job_id):
                result = await self._handle(job.job_id, run_id).result()
        except WorkflowFailureError as failure:
            error = error_of(failure)
            of_error = {"task_id": error.task_id or job.task_id, "attempt": error.attempt, "phase": phase_of(error)}
            return job.model_copy(update={"error": error} | of_error)
        return job.model_copy(update={"result": result, "task_id": result.task_id})

    async def state(self, job_id: str) -> JobState:
        """A job with its story so far, as a worker tells it; also of an ended job.

        Raises:
            WorkerUnavailable: In the time that a worker is given; :meth:`get` knows less, but always answers.
            UnknownJob: Temporal knows no such job.
        """
        handle = self._handle(job_id)
        try:
            state: JobState = await handle.query(
                contract.QUERY_STATE, result_type=JobState, rpc_timeout=self._query_timeout
            )
        except (RPCError, WorkflowQueryFailedError) as error:
            with asking_temporal(job_id):
                if isinstance(error, RPCError) and error.status not in _NOBODY_ANSWERED:
                    raise
                raise WorkerUnavailable(job_id, (await handle.describe()).task_queue) from error
        return state

    async def has_worker(self, route: str) -> bool:
        """Whether a worker has lately asked for work on a route."""
        return await self._is_polled(Queues(route).workflows)

    async def _is_polled(self, queue: str) -> bool:
        question = DescribeTaskQueueRequest(
            namespace=self._client.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        with asking_temporal():
            answer = await self._client.workflow_service.describe_task_queue(question)
        since = datetime.now(UTC) - _POLLED_WITHIN
        return any(poller.last_access_time.ToDatetime(UTC) > since for poller in answer.pollers)

    async def follow(self, job_id: str, every: float = 2) -> AsyncIterator[Job]:
        """A job at once, then whenever it has changed, until it has ended. Restarts of workers are ridden out.

        Args:
            job_id: The job.
            every: Seconds between two looks; its end is seen at once.

        Raises:
            UnknownJob: Temporal knows no such job.
        """
        last = None
        while True:
            job, closed = await self._look(job_id)
            if job != last:
                yield job
            if closed:
                return
            last = job
            # However this wait ends, the next look tells: the run may have been reset or followed by another.
            with suppress(TimeoutError, TemporalError):
                await asyncio.wait_for(self._handle(job_id).result(), every)

    async def result(self, job_id: str) -> VideoResult:
        """The stored video, as soon as there is one.

        Raises:
            JobFailed: The job ended without a video.
            UnknownJob: Temporal knows no such job.
        """
        async for job in self.follow(job_id, every=60):
            last = job
        if last.result is not None:
            return last.result
        assert last.error is not None
        raise JobFailed(last, last.error)

    async def cancel(self, job_id: str) -> CancelAnswer:
        """Ask for the end of a job. What is already running at the provider is billed, and therefore still stored.

        Returns:
            What came of it; ``requested`` where that is not known yet, as when no worker answers.

        Raises:
            UnknownJob: Temporal knows no such job.
        """
        job, closed = await self._look(job_id)
        if closed:
            return CancelAnswer(outcome="already_closed")
        if isinstance(job, JobState):
            with suppress(RPCError, RPCTimeoutOrCancelledError, WorkflowUpdateFailedError):
                answer: CancelAnswer = await self._handle(job_id).execute_update(
                    contract.UPDATE_CANCEL, result_type=CancelAnswer, rpc_timeout=_UPDATE_TIMEOUT
                )
                return answer
            job, closed = await self._look(job_id)
            if closed:  # before the update was heard, or so soon after it that the answer was lost
                by_wish = job.error is not None and job.error.failure_class == "cancelled"
                return CancelAnswer(outcome="cancelled" if by_wish else "already_closed")
        with asking_temporal(job_id):
            await self._handle(job_id).cancel()
        return CancelAnswer(outcome="requested")

    async def resolve(self, job_id: str, word: Resolve) -> ResolveAnswer:
        """Settle an attempt of which nobody knows whether the provider took it.

        Args:
            job_id: The job.
            word: What an operator found out, and of which attempt.

        Returns:
            Whether the ledger took it, and why not.

        Raises:
            WorkerUnavailable: Nothing was written, or it is not known; saying it again does no harm.
            UnknownJob: Temporal knows no such job.
        """
        job, closed = await self._look(job_id)
        if closed:
            left = "Nothing is left to settle."
            if _makes_way(job, None):
                left = "Submit the same request again: the new run says what is unsettled, and takes the answer."
            return ResolveAnswer(accepted=False, message=f"The run has ended ({job.phase}). {left}")
        handle = self._handle(job_id)
        try:
            with asking_temporal(job_id):
                if not isinstance(job, JobState):
                    raise WorkerUnavailable(job_id, (await handle.describe()).task_queue)
                answer: ResolveAnswer = await handle.execute_update(
                    contract.UPDATE_RESOLVE, word, result_type=ResolveAnswer, rpc_timeout=_UPDATE_TIMEOUT
                )
        except RPCTimeoutOrCancelledError as error:
            raise WorkerUnavailable(job_id, (await handle.describe()).task_queue) from error
        except UnknownJob:  # it has ended since the look, which now tells
            return await self.resolve(job_id, word)
        except WorkflowUpdateFailedError as error:
            return ResolveAnswer(accepted=False, message=str(error.cause))
        return answer

    async def list(self, *, limit: int | None = 100, **wanted: Unpack[Wanted]) -> list[JobSummary]:
        """Jobs as Temporal's visibility store shows them, newest first, without their results and errors.

        It lags a little behind. Of several runs of a job it shows the newest that fits.

        Args:
            limit: At most so many.
            wanted: Filters, see :class:`~seedance_temporal.visibility.Wanted`.

        Raises:
            SeedanceError: The filter needs search attributes that the namespace does not have.
        """
        jobs: dict[str, JobSummary] = {}
        async for run in self._runs("ExecutionStatus != 'ContinuedAsNew'", **wanted):
            if run.job_id not in jobs and len(jobs) == limit:
                break
            jobs.setdefault(run.job_id, run)
        return sorted(jobs.values(), key=lambda job: job.started_at, reverse=True)

    def runs(self, **wanted: Unpack[Wanted]) -> AsyncIterator[JobSummary]:
        """Every run that is wanted, also those of a job that was followed by another run, as :meth:`list` shows them.

        Args:
            wanted: Filters, see :class:`~seedance_temporal.visibility.Wanted`.

        Raises:
            SeedanceError: The filter needs search attributes that the namespace does not have.
        """
        return self._runs(**wanted)

    async def _runs(self, *terms: str, **wanted: Unpack[Wanted]) -> AsyncIterator[JobSummary]:
        if self._hash_users and (user := wanted.get("user")) is not None:
            wanted["user"] = user_hash(user)
        for query in queries(*terms, **wanted):
            try:
                async for run in self._client.list_workflows(query):
                    yield await described(run)
            except RPCError as error:
                if error.status is RPCStatusCode.INVALID_ARGUMENT and "Seedance" in error.message:
                    raise SeedanceError(
                        f"The namespace {self._client.namespace} lacks search attributes that this filter needs: "
                        f"{error.message}. A worker adds them at its start, or says the commands that do."
                    ) from error
                raise refusal(error) from error

    def _handle(self, job_id: str, run_id: str | None = None) -> _Handle:
        hash_of_job(job_id)
        return self._client.get_workflow_handle(job_id, run_id=run_id, result_type=VideoResult)
