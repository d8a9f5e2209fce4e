"""The workflow on a real server, with fake activities that give planned answers and record each call."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.testservice.v1 import SleepRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowUpdateHandle, WorkflowUpdateStage
from temporalio.common import WorkflowIDReusePolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from activities.create import CreateInput, CreateResult
from activities.ledger import EndInput, EndResult, OutcomeInput, ReadLedgerInput, ReadLedgerResult, RunContext
from activities.limits import QuotaInput, QuotaResult
from activities.poll import CancelResult, GetTaskInput, Observation
from activities.recover import AbsentInput, IdentifyInput, IdentifyResult, ResolveInput
from activities.references import ReferencesInput, ReferencesResult
from activities.store import StoreInput
from activities.task_list import AskListerInput, ListPageInput, Page, TaskListActivities
from seedance_temporal.contract import (
    QUERY_STATE,
    SEARCH_ATTRIBUTES,
    SIGNAL_LISTED,
    SIGNAL_TASK_CHANGED,
    UPDATE_CANCEL,
    UPDATE_RESOLVE,
    WORKFLOW,
    CancelAnswer,
    GenerateVideoInput,
    Queues,
    Resolve,
    ResolveAnswer,
    TaskChanged,
)
from seedance_temporal.events import Event
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import JobError, JobState, VideoResult
from seedance_temporal.ledger.decisions import Decision, Recovery
from seedance_temporal.ledger.facts import Claim, Listing, Outcome
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark
from seedance_temporal.provider.task import FailureClass, Usage
from seedance_temporal.request import Reference, VideoRequest
from seedance_temporal.settings import Settings
from tests.replay.replaying import handle_of, replay
from tests.support.jobs import detail_of
from tests.support.memory_bucket import MemoryBucket
from workflows.generate_video import GenerateVideo
from workflows.list_tasks import ListTasks

BIN = Path(__file__).parents[2] / ".venv/bin"
TASK = "cgt-20261122-first"
OTHER_TASK = "cgt-20261122-other"
NONCE = "0123456789abcdef0123456789abcdef"
# Longer than any test, so that no wait ends by its timer.
LONG = 3600.0
# The shortest wait that a real server supports.
SHORT = 0.2
ALL_ATTRIBUTES = tuple(key.name for key in SEARCH_ATTRIBUTES)
RESULT = VideoResult(
    video_uri=f"gs://videos/seedance/hash/{TASK}/output.mp4",
    size=1234,
    crc32c="yZRlqg==",
    md5=None,
    last_frame_uri=None,
    record_uri="gs://videos/seedance/hash/record.json",
    task_id=TASK,
    usage=Usage(completion_tokens=40, total_tokens=42),
    seed=7,
    ratio="16:9",
    resolution="720p",
    duration=5,
    generate_audio=False,
    cost_usd=0.5,
)

Answer = Any
"""A model to return, an error to raise, or an async function of the input that does either."""


@dataclass(frozen=True)
class Call:
    """One execution of an activity. ``tries`` is Temporal's own count."""

    name: str
    input: Any
    tries: int


