"""The workflow on a real server: a route of its own for each test, its workers, and the jobs that it started."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from unittest.mock import ANY

from google.protobuf.duration_pb2 import Duration
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.api.testservice.v1 import SleepRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.places import PlaceActivities
from activities.store import StoreActivities
from activities.task_list import TaskListActivities
from seedance_temporal.contract import (
    QUERY_CANCEL,
    QUERY_RESOLUTION,
    QUERY_STATE,
    SIGNAL_CANCEL,
    SIGNAL_LISTED,
    SIGNAL_RESOLVE,
    SIGNAL_TASK_CHANGED,
    WORKFLOW,
    CancelOutcome,
    GenerateVideoInput,
    Queues,
    Resolve,
    ResolveAnswer,
    TaskChanged,
)
from seedance_temporal.events import Event
from seedance_temporal.gate_contract import probe_queue
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import JobDetail, JobError, JobState, VideoResult
from seedance_temporal.ledger.facts import Listing
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark
from seedance_temporal.request import Reference, VideoRequest
from seedance_temporal.settings import Settings
from tests.replay.replaying import handle_of, replay
from tests.support import coming_sdk
from tests.support.jobs import detail_of
from tests.support.memory_bucket import MemoryBucket
from tests.support.polling import until
from tests.workflows.fakes import (
    LONG,
    RESULT,
    TASK,
    Answer,
    FakeActivities,
    Held,
    a_listing,
    created,
    recover,
    to_store,
    waiting,
)
from workers.build import WORKFLOWS
from workers.read_ahead import NoReadAhead

ALL_WORKERS = ("workflows", "ledger", "references", "create", "probe", "get", "list", "transfer")
_LONGEST_SKIP = 600
_numbers = itertools.count()


class _PreparedOnce(NoReadAhead):
    """The workers' own runner, which tries each workflow in the sandbox at its first worker alone."""

    def prepare_workflow(self, defn: workflow._Definition) -> None:
        if defn.cls not in _PREPARED:
            super().prepare_workflow(defn)
            _PREPARED.add(defn.cls)


_PREPARED = set[type]()
_RUNNER = _PreparedOnce()


