"""A time-skipping server with the real workers of a route, over a bucket and a provider that can be in trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from pydantic import SecretStr
from temporalio.api.testservice.v1 import SleepRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput
from temporalio.worker import Interceptor as WorkerInterceptor

from activities.recover import AbsentInput
from seedance_temporal import contract
from seedance_temporal.contract import GenerateVideoInput, Queues
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import JobError, JobState, VideoResult
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from tests.faults.outages import Errands, Job, Path, raised_in
from tests.faults.simulated import Life, SimulatedBucket, SimulatedProvider, Trouble, shown
from tests.replay.replaying import replay, runs_of
from tests.support.jobs import KEY, a_request, detail_of, some_settings
from tests.support.servers import skipping_server
from tests.support.stores import PNG, VIDEO
from workers.build import build_workers


class Stage:
    """A time-skipping server with the real workers of a route, for one job after another."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self.client = client
        self._settings = settings

    async def play(self, path: Path, trouble: Trouble | None = None, **provider: Any) -> Job:
        """Run a job of a path to its end, through trouble."""
        life = Life(trouble)
        bucket, provider_ = SimulatedBucket(life), SimulatedProvider(VIDEO, PNG, life, **(path.provider | provider))
        request = a_request(return_last_frame=True)
        errands = Errands(self.client, path, job_id_of(request), provider_)
        life.before_each = errands.run
        provider_.after_post = errands.after_post
        async with self.workers(bucket, provider_, lists=path.lists):
            handle = await self.start(request)
            error = await end_of(handle)
            await self.helpers_end(handle.id)
            state = await self.state(handle.id)
            await replay(handle)
            runs = await runs_of(handle)
        assert errands.failed == []
        return Job(
            path=path,
            state=state,
            error=error,
            trouble=trouble,
            life=life,
            provider=provider_,
            bucket=bucket,
            callbacks=errands.callbacks,
            answers=errands.answers,
            raised=raised_in(detail_of(state).timeline),
            histories=[(len(run), sum(event.ByteSize() for event in run)) for run in runs],
            closed_at=runs[-1][-1].event_time.ToDatetime(state.started_at.tzinfo),
        )

    @asynccontextmanager
    async def workers(
        self, bucket: SimulatedBucket, provider: SimulatedProvider, *, lists: bool = True
    ) -> AsyncIterator[None]:
        """Run the real workers over a bucket and a provider. ``lists``: whether LIST is known to show identifiers."""
        settings = self._settings
        ark = Ark("https://ark.example.com/api/v3", KEY, transport=provider.transport, list_spacing=0)
        if lists:
            ledger = Ledger(bucket.inner, settings.seedance_prefix)
            await ledger.note_identifiers_listed(settings.ark_route, settings.key_fingerprint)
        async with AsyncExitStack() as stack:
            for worker in build_workers(
                self.client, settings, bucket, ark, frozenset(), result_transport=provider.result_transport
            ):
                await stack.enter_async_context(worker)
            yield

    async def start(self, request: VideoRequest) -> WorkflowHandle[Any, VideoResult]:
        return await self.client.start_workflow(
            contract.WORKFLOW,
            GenerateVideoInput(request=request),
            id=job_id_of(request),
            task_queue=Queues(request.route).workflows,
            # Where nothing is left to do, the clock jumps to this time-out, which is ten years by default.
            execution_timeout=timedelta(days=60),
            result_type=VideoResult,
        )

    async def state(self, job_id: str) -> JobState:
        newest = self.client.get_workflow_handle(job_id)
        state: JobState = await newest.query(contract.QUERY_STATE, result_type=JobState)
        return state

    @property
    def lister(self) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(contract.lister_id(self._settings.ark_route))

    async def helpers_end(self, job_id: str) -> None:
        """Wait for the lister, and for those that ask for late tasks, where there were some.

        They must not meet the next job, nor be left without a worker: the clock does not jump then.
        """
        late = [self.client.get_workflow_handle(contract.late_tasks_id(job_id, attempt)) for attempt in (1, 2)]
        for handle in (self.lister, *late):
            with suppress(RPCError):
                while (await handle.describe()).status is WorkflowExecutionStatus.RUNNING:
                    skip = SleepRequest(duration=Duration(seconds=300))
                    await self.client.test_service.unlock_time_skipping_with_sleep(skip)


class _ShownListings(ClientInterceptor, WorkerInterceptor):
    """Shift the times of listings, which a workflow takes from its clock, as those of bucket and provider are."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _ShownListing(next)


class _ShownListing(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        if isinstance(given := input.args[0], AbsentInput):
            listings = [one.model_copy(update={"began_at": shown(one.began_at)}) for one in given.listings]
            input.args = [given.model_copy(update={"listings": tuple(listings)})]
        return await super().execute_activity(input)


async def end_of(handle: WorkflowHandle[Any, VideoResult]) -> JobError | None:
    """Return the error of a job, or None where it is stored."""
    try:
        await handle.result()
    except WorkflowFailureError as failure:
        cause = failure.cause
        return JobError.model_validate(cause.details[0] if isinstance(cause, ApplicationError) else {})
    return None


@asynccontextmanager
async def a_stage(**settings: Any) -> AsyncIterator[Stage]:
    given: dict[str, Any] = {
        "seedance_callback_url": "https://relay.example.com",
        "seedance_callback_secret": SecretStr("a secret of the relay"),
        "seedance_max_jobs_per_user_day": 100_000,
    }
    async with skipping_server() as client:
        with_ages = Client(
            **(config := client.config()) | {"interceptors": [*config["interceptors"], _ShownListings()]}
        )
        yield Stage(with_ages, some_settings(**(given | settings)))