class Held:
    """An answer that is held back until it is released."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._go = asyncio.Event()
        self.reached = asyncio.Event()
        self.cancelled = False

    async def __call__(self, input: Any) -> Any:
        self.reached.set()
        try:
            await self._go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def release(self) -> None:
        self._go.set()


class FakeActivities:
    """The activities, by the names of the real ones. A call without a planned answer fails the test."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.unexpected: list[str] = []
        self._answers: dict[str, list[Answer]] = {}
        self._for_ever: dict[str, Answer] = {}

    def plan(self, name: str, *answers: Answer) -> None:
        """Plan further answers of an activity, each given once."""
        self._answers.setdefault(name, []).extend(answers)

    def always(self, name: str, answer: Answer) -> None:
        """Set the answer of an activity for after its planned ones."""
        self._for_ever[name] = answer

    def names(self) -> list[str]:
        return [call.name for call in self.calls]

    def of(self, name: str) -> list[Call]:
        return [call for call in self.calls if call.name == name]

    def input(self, name: str, index: int = -1) -> Any:
        return self.of(name)[index].input

    async def called(self, name: str, times: int = 1) -> None:
        """Wait until an activity was called this often."""
        await until(lambda: len(self.of(name)) >= times, f"{times} calls of {name}; there were {self.names()}")

    async def _answer(self, input: Any) -> Any:
        info = activity.info()
        name = info.activity_type
        self.calls.append(Call(name, input, info.attempt))
        planned = self._answers.get(name, [])
        if planned:
            answer = planned.pop(0)
        elif name in self._for_ever:
            answer = self._for_ever[name]
        else:
            self.unexpected.append(f"call {len(self.calls)}: {name}")
            raise ApplicationError(f"not in the script: {name}", non_retryable=True)
        if isinstance(answer, Exception):
            raise answer
        return await answer(input) if callable(answer) else answer

    @activity.defn(name="read_ledger")
    async def read_ledger(self, input: ReadLedgerInput) -> ReadLedgerResult:
        planned: Planned = await self._answer(input)
        context = planned.context if input.with_context else None
        return ReadLedgerResult(decision=Decision.model_validate(planned.model_dump(by_alias=True)), context=context)

    @activity.defn(name="write_outcome")
    async def write_outcome(self, input: OutcomeInput) -> None:
        await self._answer(input)

    @activity.defn(name="write_end")
    async def write_end(self, input: EndInput) -> EndResult:
        return await self._answer(input)  # type: ignore[no-any-return]

    @activity.defn(name="reserve_quota")
    async def reserve_quota(self, input: QuotaInput) -> QuotaResult:
        return await self._answer(input)  # type: ignore[no-any-return]

    @activity.defn(name="check_references")
    async def check_references(self, input: ReferencesInput) -> ReferencesResult:
        return await self._answer(input)  # type: ignore[no-any-return]

    @activity.defn(name="create_task")
    async def create_task(self, input: CreateInput) -> CreateResult:
        return await self._answer(input)  # type: ignore[no-any-return]

    @activity.defn(name="identify_task")
    async def identify_task(self, input: IdentifyInput) -> IdentifyResult:
        return await self._answer(input)  # type: ignore[no-any-return]

    @activity.defn(name="ask_lister")
    async def ask_lister(self, input: AskListerInput) -> Decision:
        return await self._answer(input)  # type: ignore[no-any-return]

    @activity.defn(name="settle_absent")
    async def settle_absent(self, input: AbsentInput) -> Decision:
        return await self._answer(input)  # type: ignore[no-any-return]

    @activity.defn(name="list_page")
    async def list_page(self, input: ListPageInput) -> Page:
        asked_at = now()
        page: Page = await self._answer(input)
        return page.model_copy(update={"asked_at": max(asked_at, page.asked_at)})

    @activity.defn(name="resolve_attempt")
    async def resolve_attempt(self, input: ResolveInput) -> ResolveAnswer:
        return await self._answer(input)  # type: ignore[no-any-return]

    @activity.defn(name="get_task")
    async def get_task(self, input: GetTaskInput) -> Observation:
        return await self._answer(input)  # type: ignore[no-any-return]

    @activity.defn(name="cancel_task")
    async def cancel_task(self, input: GetTaskInput) -> CancelResult:
        return await self._answer(input)  # type: ignore[no-any-return]

    @activity.defn(name="store_video")
    async def store_video(self, input: StoreInput) -> VideoResult:
        return await self._answer(input)  # type: ignore[no-any-return]


class Planned(Decision):
    """A decision, and the context of a run that begins with it."""

    context: RunContext


Handle = WorkflowHandle[Any, VideoResult]
_LONGEST_SKIP = 600
_numbers = itertools.count()