class Job(WorkflowHandle[Any, VideoResult]):
    """A run of a workflow, and those that it is continued in."""

    def __init__(self, handle: WorkflowHandle[Any, VideoResult]) -> None:
        super().__init__(handle._client, handle.id, first_execution_run_id=handle.first_execution_run_id)
        self._handle = handle

    async def result(self, **given: Any) -> VideoResult:
        # A server whose clock jumps lets it jump while its own kind of handle awaits the result.
        return await self._handle.result(**given)

    def newest(self) -> Job:
        """Return a handle of the newest run."""
        return Job(self._client.get_workflow_handle(self.id, result_type=VideoResult))

    async def query(self, *given: Any, **more: Any) -> Any:
        """Query the run; once more where the server has just taken back its workflow task, as it does in a flood."""
        async with asyncio.timeout(20):
            while True:
                try:
                    return await super().query(*given, **more)
                except RPCError as error:
                    if error.status is not RPCStatusCode.FAILED_PRECONDITION:
                        raise
                await asyncio.sleep(0.2)

    # Send

    async def callback(self, status: str, task_id: str = TASK, attempt: int = 1) -> None:
        await self.signal(SIGNAL_TASK_CHANGED, TaskChanged(task_id=task_id, status=status, attempt=attempt))

    async def listed(self, *listings: Listing) -> None:
        """Answer as the lister."""
        for listing in listings:
            await self.signal(SIGNAL_LISTED, listing)

    async def ask_to_cancel(self) -> None:
        """Return when the workflow has received the cancel."""
        await self.signal(SIGNAL_CANCEL)
        await self.until_noted("cancel_requested")

    async def resolve(self, resolution: Resolve) -> ResolveAnswer:
        return await (await self.start_resolve(resolution))

    async def start_resolve(self, resolution: Resolve) -> Awaitable[ResolveAnswer]:
        """Send a resolution; return its answer, to be awaited."""
        sent = resolution.model_copy(update={"id": f"resolution-{next(_numbers)}"})
        await self.signal(SIGNAL_RESOLVE, sent)

        async def answer() -> ResolveAnswer | None:
            optional: Any = ResolveAnswer | None
            given: ResolveAnswer | None = await self.query(QUERY_RESOLUTION, sent.id, result_type=optional)
            return given

        return asyncio.create_task(until(answer, "the resolution is answered"))

    # Read

    async def state(self) -> JobState:
        state: JobState = await self.query(QUERY_STATE, result_type=JobState)
        return state

    async def cancel_outcome(self) -> CancelOutcome | None:
        optional: Any = CancelOutcome | None
        outcome: CancelOutcome | None = await self.query(QUERY_CANCEL, result_type=optional)
        return outcome

    async def detail(self) -> JobDetail:
        return detail_of(await self.state())

    async def noted(self) -> list[str]:
        return noted(await self.state())

    async def attributes(self) -> TypedSearchAttributes:
        return (await self.describe()).typed_search_attributes

    async def failed(self) -> JobError:
        """Return the error of a job: its run ended Failed, by an error of our own whose type is its class."""
        try:
            result = await self.result()
        except WorkflowFailureError as error:
            cause = error.cause
            assert isinstance(cause, ApplicationError), f"the run did not end Failed, but by {cause!r}"
            assert cause.non_retryable
            job_error = JobError.model_validate(cause.details[0])
            assert cause.type == job_error.failure_class
            assert cause.message == job_error.message
            return job_error
        raise AssertionError(f"the job is stored: {result}")

    async def events(self) -> list[HistoryEvent]:
        """Return the history of the first run."""
        run = handle_of(self, self.first_execution_run_id)
        return [event async for event in run.fetch_history_events()]

    async def current_details(self) -> str:
        """Return what Temporal's UI shows of the run."""
        metadata: WorkflowMetadata = await self.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
        return metadata.current_details

    async def has_event(self, kind: EventType.ValueType) -> bool:
        return any(event.event_type == kind for event in await self.events())

    async def scheduled(self, name: str) -> list[Any]:
        """Return the scheduled events of an activity in the history."""
        return [
            event.activity_task_scheduled_event_attributes
            for event in await self.events()
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
            and event.activity_task_scheduled_event_attributes.activity_type.name == name
        ]

    # Wait

    async def until_cancel_answered(self) -> CancelOutcome:
        outcome: CancelOutcome = await until(self.cancel_outcome, "the outcome of the cancel is known")
        return outcome

    async def until_state(self, **expected: Any) -> JobState:
        """Return the state of a job, as soon as it is as expected."""
        last: list[JobState] = []

        async def as_expected() -> bool:
            last[:] = [await self.state()]
            shown = dict(last[0]) | dict(detail_of(last[0]))
            return all(shown[name] == value for name, value in expected.items())

        await until(as_expected, f"{expected}; last seen {last}")
        return last[0]

    async def until_waiting(self) -> JobState:
        """Return the state of a job, as soon as it waits for its next poll, create or listing."""

        async def waits() -> JobState | None:
            state = await self.state()
            return state if detail_of(state).continues_at is not None else None

        state: JobState = await until(waits, "the job waits")
        return state

    async def until_noted(self, event: str) -> None:
        async def is_noted() -> bool:
            return event in await self.noted()

        await until(is_noted, f"the timeline has {event!r}")

    async def until_unset(self, attribute: Any) -> None:
        """Wait until a search attribute is cleared."""

        async def is_unset() -> bool:
            return (await self.attributes()).get(attribute) is None

        await until(is_unset, f"{attribute.name} is cleared")


