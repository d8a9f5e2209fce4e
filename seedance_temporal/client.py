"""The typed client for backends. It starts the workflow by name, and needs no worker's code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Self, Unpack

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from seedance_temporal import contract, gate, temporal_ui
from seedance_temporal.connection import asking_temporal, connect, require_same_process
from seedance_temporal.contract import GenerateVideoInput, Queues, Resubmit, priority_of
from seedance_temporal.errors import (
    AmbiguousJobId,
    InvalidJobId,
    InvalidRequest,
    InvalidSettings,
    Problem,
    SeedanceError,
    TemporalUnavailable,
    UnknownJob,
)
from seedance_temporal.gate_contract import Hold
from seedance_temporal.handle import VideoJob, may_follow
from seedance_temporal.identity import hash_of_job, id_prefix_from, job_id_from, job_id_of
from seedance_temporal.job import JobState
from seedance_temporal.provider.models import ROUTES
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.visibility import Wanted, described, is_user, queries

# The first round learns whether the job is new, the second starts a run that follows another. More are needed only
# where somebody else's run starts or ends in between.
_SUBMIT_ROUNDS = 5
# So many jobs are named where a prefix is not unique.
_CANDIDATES = 5
# Of a pause: lists and Temporal's UI repeat it.
_LONGEST_REASON = 500


class VideoJobs:
    """The jobs of one Temporal namespace.

    Every method raises TemporalUnavailable where Temporal cannot be asked, and ProcessForked in a process that was
    forked after it had connected.

    Args:
        client: From :func:`connect`.
        settings: Endpoints, prices, insecure hosts and ``SEEDANCE_HASH_USERS``; the environment's by default. Give the
            workers the same.
        query_seconds: How long a worker is given to answer.

    Attributes:
        rules: The rules that requests are checked by.

    Raises:
        InvalidSettings: The environment is read, and wrong; or there are keys, and the client encrypts nothing.
    """

    def __init__(self, client: Client, *, settings: Settings | None = None, query_seconds: float = 3) -> None:
        settings = settings if settings is not None else Settings.from_environment()
        self._client = client
        self._settings = settings
        self.rules = settings.rules
        self.query_timeout = timedelta(seconds=query_seconds)
        if settings.encryption_keys and client.data_converter.payload_codec is None:
            raise InvalidSettings("SEEDANCE_ENCRYPTION_KEYS is set, and the client does not encrypt: use connect()")
        require_same_process()

    @classmethod
    async def connect(cls, *, settings: Settings | None = None, **overrides: Any) -> Self:
        """Connect to Temporal as the environment says, with the rules of the environment's settings.

        Args:
            settings: As for the class.
            overrides: As for :func:`connect`.

        Raises:
            InvalidSettings: The environment is wrong.
        """
        return cls(await connect(settings=settings, **overrides), settings=settings)

    @property
    def client(self) -> Client:
        """The connection to Temporal."""
        require_same_process()
        return self._client

    async def submit(
        self,
        request: VideoRequest,
        *,
        resubmit: Resubmit | None = None,
        may_create: bool = True,
        batch: bool = False,
    ) -> VideoJob:
        """Start the job of a request, or find the one that the same request has already. Waits for no video.

        A job that runs, is stored, or has failed after a claim is returned as it is. Where the last run claimed
        nothing, or ended without knowing the outcome of its claim (terminated, timed out, ``unsettled``), a new run
        follows, and goes on from the ledger instead of paying twice.

        Args:
            request: What to generate.
            resubmit: Another paid attempt after the one that it names, if that one failed.
            may_create: With False, never pay: return what the bucket holds, or end ``unsettled``.
            batch: One of many that nobody waits for: its steps come after those of other jobs, of all users. A job that
                runs already keeps its place.

        Raises:
            InvalidRequest: Found before Temporal was asked; lists everything that is wrong. That the model has ended is
                left to the worker: the bucket can hold the video of a job that Temporal has forgotten.
        """
        if problems := self.rules.check(request):
            raise InvalidRequest(problems)
        job_id = job_id_of(request)
        argument = GenerateVideoInput(request=request, resubmit=resubmit, may_create=may_create)
        # Refused if any run ever existed: the one way without a race to learn whether the job is new.
        reuse = WorkflowIDReusePolicy.REJECT_DUPLICATE
        for _ in range(_SUBMIT_ROUNDS):
            if await self._start(job_id, argument, reuse, batch=batch):
                started = JobState(
                    job_id=job_id,
                    request_hash=hash_of_job(job_id),
                    phase="checking",
                    route=request.route,
                    started_at=datetime.now(UTC),
                )
                known = reuse is not WorkflowIDReusePolicy.REJECT_DUPLICATE
                return VideoJob(self, job_id, submitted=started, existing=known, started=True)
            try:
                state = await self.job(job_id).state(detail=False)
            except UnknownJob:  # its retention ended just now
                reuse = WorkflowIDReusePolicy.REJECT_DUPLICATE
                continue
            if not may_follow(state, resubmit):
                return VideoJob(self, job_id, submitted=state, existing=True, started=False)
            reuse = WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
        raise TemporalUnavailable(f"{job_id} ends as fast as it is started; see what its runs say, and submit it then")

    async def take_over(self, request: VideoRequest) -> VideoJob:
        """Have the job of a request take over what the bucket holds by now, such as an adopted video. Never pays.

        A run that goes on looks at once; where none does, a new one ends with what the bucket holds.
        """
        job = self.job(job_id_of(request))
        if not await self.bring_back(job.id, request):
            await job.retry()
        return job

    async def bring_back(self, job_id: str, request: VideoRequest) -> bool:
        """Start a run that goes on from the ledger of a job, such as one whose runs Temporal has lost. Never pays.

        The run cannot create, also after a Reset: where the ledger would allow another attempt, it ends ``unsettled``.

        Args:
            job_id: The job.
            request: The job's request, as a claim in its ledger holds it. It is not checked: it may be paid for.

        Returns:
            False where a run of the job goes on, which is left alone.
        """
        argument = GenerateVideoInput(request=request, may_create=False)
        return await self._start(job_id, argument, WorkflowIDReusePolicy.ALLOW_DUPLICATE)

    async def _start(
        self, job_id: str, argument: GenerateVideoInput, reuse: WorkflowIDReusePolicy, *, batch: bool = False
    ) -> bool:
        """Start a run; False where the policy, or a run that goes on, does not allow another."""
        request = argument.request
        summary, details = temporal_ui.summary_and_details(
            job_id, request, self.rules, hash_users=self._settings.seedance_hash_users
        )
        estimated = self.rules.estimate(request)
        estimates = {
            contract.MEMO_ESTIMATED_TOKENS: estimated.tokens,
            contract.MEMO_ESTIMATED_USD: estimated.usd,
            contract.MEMO_ESTIMATED_CNY: estimated.cny,
        }
        try:
            with asking_temporal():
                await self.client.start_workflow(
                    contract.WORKFLOW,
                    argument,
                    id=job_id,
                    task_queue=Queues(request.route).workflows,
                    id_reuse_policy=reuse,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    priority=priority_of(request, batch=batch, user=self._settings.user_key(request.user_id)),
                    memo={name: value for name, value in estimates.items() if value is not None},
                    static_summary=summary,
                    static_details=details,
                )
        except WorkflowAlreadyStartedError:
            return False
        return True

    def job(self, job_id: str) -> VideoJob:
        """Return the handle of a job. Temporal is not asked.

        Args:
            job_id: The job id, or the request hash.

        Raises:
            InvalidJobId: It is neither.
        """
        return VideoJob(self, job_id_from(job_id))

    async def find(self, prefix: str) -> VideoJob:
        """Return the handle of the one job whose id begins so.

        Args:
            prefix: At least 6 hex digits of a request hash, with or without ``seedance-``. A whole job id or request
                hash is taken as it is; any other is looked up in the visibility store, which lags by about a second.

        Raises:
            InvalidJobId: It is no beginning of a job id.
            AmbiguousJobId: Several jobs begin so.
            UnknownJob: No job begins so.
        """
        with suppress(InvalidJobId):
            return self.job(prefix)
        prefix = id_prefix_from(prefix)
        found: set[str] = set()
        async for run in self._runs(f"WorkflowId STARTS_WITH '{prefix}'"):
            found.add(run.job_id)
            if len(found) == _CANDIDATES:
                break
        if not found:
            raise UnknownJob(f"{prefix}…")
        if len(found) > 1:
            raise AmbiguousJobId(prefix, sorted(found))
        return self.job(found.pop())

    async def list(self, *, limit: int | None = 100, **wanted: Unpack[Wanted]) -> list[JobState]:
        """Return jobs as Temporal's visibility store shows them, newest first, without results, errors and ``detail``.

        It lags a little behind. Of several runs of a job it shows the newest that fits.

        Args:
            limit: At most so many.
            wanted: Filters, see :class:`~seedance_temporal.visibility.Wanted`.

        Raises:
            SeedanceError: The filter needs search attributes that the namespace does not have.
        """
        jobs: dict[str, JobState] = {}
        async for run in self._runs("ExecutionStatus != 'ContinuedAsNew'", **wanted):
            if run.job_id not in jobs and len(jobs) == limit:
                break
            jobs.setdefault(run.job_id, run)
        return sorted(jobs.values(), key=lambda job: job.started_at, reverse=True)

    def runs(self, **wanted: Unpack[Wanted]) -> AsyncIterator[JobState]:
        """Yield every run that is wanted, also those of a job that was followed by another run; see :meth:`list`."""
        return self._runs(**wanted)

    async def pause(self, route: str, *, why: str = "") -> None:
        """Send no new creates of a route until :meth:`unpause`. Jobs wait; all that is paid goes on.

        A create that is under way is finished. The pause outlives workers and Temporal's server. The call takes some
        seconds where no worker runs: it waits for the gate to take in the pause.

        Args:
            route: ``byteplus`` or ``volcengine``.
            why: The reason, which is shown with the pause: 500 printable characters at most.

        Raises:
            InvalidRequest: There is no such route, or the reason cannot be shown.
        """
        if not why.isprintable() or len(why) > _LONGEST_REASON:
            problem = f"must be printable, and have {_LONGEST_REASON} characters at most"
            raise InvalidRequest([Problem(at="why", problem=problem)])
        with asking_temporal():
            await gate.pause(self.client, _known(route), why)

    async def unpause(self, route: str) -> None:
        """End a pause; a worker of the route has to be there. Creates that the provider refuses for all stay held.

        Args:
            route: As for :meth:`pause`, whose errors it raises.
        """
        with asking_temporal():
            await gate.unpause(self.client, _known(route))

    async def held(self, route: str) -> tuple[Hold, ...]:
        """Return why creates of a route are held or slowed down; nothing where they are not. No worker is asked.

        Args:
            route: As for :meth:`pause`. Creates at 4k have a hold of their own.
        """
        with asking_temporal():
            holds = [await gate.hold_of(self.client, queue) for queue in Queues(route).creates]
        return tuple(hold for hold in holds if hold is not None)

    async def _runs(self, *terms: str, **wanted: Unpack[Wanted]) -> AsyncIterator[JobState]:
        if (user := wanted.get("user")) is not None:
            wanted = {**wanted, "user": None}
            terms = *terms, is_user(self._settings.listed_as(user))
        with asking_temporal():
            try:
                for query in queries(*terms, **wanted):
                    async for run in self.client.list_workflows(query):
                        yield await described(run)
            except RPCError as error:
                if error.status is not RPCStatusCode.INVALID_ARGUMENT or "Seedance" not in error.message:
                    raise
                raise SeedanceError(
                    f"The namespace {self.client.namespace} lacks search attributes that this filter needs: "
                    f"{error.message}. A worker adds them at its start, or says the commands that do."
                ) from error


def _known(route: str) -> str:
    """Return the name of a route; a misspelt one must not look paused.

    Raises:
        InvalidRequest: There is no such route.
    """
    if route not in ROUTES:
        raise InvalidRequest([Problem(at="route", problem=f"there is no route {route!r}; use {', '.join(ROUTES)}")])
    return route