@dataclass
class Harness:
    """A route for one test, with workers that can be stopped, and the jobs that were started on it.

    Attributes:
        search_attributes: The names that the namespace knows.
        sandboxed: As in production; without it, a test can shorten the times of ``policies``.
    """

    client: Client
    search_attributes: tuple[str, ...] = ALL_ATTRIBUTES
    sandboxed: bool = True
    cached: int = 100
    fake: FakeActivities = field(default_factory=FakeActivities)
    route: str = field(default_factory=lambda: f"route-{next(_numbers)}")
    jobs: list[Handle] = field(default_factory=list)
    _workers: dict[str, AsyncExitStack] = field(default_factory=dict)

    async def start_workers(self, *names: str) -> None:
        """Start the workers of some queues: ``workflows``, ``ledger``, ``create``, ``get``, ``list``, ``transfer``.

        ``ledger`` is the same queue as ``workflows``, so that workflows can pause while its activities go on.
        """
        queues, fake = Queues(self.route), self.fake
        for name in names:
            runs = name == "workflows"
            activities: dict[str, list[Callable[..., Any]]] = {
                "workflows": [],
                "ledger": [
                    *(fake.read_ledger, fake.write_outcome, fake.write_end, fake.reserve_quota),
                    *(fake.ask_lister, fake.settle_absent, fake.check_references),
                    # It answers by signals to workflows, so it is the real one.
                    TaskListActivities(Ledger(MemoryBucket(), "-"), Ark("-", "-"), Settings()).answer_jobs,
                ],
                "create": [fake.create_task],
                "get": [fake.get_task, fake.cancel_task, fake.identify_task, fake.resolve_attempt],
                "list": [fake.list_page],
                "transfer": [fake.store_video],
            }
            worker = Worker(
                # One client cannot serve a queue twice, and the ledger's activities share that of the workflows.
                self.client,
                task_queue=getattr(queues, "workflows" if name == "ledger" else name),
                workflows=[GenerateVideo, ListTasks] if runs else [],
                activities=activities[name],
                no_remote_activities=runs,
                disable_eager_activity_execution=True,
                workflow_runner=SandboxedWorkflowRunner() if self.sandboxed else UnsandboxedWorkflowRunner(),
                max_cached_workflows=self.cached,
                sticky_queue_schedule_to_start_timeout=timedelta(seconds=0.5),
            )
            stack = AsyncExitStack()
            await stack.enter_async_context(worker)
            self._workers[name] = stack

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
        **given: Any,
    ) -> Handle:
        """Start a job of this route."""
        request = VideoRequest(
            user_id=user_id,
            route=self.route,
            model="dreamina-seedance-2-0-260128",
            prompt="A shot",
            references=references,
            take=take,
        )
        handle: Handle = await self.client.start_workflow(
            WORKFLOW,
            GenerateVideoInput(request=request, **given),
            id=job_id_of(request),
            task_queue=Queues(self.route).workflows,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            result_type=VideoResult,
            start_signal=SIGNAL_TASK_CHANGED if first_signal is not None else None,
            start_signal_args=[first_signal] if first_signal is not None else [],
        )
        self.jobs.append(handle)
        return handle

    async def skip(self, seconds: float) -> None:
        """Let the clock of a time-skipping server jump, in steps that fit into the time of one request."""
        for left in range(int(seconds), 0, -_LONGEST_SKIP):
            step = Duration(seconds=min(left, _LONGEST_SKIP))
            await self.client.test_service.unlock_time_skipping_with_sleep(SleepRequest(duration=step))

    async def replay(self) -> None:
        for job in self.jobs:
            await replay(job)

    # Decisions by the ledger

    def claim(self, attempt: int = 1, **given: Any) -> Planned:
        return self.plan("claim", attempt, **given)

    def adopt(self, task_id: str = TASK, attempt: int = 1, **given: Any) -> Planned:
        return self.plan("adopt", attempt, {"task_id": task_id}, **given)

    def stored(self, **given: Any) -> Planned:
        return self.plan("stored", 1, {"result": RESULT, "task_id": TASK}, **given)

    def recover(self, attempt: int = 1, seconds: float = LONG, *, needs_operator: bool = False) -> Planned:
        recovery = Recovery(needs_operator=needs_operator, wait_seconds=seconds)
        return self.plan("recover", attempt, {"recovery": recovery})

    def ended(self, error: JobError, **given: Any) -> Planned:
        return self.plan("ended", error.attempt or 0, {"error": error}, **given)

    def plan(self, following: Any, attempt: int, decision: Any = None, **given: Any) -> Planned:
        """Plan a decision; fields of `given` that it does not have go to the context."""
        decision = (decision or {}) | {name: value for name, value in given.items() if name in Decision.model_fields}
        usual = {"search_attributes": self.search_attributes, "identifiers_listed": True, "create_seconds": 20}
        context = usual | {name: value for name, value in given.items() if name not in Decision.model_fields}
        return Planned(next=following, attempt=attempt, context=RunContext.model_validate(context), **decision)

    # Results of a create

    def created(
        self, task_id: str = TASK, seconds: float = LONG, **given: Any
    ) -> Callable[[CreateInput], Awaitable[Any]]:
        return self.result_of(
            "created", Outcome(kind="created", source="create", at=now(), task_id=task_id), seconds, **given
        )

    def not_sent(self, seconds: float = 0, **given: Any) -> Callable[[CreateInput], Awaitable[Any]]:
        outcome = Outcome(kind="not_sent", source="create", at=now(), code="ServerOverloaded", message="busy")
        return self.result_of("not_sent", outcome, seconds, **{"message": "ServerOverloaded: busy"} | given)

    def refused(self, **given: Any) -> Callable[[CreateInput], Awaitable[Any]]:
        outcome = Outcome(kind="refused", source="create", at=now(), code="InvalidParameter", message="no")
        return self.result_of("refused", outcome, 0, **{"message": "InvalidParameter no"} | given)

    def result_of(
        self, kind: Any, outcome: Outcome | None, seconds: float = 0, **given: Any
    ) -> Callable[[CreateInput], Awaitable[Any]]:
        async def answer(input: CreateInput) -> CreateResult:
            claim = Claim(
                job_id=input.job_id,
                attempt=input.attempt,
                nonce=NONCE,
                namespace="default",
                run_id="run",
                claimed_at=now(),
                request=input.request,
            )
            return CreateResult(kind=kind, claim=claim, outcome=outcome, wait_seconds=seconds, **given)

        return answer