@dataclass
class Harness:
    """A route for one test, with workers that can be stopped, and the jobs that were started on it.

    Attributes:
        sandboxed: As in production; without it, a test can shorten the times of ``policies``.
        single_batch: Whether signals, cancels and results of one activation are delivered together, as
            :mod:`tests.support.coming_sdk` says.
        tasks_at_once: How many places the workers' settings allow.
    """

    client: Client
    sandboxed: bool = True
    single_batch: bool = field(default_factory=coming_sdk.is_wanted)
    cached: int = 100
    tasks_at_once: int | None = None
    fake: FakeActivities = field(default_factory=FakeActivities)
    route: str = field(default_factory=lambda: f"route-{next(_numbers)}")
    jobs: list[Job] = field(default_factory=list)
    _workers: dict[str, AsyncExitStack] = field(default_factory=dict)

    async def start_workers(self, *names: str) -> None:
        """Start the workers of some queues, by default of all.

        ``ledger`` is the same queue as ``workflows``, so that workflows can pause while its activities go on.
        """
        queues, fake = Queues(self.route), self.fake
        activities: dict[str, list[Callable[..., Any]]] = {
            "workflows": [],
            "ledger": [
                *(fake.read_ledger, fake.write_outcome, fake.write_end, fake.reserve_quota),
                *(fake.ask_lister, fake.settle_absent, fake.follow_known_task, fake.ask_later),
                *(fake.report_create, fake.set_create_rate),
                # These ask and signal Temporal alone, so they are the real ones.
                StoreActivities(MemoryBucket(), Ark("-", "-"), Settings()).why_not_stored,
                TaskListActivities(Ledger(MemoryBucket(), "-"), Ark("-", "-"), Settings()).answer_jobs,
                PlaceActivities(Ledger(MemoryBucket(), "-"), Ark("-", "-"), self._settings()).ask_for_place,
                fake.open_tasks,
            ],
            "references": [fake.check_references],
            "create": [fake.create_task],
            "create_4k": [fake.create_task],
            "probe": [fake.create_task],
            "get": [
                *(fake.get_task, fake.cancel_task, fake.identify_task, fake.resolve_attempt),
                *(fake.check_places, fake.is_key_accepted),
            ],
            "list": [fake.list_page],
            "transfer": [fake.store_video],
        }
        names_of_queues = vars(queues) | {"ledger": queues.workflows, "probe": probe_queue(queues.create)}
        for name in names or ALL_WORKERS:
            runs = name == "workflows"
            worker = Worker(
                # One client cannot serve a queue twice, and the ledger's activities share that of the workflows.
                self.client,
                task_queue=names_of_queues[name],
                workflows=WORKFLOWS if runs else [],
                activities=activities[name],
                no_remote_activities=runs,
                disable_eager_activity_execution=True,
                workflow_runner=_RUNNER if self.sandboxed else UnsandboxedWorkflowRunner(),
                max_cached_workflows=self.cached,
                # For a job or two; each poll costs the server.
                max_concurrent_workflow_task_polls=2,
                max_concurrent_activity_task_polls=1,
                sticky_queue_schedule_to_start_timeout=timedelta(seconds=0.5),
            )
            if runs and self.single_batch:
                coming_sdk.switch_on(worker)
            stack = AsyncExitStack()
            await stack.enter_async_context(worker)
            self._workers[name] = stack

    def _settings(self) -> Settings:
        return Settings().model_copy(update={"ark_route": self.route, "seedance_tasks_at_once": self.tasks_at_once})

    async def stop(self, *names: str) -> None:
        """Stop workers. An activity that they execute is cut off."""
        await asyncio.gather(*(self._workers.pop(name).aclose() for name in names))

    async def close(self) -> None:
        await self.stop(*self._workers)

    async def start(
        self,
        take: int = 1,
        *,
        first_signal: TaskChanged | None = None,
        references: tuple[Reference, ...] = (),
        user_id: str = "user-42",
        resolution: str = "720p",
        **given: Any,
    ) -> Job:
        """Start a job of this route."""
        request = VideoRequest(
            user_id=user_id,
            route=self.route,
            model="dreamina-seedance-2-0-260128",
            prompt="A shot",
            references=references,
            resolution=resolution,
            take=take,
        )
        handle = await self.client.start_workflow(
            WORKFLOW,
            GenerateVideoInput(request=request, **given),
            id=job_id_of(request),
            task_queue=Queues(self.route).workflows,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            result_type=VideoResult,
            start_signal=SIGNAL_TASK_CHANGED if first_signal is not None else None,
            start_signal_args=[first_signal] if first_signal is not None else [],
        )
        self.jobs.append(Job(handle))
        return self.jobs[-1]

    async def start_until(self, held: Held, **given: Any) -> Job:
        """Start a job, and return when it reaches an answer that is held back."""
        job = await self.start(**given)
        await held.reached.wait()
        return job

    async def start_until_called(self, name: str, **given: Any) -> Job:
        """Start a job, and return when it has called an activity."""
        job = await self.start(**given)
        await self.fake.called(name)
        return job

    async def start_until_state(self, **expected: Any) -> Job:
        """Start a job, and return when its state is as expected."""
        job = await self.start()
        await job.until_state(**expected)
        return job

    async def start_until_stored(self, **given: Any) -> Job:
        """Start a job, and return when it has ended with its video."""
        job = await self.start(**given)
        assert await job.result() == RESULT
        return job

    async def start_until_failed(self, expected: JobError | None = None) -> Job:
        """Start a job, and return when it has ended with an error, by default with any."""
        job = await self.start()
        assert await job.failed() == (expected or ANY)
        return job

    async def start_creating(self, answer: Answer) -> tuple[Job, Held]:
        """Start a job, and return when its create is under way, with the answer that is held back."""
        held = Held(answer)
        self.fake.create(held)
        return await self.start_until(held), held

    async def start_queued(self, seconds: float = LONG) -> Job:
        """Start a job, and return when its task is created; it polls after so many seconds."""
        self.fake.create(created(seconds=seconds))
        return await self.start_until_state(phase="queued")

    async def start_running(self) -> Job:
        """Start a job that follows a task, and return when a poll has shown that it runs."""
        self.fake.follow(waiting("running"))
        return await self.start_until_state(phase="running")

    async def start_unknown(self, attempt: int = 1) -> Job:
        """Start a job whose create is unknown, and return when it needs an operator, after a useless listing."""
        self.fake.plan("read_ledger", recover(attempt))
        self.fake.plan("ask_lister", recover(attempt, needs_operator=True))
        job = await self.start_until_called("ask_lister")
        await job.listed(a_listing(attempt, complete=False))
        await job.until_state(attention="unknown_create")
        return job

    async def start_copying(self, answer: Answer = RESULT) -> tuple[Job, Held]:
        """Start a job, and return when its video is being copied, with the answer that is held back."""
        held = Held(answer)
        self.fake.follow(to_store())
        self.fake.plan("store_video", held)
        return await self.start_until(held), held

    async def skip(self, seconds: float) -> None:
        """Let the clock of a time-skipping server jump, in steps that fit into the time of one request."""
        for left in range(int(seconds), 0, -_LONGEST_SKIP):
            step = Duration(seconds=min(left, _LONGEST_SKIP))
            await self.client.test_service.unlock_time_skipping_with_sleep(SleepRequest(duration=step))

    async def replay(self) -> None:
        for job in self.jobs:
            await replay(job)


def noted(of: JobState | Iterable[Event]) -> list[str]:
    """Return the events of a timeline by name, each with its attempt or the start of its detail where tests ask."""
    timeline = detail_of(of).timeline if isinstance(of, JobState) else of
    return [" ".join([event.event, *_more(event)]) for event in timeline]


def _more(event: Event) -> list[str]:
    match event.event:
        case "task_created" | "outcome_unknown":
            return [str(event.attempt)]
        case "task_not_checked":
            return [event.source]
        case "status" | "callback_received" | "attention_raised" | "attention_settled" | "ended" | "cancel_answered":
            return [(event.detail or "").partition(":")[0]]
    return []