# Results of an identification

OURS, OTHER, NOT_YET = (IdentifyResult(answer=answer) for answer in ("ours", "other", "not_yet"))


# Results of a poll


def waiting(status: str = "queued", seconds: float = LONG, **given: Any) -> Observation:
    return Observation(next="wait", status=status, wait_seconds=seconds, **given)


def to_store(within: float = 86_400) -> Observation:
    usage, cost_usd = RESULT.usage, RESULT.cost_usd
    return Observation(next="store", status="succeeded", usage=usage, cost_usd=cost_usd, copy_within=within)


def ending(status: str, of: FailureClass, **given: Any) -> Observation:
    return Observation(next="end", status=status, error=failure(of, code=status), **given)


def failure(of: FailureClass, code: str = "code", task_id: str | None = TASK, attempt: int | None = 1) -> JobError:
    return JobError(code=code, message=f"It ended: {of}.", failure_class=of, task_id=task_id, attempt=attempt)


async def as_written(input: EndInput) -> EndResult:
    """Answer that the end in the ledger is the given one."""
    return EndResult(error=input.error)


# Answers of the lister


def a_listing(attempt: int = 1, began_at: datetime | None = None, **given: Any) -> Listing:
    """A complete listing that does not show the attempt, unless `given` says otherwise."""
    nothing = {"safety_identifier": "", "complete": True, "task_id": None, "unmarked": False}
    return Listing(attempt=attempt, began_at=began_at or now(), **nothing | given)


async def listed(job: Handle, listing: Listing) -> None:
    """Answer as the lister."""
    await job.signal(SIGNAL_LISTED, listing)


# Talking to a job


async def callback(job: Handle, status: str, task_id: str = TASK, attempt: int = 1) -> None:
    await job.signal(SIGNAL_TASK_CHANGED, TaskChanged(task_id=task_id, status=status, attempt=attempt))


async def state(job: Handle) -> JobState:
    shown: JobState = await job.query(QUERY_STATE, result_type=JobState)
    return shown


async def waits(job: Handle) -> JobState | None:
    """Return the state of a job that waits for its next poll, create or listing; None before."""
    shown = await state(job)
    return shown if detail_of(shown).next_poll_at is not None else None


async def cancel(job: Handle) -> CancelAnswer:
    answer: CancelAnswer = await job.execute_update(UPDATE_CANCEL, result_type=CancelAnswer)
    return answer


async def begin_to_cancel(job: Handle) -> WorkflowUpdateHandle[CancelAnswer]:
    """Return when the workflow has received the cancel."""
    return await job.start_update(UPDATE_CANCEL, wait_for_stage=WorkflowUpdateStage.ACCEPTED, result_type=CancelAnswer)


async def resolve(job: Handle, resolution: Resolve) -> ResolveAnswer:
    answer: ResolveAnswer = await job.execute_update(UPDATE_RESOLVE, resolution, result_type=ResolveAnswer)
    return answer


async def failed(job: Handle) -> JobError:
    """Return the error of a job: its run ended Failed, by an error of our own whose type is its class."""
    try:
        result = await job.result()
    except WorkflowFailureError as error:
        cause = error.cause
        assert isinstance(cause, ApplicationError), f"the run did not end Failed, but by {cause!r}"
        assert cause.non_retryable
        job_error = JobError.model_validate(cause.details[0])
        assert cause.type == job_error.failure_class
        assert cause.message == job_error.message
        return job_error
    raise AssertionError(f"the job is stored: {result}")


async def until(condition: Callable[[], Any], description: str, seconds: float = 40) -> Any:
    """Return the first true answer of a condition, which may be async."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = condition()
                if isinstance(answer, Awaitable):
                    answer = await answer
                if answer:
                    return answer
                await asyncio.sleep(0.04)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {description}") from None


async def until_state(job: Handle, **expected: Any) -> JobState:
    """Return the state of a job, as soon as it is as expected."""
    last: list[JobState] = []

    async def as_expected() -> bool:
        last[:] = [await state(job)]
        shown = dict(last[0]) | dict(detail_of(last[0]))
        return all(shown[name] == value for name, value in expected.items())

    await until(as_expected, f"{expected}; last seen {last}")
    return last[0]


async def events(job: Handle, run_id: str | None = None) -> list[HistoryEvent]:
    """Return the history of a job's run, by default of the first one."""
    run = handle_of(job, run_id or job.first_execution_run_id)
    return [event async for event in run.fetch_history_events()]


async def scheduled(job: Handle, name: str) -> list[Any]:
    """Return the scheduled events of an activity in the history."""
    return [
        event.activity_task_scheduled_event_attributes
        for event in await events(job)
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
        and event.activity_task_scheduled_event_attributes.activity_type.name == name
    ]


async def has_event(job: Handle, kind: EventType.ValueType) -> bool:
    return any(event.event_type == kind for event in await events(job))


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


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def dev_server(*options: str, attributes: Collection[Any] = SEARCH_ATTRIBUTES) -> AsyncIterator[Client]:
    """Run a real server."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(BIN / "temporal"),
        dev_server_log_level="error",
        dev_server_extra_args=list(options),
        data_converter=pydantic_data_converter,
        search_attributes=tuple(attributes),
    ) as environment:
        yield environment.client


@asynccontextmanager
async def skipping_server() -> AsyncIterator[Client]:
    """Run a server whose clock jumps while a result is awaited. It knows no search attributes of ours."""
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(BIN / "temporal-test-server"), data_converter=pydantic_data_converter
    ) as environment:
        yield environment.client
